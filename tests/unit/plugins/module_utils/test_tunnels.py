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
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.declaration import (
    TUNNEL_TYPES,
    Declaration,
    Numbers,
)
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.fields import table_id
from ansible_collections.fleetvpn.routing.plugins.module_utils._parse import parse_declaration
from ansible_collections.fleetvpn.routing.plugins.module_utils._tunnels import (
    Client,
    find_clients,
    openconnect,
    ppp,
    refuse_lost_sockets,
    refuse_overtaking,
    told_clients,
)
from ansible_collections.fleetvpn.routing.plugins.module_utils._tunnels.ipsec import DROP_IN as DROP_IN_OF_CHARON
from ansible_collections.fleetvpn.routing.plugins.module_utils._tunnels.running import _KINDS, _PROGRAMS
from ansible_collections.fleetvpn.routing.plugins.module_utils._tunnels.wireguard import DROP_IN

FULL = "[Interface]\nPrivateKey = hush\n{}\n[Peer]\nAllowedIPs = 10.0.0.0/8\n[Peer]\nAllowedIPs = 0.0.0.0/0, ::/0\n"


# What nmcli 1.42 says of an OpenVPN connection that is up, and of one that is down.
NMCLI = """#!/bin/sh
[ "$*" = "--terse --escape no --mode multiline --fields $fields connection show id corp" ] || exit 10
cat "$0.says"
"""
UP = """connection.type:vpn
connection.interface-name:
vpn.service-type:org.freedesktop.NetworkManager.openvpn
IP4.ADDRESS[1]:198.18.128.10/18
IP6.ADDRESS[1]:fe80::e85e:3076:4b7f:723d/64
IP6.ADDRESS[2]:2001:db8:51:128::a/64
"""
DOWN = UP[: UP.index("IP4")]


def declare(
    unbound: str = "keep",
    outer: dict[str, str] | None = None,
    more: t.Mapping[str, t.Any] | None = None,
    **tunnel: t.Any,
) -> Declaration:
    identity = {"name": "inside", "tunnel": tunnel, "outer": outer, "addresses": ["10.30.0.5"], **(more or {})}
    return parse_declaration("main", {"identities": [identity], "unbound": unbound}, Numbers(), table_id)


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


@pytest.mark.parametrize(
    ("connection", "files", "expected"),
    [
        ("tailscale0", {}, ("tailscale", "tailscale0")),
        ("ztabcdef12", {}, ("zerotier", "ztabcdef12")),
        ("corp", {"etc/tinc/corp/tinc.conf": "Name = me\n"}, ("tinc", "corp")),
        ("corp", {"etc/tinc/corp/tinc.conf": "Name=me\nInterface = vpn7\n"}, ("tinc", "vpn7")),
        ("corp", {"etc/nebula/corp.yml": "pki: hush\ntun:\n  #dev: no\n  dev: neb7 # mine\n"}, ("nebula", "neb7")),
        ("neb0", {"etc/nebula/corp.yml": "tun:\n  dev: neb0\n"}, (None, "neb0")),
        ("cscotun0", {}, (None, "cscotun0")),
    ],
)
def test_overlays(tmp_path: Path, connection: str, files: dict[str, str], expected: tuple[str | None, str]) -> None:
    for path, text in files.items():
        write(tmp_path, path, text)
    (client,) = find_clients(declare(type="overlay", connection=connection), tmp_path)
    assert (client.manager, client.interface) == expected
    assert client.needs == ()


@pytest.mark.parametrize("tunnel", [{"manager": "tailscale", "connection": "ts0"}, {"connection": "tailscale0"}])
def test_the_mark_of_tailscales_own_packets_is_known(tunnel: dict[str, str]) -> None:
    assert declare(type="overlay", **tunnel).identities[0].outer.fwmark == (0x80000, 0xFF0000)
    assert declare(type="overlay", connection="neb0").identities[0].outer.fwmark is None


