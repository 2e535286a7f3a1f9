# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host with files of its own, an uplink, and room for a tunnel; what the module and the program on it do."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import typing as t

import pyroute2

from tests.lab.holders import Holders
from tests.lab.host import Host, family_of
from tests.lab.runs import Run

REPOSITORY = pathlib.Path(__file__).parents[2]
COLLECTIONS = REPOSITORY / "build" / "collections"
PRIVATE = "/usr/local/lib/fleetvpn/site-packages"
PROGRAM = "/usr/local/sbin/fleetvpn-endpoint"
SETS = "/etc/fleetvpn/sets.d"
BOOT_UNIT = "/etc/systemd/system/fleetvpn-endpoint.service"
WATCH_UNIT = "/etc/systemd/system/fleetvpn-endpoint-watch.service"

FR_ACT_UNREACHABLE = "7"  # as `ip -N` writes it
UPLINK, TUNNEL = "fvtup0", "fvtvpn0"
OUTSIDE, GATEWAY, FAR = "198.51.100.10", "198.51.100.1", "192.0.2.1"
INSIDE, SECOND = "10.9.0.5", "10.9.0.6"
INSIDE6, SECOND6, FAR6 = "2001:db8:9::5", "2001:db8:9::6", "2001:db8:99::1"
IDENTITIES: list[dict[str, t.Any]] = [
    {"name": "outside", "interface": "auto"},
    {"name": "inside", "interface": TUNNEL, "gateway": "none"},
]

MODULE = f"""
import json, sys
sys.path.append({str(REPOSITORY)!r})
from tests.module_args import patch_module_args
from ansible_collections.fleetvpn.routing.plugins.modules.endpoint import main
with patch_module_args(json.load(sys.stdin)):
    main()
"""
_UPLINK = f"""
link set lo up
link add {UPLINK} type veth peer name fvtpeer0
link set fvtpeer0 up
link set {UPLINK} up
addr add {OUTSIDE}/24 dev {UPLINK}
route add default via {GATEWAY} dev {UPLINK}
"""


@contextlib.contextmanager
def hosts() -> t.Iterator[t.Callable[[str], Host]]:
    """Makes hosts that end with the context. Each has pyroute2 where the role puts it, and an uplink."""
    run = Run()
    holders = Holders(run)

    def make(name: str) -> Host:
        host = holders.make(name)
        provide_pyroute2(host)
        host.run(["ip", "-batch", "-"], stdin=_UPLINK)
        return host

    try:
        yield make
    finally:
        holders.close()
        run.close()


def provide_pyroute2(host: Host) -> None:
    """Where the role would put it."""
    host.shell(f"mkdir -p {PRIVATE} && ln -sfn {pathlib.Path(pyroute2.__file__).parent} {PRIVATE}/pyroute2")


def declare(
    host: Host, *, check: bool = False, env: t.Mapping[str, str] | None = None, **params: t.Any
) -> dict[str, t.Any]:
    """Module endpoint on a host, with more variables in its environment. A failure is a result too."""
    arguments = {"identities": IDENTITIES, "confirm": {"by": "none"}, **params, "_ansible_check_mode": check}
    done = host.run(
        [sys.executable, "-c", MODULE],
        stdin=json.dumps(arguments),
        env={"PYTHONPATH": str(COLLECTIONS), "PYTHONDONTWRITEBYTECODE": "1", **(env or {})},
        check=False,
    )
    assert done.stdout, done.stderr
    found: dict[str, t.Any] = json.loads(done.stdout)
    return found


