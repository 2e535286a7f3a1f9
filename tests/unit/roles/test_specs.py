# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Argument specs, defaults, module and README of the roles say the same."""

from __future__ import annotations

import importlib.util
import re
import sys
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.fleetvpn.routing.plugins.module_utils._endpoint_spec import ENDPOINT
from ansible_collections.fleetvpn.routing.plugins.module_utils._tunnels import openconnect

ROOT = Path(__file__).resolve().parents[3]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
# Variables of role endpoint that are no option of the module.
OF_THE_ROLE_ALONE = {
    "endpoint_group_identities",
    "endpoint_host_identities",
    "endpoint_watch",
    "endpoint_networkd_dropin",
    "endpoint_pull",
    "endpoint_pyroute2_source",
    "endpoint_pyroute2_wheel",
}
LEVELS = ("endpoint_identities", "endpoint_group_identities", "endpoint_host_identities")
# How a task and a sentence name an entry point of a role.
ENTRY = re.compile(r"\btasks_from(?:: |=)([\w.{}]+)")
Options = dict[str, dict[str, t.Any]]


def _load(path: Path) -> t.Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _entries(role: str) -> dict[str, dict[str, t.Any]]:
    """The entry points of a role, each with its specification."""
    specs = _load(ROOT / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"]
    return t.cast("dict[str, dict[str, t.Any]]", specs)


def _options(role: str, entry: str = "main") -> Options:
    return t.cast("Options", _entries(role)[entry]["options"])


def _defaults(role: str) -> dict[str, t.Any]:
    return _load(ROOT / "roles" / role / "defaults" / "main.yml") or {}


def _module_options() -> Options:
    return ENDPOINT


def _readme_tool() -> t.Any:
    spec = importlib.util.spec_from_file_location("role_readme", ROOT / "tests" / "tools" / "role_readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["role_readme"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("role", ROLES)
def test_every_option_but_the_required_has_a_default(role: str) -> None:
    """And nothing else is set there."""
    assert set(_defaults(role)) == {name for name, option in _options(role).items() if not option.get("required")}


@pytest.mark.parametrize("role", ROLES)
def test_the_defaults_are_those_of_the_argument_specs(role: str) -> None:
    """The default of the specs is documentation only; the real one must not drift away."""
    options = _options(role)
    assert _defaults(role) == {name: options[name].get("default") for name in _defaults(role)}


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_is_prefixed_with_the_role(role: str) -> None:
    """Internal ones with two underscores before it."""
    assert all(name.startswith(f"{role}_") for name in _options(role))
    internal = ROOT / "roles" / role / "vars" / "main.yml"
    if internal.exists():
        assert all(name.startswith(f"__{role}_") for name in _load(internal))


@pytest.mark.parametrize("role", ROLES)
def test_every_option_has_type_and_description(role: str) -> None:
    """Down to the last nested one."""

    def check(options: Options, where: str) -> None:
        for name, option in options.items():
            assert option.get("type"), f"{where}{name}"
            assert option.get("description"), f"{where}{name}"
            assert option["type"] != "list" or option.get("elements"), f"{where}{name}"
            check(option.get("options", {}), f"{where}{name}.")

    for entry in _entries(role):
        check(_options(role, entry), f"{role}, {entry}: ")


def test_every_entry_point_has_specs() -> None:
    """Under its name without a suffix, as Ansible looks for them; what a role or a text names is one of them."""
    further = [(role, entry) for role in ROLES for entry in _entries(role) if entry != "main"]
    assert [where for where in further if not (ROOT / "roles/{}/tasks/{}.yml".format(*where)).is_file()] == []
    files = [*(ROOT / "roles").rglob("*.yml"), *(ROOT / "roles").rglob("*.md")]
    named = {name for path in files for name in ENTRY.findall(path.read_text(encoding="utf-8"))}
    assert named == {entry for _role, entry in further}


@pytest.mark.parametrize("role", ROLES)
def test_a_further_entry_point_takes_what_main_takes(role: str) -> None:
    """Of the same type: what is set for the role holds for it."""
    main = _options(role)
    for entry in _entries(role):
        for name, option in _options(role, entry).items():
            assert main[name]["type"] == option["type"], f"{role}, {entry}: {name}"


def test_the_three_levels_take_the_same_keys() -> None:
    """An identity is the same thing at every level."""
    options = _options("endpoint")
    assert options[LEVELS[0]]["options"] == options[LEVELS[1]]["options"] == options[LEVELS[2]]["options"]


def test_every_option_of_the_module_is_a_variable_of_the_role() -> None:
    """And the role has no other but its own few."""
    variables = {f"endpoint_{name}" for name in _module_options()}
    assert set(_options("endpoint")) - OF_THE_ROLE_ALONE == variables


def test_the_role_takes_what_the_module_takes() -> None:
    """Type, elements, choices and keys, at every depth. What an entry must have may come from another level."""

    def compare(mine: Options, theirs: Options, where: str) -> None:
        for name, option in theirs.items():
            here = f"{where}{name}"
            for attribute in ("type", "elements", "choices"):
                assert mine[name].get(attribute) == option.get(attribute), f"{here}: {attribute}"
            nested, other = mine[name].get("options", {}), option.get("options", {})
            assert set(nested) == set(other), here
            compare(nested, other, f"{here}.")

    options = _options("endpoint")
    compare({name.removeprefix("endpoint_"): option for name, option in options.items()}, _module_options(), "")


def test_the_role_has_the_defaults_of_the_module() -> None:
    """A variable without a value leaves the default to the module."""
    options = _options("endpoint")
    for name, option in _module_options().items():
        assert options[f"endpoint_{name}"].get("default") in (option.get("default"), []), name


def test_the_role_hands_every_option_on() -> None:
    """An option that is declared and then forgotten would be worse than a missing one."""
    tasks = _load(ROOT / "roles" / "endpoint" / "tasks" / "declare.yml")
    assert set(tasks[0]["fleetvpn.routing.endpoint"]) == set(_module_options())


def test_the_tables_in_the_readmes_are_current(capsys: pytest.CaptureFixture[str]) -> None:
    """tests/tools/role_readme.py writes them."""
    assert _readme_tool().main(["--check"]) == 0, capsys.readouterr().out


def test_the_tables_name_every_key_and_escape_what_markdown_would_read() -> None:
    """One table for entries that several variables share."""
    entry = {"a": {"type": "int", "description": ["Is V(1|2).", "See O(x=y)."], "choices": [1, 2]}}
    text = _readme_tool().tables(
        {
            "one": {"type": "list", "elements": "dict", "default": [], "options": entry, "description": "First."},
            "two": {"type": "list", "elements": "dict", "required": True, "options": entry, "description": "Second."},
        }
    )
    assert "| `one` | list of dict | `[]` | First. |" in text
    assert "| `two` | list of dict | required | Second. |" in text
    assert text.count("### Keys of") == 1
    assert "### Keys of `one`, `two`" in text
    assert "| `a` | int |  | Is `1\\|2`. See `x=y`. One of `1`, `2`. |" in text


def test_a_readme_without_marks_is_refused() -> None:
    """Rather than silently left as it is."""
    with pytest.raises(ValueError, match="lacks <!-- variables: begin"):
        _readme_tool().with_tables("# Role", {})


def test_the_hooks_of_vpn_openconnect_are_those_that_the_module_looks_for() -> None:
    paths = _load(ROOT / "roles" / "vpn_openconnect" / "vars" / "main.yml")["__vpn_openconnect_hooks"]
    assert paths == [f"/{hook}" for hook in openconnect.HOOKS]
