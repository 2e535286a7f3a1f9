# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `make release` makes, and what it refuses: on a repository of its own, with this one's tree.

The two long steps of it, galaxy-importer and sanity, are other tests' work; here they pass, or fail, at once.
"""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
import typing as t
from pathlib import Path

import pytest

from tests.artefact.test_artefact import copy_tree

VERSION = "1.0.0"
_CHANGELOG = f"---\nancestor: null\nreleases:\n  {VERSION}:\n    release_date: '2026-01-01'\n"


class Repository:
    """A repository that could be released, with passing stand-ins for pytest and make."""

    def __init__(self, scratch: Path) -> None:
        self.tree = scratch / "tree"
        self._programs = scratch / "programs"
        self._programs.mkdir()
        self.tree.mkdir()
        copy_tree(self.tree)
        (self.tree / "changelogs" / "changelog.yaml").write_text(_CHANGELOG, encoding="utf-8")
        for fragment in (self.tree / "changelogs" / "fragments").glob("*.yml"):
            fragment.unlink()
        for name in ("pytest", "make"):
            self.stand_in(name, "/bin/true")
        self._keys = scratch / "gnupg"
        self._keys.mkdir(mode=0o700)
        self.git("init", "--quiet")
        self.commit()

    def stand_in(self, name: str, program: str) -> None:
        """From now on that is what is run by this name."""
        (self._programs / name).unlink(missing_ok=True)
        (self._programs / name).symlink_to(program)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a program in it."""
        environment = {
            **{name: value for name, value in os.environ.items() if name != "FLEETVPN_ARTEFACT"},
            "PATH": f"{self._programs}:{os.environ['PATH']}",
            "MAKE": "make",
            "GNUPGHOME": str(self._keys),
        }
        return subprocess.run(command, cwd=self.tree, env=environment, capture_output=True, text=True, check=False)

    def git(self, *arguments: str) -> None:
        """Git, as somebody."""
        done = self.run("git", "-c", "user.name=x", "-c", "user.email=x@example.org", *arguments)
        assert done.returncode == 0, done.stderr

    def commit(self) -> None:
        """All that is there."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "x")

    def release(self, *key: str) -> subprocess.CompletedProcess[str]:
        """What `make release` calls."""
        return self.run("tests/tools/release.sh", *key)

    @property
    def artefact(self) -> Path:
        """What comes of it."""
        return self.tree / "build" / "release" / f"fleetvpn-routing-{VERSION}.tar.gz"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Repository]:
    made = Repository(tmp_path_factory.mktemp("release"))
    yield made
    # What gpg has started for the keys that are only here.
    made.run("gpgconf", "--kill", "gpg-agent")


def test_is_the_same_bytes_every_time_and_says_that_it_is_not_signed(repository: Repository) -> None:
    done = repository.release()
    assert done.returncode == 0, done.stderr
    assert "not signed, since no key is given" in done.stdout
    first = repository.artefact.read_bytes()
    assert repository.release().returncode == 0
    assert repository.artefact.read_bytes() == first
    assert [path.name for path in repository.artefact.parent.iterdir()] == [repository.artefact.name]


def test_signs_the_manifest(repository: Repository, tmp_path: Path) -> None:
    made = repository.run("gpg", "--batch", "--passphrase", "", "--quick-generate-key", "x@example.org", "ed25519")
    assert made.returncode == 0, made.stderr
    assert repository.release("x@example.org").returncode == 0
    with tarfile.open(repository.artefact) as archive:
        manifest = archive.extractfile("MANIFEST.json")
        assert manifest
        (tmp_path / "MANIFEST.json").write_bytes(manifest.read())
    signature = repository.artefact.with_name(repository.artefact.name.replace(".tar.gz", ".asc"))
    checked = repository.run("gpg", "--verify", str(signature), str(tmp_path / "MANIFEST.json"))
    assert checked.returncode == 0, checked.stderr


def test_a_key_that_is_not_there_fails(repository: Repository) -> None:
    done = repository.release("nobody@example.org")
    assert done.returncode != 0
    assert "nobody@example.org" in done.stderr


def test_writes_the_changelog_and_is_a_release_once_that_is_committed(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    changelogs = repository.tree / "changelogs"
    (changelogs / "changelog.yaml").write_text("---\nancestor: null\nreleases: {}\n", encoding="utf-8")
    (changelogs / "fragments" / "1.yml").write_text("---\nbugfixes: [a reply that went astray]\n", encoding="utf-8")
    repository.commit()
    done = repository.release()
    assert done.returncode == 1
    assert f"release {VERSION}: wrote CHANGELOG.md; read it, commit it" in done.stderr
    assert "a reply that went astray" in (repository.tree / "CHANGELOG.md").read_text(encoding="utf-8")
    assert not repository.artefact.exists()
    assert "the tree is not clean" in repository.release().stderr
    repository.commit()
    done = repository.release()
    assert (done.returncode, repository.artefact.exists()) == (0, True), done.stderr


def untidy(repository: Repository) -> None:
    (repository.tree / "README.md").write_text("changed\n", encoding="utf-8")


def tagged(repository: Repository) -> None:
    repository.git("tag", VERSION)


def tagged_by_somebody_else(repository: Repository) -> None:
    repository.git("init", "--quiet", "--bare", "../remote")
    repository.git("remote", "add", "origin", "../remote")
    repository.git("tag", VERSION)
    repository.git("push", "--quiet", "origin", VERSION)
    repository.git("tag", "--delete", VERSION)


def without_an_answer(repository: Repository) -> None:
    repository.git("remote", "add", "origin", "../nowhere")


def with_a_fragment(repository: Repository) -> None:
    (repository.tree / "changelogs" / "fragments" / "1.yml").write_text("---\nbugfixes: [x]\n", encoding="utf-8")
    repository.commit()


def broken(repository: Repository) -> None:
    repository.stand_in("pytest", "/bin/false")


def not_sane(repository: Repository) -> None:
    repository.stand_in("make", "/bin/false")


REFUSED = {
    untidy: "the tree is not clean",
    tagged: "the version is not new",
    tagged_by_somebody_else: "the version is not new",
    without_an_answer: "origin does not say whether it has a tag of this version",
    with_a_fragment: "changelogs/fragments has changes that are in no release",
    broken: "galaxy-importer does not take the artefact",
    not_sane: "ansible-test sanity does not pass",
}


@pytest.mark.parametrize("spoil", REFUSED, ids=lambda spoil: spoil.__name__)
def test_is_refused(spoil: t.Callable[[Repository], None], tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    spoil(repository)
    done = repository.release()
    assert done.returncode == 1
    assert re.fullmatch(rf"release {VERSION}: {REFUSED[spoil]}.*\n", done.stderr.splitlines(keepends=True)[-1])
    assert not repository.artefact.exists()
