# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The README and the guide for a start, followed to the letter by somebody who has nothing yet, in ten minutes each.

On fresh containers with the Debian of FLEETVPN_SUITE (bookworm, if it is not set): SSH, sudo, a VPN, and neither
Ansible nor what the collection needs. Every piece of code is done, in its order; where Galaxy is named, a tarball
stands in. A piece that is none of those known here fails.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import time
import typing as t

import pytest

from tests.functional import pages
from tests.functional.test_guides import Step, disagreement
from tests.newcomer.site import Site, site

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")

INSIDE = "198.51.100.10"
# Who types a command: the first word decides.
ON_CONTROLLER = {"ansible-galaxy", "ansible-playbook", "pip", "python3", "source", "sudo"}
ON_HOST = {"fleetvpn-endpoint", "ip"}
# Not here: these are about a clone of the repository. `make test` is what runs them.
IN_A_CLONE = {"make"}
RECAP = re.compile(r"^\S+ +: ok=.* changed=(\d+) +unreachable=0 +failed=0", re.MULTILINE)


class Reader:
    """Does what a text says. `said` is what each run of a playbook said, `seen` the commands that were typed."""

    def __init__(self, where: Site, host: str) -> None:
        self.site = where
        self._host = host
        self.said: list[str] = []
        where.shells["controller"].run("mkdir -p site && cd site")

    def follow(self, pieces: t.Iterable[tuple[str, str]]) -> None:
        """Do pieces of code, in their order."""
        for kind, body in pieces:
            self._do(kind, body)

    def _do(self, kind: str, body: str) -> None:
        path = pages.file_of(body)
        if path:
            self._write(path, body)
        elif kind == "console":
            for command, shown in pages.commands(body):
                self._type(command, shown)
        elif kind == "sh":
            for line in body.splitlines():
                self._type(shlex.join(shlex.split(line, comments=True)), [])
        else:
            pytest.fail(f"nothing is known of this piece of code: {body}")

    def _write(self, path: str, body: str) -> None:
        self.site.shells["controller"].run(f"mkdir -p $(dirname {path}) && printf %s {shlex.quote(body)} >{path}")

    def _type(self, command: str, shown: list[str]) -> None:
        program = command.split(maxsplit=1)[0]
        if program in IN_A_CLONE:
            return
        assert program in ON_CONTROLLER | ON_HOST, f"nobody knows who would type this: {command}"
        shell = self.site.shells["controller" if program in ON_CONTROLLER else self._host]
        if program == "ansible-galaxy":
            command = command.replace("fleetvpn.routing", self.site.tarball)
        printed = shell.run(command)
        if program == "ansible-playbook":
            self.said.append(printed)
        lines = [line.split() for line in shown]
        assert not lines or disagreement(Step(None, [], lines), printed.strip()) == [], printed


def changes(said: str) -> set[int]:
    """How much a run changed, of each host; none may have failed."""
    _head, *recap = said.partition("PLAY RECAP")[2].strip().splitlines()
    assert len(recap) == len(RECAP.findall(said)) > 0, said
    return {int(number) for number in RECAP.findall(said)}


@contextlib.contextmanager
def within_ten_minutes() -> t.Iterator[None]:
    """Of the newcomer's own time: from hosts that are there to the proof."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < 600


def test_start_here() -> None:
    """From a fresh controller and a fresh host to an inside address that answers the Internet."""
    with site("web1") as where:
        where.wireguard("web1")
        assert not where.answers(INSIDE)
        reader = Reader(where, "web1")
        with within_ten_minutes():
            reader.follow(pages.blocks("guide_start.rst"))
        look, act, again, verify = reader.said
        assert "pyroute2 would be installed" in look
        assert 0 not in changes(act)
        # The way of the SSH connection was seen, through sudo.
        assert "was not foreseen" not in act
        assert changes(again) == {0}
        assert "1 proven" in verify
        assert where.answers(INSIDE)
        reader.follow(pages.blocks("reference_program.rst", "Examples"))


def test_the_readme() -> None:
    """Two fresh hosts with two types of VPN, proven, and the routing taken back from both."""
    with site("laptop1", "branch1") as where:
        where.wireguard("laptop1")
        where.openvpn("branch1")
        # As an image for clouds: Python's apt is there, the lists of packages are not.
        where.hosts["laptop1"].shell("apt-get -qq update; apt-get -qq install python3-apt; rm -r /var/lib/apt/lists/*")
        assert not where.answers(INSIDE)
        reader = Reader(where, "laptop1")
        with within_ten_minutes():
            reader.follow(pages.blocks("guide_start.rst", "What you need"))
            reader.follow(pages.readme_blocks())
        _look, act, again = reader.said
        assert 0 not in changes(act)
        assert changes(again) == {0}
        assert where.answers(INSIDE)
        for name in ("laptop1", "branch1"):
            for command in ("status", "path 203.0.113.5 --explain", "suspend", "resume", "status"):
                where.shells[name].run(f"fleetvpn-endpoint {command}")
        reader.follow([("console", "$ ansible-playbook -i inventory.ini remove.yml\n")])
        assert not where.answers(INSIDE)