class TestIpsec:
    """strongSwan is told of our tables, unless it leaves the routing alone."""

    CONF = "charon {\n    plugins {\n        include strongswan.d/charon/*.conf\n    }\n}\n"
    SETTINGS: t.ClassVar = {"ignore_routing_tables": "2000 2001", "routing_table_prio": "3220"}

    @staticmethod
    def told(root: Path, **tunnel: t.Any) -> Client:
        clients = find_clients(declare(type="ipsec", connection="hq", **tunnel), root)
        (client,) = told_clients(clients, [2001, 2000, 2001], 3000, root)
        return client

    @pytest.mark.parametrize("directory", ["etc", "etc/strongswan"])
    def test_strongswan_has_to_be_told(self, tmp_path: Path, directory: str) -> None:
        write(tmp_path, f"{directory}/strongswan.conf", self.CONF)
        client = self.told(tmp_path)
        assert (client.manager, client.needs, client.settings) == ("strongswan", ("charon",), self.SETTINGS)
        text = "".join(f"    {key} = {value}\n" for key, value in self.SETTINGS.items())
        write(tmp_path, f"{directory}/{DROP_IN_OF_CHARON}", f"charon {{\n{text}}}\n")
        assert self.told(tmp_path).needs == ()

    def test_of_tables_that_came_since(self, tmp_path: Path) -> None:
        write(tmp_path, "etc/strongswan.conf", self.CONF)
        text = "    ignore_routing_tables = 2000\n    routing_table_prio = 3220\n"
        write(tmp_path, f"etc/{DROP_IN_OF_CHARON}", f"charon {{\n{text}}}\n")
        assert self.told(tmp_path).needs == ("charon",)

    @pytest.mark.parametrize(("line", "needs"), [("install_routes = no", ()), ("# install_routes = no", ("charon",))])
    def test_unless_it_writes_no_routes(self, tmp_path: Path, line: str, needs: tuple[str, ...]) -> None:
        write(tmp_path, "etc/strongswan.conf", self.CONF)
        write(tmp_path, "etc/strongswan.d/charon.conf", f"charon {{\n    {line}\n}}\n")
        assert self.told(tmp_path).needs == needs

    def test_libreswan_has_not(self, tmp_path: Path) -> None:
        write(tmp_path, "usr/libexec/ipsec/pluto", "")
        client = self.told(tmp_path)
        assert (client.manager, client.needs, client.interface) == ("libreswan", (), None)

    def test_its_rule_stays_ahead_of_main(self, tmp_path: Path) -> None:
        write(tmp_path, "etc/strongswan.conf", self.CONF)
        clients = find_clients(declare(type="ipsec", connection="hq"), tmp_path)
        assert told_clients(clients, [2000], 32700, tmp_path)[0].settings["routing_table_prio"] == "32765"


def networkmanager(root: Path, says: str) -> None:
    """A host on which nmcli says so."""
    (root / "run/NetworkManager").mkdir(parents=True, exist_ok=True)
    fields = "connection.type,vpn.service-type,connection.interface-name,IP4.ADDRESS,IP6.ADDRESS"
    write(root, "usr/bin/nmcli", NMCLI.replace("$fields", fields))
    write(root, "usr/bin/nmcli.says", says)
    (root / "usr/bin/nmcli").chmod(0o755)


@pytest.mark.parametrize("manager", [None, "networkmanager"])
def test_networkmanagers_vpn_has_the_device_of_its_addresses(tmp_path: Path, manager: str | None) -> None:
    networkmanager(tmp_path, UP)
    declaration = declare(type="openvpn", connection="corp", manager=manager)
    (client,) = find_clients(declaration, tmp_path, {"2001:db8:51:128::a": "tun4"}.get)
    assert client == Client("inside", "openvpn", "networkmanager", "corp", "tun4")


@pytest.mark.parametrize("manager", [None, "networkmanager"])
def test_networkmanagers_openconnect_has_the_device_of_its_addresses(tmp_path: Path, manager: str | None) -> None:
    networkmanager(tmp_path, UP.replace(".openvpn", ".openconnect"))
    write(tmp_path, openconnect.PROGRAM, "")
    declaration = declare(type="openconnect", connection="corp", manager=manager)
    (client,) = find_clients(declaration, tmp_path, {"198.18.128.10": "vpn0"}.get)
    assert client == Client("inside", "openconnect", "networkmanager", "corp", "vpn0")


def test_networkmanagers_ppp_has_the_device_of_its_addresses_and_pppds_hooks(tmp_path: Path) -> None:
    networkmanager(tmp_path, UP.replace(".openvpn", ".l2tp"))
    write(tmp_path, ppp.PROGRAM, "")
    declaration = declare(type="ppp", connection="corp", manager="networkmanager")
    (client,) = find_clients(declaration, tmp_path, {"198.18.128.10": "ppp3"}.get)
    assert (client.manager, client.interface, client.needs) == ("networkmanager", "ppp3", ("hook",))


def test_networkmanagers_vpn_that_is_down_has_no_device(tmp_path: Path) -> None:
    networkmanager(tmp_path, DOWN)
    (client,) = find_clients(declare(type="openvpn", connection="corp"), tmp_path)
    assert (client.manager, client.interface) == ("networkmanager", None)


@pytest.mark.parametrize("connection", ["other", "--active"])
def test_a_connection_that_networkmanager_does_not_have(tmp_path: Path, connection: str) -> None:
    networkmanager(tmp_path, UP)
    (client,) = find_clients(declare(type="openvpn", connection=connection), tmp_path)
    assert (client.manager, client.interface) == (None, None)


