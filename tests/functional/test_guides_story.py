# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guides for a start, an incident and a removal, followed to the letter on one host with systemd.

Two things differ from what people do: the host is reached without SSH, and a tarball stands in for Galaxy.
tests/newcomer has SSH, and a controller that has to be set up first. The tests are the steps of one
story and run in their order.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shlex
import subprocess
import sys
import typing as t

import pytest

from tests.functional import pages
from tests.functional.onhost import REPOSITORY
from tests.functional.test_guides import TUNNEL, UPLINK, Step, disagreement
from tests.lab.host import Host
from tests.lab.machines import Machine
from tests.lab.runs import Run

pytestmark = [pytest.mark.long, pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")]

BIN = pathlib.Path(sys.executable).parent
# All but what the kernel brings with each device, when it likes.
LOOK = """
for f in 4 6; do ip -N -$f rule; ip -N -$f route show table all | grep -v -e fe80 -e ff00; done
ip -o link show group 151
nft list ruleset
"""


@dataclasses.dataclass(frozen=True)
class Site:
    """A controller's directory, and the host that it manages."""

    directory: pathlib.Path
    host: Host

    def follow(self, guide: str, *, heading: str = "") -> list[str]:
        """Write the files of a guide, and run its commands, or those of one part; what playbooks said."""
        pages.write(guide, self.directory)
        said = []
        for kind, body in pages.blocks(guide, heading):
            for command, shown in pages.commands(body) if kind == "console" else ():
                if command.startswith("ansible"):
                    said.append(self._control(*shlex.split(command)))
                else:
                    self._ask(command, shown)
        return said

    def _ask(self, command: str, shown: list[str]) -> None:
        done = self.host.run(shlex.split(command), check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        step = Step(None, [], [line.split() for line in shown])
        assert not shown or disagreement(step, done.stdout) == [], done.stdout

    def _control(self, program: str, *arguments: str) -> str:
        if program == "ansible-galaxy":
            arguments = (*arguments[:-1], str(self._tarball()))
        variables = {
            "ansible_connection": "lab",
            "ansible_lab_pid": self.host.pid,
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_become": False,
        }
        if program == "ansible-playbook":
            arguments = (*arguments, "--extra-vars", json.dumps(variables))
        done = subprocess.run(
            [str(BIN / program), *arguments],
            cwd=self.directory,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def _tarball(self) -> pathlib.Path:
        build = [str(BIN / "ansible-galaxy"), "collection", "build", "--output-path", str(self.directory)]
        subprocess.run([*build, str(REPOSITORY)], check=True, capture_output=True)
        return next(self.directory.glob("*.tar.gz"))

    def _environment(self) -> dict[str, str]:
        """Nothing of this repository's but the connection: the collection is the one that was installed."""
        return {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(self.directory / "collections"),
            "ANSIBLE_CONNECTION_PLUGINS": str(REPOSITORY / "tests" / "plugins" / "connection"),
            "ANSIBLE_HOME": str(self.directory / "home"),
            "ANSIBLE_NOCOLOR": "1",
        }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Site]:
    run = Run()
    machine = Machine(run.id, "web1")
    try:
        machine.host.run(["ip", "-batch", "-"], stdin=UPLINK + TUNNEL)
        yield Site(tmp_path_factory.mktemp("site"), machine.host)
    finally:
        machine.close()
        run.close()


class TestStory:
    """From a bare host to a proven one, out of the way and back, and to a bare host by either way."""

    before: t.ClassVar[list[str]] = []

    def test_start_here(self, site: Site) -> None:
        self.before.append(site.host.shell(LOOK))
        parts = ("See the problem", "Install", "Look, then act", "The proof")
        said = [text for part in parts for text in site.follow("guide_start.rst", heading=part)]
        _galaxy, look, act, again, _verify = said
        assert "from 198.51.100.10 iif lo unreachable" in look
        assert "changed=0" not in act
        assert "changed=0" in again

    @pytest.mark.parametrize(
        "heading",
        [
            "Is it the routing?",
            "Bring it back to what was declared",
            "Take it out of the way",
            "If the program itself does not run",
            "What to keep for the report",
        ],
    )
    def test_in_an_incident(self, site: Site, heading: str) -> None:
        """All but the way back to an earlier declaration, of which this host has none (test_operations.py has)."""
        site.follow("guide_incident.rst", heading=heading)

    def test_removing_it(self, site: Site) -> None:
        site.follow("guide_remove.rst", heading="By a play")
        assert site.host.shell(LOOK) == self.before[0]

    def test_removing_it_without_ansible(self, site: Site) -> None:
        site.follow("guide_start.rst", heading="Look, then act")
        site.follow("guide_remove.rst", heading="Without Ansible")
        assert site.host.shell(LOOK) == self.before[0]
        assert site.host.shell("find /etc /run /usr/local -path '*fleetvpn*'") == ""