def program(host: Host, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The installed program."""
    return host.run([PROGRAM, *arguments], check=False)


def status(host: Host) -> dict[str, t.Any]:
    """What it says of the host."""
    found: dict[str, t.Any] = json.loads(program(host, "status", "--json").stdout)
    return found


def connect(host: Host, *addresses: str) -> None:
    """The VPN comes up."""
    lines = [f"link add {TUNNEL} type veth peer name fvtpeer1", "link set fvtpeer1 up", f"link set {TUNNEL} up"]
    host.run(["ip", "-batch", "-"], stdin="\n".join([*lines, *(f"addr add {a}/32 dev {TUNNEL}" for a in addresses)]))


def disconnect(host: Host) -> None:
    """The VPN goes, with its device."""
    host.run(["ip", "link", "del", TUNNEL])


def rules(host: Host) -> list[str]:
    """All IPv4 rules, as ip shows them."""
    return host.run(["ip", "-N", "rule", "show"]).stdout.splitlines()


def rules_from(host: Host, address: str) -> list[str]:
    """What the rules of an address do, in their order."""
    family = f"-{family_of(address)}"
    found = host.run(["ip", family, "-N", "rule", "show", "from", address]).stdout.splitlines()
    actions = [line.partition(" iif lo ")[2].partition(" proto ")[0] for line in found]
    return ["unreachable" if action == FR_ACT_UNREACHABLE else action for action in actions]


def way(host: Host, source: str) -> str:
    """The device by which packets with this source go far away, or C(none)."""
    far = FAR6 if family_of(source) == 6 else FAR
    done = host.run(["ip", "-j", "route", "get", far, "from", source], check=False)
    return "none" if done.returncode else str(json.loads(done.stdout)[0]["dev"])


def networking(host: Host) -> list[str]:
    """Rules, routes, device groups, nftables, and the sysctls of devices."""
    listed = host.shell(
        "for f in -4 -6; do ip $f -N rule show; ip $f -N route show table all; done"
        "; ip -o link show | grep -o 'group [a-z0-9]*'"
        "; grep -s . /proc/sys/net/ipv[46]/conf/*/* || true"  # one of them cannot be read
    )
    # A table that was replaced is listed behind those of others.
    tables = f"\n{host.shell('nft -s list ruleset')}".split("\ntable ")[1:]
    return [*listed.splitlines(), *(line for text in sorted(tables) for line in text.splitlines())]


def files(host: Host) -> list[str]:
    """What is ours of records, runtime state, units and the program, with what is in it, and names. Not the notes."""
    listed = host.shell(
        "find /etc/fleetvpn /run/fleetvpn /etc/systemd /usr/local/sbin -type f 2>/dev/null"
        " | grep fleetvpn | grep -v notes | sort | xargs -r sha256sum"
        "; cat /etc/fleetvpn/sets.d/*.json /etc/iproute2/rt_*.d/fleetvpn.conf 2>/dev/null || true"
    )
    return listed.splitlines()


def eventually(true: t.Callable[[], bool], seconds: float = 5.0) -> float:
    """Wait until something holds, at most so long; how long it took."""
    start = time.monotonic()
    while not true():
        assert time.monotonic() - start < seconds, "it did not happen in time"
        time.sleep(0.01)
    return time.monotonic() - start


def reboot(before: Host, after: Host) -> None:
    """What survives a boot of what is ours: all but the kernel's state and what is below /run."""
    for path in ("/etc/fleetvpn", "/etc/iproute2/rt_tables.d"):
        shutil.copytree(seen(before, path), seen(after, path), dirs_exist_ok=True)
    shutil.copy2(seen(before, PROGRAM), seen(after, PROGRAM))


def seen(host: Host, path: str) -> pathlib.Path:
    """A file of the host, as this process reaches it."""
    return pathlib.Path(f"/proc/{host.pid}/root{path}")


def play(host: Host, *tasks: dict[str, t.Any], directory: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """A real playbook."""
    inventory, playbook = directory / "inventory", directory / "playbook.yml"
    inventory.write_text(
        f"h ansible_connection=lab ansible_lab_pid={host.pid} ansible_python_interpreter=/usr/bin/python3\n"
    )
    playbook.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "ANSIBLE_CONNECTION_PLUGINS": str(REPOSITORY / "tests" / "plugins" / "connection"),
        "ANSIBLE_HOME": str(directory / "ansible"),
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
        "ANSIBLE_NOCOLOR": "1",
    }
    command = [str(pathlib.Path(sys.executable).parent / "ansible-playbook"), "-i", str(inventory), str(playbook)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
