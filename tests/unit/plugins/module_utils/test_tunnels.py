# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which VPN client is behind a tunnel, and whether it would jump ahead of our rules."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import Conflict, InvalidInput
from ansible_collections.fleetvpn.routing.plugins.module_utils._leases import lease_gateways
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.declaration import Declaration, Numbers
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.fields import table_id
from ansible_collections.fleetvpn.routing.plugins.module_utils._parse import parse_declaration
from ansible_collections.fleetvpn.routing.plugins.module_utils._tunnels import (
    Client,
    find_clients,
    openconnect,
    ppp,
    refuse_overtaking,
)
from ansible_collections.fleetvpn.routing.plugins.module_utils._tunnels.wireguard import DROP_IN

FULL = "[Interface]\nPrivateKey = hush\n{}\n[Peer]\nAllowedIPs = 10.0.0.0/8\n[Peer]\nAllowedIPs = 0.0.0.0/0, ::/0\n"


def declare(more: t.Mapping[str, t.Any] | None = None, **tunnel: t.Any) -> Declaration:
    identity = {"name": "inside", "tunnel": tunnel, **(more or {})}
    return parse_declaration("main", {"identities": [identity]}, Numbers(), table_id)


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("config", "takes_over"),
    [
        (FULL.format(""), True),
        (FULL.format("Table = auto"), True),
        (FULL.format("# Table = off"), True),
        (FULL.format("Table = off"), False),
        (FULL.format("table=1234"), False),
        (FULL.format("").replace("0.0.0.0/0, ::/0", "10.0.0.0/8"), False),
    ],
)
def test_wg_quick_with_a_peer_for_everything(tmp_path: Path, config: str, takes_over: bool) -> None:
    write(tmp_path, "etc/wireguard/wg0.conf", config)
    (client,) = find_clients(declare(type="wireguard", connection="wg0"), tmp_path)
    assert client == Client("inside", "wireguard", "wg-quick", "wg0", "wg0", ("table_off",) if takes_over else ())
    if takes_over:
        with pytest.raises(Conflict, match=r"role fleetvpn\.routing\.vpn_wireguard") as refused:
            refuse_overtaking([client])
        assert "hush" not in str(refused.value.as_result())


def test_a_unit_that_starts_from_a_derived_file_is_no_danger(tmp_path: Path) -> None:
    write(tmp_path, "etc/wireguard/wg0.conf", FULL.format(""))
    write(tmp_path, DROP_IN.format("wg0"), "[Service]\n")
    assert not find_clients(declare(type="wireguard", connection="wg0"), tmp_path)[0].takes_over


def test_openvpn_with_a_stated_device(tmp_path: Path) -> None:
    write(tmp_path, "etc/openvpn/client/corp.conf", "client\ndev tun3\n<key>\nhush\n</key>\n")
    (client,) = find_clients(declare(type="openvpn", connection="corp"), tmp_path)
    assert (client.manager, client.interface) == ("openvpn", "tun3")


def test_openvpn_with_a_device_of_the_kernels_choice(tmp_path: Path) -> None:
    write(tmp_path, "etc/openvpn/client/corp.conf", "client\ndev tun\n")
    (waiting,) = find_clients(declare(type="openvpn", connection="corp"), tmp_path)
    write(tmp_path, "proc/77/cmdline", "/usr/sbin/openvpn\0--config\0corp.conf\0")
    write(tmp_path, "proc/77/fdinfo/5", "pos:\t0\nflags:\t02\niff:\ttun7\n")
    write(tmp_path, "proc/78/cmdline", "/usr/sbin/openvpn\0--config\0other.conf\0")
    write(tmp_path, "proc/78/fdinfo/5", "iff:\ttun8\n")
    (running,) = find_clients(declare(type="openvpn", connection="corp"), tmp_path)
    assert (waiting.interface, running.interface) == (None, "tun7")


@pytest.mark.parametrize("connection", ["openconnect@corp", "openconnect@corp.service", "corp"])
@pytest.mark.parametrize("groups", ["0::/system.slice/system-openconnect.slice/{}", "4:memory:/\n1:name=systemd:/{}"])
def test_openconnect_by_the_unit_that_runs_it(tmp_path: Path, connection: str, groups: str) -> None:
    write(tmp_path, openconnect.PROGRAM, "")
    (waiting,) = find_clients(declare(type="openconnect", connection=connection), tmp_path)
    for number, unit in ((77, "openconnect@lab.service"), (78, "openconnect@corp.service"), (79, "ssh.service")):
        write(tmp_path, f"proc/{number}/cmdline", "/usr/sbin/openconnect\0--config\0x\0" if number < 79 else "sshd\0")
        write(tmp_path, f"proc/{number}/cgroup", groups.format(unit) + "\n")
        write(tmp_path, f"proc/{number}/fdinfo/5", f"pos:\t0\niff:\ttun{number}\n")
    (running,) = find_clients(declare(type="openconnect", connection=connection), tmp_path)
    assert (waiting.manager, waiting.interface, running.interface) == ("openconnect", None, "tun78")


