# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tunnels that change under the collection: other inside addresses, daemons that end without notice, a reload."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
import typing as t

import pytest

from extensions.molecule.shared.network import UPLINK, Client, Network, invocation, wait
from tests.lab import addresses as plan
from tests.lab.host import Host
from tests.lab.senders import no_leak

ABSENT = 1  # seconds that addresses send without their device
CONFIGURATION, DERIVED = "/etc/wireguard/wg0.conf", "/run/fleetvpn/wg-quick"


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
    for client in network.clients:
        with held_to_the_tunnel(network, client, client.inside):
            network.host(client).run(["systemctl", "kill", "--signal", "KILL", client.unit])
            wait(lambda client=client: not network.host(client).has_device(client.tunnel), "end of the device")
            time.sleep(ABSENT)
        if not comes_back(network.host(client), client.unit):
            network.host(client).run(["systemctl", "restart", client.unit])
    try:
        network.right_soon()
    finally:
        put_back(network)


def comes_back(host: Host, unit: str) -> bool:
    """Whether systemd starts it anew whatever ended it."""
    return host.run(["systemctl", "show", "--value", "--property", "Restart", unit]).stdout.strip() == "always"


def test_a_reload(network: Network, client: Client) -> None:
    """It calls no hook of wg-quick. The tunnel takes what its owner wrote anew, and goes on as it is in all else."""
    if client.kind != "wireguard":
        pytest.skip("the collection has no part in the reload of this VPN")
    host = network.host(client)
    before = as_it_runs(host, client)
    is_derived = client.name == "fvt-full"
    assert [before["mark"] != "off", before["derived"] == "wg0.conf root:root 600"] == [is_derived] * 2
    with held_to_the_tunnel(network, client, client.inside):
        for seconds in ("3", "2"):
            host.run(["sed", "-i", f"s/^PersistentKeepalive = .*/PersistentKeepalive = {seconds}/", CONFIGURATION])
            host.run(["systemctl", "reload", client.unit])
            assert host.run(["wg", "show", client.tunnel, "persistent-keepalive"]).stdout.split()[1:] == [seconds]
            assert as_it_runs(host, client) == before
    network.right_soon()


def as_it_runs(host: Host, client: Client) -> dict[str, str | list[str]]:
    """What a reload leaves alone: which run it is, the mark of its packets, addresses, and who may read its keys."""
    entries = host.ip_json("address", "show", "dev", client.tunnel)[0]["addr_info"]
    return {
        "run": invocation(host, client.unit),
        "mark": host.run(["wg", "show", client.tunnel, "fwmark"]).stdout.strip(),
        "addresses": [entry["local"] for entry in entries],
        "derived": host.run(["find", DERIVED, "-type", "f", "-printf", "%P %u:%g %m"], check=False).stdout,
    }


@contextlib.contextmanager
def held_to_the_tunnel(network: Network, client: Client, addresses: t.Sequence[str]) -> t.Iterator[None]:
    """While it lasts, addresses send, first by the tunnel, and nothing of it leaves by the uplink."""
    questions = [{"source": address, "destination": plan.OUTSIDE_HOST[":" in address]} for address in addresses]
    with no_leak(network.host(client), *addresses) as seen:
        # Now: what left by a device that is gone is seen without its name.
        wait(lambda: all(seen.left_by(**each) == {client.tunnel} for each in questions), "packets in the tunnel")
        yield


def change(network: Network, shift: int) -> None:
    """Give all clients addresses that many further on; neither those nor the old ones leave by the uplink meanwhile."""
    after = [dataclasses.replace(client, shift=client.shift + shift) for client in network.clients]
    with contextlib.ExitStack() as stack:
        for old, new in zip(network.clients, after, strict=True):
            stack.enter_context(held_to_the_tunnel(network, old, [*old.inside, *new.inside]))
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
