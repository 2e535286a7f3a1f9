# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The distribution's own /etc/ppp scripts with our hooks, on a stand-in for pppd's device."""

from __future__ import annotations

import os
import subprocess
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

HOOK = onhost.REPOSITORY / "roles" / "vpn_ppp" / "files" / "hook.sh"
HOOKS = ["/etc/ppp/ip-pre-up.d/fleetvpn", "/etc/ppp/ip-up.d/fleetvpn"]
IDENTITIES: list[dict[str, t.Any]] = [
    {"name": "outside", "interface": "auto"},
    {"name": "inside", "tunnel": {"type": "ppp", "connection": "corp"}, "pools": list(plan.PPP_POOL)},
]


@pytest.fixture(scope="module")
def lab() -> t.Iterator[Lab]:
    with Lab() as lab:
        lab.serve(lab.outside, lab.corporate)
        yield lab


def make(lab: Lab, name: str, mode: str = "split") -> Client:
    """A client with pyroute2, declared before its link comes up for the first time."""
    client = lab.client(name, "ppp", mode=mode)
    onhost.provide_pyroute2(client.host)
    declared = declare(client.host)
    assert [entry["verdict"] for entry in declared["identities"]] == ["proven", "pending"]
    return client


def declare(host: Host, **params: t.Any) -> dict[str, t.Any]:
    """Module endpoint, which must succeed."""
    found = onhost.declare(host, identities=IDENTITIES, **params)
    assert not found.get("failed"), found
    return found


def install(host: Host) -> None:
    """The hooks, as the role puts them."""
    for path in HOOKS:
        host.write(path, HOOK.read_text(), 0o755)


class TestHooks:
    def test_they_are_missed_until_they_are_there(self, lab: Lab) -> None:
        host = make(lab, "missed").host
        [found] = declare(host)["tunnels"]
        assert (found["manager"], found["interface"], found["needs"], found["hooks"]) == (
            "pppd",
            "ppp0",
            ["hook"],
            HOOKS,
        )
        install(host)
        assert declare(host)["tunnels"][0]["needs"] == []
        host.run(["chmod", "-x", HOOKS[0]])
        assert declare(host)["tunnels"][0]["needs"] == ["hook"]

    def test_a_local_script_that_replaces_the_directory_is_named(self, lab: Lab) -> None:
        host = make(lab, "local").host
        host.write("/etc/ppp/ip-up.local", "#!/bin/sh\n", 0o755)
        assert "/etc/ppp/ip-up.local replaces all of /etc/ppp/ip-up.d" in str(declare(host)["warnings"])

    @pytest.mark.parametrize("mode", ["split", "full", "identity"])
    def test_every_reply_is_right_without_a_watch(self, lab: Lab, mode: str) -> None:
        client = make(lab, f"up-{mode}", mode)
        install(client.host)
        client.up()
        # The address of the other family comes later, when no hook is called: the watch's part.
        rows = lab.survey([client])
        assert [row for row in rows if not row.right and row.family == 4] == []
        declare(client.host)
        assert [row for row in lab.survey([client]) if not row.right] == []
        own = client.inside if mode == "full" else client.outside
        assert [lab.probe(client.host, to, "tcp").seen for to in plan.OUTSIDE_HOST] == list(own)

    @pytest.mark.parametrize("hooked", [True, False])
    def test_the_device_is_marked_before_the_link_is_up(self, lab: Lab, hooked: bool) -> None:
        """So that what comes from the outside address does not enter it with the first route."""
        client = make(lab, f"mark{hooked:d}")
        if hooked:
            install(client.host)
        client.host.write("/etc/ppp/ip-pre-up.d/zz", "#!/bin/sh\nip -N -j link show ppp0 >/run/fvt-link\n", 0o755)
        client.up()
        link = client.host.shell("cat /run/fvt-link")
        assert ('"group":"151"' in link) is hooked, link
        assert '"UP"' not in link

    def test_a_reconnect_and_an_end_without_notice(self, lab: Lab) -> None:
        client = make(lab, "again")
        install(client.host)
        client.up()
        client.renumber([plan.shifted(address, 5) for address in client.inside])
        declare(client.host)
        assert [row for row in lab.survey([client]) if not row.right] == []
        with no_leak(client.host, *client.inside) as seen:
            onhost.eventually(lambda: all(seen.left_by(source=address) for address in client.inside))
            client.tunnel.kill()
            lab.probes([Probe(lab.outside, to, timeout=0.3) for to in client.inside])
        gone = ""  # what a device is called that is no longer there
        assert [seen.left_by(source=address) - {gone} for address in client.inside] == [{"ppp0"}] * 2


