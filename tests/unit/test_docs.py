# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documentation shows, names and links to is there, and its examples are accepted as they stand.

That the guides show what a host shows is for tests/functional/test_guides.py.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import shlex
import subprocess
import sys
import textwrap
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.fleetvpn.routing.plugins.module_utils._host.cli import _parser as build_parser
from ansible_collections.fleetvpn.routing.plugins.module_utils._host.release import TESTED
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.declaration import Numbers
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.fields import table_id
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.route import Route
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.rule import Rule
from ansible_collections.fleetvpn.routing.plugins.module_utils._parse import parse_declaration
from ansible_collections.fleetvpn.routing.plugins.module_utils._version import VERSION

from tests.unit.plugins.modules.test_documentation import specified

ROOT = Path(__file__).resolve().parents[2]
MODULE_UTILS = ROOT / "plugins" / "module_utils"
COLLECTION = "fleetvpn.routing."
MODULES = sorted(path.stem for path in (ROOT / "plugins/modules").glob("*.py"))
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
FILTERS = sorted(path.stem for path in (ROOT / "plugins/filter").glob("*.yml"))
PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))
GUIDES = sorted((ROOT / "docs/docsite/rst").glob("*.rst"))
# All that people read; the examples of modules come from their EXAMPLES.
TEXTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CODE_OF_CONDUCT.md", "docs/on-host.md")),
    *(ROOT / "tests/lab/README.md",),
    *sorted((ROOT / "roles").glob("*/README.md")),
    *GUIDES,
]
MARKDOWN_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RST_BLOCK = re.compile(r"^\.\. code-block:: (\w+)\n\n((?:   .*\n|\n)+)", re.MULTILINE)
FULL_NAME = re.compile(r"(?<!ansible_collections\.)\bfleetvpn\.routing\.([a-z_]\w*)")
VARIABLE = re.compile(rf"(?<![\w/-])((?:{'|'.join(ROLES)})_[a-z]\w*)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
FILE_LINK = re.compile(
    r"https://(?:github|raw.githubusercontent).com/fleetvpn/fleetvpn.routing/(?:blob/)?main/([\w./-]*\w)(?:#([\w-]+))?"
)
REFERENCE = re.compile(r":ref:`(?:[^`<]*<)?([\w.]+)>?`")
QUOTED = re.compile(r"`([^`\n]+)`")
# As Galaxy names them.
DEBIAN = {"11": "bullseye", "12": "bookworm", "13": "trixie", "": "sid"}

Spec = dict[str, dict[str, t.Any]]
Specified = t.Callable[[str], Spec]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def tracked() -> list[str]:
    """Files of the repository, new ones that are not ignored among them."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()


def yaml_blocks(text: str, suffix: str) -> list[str]:
    pattern = RST_BLOCK if suffix == ".rst" else MARKDOWN_BLOCK
    return [textwrap.dedent(body) for kind, body in pattern.findall(text) if kind == "yaml"]


def role_options(role: str) -> Spec:
    return t.cast("Spec", yaml.safe_load(read(ROOT / f"roles/{role}/meta/argument_specs.yml")))["argument_specs"][
        "main"
    ]["options"]


def validated(spec: Spec, given: dict[str, t.Any], where: str) -> dict[str, t.Any]:
    result = ArgumentSpecValidator(spec).validate(given)
    assert not result.error_messages, f"{where}: {result.error_messages}"
    return result.validated_parameters


def tasks(content: t.Any) -> t.Iterator[tuple[str, dict[str, t.Any]]]:
    """Modules of the collection with their parameters, wherever in a piece of YAML."""
    if isinstance(content, dict):
        for key, value in content.items():
            name = str(key).removeprefix(COLLECTION)
            if str(key).startswith(COLLECTION) and name in MODULES:
                yield name, value or {}
            else:
                yield from tasks(value)
    elif isinstance(content, list):
        for entry in content:
            yield from tasks(entry)


def variables(content: t.Any) -> t.Iterator[tuple[str, dict[str, t.Any]]]:
    """Variables of roles that a piece of YAML sets: roles with the variables of each, at any depth."""
    if isinstance(content, list):
        for entry in content:
            yield from variables(entry)
    elif isinstance(content, dict):
        for role in ROLES:
            found = {key: value for key, value in content.items() if re.match(rf"{role}_(?!info\b)", str(key))}
            if found:
                yield role, found
        for value in content.values():
            yield from variables(value)


def check_values(name: str, parameters: dict[str, t.Any]) -> None:
    """What the collection itself refuses: an address, a mark, a priority that cannot be."""

    def tables(value: object, field: str) -> int:
        return 1500 if re.fullmatch(r"[a-z_]+", str(value)) else table_id(value, field)

    if name == "rule":
        Rule.from_params(parameters, tables=tables)
    elif name == "route":
        Route.from_params(parameters, tables=tables)
    elif name == "endpoint" and parameters["state"] == "present":
        parse_declaration(parameters["set"], parameters, Numbers(), tables)


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> Specified:
    """The argument spec of a module."""

    def find(name: str) -> Spec:
        with monkeypatch.context() as patch:
            return specified(name, patch)

    return find


class TestExamples:
    @pytest.mark.parametrize("module", MODULES)
    def test_of_a_module_are_accepted(self, module: str, options: Specified) -> None:
        examples = importlib.import_module(f"ansible_collections.{COLLECTION}plugins.modules.{module}").EXAMPLES
        found = list(tasks(yaml.safe_load(examples)))
        assert module in {name for name, _parameters in found}
        for name, parameters in found:
            check_values(name, validated(options(name), parameters, f"EXAMPLES of {module}"))

    @pytest.mark.parametrize("path", TEXTS, ids=name_of)
    def test_of_a_text_are_accepted(self, path: Path, options: Specified) -> None:
        for block in yaml_blocks(read(path), path.suffix):
            content = list(yaml.safe_load_all(block))
            for name, parameters in tasks(content):
                check_values(name, validated(options(name), parameters, name_of(path)))
            for role, given in variables(content):
                validated({**role_options(role)}, {**required(role), **given}, name_of(path))

    def test_there_are_some(self) -> None:
        readme = yaml_blocks(read(ROOT / "README.md"), ".md")
        assert len(readme) == read(ROOT / "README.md").count("```yaml") >= 5
        assert [role for block in readme for role, _given in variables(yaml.safe_load(block))].count("endpoint") >= 4
        guides = [block for path in GUIDES for block in yaml_blocks(read(path), ".rst")]
        assert len([name for block in guides for name, _given in tasks(yaml.safe_load(block))]) >= 3


def required(role: str) -> dict[str, t.Any]:
    """Stands in for required variables, which an example of another variable need not repeat."""
    return {name: "x" for name, option in role_options(role).items() if option.get("required")}


def tags() -> set[str]:
    """Tags of the roles' tasks, which are named like variables."""
    files = (ROOT / "roles").glob("*/tasks/*.yml")
    return {tag for path in files for task in yaml.safe_load(read(path)) or [] for tag in task.get("tags", [])}


class TestNames:
    @pytest.mark.parametrize("path", TEXTS, ids=name_of)
    def test_of_content_exist(self, path: Path) -> None:
        named = set(FULL_NAME.findall(read(path))) - {"git"}
        assert named <= {*MODULES, *ROLES, *FILTERS, *PLAYBOOKS}

    @pytest.mark.parametrize("path", TEXTS, ids=name_of)
    def test_of_variables_exist(self, path: Path) -> None:
        known = {name for role in ROLES for name in role_options(role)}
        assert set(VARIABLE.findall(read(path))) - {*MODULES, *FILTERS, *tags()} <= known

    def test_of_content_in_the_readme_are_all_there_are(self) -> None:
        table = read(ROOT / "README.md").partition("## Included content")[2].partition("\n## ")[0]
        there = {"module": MODULES, "role": ROLES, "playbook": PLAYBOOKS, "filter": FILTERS}
        named: dict[str, list[str]] = {kind: [] for kind in there}
        for kind, cell in re.findall(rf"^\| ({'|'.join(there)})s? ([^|]*)\|", table, re.MULTILINE):
            named[kind] += QUOTED.findall(cell)
        assert {kind: sorted(names) for kind, names in named.items()} == there

    @pytest.mark.parametrize("path", TEXTS, ids=name_of)
    def test_of_make_targets_exist(self, path: Path) -> None:
        targets = set(re.findall(r"^([a-z-]+):", read(ROOT / "Makefile"), re.MULTILINE))
        assert make_targets(path) <= targets

    def test_of_make_targets_are_found_in_blocks_and_in_sentences(self) -> None:
        assert make_targets(ROOT / "README.md") >= {"demo", "bench"}

    def test_of_targets_in_the_table_are_those_of_make_test(self) -> None:
        """A step that is added to `make test` is explained as well."""
        makefile = read(ROOT / "Makefile")
        lists = dict(re.findall(r"^(FAST|CHECKS|STEPS|LONG|MATRIX) := (.*)$", makefile, re.MULTILINE))
        steps = {name for text in lists.values() for name in text.split()} - {"$(FAST)"}
        explained = re.findall(r"^\| `make ([a-z-]+)` \|", read(ROOT / "CONTRIBUTING.md"), re.MULTILINE)
        targets = ("test-fast", "test", "test-long", "test-matrix", "links", "bench", "release", "demo")
        assert set(explained) == {*steps, *targets}


def make_targets(path: Path) -> set[str]:
    """What a text tells to make, in its pieces of code and in its sentences. A path with a slash is a file."""
    pattern = RST_BLOCK if path.suffix == ".rst" else MARKDOWN_BLOCK
    code = "".join(body for kind, body in pattern.findall(read(path)) if kind in ("console", "sh"))
    sentences = " ".join(pattern.sub("", read(path)).split())
    typed_in = re.findall(r"^[ $]*(?:sudo )?make ([a-z][a-z-]*)(?![\w/-])", code, re.MULTILINE)
    return {*typed_in, *re.findall(r"`(?:sudo )?make ([a-z][a-z-]*)(?![\w/-])", sentences)}


class TestPaths:
    """Paths in CONTRIBUTING: from the repository, or within plugins/module_utils."""

    def test_in_the_text_exist(self) -> None:
        text = MARKDOWN_BLOCK.sub("", read(ROOT / "CONTRIBUTING.md"))
        named = [name.split()[0] for name in QUOTED.findall(text) if _is_path(name.split()[0])]
        named += [word for name in QUOTED.findall(text) for word in name.split()[1:] if _is_path(word)]
        assert len(named) > 40
        missing = [name for name in named if not any((base / name).exists() for base in (ROOT, MODULE_UTILS))]
        assert missing == []

    def test_in_the_commands_exist(self) -> None:
        blocks = [body for kind, body in MARKDOWN_BLOCK.findall(read(ROOT / "CONTRIBUTING.md")) if kind == "sh"]
        words = [word for line in "".join(blocks).splitlines() for word in shlex.split(line, comments=True)]
        named = [word for word in words if _is_path(word)]
        assert len(named) >= 5
        assert [name for name in named if not (ROOT / name).exists()] == []


def _is_path(word: str) -> bool:
    """Whether it looks like a path of the repository; what a run makes and who else is named is left out."""
    if word.startswith(("build/", "fleetvpn/", "/", "http", "-")) or not re.fullmatch(r"[\w./-]+", word):
        return False
    return "/" in word or word.endswith((".py", ".md", ".yml", ".txt", ".toml"))


class TestLinks:
    @pytest.mark.parametrize("path", [path for path in TEXTS if path.suffix == ".md"], ids=name_of)
    def test_within_the_repository_lead_somewhere(self, path: Path) -> None:
        for target in LINK.findall(MARKDOWN_BLOCK.sub("", read(path))):
            if not target.startswith("https://"):
                file, _hash, anchor = target.partition("#")
                found = path.parent / file if file else path
                assert found.exists(), target
                assert not anchor or anchor in _anchors(found), target

    @pytest.mark.parametrize("path", TEXTS, ids=name_of)
    def test_to_files_of_the_repository_lead_somewhere(self, path: Path) -> None:
        """Pictures too; guides have no other way to name a file."""
        for name, anchor in FILE_LINK.findall(read(path)):
            assert (ROOT / name).is_file(), name
            assert not anchor or anchor in _anchors(ROOT / name), f"{name}#{anchor}"

    def test_every_text_for_people_is_checked(self) -> None:
        found = {
            ROOT / name for name in tracked() if name.endswith((".md", ".rst")) and not name.startswith("LICENSES/")
        }
        assert found - {ROOT / "CHANGELOG.md"} == set(TEXTS)

    def test_the_index_of_the_guides_names_each_of_them(self) -> None:
        sections = yaml.safe_load(read(ROOT / "docs/docsite/extra-docs.yml"))["sections"]
        assert sorted(name for section in sections for name in section["toctree"]) == [path.stem for path in GUIDES]
        for path in GUIDES:
            assert f".. _ansible_collections.fleetvpn.routing.docsite.{path.stem}:" in read(path)

    def test_the_readme_leads_to_each_guide(self) -> None:
        assert [path.name for path in GUIDES if f"/docs/docsite/rst/{path.name})" not in read(ROOT / "README.md")] == []

    @pytest.mark.parametrize("path", GUIDES, ids=name_of)
    def test_of_a_guide_lead_to_other_guides(self, path: Path) -> None:
        """Within seconds; `make docs` follows all references."""
        labels = {f"ansible_collections.fleetvpn.routing.docsite.{guide.stem}" for guide in GUIDES}
        assert set(REFERENCE.findall(read(path))) <= labels


def _anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$|^(.+)\n(?:=|-|~)+$", read(path), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in map("".join, headings)}


class TestCommunity:
    """What a collection has to say: where people ask, where defects go, how all behave, what a version means."""

    def test_the_readme_says_it(self) -> None:
        text = read(ROOT / "README.md")
        sections = dict(re.findall(r"^## (.*)\n((?:(?!## ).*\n?)*)", text, re.MULTILINE))
        assert "https://forum.ansible.com/" in sections["Communication and support"]
        assert f"{yaml.safe_load(read(ROOT / 'galaxy.yml'))['issues']})" in sections["Communication and support"]
        assert "code_of_conduct" in sections["Code of Conduct"]
        assert "semantic versioning" in sections["Release notes and versions"]
        assert "CONTRIBUTING.md" in sections["Contributing"]

    def test_the_site_leads_to_the_same_forum(self) -> None:
        (forum,) = yaml.safe_load(read(ROOT / "docs/docsite/links.yml"))["communication"]["forums"]
        assert f"({forum['url']})" in read(ROOT / "README.md")


class TestMessages:
    """What a guide shows of what is said: its words, apart from names and numbers, are those of the source."""

    GUIDES = ("guide_confirm", "guide_fleet", "guide_ipsec", "guide_openconnect", "guide_ppp")

    @pytest.mark.parametrize("guide", GUIDES)
    def test_are_those_of_the_source(self, guide: str) -> None:
        text = read(ROOT / f"docs/docsite/rst/{guide}.rst")
        shown = [body for kind, body in RST_BLOCK.findall(text) if kind == "text"]
        assert shown
        said = literals()
        for message in (" ".join(body.split()) for body in shown):
            left = functools.reduce(lambda text, part: text.replace(part, " 0 "), said, message)
            others = re.sub(r"'[^']*'|\S*[\d/]\S*", "0", left).split("0")
            assert [words for words in others if len(re.findall(r"\w+", words)) > 1] == []


@functools.cache
def literals() -> list[str]:
    """The pieces of text in the plugins, without what is put into them and what is too short; the longest first."""
    trees = [ast.parse(read(path)) for path in (ROOT / "plugins").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    parts = {part.strip() for node in nodes if isinstance(node.value, str) for part in node.value.splitlines()}
    return sorted((part for part in parts if " " in part or len(part) > 3), key=len, reverse=True)


class TestTests:
    """A guide that says that something was tested names the test."""

    def test_that_guides_name_exist(self) -> None:
        named = [name for path in GUIDES for name in re.findall(r"``(test_\w+\.py(?:::\w+)+)``", read(path))]
        assert len(named) > 15
        assert [name for name in named if name not in set(existing_tests())] == []

    def test_every_line_of_the_matrix_names_one_or_says_that_there_is_none(self) -> None:
        matrix = read(ROOT / "docs/docsite/rst/guide_coexistence.rst").partition(".. list-table::")[2]
        rows = re.findall(r"^   \* - (.*(?:\n     .*)+)", matrix.partition("\nsystemd-networkd\n---")[0], re.MULTILINE)
        assert len(rows) > 15
        assert [row for row in rows[1:] if not re.search(r"- (``test_\w+\.py::[\w:]+``|not tested)\Z", row)] == []


def existing_tests() -> t.Iterator[str]:
    """Classes and tests of the functional tests, by file and name."""
    for path in (ROOT / "tests" / "functional").rglob("test_*.py"):
        for node in ast.parse(read(path)).body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                yield f"{path.name}::{node.name}"
            if isinstance(node, ast.ClassDef):
                yield from (f"{path.name}::{node.name}::{inner.name}" for inner in node.body if hasattr(inner, "name"))


class TestNumbers:
    def test_the_version_is_one(self) -> None:
        assert yaml.safe_load(read(ROOT / "galaxy.yml"))["version"] == VERSION

    def test_the_oldest_ansible_and_python_are_stated(self) -> None:
        requirements = read(ROOT / "README.md").partition("## Requirements")[2]
        oldest = re.fullmatch(r">=(\d+\.\d+)\.0", yaml.safe_load(read(ROOT / "meta/runtime.yml"))["requires_ansible"])
        python = re.fullmatch(r">=(.*)", yaml.safe_load(read(ROOT / "tests/config.yml"))["modules"]["python_requires"])
        assert oldest
        assert python
        assert f"ansible-core {oldest[1]} or later" in requirements
        assert f"Python {python[1]} or later" in requirements

    def test_every_tested_ansible_is_in_the_readme(self) -> None:
        requirements = read(ROOT / "README.md").partition("## Requirements")[2].replace("\n  ", " ")
        tested = requirements.partition("Tested are ")[2].partition(";")[0]
        locks = {path.stem: read(path) for path in (ROOT / "tests/requirements").glob("core-*.txt")}
        locks["tools"] = read(ROOT / "tests/requirements/tools.txt")
        del locks["core-next"]
        pinned = {re.findall(r"(?m)^ansible[_-]core==(\d+\.\d+)", text)[0] for text in locks.values()}
        assert set(re.findall(r"\b2\.\d+", tested)) == pinned

    @pytest.mark.parametrize("role", ROLES)
    def test_the_platforms_of_a_role_are_the_tested_ones(self, role: str) -> None:
        named = yaml.safe_load(read(ROOT / f"roles/{role}/meta/main.yml"))["galaxy_info"]["platforms"]
        assert named == [{"name": "Debian", "versions": [DEBIAN[version] for version in TESTED["debian"]]}]
        assert set(TESTED) == {"debian"}

    def test_every_tested_platform_is_in_the_readme(self) -> None:
        """Debian 12 with the versions of pyroute2 that the functional tests use; and nothing more."""
        rows = re.findall(r"^\| ([^|]+) \| (tested[^|]*) \|$", read(ROOT / "README.md"), re.MULTILINE)
        tested = {f"{name.capitalize()} {version or 'sid'}" for name, all_ in TESTED.items() for version in all_}
        assert {platform for platform, _text in rows} == tested
        assert rows[0][0] == "Debian 12"
        fragment = re.search(r"Tested on Debian (.*?)\.", read(ROOT / "plugins/doc_fragments/_attributes.py"))
        assert fragment
        assert {f"Debian {version}" for version in re.findall(r"\d+|sid", fragment[1])} == tested
        for lock, parts in (("pyroute2-oldest", 3), ("tools", 2)):
            pinned = re.search(r"^pyroute2==([\d.]+)$", read(ROOT / f"tests/requirements/{lock}.txt"), re.MULTILINE)
            assert pinned
            assert ".".join(pinned[1].split(".")[:parts]) in rows[0][1]
        between = re.search(r"^PYROUTE2 := (.*)$", read(ROOT / "Makefile"), re.MULTILINE)
        assert between
        assert [version for version in between[1].split() if version not in rows[0][1]] == []


def loaded(name: str) -> t.Any:
    """One of the tools, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tests" / "tools" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def typed(path: Path) -> t.Iterator[list[str]]:
    """The command lines of the program on hosts that a text shows, in its pieces of code and in its sentences."""
    text = " ".join(read(path).split())
    found = re.findall(r"^ *\$ (fleetvpn-endpoint .*)$", read(path), re.MULTILINE)
    found += re.findall(r"`(fleetvpn-endpoint [^`]+)`", text)
    for line in found:
        yield shlex.split(line)[1:]


class TestTableOfExamples:
    """CONTRIBUTING says which test runs the examples of which page."""

    def rows(self) -> dict[str, list[str]]:
        table = read(ROOT / "CONTRIBUTING.md").partition("## Examples and the tests")[2].partition("\n## ")[0]
        rows = [
            [cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| `")
        ]
        return {row[0].strip("`"): row[1:] for row in rows}

    def test_has_every_page_with_examples(self) -> None:
        pages = [path for path in TEXTS if re.search(r"^(```\w|\.\. code-block)", read(path), re.MULTILINE)]
        assert sorted(self.rows()) == sorted(map(name_of, pages))
        assert [page for page, cells in self.rows().items() if not any(cells)] == []

    def test_names_tests_that_take_them_from_the_page(self) -> None:
        for page, (taken, _like, _not) in self.rows().items():
            for test in re.findall(r"`(tests/[^`]+)`", taken):
                assert Path(page).name in read(ROOT / test) or page == "README.md"


class TestReference:
    """Its pages are what the source says, and what other texts say of commands and variables is there."""

    REFERENCE = loaded("reference")

    def test_is_current(self) -> None:
        """tests/tools/reference.py writes it. Each Python has its own way to break the lines of a help."""
        for page, text in self.REFERENCE.current().items():
            assert read(page).split() == text.split(), f"{page.name}: run tests/tools/reference.py"

    @pytest.mark.parametrize("name", PLAYBOOKS)
    def test_variables_of_a_playbook_are_those_it_asks_for(self, name: str) -> None:
        path = ROOT / f"playbooks/{name}.yml"
        plays = read(path).partition("\n- ")[2]
        asked = set(re.findall(rf"(?<![.\w])({name}_\w+) (?:\| default|is defined)", plays))
        told = {variable.name: variable.default for variable in self.REFERENCE.playbook(path).variables}
        assert set(told) == asked
        for variable, default in re.findall(rf"(?<![.\w])({name}_\w+) \| default\(([^()]*)\)", plays):
            missing = [word for word in re.findall(r"(?<![\w])[\w.%-]+", default) if word not in str(told[variable])]
            assert [word for word in missing if not word.startswith("__")] == []

    def test_every_command_of_the_program_has_its_exit_status(self) -> None:
        table = (
            read(ROOT / "docs/docsite/rst/reference_program.rst").partition("Exit status\n")[2].partition("Examples")[0]
        )
        rows = re.findall(r"^   \* - (``.*)$", table, re.MULTILINE)
        named = {each.split()[0] for row in rows for each in re.findall(r"``([^`]+)``", row)}
        assert named == set(self.REFERENCE.commands())

    def test_every_command_of_the_program_is_explained(self) -> None:
        named = re.findall(r"^\| `(\w+)[^`]*` \| ", read(ROOT / "docs/on-host.md"), re.MULTILINE)
        assert set(self.REFERENCE.commands()) <= set(named)

    @pytest.mark.parametrize("path", TEXTS, ids=name_of)
    def test_command_lines_are_taken_by_the_program(self, path: Path) -> None:
        """A command by itself may be its name only."""
        names = self.REFERENCE.commands()
        for command, *arguments in typed(path):
            assert command in names
            if arguments:
                build_parser().parse_args([command, *arguments])

    @pytest.mark.parametrize("path", TEXTS, ids=name_of)
    def test_variables_of_playbooks_exist(self, path: Path) -> None:
        known = {
            each.name
            for name in PLAYBOOKS
            for each in self.REFERENCE.playbook(ROOT / f"playbooks/{name}.yml").variables
        }
        assert set(re.findall(r" -e (\w+)=", read(path))) <= known


class TestLayers:
    """The table in CONTRIBUTING is how the files import each other."""

    def test_every_file_is_in_one_of_them(self) -> None:
        named = [name for layer in layers() for name in layer]
        there = {path.name for path in MODULE_UTILS.glob("_*.py")} | {
            f"{path.parent.name}/" for path in MODULE_UTILS.glob("*/*.py")
        }
        assert sorted(named) == sorted(there)

    def test_a_file_imports_from_its_own_and_those_above(self) -> None:
        order = {name.removesuffix("/").removesuffix(".py"): at for at, layer in enumerate(layers()) for name in layer}
        wrong = [
            f"{name_of(path)} imports {other}"
            for path in sorted(MODULE_UTILS.rglob("*.py"))
            for other in imported(path)
            if other in order and order[other] > order[path.relative_to(MODULE_UTILS).parts[0].removesuffix(".py")]
        ]
        assert wrong == []


def layers() -> list[list[str]]:
    table = read(ROOT / "CONTRIBUTING.md").partition("### Layers of")[2].partition("\n## ")[0]
    rows = [line.split("|")[2] for line in table.splitlines() if line.startswith("| ") and "`" in line]
    return [QUOTED.findall(cell) for cell in rows]


def imported(path: Path) -> t.Iterator[str]:
    """The direct children of module_utils that a file imports."""
    depth = len(path.relative_to(MODULE_UTILS).parts)
    for node in ast.walk(ast.parse(read(path))):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            yield from (name.partition(".")[0] for name in names)


class TestThreats:
    """The guide's tests are there."""

    GUIDE = ROOT / "docs/docsite/rst/guide_threats.rst"
    FILE = "tests/functional/recipe/test_threats.py"
    NAMED = re.compile(r"``(?:(tests/\S+\.py)::)?((?:Test\w+::)?test_\w+)``")

    def test_every_test_that_it_names_exists(self) -> None:
        named = {(file or self.FILE, test) for file, test in self.NAMED.findall(read(self.GUIDE))}
        assert len(named) > 5
        assert sorted(named - {(file, test) for file, _test in named for test in names_in(ROOT / file)}) == []

    def test_every_threat_has_a_measure_a_test_and_what_stays_exposed(self) -> None:
        rows = re.findall(r"^   \* - (.*?)(?=^   \* - |^\S|\Z)", read(self.GUIDE), re.MULTILINE | re.DOTALL)
        assert len(rows) > 10
        assert [row for row in rows if len(re.findall(r"^     - \S", row, re.MULTILINE)) != 3] == []


def names_in(path: Path) -> t.Iterator[str]:
    """The tests of a file as pytest names them."""
    for node in ast.parse(read(path)).body:
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.ClassDef):
            yield from (f"{node.name}::{each.name}" for each in node.body if isinstance(each, ast.FunctionDef))
