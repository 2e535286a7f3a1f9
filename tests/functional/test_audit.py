# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What module endpoint_info finds: on a real kernel, in real files, and among real processes."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import shutil
import subprocess
import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils import _daemons
from ansible_collections.fleetvpn.routing.plugins.module_utils._audit import View, audit
from ansible_collections.fleetvpn.routing.plugins.module_utils._daemons import Daemon, find_daemons
from ansible_collections.fleetvpn.routing.plugins.module_utils._info import tell
from ansible_collections.fleetvpn.routing.plugins.module_utils._kernel import open_kernel
from ansible_collections.fleetvpn.routing.plugins.module_utils._names import Names
from ansible_collections.fleetvpn.routing.plugins.module_utils._worker import Context

from tests.functional.conftest import ip
from tests.functional.endpoints import GATEWAY, IDENTITIES, INSIDE, INSIDE6, TUNNEL, UPLINK, device, ensure, namespace

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

DECLARED = [IDENTITIES[0], {**IDENTITIES[1], "outer": {"fwmark": "0x10/0xf0"}}]
Found = list[dict[str, str]]


def findings(netns: str, root: str = "/") -> Found:
    params = {"set": None, "netns": netns}
    found: Found = tell(Context(params, functools.partial(open_kernel, netns), root=root)).values["findings"]
    return found


@pytest.mark.parametrize(
    ("line", "kind", "severity", "thing"),
    [
        ("rule add pref 1500 to 10.9.0.0/16 lookup main", "ahead", "warning", "ipv4: 1500: from all to 10.9.0.0/16"),
        ("-6 rule add pref 1500 lookup main", "ahead", "warning", "ipv6: 1500: from all lookup 254"),
        ("rule add pref 2500 from 10.9.9.9 lookup main", "between", "warning", "ipv4: 2500: from 10.9.9.9"),
        (f"rule add pref 2302 from {INSIDE} iif lo unreachable", "twin", "warning", f"ipv4: 2302: from {INSIDE}"),
        ("rule add pref 5000 fwmark 0x30/0x20 lookup 77", "mark", "warning", "ipv4: 5000: from all fwmark 0x30/0x20"),
        ("rule add pref 5000 fwmark 0x20/0xf0 lookup 77", "mark", "warning", "ipv4: 5000: from all fwmark 0x20/0xf0"),
        ("rule add pref 5000 fwmark 0xca6c lookup 77", "mark", "warning", "ipv4: 5000: from all fwmark 0xca6c"),
        ("rule add pref 5000 fwmark 0x1/0xf lookup 77", "none", "", ""),
        ("rule add pref 5000 fwmark 0xca0c lookup 77", "none", "", ""),
        ("rule add pref 5210 fwmark 0x80000/0xff0000 lookup main", "none", "", ""),  # Tailscale's
        ("route add unreachable 10.9.0.0/16", "error_route", "warning", "unreachable 10.9.0.0/16"),
        ("route add unreachable ::/0 metric 4294967295", "error_route", "warning", "unreachable default"),
        (f"route add 10.9.0.0/16 via {GATEWAY} dev up0 src {INSIDE}", "pair", "warning", "10.9.0.0/16 via"),
        ("route add 10.9.0.0/16 dev vpn0 src 192.0.2.10", "pair", "warning", "10.9.0.0/16 dev vpn0"),
        (f"route add 10.9.0.0/16 dev vpn0 src {INSIDE}", "none", "", ""),
        (f"address add {INSIDE}/32 dev second", "address", "error", INSIDE),
        (f"address del {INSIDE6}/128 dev vpn0", "none", "", ""),
    ],
)  # fmt: skip
def test_what_stands_against_a_set(line: str, kind: str, severity: str, thing: str) -> None:
    with namespace(*UPLINK, *TUNNEL, *device("second")) as netns:
        ensure(netns, identities=DECLARED)
        assert [found["kind"] for found in findings(netns)] == []
        ip("-n", netns, *line.split())
        found = findings(netns)
        if kind == "none":
            assert [each["kind"] for each in found] == []
            return
        assert [(each["kind"], each["severity"]) for each in found] == [(kind, severity)]
        assert found[0]["object"].startswith(thing)
        assert found[0]["text"]
        assert found[0]["advice"]