@pytest.fixture(scope="module")
def client(lab: Lab) -> Client:
    """A hooked client whose link is up."""
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


class TestHostilePeer:
    def test_what_is_as_it_should_be_is_said(self, client: Client, log: Log) -> None:
        for event in ("ip-pre-up", "ip-up"):
            said = called(client, log, event, "ppp7", "198.18.48.77", "198.18.48.1")
            assert said[0] == f"ppp: {event} ppp7 198.18.48.77 198.18.48.1"

    @pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
    def test_nothing_changes_but_for_lines_in_the_log(self, client: Client, log: Log, value: str) -> None:
        before = state(client.host)
        for event in ("ip-pre-up", "ip-up"):
            lines = called(client, log, event, value, value, value)
            # To the kernel, --help is a name like any other.
            expected = [*([] if value == "--help" else ["PPP_IFACE"]), "PPP_LOCAL", "PPP_REMOTE"]
            assert refused(lines, "ppp") == expected
            assert any(line.startswith("main: ") for line in lines)
        assert state(client.host) == before
        assert client.host.run(["test", "-e", CANARY], check=False).returncode == 1

    def test_nothing_is_inherited_but_what_is_handed_on(self, lab: Lab) -> None:
        host = make(lab, "inherited").host
        install(host)
        record_environments(host)
        for event in ("ip-pre-up", "ip-up"):
            words = ["ppp7", "/dev/pts/9", "115200", "198.18.48.77", "198.18.48.1", "corp"]
            host.run([f"/etc/ppp/{event}", *words], env={**INHERITED, "DNS1": "192.0.2.1", "PEERNAME": "x"})
            handed = {"PPP_EVENT": event, "PPP_IFACE": "ppp7", "PPP_LOCAL": "198.18.48.77", "PPP_REMOTE": "198.18.48.1"}
            assert environments(host) == [{**CLEAN, **handed}]


def called(client: Client, log: Log, event: str, device: str, local: str, remote: str) -> list[str]:
    """The real script, with such arguments and variables; what the hook said."""
    log.lines()
    values = {"IFNAME": device, "IPLOCAL": local, "IPREMOTE": remote, "DNS1": local, "PEERNAME": device}
    client.host.run(
        [f"/etc/ppp/{event}", device, "/dev/pts/9", "115200", local, remote, local], env=values, check=False
    )
    return log.lines()


@pytest.mark.skipif(
    not os.path.exists("/dev/ppp"),
    reason="THIS KERNEL HAS NO PPP: pppd itself cannot run here, its scripts were tried on a stand-in alone",
)
def test_pppd_itself(lab: Lab) -> None:
    """Two of them on one host, each the other's serial line."""
    client = make(lab, "real", "identity")
    install(client.host)
    other = "pppd nodetach notty noauth local unit 7"
    words = ["pppd", "nodetach", "noauth", "local", "nodefaultroute", "call", "corp", "ipparam", "corp"]
    started = client.host.popen([*words, f"{client.inside[0]}:198.18.48.1", "pty", other], stdin=subprocess.DEVNULL)
    onhost.eventually(lambda: onhost.way(client.host, client.inside[0]) == "ppp0", 30)
    started.terminate()
