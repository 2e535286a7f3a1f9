# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""openconnect and the distribution's vpnc-script: what our hooks add to the watch, and hostile values.

The whole story of such a tunnel is told with the others', in test_endtoend.py.
"""

from __future__ import annotations

import os
import threading
import time
import typing as t

import pytest

from tests.functional import onhost
from tests.functional.hooks import (
    CANARY,
    CLEAN,
    HOSTILE,
    INHERITED,
    Log,
    environments,
    record_environments,
    refused,
    state,
)
from tests.lab import Client, Host, Lab, Probe
from tests.lab import addresses as plan
from tests.lab.senders import no_leak

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

HOOK = onhost.REPOSITORY / "roles" / "vpn_openconnect" / "files" / "hook.sh"
HOOKS = ["/etc/vpnc/connect.d/fleetvpn", "/etc/vpnc/post-connect.d/fleetvpn"]
SCRIPT = "/usr/share/vpnc-scripts/vpnc-script"
IDENTITIES: list[dict[str, t.Any]] = [
    {"name": "outside", "interface": "auto"},
    {
        "name": "inside",
        "tunnel": {"type": "openconnect", "connection": "openconnect@corp"},
        "interface": "oc0",
        "pools": list(plan.OPENCONNECT_POOL),
    },
]


@pytest.fixture(scope="module")
def lab() -> t.Iterator[Lab]:
    with Lab() as lab:
        lab.serve(lab.outside, lab.corporate)
        yield lab


def make(lab: Lab, name: str, mode: str = "split") -> Client:
    """A client with pyroute2, declared before its tunnel comes up for the first time."""
    client = lab.client(name, "openconnect", mode=mode)
    onhost.provide_pyroute2(client.host)
    declared = declare(client.host)
    assert [entry["verdict"] for entry in declared["identities"]] == ["proven", "pending"]
    return client


def declare(host: Host, **params: t.Any) -> dict[str, t.Any]:
    """Module endpoint, which must succeed."""
    found = onhost.declare(host, identities=IDENTITIES, **params)
    assert not found.get("failed"), found
    return found


def install(host: Host, text: str = HOOK.read_text()) -> None:
    """The hooks, as the role puts them."""
    for path in HOOKS:
        host.write(path, text, 0o644)


class Talker:
    """Sends from the outside addresses to the corporate network, as a connection of long standing would."""

    def __init__(self, client: Client) -> None:
        self._sockets = [
            (client.host.socket(10 if ":" in own else 2, 2), own, to)
            for own, to in zip(client.outside, plan.CORPORATE_HOST, strict=True)
        ]
        for made, own, _to in self._sockets:
            made.bind((own, 0))
        self.refused = 0  # by the egress guard
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._talk, daemon=True)

    def _talk(self) -> None:
        while not self._ending.wait(0.0005):
            for made, _own, to in self._sockets:
                try:
                    made.sendto(b"?", (to, 9))
                except PermissionError:
                    self.refused += 1

    def __enter__(self) -> Talker:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ending.set()
        self._thread.join()
        for made, _own, _to in self._sockets:
            made.close()


class TestHooks:
    def test_they_are_missed_until_they_are_there(self, lab: Lab) -> None:
        host = make(lab, "missed").host
        [found] = declare(host)["tunnels"]
        assert (found["manager"], found["interface"], found["needs"], found["hooks"]) == (
            "openconnect",
            "oc0",
            ["hook"],
            HOOKS,
        )
        install(host)
        assert declare(host)["tunnels"][0]["needs"] == []
        host.run(["chmod", "o+w", HOOKS[1]])
        assert declare(host)["tunnels"][0]["needs"] == ["hook"]

    @pytest.mark.parametrize("hooked", [True, False])
    def test_no_packet_of_the_outside_address_is_lost_as_the_tunnel_comes_up(self, lab: Lab, hooked: bool) -> None:
        """Neither in the tunnel nor to the egress guard. No watch runs: vpnc-script waited for what is right."""
        client = make(lab, f"wait{hooked:d}")
        if hooked:
            install(client.host)
        with lab.capture(client.host) as seen, Talker(client) as talker:
            client.up()
            time.sleep(0.2)
        astray = [packet for packet in seen.packets(outgoing=True, dev="oc0") if packet.source in client.outside]
        right = [row for row in lab.survey([client], timeout=0.5) if row.right]
        assert len(seen.packets(outgoing=True, dev="up0", source=client.outside[0])) > 100
        if hooked:
            assert (astray, talker.refused, len(right)) == ([], 0, 12)
        else:
            assert len(astray) + talker.refused > 0, "the test cannot fail"
            assert len(right) < 12

    def test_with_full_tunnel_and_identity_alone(self, lab: Lab) -> None:
        for mode in ("full", "identity"):
            client = make(lab, f"hook-{mode}", mode)
            install(client.host)
            started = time.monotonic()
            client.up()
            print(f"{mode}: up after {time.monotonic() - started:.1f} s")
            assert [row for row in lab.survey([client]) if not row.right] == []
            own = client.inside if mode == "full" else client.outside
            assert [lab.probe(client.host, to, "tcp").seen for to in plan.OUTSIDE_HOST] == list(own)

    def test_a_reconnect_keeps_addresses_and_device_and_leaks_nothing(self, lab: Lab) -> None:
        client = make(lab, "again")
        install(client.host)
        client.up()
        before = state(client.host), client.host.index("oc0")
        with no_leak(client.host, *client.inside) as seen:
            onhost.eventually(lambda: all(seen.left_by(source=address) for address in client.inside))
            client.tunnel.reconnect()
        assert [seen.left_by(source=address) for address in client.inside] == [{"oc0"}] * 2
        assert (state(client.host), client.host.index("oc0")) == before
        assert [row for row in lab.survey([client]) if not row.right] == []

    def test_nothing_of_them_reaches_the_shell_that_sources_them(self, lab: Lab) -> None:
        host = make(lab, "sourced").host
        install(host)
        for program in ("", "rm /usr/local/sbin/fleetvpn-endpoint; "):
            said = host.shell(f"{program}set -u; set >/run/before; . {HOOKS[0]}; set >/run/after; echo alive")
            assert said == "alive\n"
            assert host.run(["diff", "/run/before", "/run/after"], check=False).stdout == ""

    def test_they_end_in_time(self, lab: Lab) -> None:
        host = make(lab, "slow").host
        install(host, HOOK.read_text().replace("--kill-after=5 20", "--kill-after=1 1"))
        host.write(onhost.PROGRAM, "#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 1; done\n", 0o755)
        started = time.monotonic()
        assert host.shell(f". {HOOKS[0]}; echo alive") == "alive\n"
        assert time.monotonic() - started < 5


@pytest.fixture(scope="module")
def client(lab: Lab) -> Client:
    """A hooked client whose tunnel is up."""
    client = make(lab, "hostile")
    install(client.host)
    client.up()
    declare(client.host)
    return client


@pytest.fixture(scope="module")
def log(client: Client) -> t.Iterator[Log]:
    log = Log(client.host)
    yield log
    log.close()


class TestHostileServer:
    READ = ("TUNDEV", "INTERNAL_IP4_ADDRESS", "INTERNAL_IP6_ADDRESS", "INTERNAL_IP6_NETMASK")
    GOOD: t.ClassVar[dict[str, str]] = {
        "reason": "connect",
        "TUNDEV": "oc9",
        "VPNGATEWAY": "127.0.0.1",
        "INTERNAL_IP4_ADDRESS": "198.18.32.77",
        "CISCO_SPLIT_INC": "0",
        "CISCO_IPV6_SPLIT_INC": "0",
    }

    def test_what_is_as_it_should_be_is_said(self, client: Client, log: Log) -> None:
        assert self.called(client, log)[0] == "openconnect: connect oc9 198.18.32.77"

    @pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
    def test_nothing_changes_but_for_lines_in_the_log(self, client: Client, log: Log, value: str) -> None:
        before = state(client.host)
        lines = self.called(client, log, CISCO_BANNER=value, **dict.fromkeys(self.READ, value))
        assert state(client.host) == before
        assert client.host.run(["test", "-e", CANARY], check=False).returncode == 1
        # To the kernel, --help is a name like any other.
        expected = [name for name in self.READ if (name, value) != ("TUNDEV", "--help")]
        assert refused(lines, "openconnect") == expected * len(HOOKS)
        assert any(line.startswith("main: ") for line in lines)

    def called(self, client: Client, log: Log, **values: str) -> list[str]:
        """The real vpnc-script, with such an environment; what the hooks said."""
        log.lines()
        client.host.run([SCRIPT], env={**self.GOOD, **values}, check=False)
        return log.lines()

    def test_nothing_is_inherited_but_what_is_handed_on(self, lab: Lab) -> None:
        host = make(lab, "inherited").host
        install(host)
        record_environments(host)
        pushed = {"CISCO_BANNER": "x", "CISCO_DEF_DOMAIN": "example.org", "INTERNAL_IP6_NETMASK": "2001:db8::7/128"}
        host.run([SCRIPT], env={**self.GOOD, **INHERITED, **pushed}, check=False)
        handed = {"reason": "connect", **dict.fromkeys(self.READ, ""), "TUNDEV": "oc9"}
        handed.update(INTERNAL_IP4_ADDRESS="198.18.32.77", INTERNAL_IP6_NETMASK="2001:db8::7/128")
        assert environments(host) == [{**CLEAN, **handed}] * len(HOOKS)


class TestFullTunnel:
    """It replaces main's IPv4 default, and a killed client does not put it back."""

    def test_the_gateway_is_found_where_main_has_none(self, lab: Lab) -> None:
        client = make(lab, "bare", "full")
        declare(client.host, state="absent")
        client.up()
        assert [entry["verdict"] for entry in declare(client.host)["identities"]] == ["proven", "proven"]
        assert [row for row in lab.survey([client]) if not row.right] == []

    def test_the_outside_address_survives_a_killed_client(self, lab: Lab) -> None:
        client = make(lab, "killed", "full")
        install(client.host)
        client.up()
        client.tunnel.kill()
        assert client.host.ip_json("route", "show", "default") == []
        for again in (False, True):
            if again:
                assert [entry["verdict"] for entry in declare(client.host)["identities"]] == ["proven", "pending"]
            asked = [Probe(host, to) for host in (lab.outside, lab.corporate) for to in client.outside]
            assert [answer.error for answer in lab.probes(asked)] == [""] * 4
        client.up()
        assert [row for row in lab.survey([client]) if not row.right] == []
        assert declare(client.host)["changed"] is False