def test_a_connection_of_another_type_is_not_meant(tmp_path: Path) -> None:
    networkmanager(tmp_path, UP.replace(".openvpn", ".openconnect"))
    assert find_clients(declare(type="openvpn", connection="corp"), tmp_path)[0].manager is None


def test_networkmanagers_wireguard_has_the_device_of_its_profile(tmp_path: Path) -> None:
    networkmanager(tmp_path, "connection.type:wireguard\nconnection.interface-name:wg7\n")
    (client,) = find_clients(declare(type="wireguard", connection="corp"), tmp_path)
    assert (client.manager, client.interface, client.takes_over) == ("networkmanager", "wg7", False)


def test_networkmanager_is_not_asked_for_a_client_with_a_file_of_its_own(tmp_path: Path) -> None:
    networkmanager(tmp_path, UP)
    write(tmp_path, "etc/openvpn/client/corp.conf", "client\ndev tun3\n")
    assert find_clients(declare(type="openvpn", connection="corp"), tmp_path)[0].interface == "tun3"


def test_networkd_makes_devices_by_name(tmp_path: Path) -> None:
    netdev = "# comment\n[NetDev]\nName=wg0\nKind=wireguard\n[WireGuard]\nPrivateKey=hush\nFirewallMark=0x1\n"
    write(tmp_path, "etc/systemd/network/50-wg0.netdev", netdev + 2 * "[WireGuardPeer]\nAllowedIPs=0.0.0.0/0\n")
    write(tmp_path, "etc/systemd/network/60-damaged.netdev", "hush\n[NetDev]\nName=wg1\n")
    (client,) = find_clients(declare(type="wireguard", connection="wg0"), tmp_path)
    assert client == Client("inside", "wireguard", "networkd", "wg0", "wg0")
    assert find_clients(declare(type="wireguard", connection="wg1"), tmp_path)[0].manager is None


def test_a_kill_switch_by_user_ids_for_networkmanagers_openvpn_is_refused(tmp_path: Path) -> None:
    networkmanager(tmp_path, DOWN)
    tunnel = {"type": "openvpn", "manager": "networkmanager", "connection": "corp"}
    declaration = declare("inside", {"uidrange": "118-118"}, **tunnel)
    with pytest.raises(InvalidInput, match="first socket") as refused:
        refuse_lost_sockets(declaration, find_clients(declaration, tmp_path))
    assert refused.value.as_result()["field"] == "identities[0].outer.uidrange"
    assert "unbound: keep" in refused.value.as_result()["accepted"]
    for harmless in (
        declare("keep", {"uidrange": "118-118"}, **tunnel),
        declare("inside", {"fwmark": "0x1"}, **tunnel),
        declare("inside", {"uidrange": "118-118"}, **{**tunnel, "manager": "openvpn"}),
    ):
        refuse_lost_sockets(harmless, find_clients(harmless, tmp_path))


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
    declared = declare(more={"interface": [device]}, type="openconnect", manager=manager)
    (client,) = find_clients(declared, tmp_path)
    assert (client.manager, client.interface, client.needs) == (found, device, ())
    assert [f"the client {found} is tolerated, not supported" in line for line in client.remarks] == [True] * bool(
        found
    )
    destined = declare(
        more={"interface": [device], "destinations": ["10.0.0.0/8"]}, type="openconnect", manager=manager
    )
    if found is None:
        find_clients(destined, tmp_path)
        return
    with pytest.raises(InvalidInput, match="would be routes in table main") as refused:
        find_clients(destined, tmp_path)
    assert refused.value.field == "identities[0].destinations"


HOOK = Path(__file__).parents[4] / "roles" / "vpn_ppp" / "files" / "hook.sh"
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
            write(tmp_path, f"etc/ppp/{name}", HOOK.read_text())
            (tmp_path / "etc/ppp" / name).chmod(0o755)


@pytest.mark.parametrize("name", ["ip-pre-up", "ip-up"])
@pytest.mark.parametrize("line", ["mine", "/usr/local/sbin/fleetvpn-endpoint hook ppp  # as the guide says"])
def test_a_script_of_somebody_else_stays(tmp_path: Path, name: str, line: str) -> None:
    write(tmp_path, ppp.PROGRAM, "")
    write(tmp_path, f"etc/ppp/{name}", f"#!/bin/sh\n{line}\n")
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


def test_a_running_client_of_every_type_is_known() -> None:
    """By its device or by its program; that it is found so is for tests/functional/test_discover.py."""
    assert {*_KINDS.values(), *(tunnel_type for tunnel_type, _options in _PROGRAMS.values())} == set(TUNNEL_TYPES)