def test_openconnect_needs_its_hooks_where_it_is_installed(tmp_path: Path) -> None:
    def needs() -> tuple[str, ...]:
        return find_clients(declare(type="openconnect", connection="corp"), tmp_path)[0].needs

    assert needs() == ()
    write(tmp_path, openconnect.PROGRAM, "")
    assert needs() == ("hook",)
    for hook in openconnect.HOOKS:
        write(tmp_path, hook, "")
    assert needs() == ()
    (tmp_path / openconnect.HOOKS[0]).chmod(0o664)
    assert needs() == ("hook",)


def test_networkmanagers_openconnect_runs_no_hooks(tmp_path: Path) -> None:
    write(tmp_path, openconnect.PROGRAM, "")
    (client,) = find_clients(declare(type="openconnect", connection="Corp", manager="networkmanager"), tmp_path)
    assert (client.manager, client.needs, client.hooks, client.remarks) == ("networkmanager", (), (), ())


@pytest.mark.parametrize(
    ("device", "manager", "found"),
    [
        ("cscotun0", None, "cisco"),
        ("gpd0", None, "globalprotect"),
        ("fctvpn1a2b3c4d", None, "forticlient"),
        ("tun0", "ivanti", "ivanti"),
        ("tun0", None, None),
    ],
)
def test_clients_of_vendors_are_told_apart(tmp_path: Path, device: str, manager: str | None, found: str | None) -> None:
    declared = declare({"interface": [device]}, type="openconnect", manager=manager)
    (client,) = find_clients(declared, tmp_path)
    assert (client.manager, client.interface, client.needs) == (found, device, ())
    assert [f"the client {found} is tolerated, not supported" in line for line in client.remarks] == [True] * bool(
        found
    )
    destined = declare({"interface": [device], "destinations": ["10.0.0.0/8"]}, type="openconnect", manager=manager)
    if found is None:
        find_clients(destined, tmp_path)
        return
    with pytest.raises(InvalidInput, match="would be routes in table main") as refused:
        find_clients(destined, tmp_path)
    assert refused.value.field == "identities[0].destinations"


DEBIAN_UP = (
    "if [ -x /etc/ppp/ip-up.local ]; then\n  exec /etc/ppp/ip-up.local\nfi\nrun-parts /etc/ppp/ip-up.d --arg=x\n"
)
ARCH_UP = "for ipup in /etc/ppp/ip-up.d/*.sh; do\n  $ipup\ndone\n"
SUSE_UP = "# Put your scripts into ip-{up,down}.d/* instead\n"
FEDORA_UP = "[ -x /etc/ppp/ip-up.local ] && /etc/ppp/ip-up.local\n"
DEBIAN_PRE = "exec /etc/ppp/ip-pre-up.local\nrun-parts /etc/ppp/ip-pre-up.d\n"


@pytest.mark.parametrize(
    ("files", "hooks"),
    [
        (
            {"ip-pre-up": DEBIAN_PRE, "ip-pre-up.d/x": "", "ip-up": DEBIAN_UP, "ip-up.d/x": ""},
            ["ip-pre-up.d/fleetvpn", "ip-up.d/fleetvpn"],
        ),
        ({"ip-up": ARCH_UP, "ip-up.d/x.sh": ""}, ["ip-pre-up", "ip-up.d/fleetvpn.sh"]),
        ({"ip-up": SUSE_UP, "ip-up.d/x": ""}, ["ip-pre-up", "ip-up.d/fleetvpn"]),
        ({"ip-up": FEDORA_UP}, ["ip-pre-up", "ip-up.local"]),
        ({}, ["ip-pre-up", "ip-up"]),
    ],
    ids=["Debian", "Arch", "SUSE", "Fedora", "none"],
)
def test_where_a_distributions_pppd_finds_scripts(tmp_path: Path, files: dict[str, str], hooks: list[str]) -> None:
    write(tmp_path, ppp.PROGRAM, "")
    for name, text in files.items():
        write(tmp_path, f"etc/ppp/{name}", text)
    for round_ in ("missing", "there"):
        (client,) = find_clients(declare(type="ppp", connection="corp"), tmp_path)
        assert (list(client.hooks), client.remarks) == ([f"/etc/ppp/{name}" for name in hooks], ())
        assert client.needs == (("hook",) if round_ == "missing" else ())
        for name in hooks:
            write(tmp_path, f"etc/ppp/{name}", f"#!/bin/sh\n/usr/local/sbin/{ppp.MARK}\n")
            (tmp_path / "etc/ppp" / name).chmod(0o755)


