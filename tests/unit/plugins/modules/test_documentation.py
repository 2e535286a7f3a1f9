# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documentation says of each module's options is what the module accepts."""

from __future__ import annotations

import importlib
import pathlib
import typing as t

import pytest
import yaml
from ansible_collections.fleetvpn.routing.plugins.module_utils import _ansible, _kernel

MODULES = pathlib.Path(__file__).resolve().parents[4] / "plugins/modules"
PACKAGE = "ansible_collections.fleetvpn.routing.plugins"
COMPARED = ("type", "elements", "choices", "default", "required")

Options = dict[str, dict[str, t.Any]]


class Reached(Exception):
    """Carries the argument specification out of a module's main."""


def specified(name: str, monkeypatch: pytest.MonkeyPatch) -> Options:
    def stop(**arguments: t.Any) -> t.NoReturn:
        raise Reached(arguments["argument_spec"])

    monkeypatch.setattr(_ansible, "AnsibleModule", stop)
    with pytest.raises(Reached) as reached:
        importlib.import_module(f"{PACKAGE}.modules.{name}").main()
    return reached.value.args[0]


def documentation(name: str) -> dict[str, t.Any]:
    """A module's documentation with its fragments, joined as Ansible joins them."""
    documented = yaml.safe_load(importlib.import_module(f"{PACKAGE}.modules.{name}").DOCUMENTATION)
    for fragment in documented.pop("extends_documentation_fragment", []):
        _namespace, _collection, plugin, *variable = fragment.split(".")
        found = importlib.import_module(f"{PACKAGE}.doc_fragments.{plugin}").ModuleDocFragment
        text = yaml.safe_load(getattr(found, (variable or ["DOCUMENTATION"])[0].upper()))
        for key in ("options", "attributes"):
            for name_, value in text.get(key, {}).items():
                documented.setdefault(key, {})[name_] = {**value, **documented.get(key, {}).get(name_, {})}
        documented["requirements"] = [*documented.get("requirements", []), *text.get("requirements", [])]
    return documented


def flat(options: Options, nested: str, path: str = "") -> dict[str, dict[str, t.Any]]:
    """Every option by its path, with what is compared; an option that is not required has C(required) false."""
    found: dict[str, dict[str, t.Any]] = {}
    for name, option in options.items():
        found[path + name] = {key: option.get(key, False if key == "required" else None) for key in COMPARED}
        found.update(flat(option.get(nested) or {}, nested, f"{path}{name}."))
    return found


def names() -> list[str]:
    return sorted(path.stem for path in MODULES.glob("*.py"))


@pytest.mark.parametrize("name", names())
def test_documented_options_are_those_of_the_specification(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert flat(documentation(name)["options"], "suboptions") == flat(specified(name, monkeypatch), "options")


@pytest.mark.parametrize("name", names())
def test_every_option_is_described(name: str) -> None:
    def check(options: Options) -> None:
        for option in options.values():
            assert option["description"]
            check(option.get("suboptions", {}))

    check(documentation(name)["options"])


@pytest.mark.parametrize("name", names())
def test_module_states_what_it_supports_and_needs(name: str) -> None:
    documented = documentation(name)
    assert set(documented["attributes"]) >= {"check_mode", "diff_mode", "idempotent", "platform", "action_group"}
    assert all("support" in attribute for attribute in documented["attributes"].values())
    assert "Linux" in documented["requirements"]
    assert documented["version_added"] == "1.0.0"


@pytest.mark.parametrize("name", names())
def test_examples_use_full_names_and_known_options(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(f"{PACKAGE}.modules.{name}")
    examples = yaml.safe_load(module.EXAMPLES)
    known = set(specified(name, monkeypatch))
    for task in examples:
        for key, value in task.items():
            if key.startswith("fleetvpn.routing."):
                assert key.endswith(f".{name}") is False or set(value or {}) <= known
            else:
                assert "." in key or key in {"name", "register", "loop", "when", "become", "vars", "tags"}


def test_oldest_pyroute2_is_stated_as_it_is_checked() -> None:
    stated = {text for name in names() for text in documentation(name)["requirements"] if text.startswith("pyroute2")}
    assert stated == {f"pyroute2 >= {_kernel.MINIMUM_PYROUTE2}"}


def test_the_comparison_sees_a_difference() -> None:
    option = {"type": "int", "default": 1}
    assert flat({"a": option}, "options") != flat({"a": {**option, "default": 2}}, "options")
    assert flat({"a": option}, "options") != flat({"a": option, "b": option}, "options")
    nested = {"a": {"type": "list", "elements": "dict", "options": {"b": option}}}
    assert "a.b" in flat(nested, "options")