def test_the_local_rule_behind_the_block() -> None:
    with namespace(*UPLINK, *TUNNEL) as netns:
        ensure(netns, identities=DECLARED)
        ip("-n", netns, lines=["rule add pref 32765 lookup local proto kernel", "rule del pref 0"])
        (found,) = findings(netns)
        assert (found["kind"], found["severity"], found["object"]) == ("local", "error", "ipv4: lookup local")
        ip(*found["advice"].replace("ip -4", f"-n {netns} -4").split())
        assert findings(netns) == []


def test_an_identity_that_is_silent_in_a_family() -> None:
    with namespace(*UPLINK, *device("vpn0", f"{INSIDE}/32")) as netns:
        ensure(netns)
        (found,) = findings(netns)
        assert (found["kind"], found["severity"], found["object"]) == ("silent", "info", "inside: ipv6")
        ensure(netns, identities=[IDENTITIES[0], {**IDENTITIES[1], "families": ["ipv4"]}])
        assert findings(netns) == []


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("254 mine", "says that table 254 is mine, but it is main"),
        ("77 main", "says that main is table 77, but it is 254"),
        ("2001 fleetvpn_inside", "says that fleetvpn_inside is table 2001, but it is 2002"),
        ("2002 corp", "says that table 2002 is corp, but it is fleetvpn_inside"),
        ("77 other", None),
    ],
)
def test_names_that_lie(tmp_path: pathlib.Path, line: str, says: str | None) -> None:
    folder = tmp_path / "etc/iproute2"
    folder.mkdir(parents=True)
    (folder / "rt_tables").write_text(f"255 local\n254 main\n253 default\n{line}\n", encoding="ascii")
    with namespace(*UPLINK, *TUNNEL) as netns:
        ensure(netns)
        found = findings(netns, str(tmp_path))
    assert [each["text"] for each in found] == ([says] if says else [])
    assert all(each["kind"] == "table_name" and line.split()[1] in each["object"] for each in found)


# -- programs


@contextlib.contextmanager
def running(root: pathlib.Path, *names: str) -> t.Iterator[None]:
    """Processes of these names, which do nothing."""
    (root / "proc").symlink_to("/proc")
    made = []
    try:
        for name in names:
            shutil.copy("/bin/sleep", root / name)
            made.append(subprocess.Popen([root / name, "60"]))
        yield
    finally:
        for process in made:
            process.kill()
            process.wait()


