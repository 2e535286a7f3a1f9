# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tunnels that change under the collection: other inside addresses, and daemons that end without notice."""

from __future__ import annotations

import dataclasses
import re
import typing as t

import pytest

from extensions.molecule.shared.network import UPLINK, Client, Network, wait
from tests.lab import addresses as plan
from tests.lab.capture import Capture
from tests.lab.host import Host


@pytest.fixture
def renumbered(network: Network) -> t.Iterator[None]:
    """Every client with other inside addresses, as its VPN brings them; then with those that it had."""
    before = network.clients
    change(network, 40)
    yield
    change(network, -40)
    assert network.clients == before


def test_other_inside_addresses(network: Network, renumbered: None) -> None:
    network.right_soon()


def test_a_killed_daemon(network: Network) -> None:
    """Nothing with an inside source leaves by the uplink while it is gone, and all is right when it is back."""
    captures = [Capture(network.host(client)) for client in network.clients]
    for client, capture in zip(network.clients, captures, strict=True):
        with capture:
            network.host(client).run(["systemctl", "kill", "--signal", "KILL", client.unit])
            wait(lambda client=client: not network.host(client).has_device(client.tunnel), "end of the device")
            for address in client.inside:
                to = plan.OUTSIDE_HOST[":" in address]
                network.host(client).run(["ping", "-c1", "-W1", "-I", address, to], check=False)
        assert UPLINK not in {dev for address in client.inside for dev in capture.left_by(source=address)}
        if not comes_back(network.host(client), client.unit):
            network.host(client).run(["systemctl", "restart", client.unit])
    try:
        network.right_soon()
    finally:
        put_back(network)


def comes_back(host: Host, unit: str) -> bool:
    """Whether systemd starts it anew whatever ended it."""
    return host.run(["systemctl", "show", "--value", "--property", "Restart", unit]).stdout.strip() == "always"


def change(network: Network, shift: int) -> None:
    """Give all clients addresses that many further on."""
    after = [dataclasses.replace(client, shift=client.shift + shift) for client in network.clients]
    for old, new in zip(network.clients, after, strict=True):
        _CHANGES[old.kind](network, old, new)
    network.clients = after
    network.wait_for_tunnels()


def _by_ocserv(network: Network, old: Client, new: Client) -> None:
    gateway = network.hosts["fvt-gateway"]
    substitute(network, f"/etc/ocserv/users/{old.name}", old, new)
    gateway.run(["occtl", "-s", "/run/occtl.socket", "disconnect", "user", old.name])


def _by_nebula(network: Network, old: Client, new: Client) -> None:
    """The address is in the certificate, and a reload refuses one with another."""
    gateway, host = network.hosts["fvt-gateway"], network.host(old)
    certificate = f"/etc/nebula/{old.name}.crt"
    address = f"{new.inside[0]}/{plan.length(plan.NEBULA_POOL[0])}"
    gateway.run(["rm", certificate])
    authority = ["-ca-key", "/etc/nebula/ca.key", "-ca-crt", "/etc/nebula/ca.crt"]
    subject = ["-name", old.name, "-ip", address, "-in-pub", f"/etc/nebula/{old.name}.pub"]
    gateway.run(["nebula-cert", "sign", *authority, *subject, "-out-crt", certificate])
    host.write("/etc/nebula/host.crt", gateway.read(certificate), 0o644)
    host.run(["systemctl", "restart", old.unit])


def _by_openvpn(network: Network, old: Client, new: Client) -> None:
    substitute(network, f"/etc/openvpn/ccd/{old.name}", old, new)
    network.host(old).run(["systemctl", "kill", "--signal", "USR1", old.unit])


def _by_strongswan(network: Network, old: Client, new: Client) -> None:
    """A pool that is in use cannot be replaced: the server forgets who has which address."""
    gateway = network.hosts["fvt-gateway"]
    substitute(network, "/etc/swanctl/conf.d/corp.conf", old, new)
    gateway.run(["systemctl", "restart", old.unit])
    network.host(old).run(["systemctl", "restart", old.unit])


def _by_tinc(network: Network, old: Client, new: Client) -> None:
    name = old.name.partition("-")[2]
    for host in (network.hosts["fvt-gateway"], network.host(old)):
        substitute(network, f"/etc/tinc/corp/hosts/{name}", old, new, host)
    substitute(network, "/etc/tinc/corp/tinc-up", old, new, network.host(old))
    network.host(old).run(["systemctl", "restart", old.unit])


def _by_pppd(network: Network, old: Client, new: Client) -> None:
    """A new link brings other addresses."""
    substitute(network, "/etc/ppp/corp.json", old, new, network.host(old))
    network.host(old).run(["systemctl", "restart", old.unit])


def _by_hand(network: Network, old: Client, new: Client) -> None:
    """No hook of wg-quick is called when somebody else changes its addresses."""
    key = network.host(old).run(["wg", "show", "wg0", "public-key"]).stdout.strip()
    allowed = ",".join(f"{address}/{128 if ':' in address else 32}" for address in new.inside)
    network.hosts["fvt-gateway"].run(["wg", "set", "wg0", "peer", key, "allowed-ips", allowed])
    for verb, addresses in (("add", new.inside), ("del", old.inside)):
        for address in addresses:
            network.host(old).run(["ip", "address", verb, address, "dev", "wg0"])


_CHANGES: dict[str, t.Callable[[Network, Client, Client], None]] = {
    "ipsec": _by_strongswan,
    "nebula": _by_nebula,
    "openconnect": _by_ocserv,
    "openvpn": _by_openvpn,
    "overlay": _by_tinc,
    "ppp": _by_pppd,
    "wireguard": _by_hand,
}


def substitute(network: Network, path: str, old: Client, new: Client, host: Host | None = None) -> None:
    """Other addresses in a file, of the gateway unless said otherwise."""
    where = host or network.hosts["fvt-gateway"]
    text = where.read(path)
    for before, after in zip(old.inside, new.inside, strict=True):
        text, count = re.subn(rf"(?<![\w:.]){re.escape(before)}(?![\w:.])", after, text)
        assert count
    where.write(path, text, int(where.run(["stat", "-c", "%a", path]).stdout, 8))


def put_back(network: Network) -> None:
    """Who was killed has not put back the default that it replaced: as the next lease would."""
    client = network.clients[1]
    if client.kind in ("openconnect", "ppp"):
        host = network.host(client)
        host.run(["systemctl", "stop", client.unit])
        host.run(["ip", "route", "replace", "default", "via", plan.in_lan(0, 1)[0], "dev", UPLINK])
        host.run(["systemctl", "start", client.unit])
    network.wait_for_tunnels()
