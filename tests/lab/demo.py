# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job, shown: a fleet whose replies go astray, one playbook, replies that arrive, and a second run.

Run as root by `make demo`. Everything happens in network namespaces of this machine and is gone afterwards.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import pathlib
import re
import shutil
import subprocess
import sys
import typing as t

from .lab import Lab
from .survey import Row, table

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
WORK = REPOSITORY / "build" / "demo"
CLIENTS = 6
HOST_PYTHON = "/usr/bin/python3"

SITE = """\
- name: Correct routing on every VPN endpoint
  hosts: vpn_endpoints
  become: true
  gather_facts: false
  roles:
    - fleetvpn.routing.endpoint
"""

ALL = """\
endpoint_identities:
  - name: outside
    interface: auto
endpoint_local_networks: auto
"""

GROUP = """\
endpoint_group_identities:
  - name: inside
    tunnel: {{type: {kind}, connection: "{{{{ lab_connection }}}}"}}
    interface: "{{{{ lab_device }}}}"
"""

# The hosts of the lab have no pyroute2 and no way to the Internet, so that it is handed over as a wheel.
LAB = """\
endpoint_pyroute2_source: wheel
endpoint_pyroute2_wheel: "{wheel}"
"""

NEXT = """\
What to read next:
  README.md            the playbook above, and what it does to a host
  tests/lab/README.md  this lab, to try things in
  make test            the tests of every change, on this machine
"""


class Failed(Exception):
    """The demonstration did not show what it promises."""


def main() -> int:
    """Show it; 0 if all was as it should be."""
    try:
        _prepare()
        with Lab.fleet(CLIENTS) as lab:
            _show(lab)
    except (Failed, subprocess.CalledProcessError) as failure:
        print(f"\nThe demonstration failed: {failure}", file=sys.stderr)
        return 1
    print(NEXT)
    return 0


def _prepare() -> None:
    """The collection as a user gets it: built, then installed into an empty path."""
    shutil.rmtree(WORK, ignore_errors=True)
    (WORK / "group_vars").mkdir(parents=True)
    _title("Building and installing the collection")
    _run(["ansible-galaxy", "collection", "build", "--force", "--output-path", str(WORK), str(REPOSITORY)])
    (artefact,) = WORK.glob("fleetvpn-routing-*.tar.gz")
    _run(["ansible-galaxy", "collection", "install", "--offline", "-p", str(WORK / "collections"), str(artefact)])
    _run([sys.executable, "-m", "pip", "--quiet", "download", "--no-deps", "--dest", str(WORK), _requirement()])
    (wheel,) = WORK.glob("pyroute2-*.whl")
    (WORK / "group_vars" / "vpn_endpoints.yml").write_text(LAB.format(wheel=wheel), encoding="utf-8")
    (WORK / "site.yml").write_text(SITE, encoding="utf-8")
    (WORK / "group_vars" / "all.yml").write_text(ALL, encoding="utf-8")
    for kind in ("wireguard", "openvpn"):
        (WORK / "group_vars" / f"{kind}.yml").write_text(GROUP.format(kind=kind), encoding="utf-8")


def _requirement() -> str:
    return f"pyroute2=={importlib.metadata.version('pyroute2')}"


def _show(lab: Lab) -> None:
    inventory = lab.inventory(WORK / "inventory.yml", python=HOST_PYTHON)
    _title(f"{len(lab.clients)} hosts, each with a real VPN tunnel, before: replies are lost or go astray")
    before = lab.survey()
    print(table(before))
    _expect(any(not row.right for row in before), "nothing was wrong before")
    _title("The playbook")
    print(SITE + "\n# group_vars/all.yml\n" + ALL + "\n# group_vars/wireguard.yml\n" + GROUP.format(kind="wireguard"))
    _play(inventory)
    _title("After: every reply leaves by the device of the address that was asked")
    after = lab.survey()
    print(table(after))
    _expect(all(row.right for row in after), _worst(after))
    _title("The same playbook again changes nothing")
    recap = _play(inventory)
    _expect(_changed(recap) == 0, "the second run changed something")
    _title("What the kernel says on the first host")
    print(lab.clients[0].host.run(["/usr/local/sbin/fleetvpn-endpoint", "status"]).stdout)


def _play(inventory: pathlib.Path) -> str:
    """Run the playbook, show its recap, and return it."""
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(WORK / "collections"),
        "ANSIBLE_CONNECTION_PLUGINS": str(REPOSITORY / "tests" / "plugins" / "connection"),
        "ANSIBLE_PIPELINING": "true",
        "ANSIBLE_NOCOLOR": "true",
    }
    command = ["ansible-playbook", "-f", "3", "-i", str(inventory), str(WORK / "site.yml")]
    done = subprocess.run(command, env=environment, cwd=WORK, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(done.stdout + done.stderr)
    recap = done.stdout[done.stdout.index("PLAY RECAP") :]
    print(recap.strip())
    return recap


def _changed(recap: str) -> int:
    return sum(int(number) for number in re.findall(r"changed=(\d+)", recap))


def _worst(rows: t.Sequence[Row]) -> str:
    return "\n" + table([row for row in rows if not row.right])


def _expect(truth: bool, otherwise: str) -> None:
    if not truth:
        raise Failed(otherwise)


def _run(command: t.Sequence[str]) -> None:
    # An empty path: ansible-galaxy installs nothing that it finds elsewhere.
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(WORK / "collections")}
    done = subprocess.run(command, env=environment, cwd=WORK, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"{' '.join(command)}: {done.stdout}{done.stderr}")


def _title(text: str) -> None:
    print(f"\n== {text}\n", flush=True)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
