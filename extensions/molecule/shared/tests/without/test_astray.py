# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts without the collection, before it came and after it went: replies are lost."""

from __future__ import annotations

import typing as t

import pytest

from extensions.molecule.shared.network import Client, Flow, Network, invocation, state, tables
from tests.lab.host import family_of

LOST = {
    "fvt-split": {"Internet -> I", "corporate -> O"},
    "fvt-full": {"Internet -> O", "corporate -> O"},
}
# strongSwan's own table comes first, whatever the source: what its selectors hold goes into the tunnel, and nothing
# else can be reached from the inside address.
# And what Nebula shall carry it lays into main, the Internet's part for the inside address too.
LOST_BY_TABLE = {
    ("nebula", "fvt-split"): {"Internet -> O", "corporate -> O"},
    ("ipsec", "fvt-split"): {"Internet -> O", "corporate -> O"},
    ("ipsec", "fvt-full"): {"Internet -> O", "corporate -> O", "neighbour -> O"},
}
# wg-quick drops what is for its address and comes in by another device, if it carries a full tunnel.
LOST_BY_FIREWALL = {("wireguard", "fvt-full"): {"container -> I"}}
# ocserv takes packets with any source from its clients, so a reply that went astray arrives by luck.
ARRIVES = {"openconnect": {"corporate -> O", "Internet -> O"}}
# The watch is stopped last and may leave an empty lock, gone with the next boot; pyroute2 from a wheel stays.
LEFTOVERS = (
    "/etc /run /usr/local /var/lib -path *fleetvpn* "
    "-not -path /run/systemd/* -not -path /run/fleetvpn -not -path /run/fleetvpn/lock "
    "-not -path /usr/local/lib/fleetvpn -not -path /usr/local/lib/fleetvpn/site-packages*"
)


def test_replies_are_lost(network: Network) -> None:
    found = network.ask(network.asked())
    wrong = [one for one in found if not one.right]
    for client in network.clients:
        lost = LOST_BY_TABLE.get((client.kind, client.name), LOST[client.name])
        lost = lost | LOST_BY_FIREWALL.get((client.kind, client.name), set())
        # All of them, over every protocol, in every family of the tunnel; and nothing else.
        of_client = [one for one in found if one.flow.client == client]
        assert [str(one) for one in of_client if one.right == (is_carried(one.flow) and one.flow.text in lost)] == []
    assert [
        str(one) for one in wrong if one.answer and one.flow.text not in ARRIVES.get(one.flow.client.kind, ())
    ] == []


def is_carried(flow: Flow) -> bool:
    """Whether the tunnel carries its family. To others it is as if there were no tunnel."""
    return family_of(flow.probe.to) in flow.client.families


def test_everything_is_as_it_was(
    network: Network, notes: dict[str, t.Any], write_notes: t.Callable[[dict[str, t.Any]], None]
) -> None:
    """What the collection finds it leaves. The first run, before it comes, writes down what later ones compare with."""
    seen = {
        "unbound": {
            one.flow.label(): [one.answer.ok, one.answer.name, one.answer.seen, sorted(one.left_by)]
            for one in network.ask(network.unbound())
        },
        "state": {client.name: state(network.host(client)) for client in network.clients},
    }
    if not notes:
        units = {client.name: invocation(network.host(client), client.unit) for client in network.clients}
        write_notes({**seen, "units": units})
        return
    assert seen == {key: notes[key] for key in seen}


@pytest.mark.parametrize("family", ["-4", "-6"])
def test_nothing_of_ours_in_the_kernel(network: Network, client: Client, family: str) -> None:
    host = network.host(client)
    entries = [*host.ip_json("-N", family, "rule"), *host.ip_json("-N", family, "route", "show", "table", "all")]
    assert [entry for entry in entries if entry.get("protocol") in ("151", "152")] == []
    assert [link for link in host.ip_json("-N", "link") if link["group"] == "151"] == []
    assert [table for table in tables(host) if "fleetvpn" in table] == []


def test_nothing_of_ours_on_the_disk(network: Network, client: Client) -> None:
    assert network.host(client).run(["find", *LEFTOVERS.split()]).stdout == ""


def test_no_unit_of_ours(network: Network, client: Client) -> None:
    units = network.host(client).run(["systemctl", "list-units", "--all", "--plain", "--no-legend"]).stdout
    assert "fleetvpn" not in units
    assert network.host(client).run(["systemctl", "--failed", "--plain", "--no-legend"]).stdout == ""