@pytest.mark.parametrize("name", ["ip-pre-up", "ip-up"])
def test_a_script_of_somebody_else_stays(tmp_path: Path, name: str) -> None:
    write(tmp_path, ppp.PROGRAM, "")
    write(tmp_path, f"etc/ppp/{name}", "#!/bin/sh\nmine\n")
    (client,) = find_clients(declare(type="ppp", connection="corp"), tmp_path)
    assert f"/etc/ppp/{name}" not in client.hooks
    assert client.remarks == (f"identity inside: /etc/ppp/{name} is somebody else's, so the watch alone follows",)


def test_a_local_script_that_replaces_debians_directory_is_named(tmp_path: Path) -> None:
    write(tmp_path, ppp.PROGRAM, "")
    write(tmp_path, "etc/ppp/ip-up", DEBIAN_UP)
    write(tmp_path, "etc/ppp/ip-up.d/x", "")
    write(tmp_path, "etc/ppp/ip-up.local", "")
    assert find_clients(declare(type="ppp", connection="corp"), tmp_path)[0].remarks == ()
    (tmp_path / "etc/ppp/ip-up.local").chmod(0o755)
    assert find_clients(declare(type="ppp", connection="corp"), tmp_path)[0].remarks == (
        "identity inside: /etc/ppp/ip-up.local replaces all of /etc/ppp/ip-up.d, so the watch alone follows",
    )


@pytest.mark.parametrize(
    ("peer", "device"),
    [
        ("# hush\nuser 'a b' password \"hu'sh\"\nifname vpn7 persist\n", "vpn7"),
        ("nodetach\nunit\n3\n", "ppp3"),
        ("user me # ifname no\n", None),
        ("user 'me\nifname no\n", None),
    ],
)
def test_the_device_that_a_peer_asks_for(tmp_path: Path, peer: str, device: str | None) -> None:
    write(tmp_path, "etc/ppp/peers/corp", peer)
    (client,) = find_clients(declare(type="ppp", connection="corp"), tmp_path)
    assert client.interface == device


@pytest.mark.parametrize("words", ["call\0corp", "ipparam\0corp", "linkname\0corp", "file\0/etc/ppp/corp"])
@pytest.mark.parametrize("run", ["run", "run/pppd"])
def test_the_device_that_pppd_got(tmp_path: Path, words: str, run: str) -> None:
    for number, process in enumerate(("/usr/sbin/pppd\0call\0lab", f"pppd\0debug\0{words}", f"sh\0{words}")):
        write(tmp_path, f"proc/{70 + number}/cmdline", process + "\0")
        write(tmp_path, f"{run}/ppp{number}.pid", f"{70 + number}\n")
    (client,) = find_clients(declare(type="ppp", connection="corp"), tmp_path)
    assert client.interface == "ppp1"


def test_a_manager_that_starts_no_such_tunnel(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInput, match=r"identities\[0\]\.tunnel\.manager: 'wg-quick' starts no tunnel of this type"
    ):
        find_clients(declare(type="openconnect", connection="corp", manager="wg-quick"), tmp_path)


def test_something_must_say_which_device_is_meant(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="names neither connection nor interface"):
        find_clients(declare(type="wireguard"), tmp_path)


def test_gateways_of_leases(tmp_path: Path) -> None:
    write(tmp_path, "run/systemd/netif/leases/2", "# This is private data.\nADDRESS=192.0.2.10\nROUTER=192.0.2.1\n")
    write(tmp_path, "run/NetworkManager/devices/3", "[device]\nmanaged=true\n[dhcp4]\nrouters=10.9.0.1 10.9.0.2\n")
    write(tmp_path, "run/NetworkManager/devices/4", "\0damaged")
    names = {2: "up0", 3: "up1", 4: "up2", 5: "up3"}
    assert lease_gateways(names, tmp_path) == {"up0": ("192.0.2.1",), "up1": ("10.9.0.1", "10.9.0.2")}