def write(root: pathlib.Path, path: str, *lines: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text("\n".join([*lines, ""]), encoding="utf-8")


RULES, ROUTES = "ManageForeignRoutingPolicyRules", "ManageForeignRoutes"


@pytest.mark.parametrize(
    ("files", "lacks"),
    [
        ({}, (RULES, ROUTES)),
        ({"etc/systemd/networkd.conf": [f"{RULES}=no", f"{ROUTES}=no"]}, ()),
        ({"etc/systemd/networkd.conf.d/10.conf": [f"{RULES}=no", f"{ROUTES}=false"]}, ()),
        ({"etc/systemd/networkd.conf.d/10.conf": [f"{RULES}=no"]}, (ROUTES,)),
        # By name, not by directory; and one of the same name in /etc hides that of the vendor.
        ({"usr/lib/systemd/networkd.conf.d/90.conf": [f"{RULES}=yes", f"{ROUTES}=yes"],
          "etc/systemd/networkd.conf.d/10.conf": [f"{RULES}=no", f"{ROUTES}=no"]}, (RULES, ROUTES)),
        ({"usr/lib/systemd/networkd.conf.d/90.conf": [f"{RULES}=yes", f"{ROUTES}=yes"],
          "etc/systemd/networkd.conf.d/90.conf": ["; nothing", f"{RULES} = 0", f"{ROUTES}=off"]}, ()),
        ({"run/systemd/networkd.conf.d/50.conf": [f"{RULES}=yes"],
          "etc/systemd/networkd.conf": [f"{RULES}=no", f"{ROUTES}=no"]}, (RULES,)),
    ],
)  # fmt: skip
def test_whether_networkd_is_told_to_leave_ours_alone(
    tmp_path: pathlib.Path, files: dict[str, list[str]], lacks: tuple[str, ...]
) -> None:
    for path, lines in files.items():
        write(tmp_path, path, "[Network]", *lines)
    with running(tmp_path, "systemd-networkd"):
        assert find_daemons(tmp_path) == [Daemon("systemd-networkd", lacks)]
    command = ["systemd-analyze", f"--root={tmp_path}", "cat-config", "systemd/networkd.conf"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    read = [str(path) for path in _daemons._merged(tmp_path, "systemd/networkd.conf")]
    assert [line[2:] for line in shown.splitlines() if line.startswith(f"# {tmp_path}")] == read


def test_programs_that_do_not_run_are_not_told_of(tmp_path: pathlib.Path) -> None:
    with running(tmp_path):
        assert find_daemons(tmp_path) == []


def test_programs_of_another_namespace_are_not_told_of(tmp_path: pathlib.Path) -> None:
    with running(tmp_path, "vpnagentd"), namespace() as netns:
        assert find_daemons(tmp_path) == [Daemon("vpnagentd")]
        with open_kernel(netns):
            assert find_daemons(tmp_path) == []


def test_a_profile_of_networkmanager_with_a_table(tmp_path: pathlib.Path) -> None:
    folder = "etc/NetworkManager/system-connections"
    write(tmp_path, f"{folder}/plain.nmconnection", "[connection]", "id=plain", "[ipv4]", "method=auto")
    write(tmp_path, f"{folder}/own.nmconnection", "[connection]", "id=own", "[ipv6]", "route-table=77")
    write(tmp_path, f"{folder}/broken.nmconnection", "no section")
    write(tmp_path, "run/NetworkManager/system-connections/netplan-up.nmconnection", "[ipv4]", "route-table=77")
    # The one in /etc counts.
    write(tmp_path, "run/NetworkManager/system-connections/plain.nmconnection", "[ipv4]", "route-table=77")
    with running(tmp_path, "NetworkManager"):
        assert find_daemons(tmp_path) == [Daemon("NetworkManager", ("netplan-up", "own"))]


@pytest.mark.parametrize(
    ("daemons", "told"),
    [
        ([Daemon("systemd-networkd", (RULES,))], [("daemon", "warning", f"{RULES}=no in [Network]")]),
        ([Daemon("systemd-networkd")], [("daemon", "info", "keep it so")]),
        ([Daemon("netplan")], []),
        ([Daemon("systemd-networkd", (RULES,)), Daemon("netplan")],
         [("daemon", "warning", f"{RULES}=no"), ("daemon", "warning", "tell systemd-networkd")]),
        ([Daemon("NetworkManager", ("own",))], [("daemon", "warning", "take route-table out")]),
        ([Daemon("NetworkManager")], [("daemon", "info", "declare no rule")]),
        ([Daemon("dhcpcd")], [("daemon", "info", "nothing")]),
        ([Daemon("mwan3track")], [("daemon", "warning", "compare its marks")]),
        ([Daemon("pbr")], [("daemon", "warning", "compare its priorities")]),
        ([Daemon("vpnagentd")], [("client", "warning", "look at `ip rule`")]),
    ],
)  # fmt: skip
def test_what_is_said_of_programs(daemons: list[Daemon], told: list[tuple[str, str, str]]) -> None:
    view = View((), (), (), (), Names("rt_tables", (), pathlib.Path("/")), daemons)
    found = audit(view)
    assert [(each.kind, each.severity) for each in found] == [(kind, severity) for kind, severity, _advice in told]
    assert all(each.advice.startswith(advice) for each, (_kind, _severity, advice) in zip(found, told, strict=True))


def test_netplan_and_pbr_are_known_by_their_files(tmp_path: pathlib.Path) -> None:
    write(tmp_path, "etc/netplan/50-cloud.yaml", "network: {}")
    write(tmp_path, "etc/config/pbr", "config pbr 'config'")
    with running(tmp_path):
        assert find_daemons(tmp_path) == [Daemon("netplan"), Daemon("pbr")]
