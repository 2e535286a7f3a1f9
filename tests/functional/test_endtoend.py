# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job on a mixed fleet with real VPN daemons, judged by packets alone: declare, remove, boot, reconnect.

The tests of a class are the steps of one story and run in their order.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import typing as t

import pytest

from tests.functional.onhost import PROGRAM, REPOSITORY, provide_pyroute2
from tests.lab import Client, Lab, Probe, Row
from tests.lab import addresses as plan
from tests.lab.senders import no_leak

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

SOON = 2.0  # seconds from an address to the last reply being right
# While the machine boots there is more to do than to follow the tunnel.
SOON_AFTER_BOOT = 4.0
IDENTITIES = [
    {"name": "outside", "interface": "auto"},
    {
        "name": "inside",
        "tunnel": {
            "type": "{{ (group_names | difference(['vpn_endpoints']))[0] }}",
            "connection": "{{ lab_connection }}",
        },
        "interface": "{{ lab_device }}",
        "pools": "{{ pools[inventory_hostname] | default([]) }}",
    },
]
POOLS = {
    "openconnect": plan.OPENCONNECT_POOL,
    "openvpn": plan.OPENVPN_POOL,
    "wireguard": plan.WIREGUARD_POOL,
}
DROP_IN = "/etc/systemd/system/wg-quick@wg0.service.d"
DERIVED = "/run/fleetvpn/wg-quick/wg0.conf"
# Somebody else's: rules ahead and behind, strongSwan's table 220, Tailscale's rules and table 52.
FOREIGN = """
rule add pref 100 from 10.99.0.1 lookup 99
rule add pref 220 lookup 220
rule add pref 5210 fwmark 0x80000/0xff0000 lookup main
rule add pref 5230 fwmark 0x80000/0xff0000 lookup default
rule add pref 5250 fwmark 0x80000/0xff0000 unreachable
rule add pref 5270 lookup 52
rule add pref 32000 from 10.99.0.2 lookup 99
"""
FOREIGN_ROUTES = {
    "-4": "route add 10.99.0.0/16 dev up0 table 220\nroute add 100.64.0.0/10 dev up0 table 52\n",
    "-6": "route add fd00:99::/64 dev up0 table 220\nroute add fd7a:115c:a1e0::/48 dev up0 table 52\n",
}


@dataclasses.dataclass
class Controller:
    """A directory from which ansible-playbook is run; what it said is kept for the search for keys."""

    lab: Lab
    directory: pathlib.Path
    collections: pathlib.Path
    said: list[str] = dataclasses.field(default_factory=list)
    pools: dict[str, t.Sequence[str]] = dataclasses.field(default_factory=dict)

    def play(self, play: dict[str, t.Any], *arguments: str) -> dict[str, dict[str, t.Any]]:
        """Run one play over all clients; each one's result of its first task, with the host's count of changes."""
        self.lab.inventory(self.directory / "inventory.yml", python="/usr/bin/python3")
        whole = {"hosts": "vpn_endpoints", "gather_facts": False, "vars": {"pools": self.pools}, **play}
        (self.directory / "site.yml").write_text(json.dumps([whole]))
        output = self._run(str(pathlib.Path(sys.executable).with_name("ansible-playbook")), *arguments)
        found = json.loads(output[output.index("{\n") :])
        results = found["plays"][0]["tasks"][0]["hosts"]
        return {name: {**result, "changes": found["stats"][name]["changed"]} for name, result in results.items()}

    def declare(self, *arguments: str, **options: t.Any) -> dict[str, dict[str, t.Any]]:
        """Module endpoint on all clients."""
        task = {"fleetvpn.routing.endpoint": {"identities": IDENTITIES, **options}}
        return self.play({"tasks": [task]}, *arguments)

    def _run(self, program: str, *arguments: str) -> str:
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": f"{self.collections}",
            "ANSIBLE_CONNECTION_PLUGINS": str(REPOSITORY / "tests" / "plugins" / "connection"),
            "ANSIBLE_LOCAL_TEMP": str(self.directory / "tmp"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        }
        command = [program, "-f", "4", "-i", "inventory.yml", "site.yml", *arguments]
        done = subprocess.run(command, cwd=self.directory, env=environment, capture_output=True, text=True, check=False)
        self.said.append(done.stdout + done.stderr)
        assert done.returncode == 0, "\n".join(re.findall(r'"msg": .*', done.stdout)) + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def lab() -> t.Iterator[Lab]:
    """Every use of the three clients, tunnels up; one IPv6-only, one with a /32, two with containers."""
    with Lab() as lab:
        lab.client("wsplit", "wireguard", mode="split", container=True, rp_filter=1)
        lab.client("wauto", "wireguard", mode="auto")
        lab.client("wid", "wireguard", mode="identity")
        lab.client("wv6", "wireguard", mode="split", families=(6,))
        lab.client("wfull", "wireguard", mode="full")
        lab.client("osplit", "openvpn", mode="split", cloud=True)
        lab.client("ofull", "openvpn", mode="full", container=True)
        lab.client("oid", "openvpn", mode="identity")
        lab.client("csplit", "openconnect", mode="split")
        lab.client("cfull", "openconnect", mode="full", container=True)
        lab.client("cid", "openconnect", mode="identity")
        lab.serve(lab.outside, lab.corporate, lab.router, lab.gateway, *lab.lan(0))
        for client in lab.clients:
            provide_pyroute2(client.host)
            bring_up(client)
        yield lab


@pytest.fixture(scope="module")
def controller(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Controller:
    """With the collection as users get it. Some clients have pools, some have not."""
    directory = tmp_path_factory.mktemp("controller")
    galaxy = [str(pathlib.Path(sys.executable).with_name("ansible-galaxy")), "collection"]
    build = [*galaxy, "build", "--output-path", str(directory), str(REPOSITORY)]
    subprocess.run(build, check=True, capture_output=True)
    artefact = [str(path) for path in directory.glob("*.tar.gz")]
    install = [*galaxy, "install", "--offline", "-p", str(directory / "collections"), *artefact]
    # An empty path: ansible-galaxy installs nothing that it finds elsewhere.
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(directory / "collections")}
    subprocess.run(install, check=True, capture_output=True, env=environment)
    pools = {client.name: POOLS[client.tunnel.kind] for client in lab.clients if not client.name.endswith("split")}
    return Controller(lab, directory, directory / "collections", pools=pools)


def bring_up(client: Client) -> None:
    """The tunnel; wg-quick's full tunnel as the drop-in of role vpn_wireguard starts it."""
    if client.name != "wfull":
        client.up()
        return
    client.host.write(f"{DROP_IN}/fleetvpn.conf", "")
    program = REPOSITORY / "roles" / "vpn_wireguard" / "files" / "wg_quick_derive.py"
    client.host.run(["/usr/bin/python3", "-I", str(program), "wg0"])
    client.host.run(["wg-quick", "up", DERIVED])
    client.tunnel.finish()


def routing(client: Client) -> list[str]:
    """All rules and routes of a host, and the groups of its devices."""
    script = "for f in 4 6; do ip -N -d -$f rule; ip -N -d -$f route show table all; done; ip -d link"
    text = client.host.shell(script)
    return re.findall(r"(?m)^\S.*|\bgroup \S+", text)


def ways(lab: Lab, client: Client) -> dict[str, object]:
    """What unbound sockets, connected and not, meet: who answers, the source that he sees, the device it left by."""
    targets = (*plan.OUTSIDE_HOST, *plan.CORPORATE_HOST, *plan.SIDE_HOST, *plan.ANYCAST, *plan.in_lan(0, 200))
    kinds = (("tcp", True), ("udp", True), ("udp", False))
    probes = [Probe(client.host, to, how, connected=c, timeout=0.8) for to in targets for how, c in kinds]
    with lab.capture(client.host) as seen:
        answers = lab.probes(probes)
    told: dict[str, object] = {
        f"{probe.to} {probe.proto} {probe.connected}": (answer.name, answer.seen, answer.error)
        for probe, answer in zip(probes, answers, strict=True)
    }
    left = {(p.destination, p.source, p.dev) for p in seen.packets(outgoing=True) if p.destination in targets}
    return {**told, "left": sorted(left)}


def wrong(rows: t.Sequence[Row]) -> list[Row]:
    """The rows that are not as they should be. WireGuard itself drops what comes from outside its AllowedIPs."""
    return [row for row in rows if not row.right and (row.client, row.question) != ("wauto", "Internet -> I")]


def around(lab: Lab, client: Client) -> list[str]:
    """What fails between the host's outside addresses and its surroundings: containers, second router, neighbour."""
    probes = []
    if client.container is not None:
        probes += [
            Probe(client.container, to, how) for to in (*client.outside, *client.inside) for how in ("tcp", "icmp")
        ]
        probes += [Probe(client.host, to, "icmp", source=own) for to, own in pairs(plan.CONTAINER, client.outside)]
        probes += [Probe(client.host, to, "icmp", source=own) for to, own in pairs(plan.CONTAINER, client.inside)]
    lan = () if client.name == "osplit" else ((plan.SIDE_HOST, lab.lan(0)[0]), (plan.in_lan(0, 200), lab.lan(0)[1]))
    for theirs, host in lan:
        for to, own in pairs(theirs, client.outside):
            probes += [Probe(client.host, to, how, source=own) for how in ("tcp", "udp", "icmp")]
            probes += [Probe(host, own, how, source=to) for how in ("tcp", "udp", "icmp")]
    answers = lab.probes(probes)
    return [f"{p.host.name} to {p.to}: {p.proto}: {a.error}" for p, a in zip(probes, answers, strict=True) if not a]


def pairs(theirs: t.Sequence[str], own: t.Sequence[str]) -> list[tuple[str, str]]:
    """Addresses of one family."""
    return [(to, source) for to in theirs for source in own if (":" in to) == (":" in source)]


@pytest.mark.controller
def test_a_namespace_never_seen_before_by_the_installed_collection(lab: Lab, controller: Controller) -> None:
    """From this machine into the namespace, with nothing but fully qualified names and no file of the repository."""
    with Lab() as other:
        client = other.client("ns", "standin", container=True)
        client.up()
        other.serve(other.outside, other.corporate, other.router, other.gateway, *other.lan(0))
        assert all(
            row.left_by == {"up0" if row.question == "Internet -> I" else "vpn0"} for row in other.survey(timeout=1)
        )
        before, unbound = routing(client), ways(other, client)
        identities = [
            {"name": "outside", "interface": "auto"},
            {"name": "inside", "interface": "vpn0", "gateway": "none"},
        ]
        options = {"identities": identities, "netns": client.host.namespace}
        tasks = [
            {"fleetvpn.routing.endpoint": options},
            {"fleetvpn.routing.endpoint": options, "register": "again", "failed_when": "again.changed"},
            {"fleetvpn.routing.endpoint_info": {"netns": client.host.namespace}},
        ]
        elsewhere = Controller(other, controller.directory, controller.collections)
        here = {"hosts": "localhost", "vars": {"ansible_python_interpreter": sys.executable}}
        found = elsewhere.play({**here, "tasks": tasks})["localhost"]
        assert [entry["verdict"] for entry in found["identities"]] == ["proven"] * 2
        assert found["changes"] == 1
        assert wrong(other.survey()) == []
        assert (ways(other, client), around(other, client)) == (unbound, [])
        elsewhere.play({**here, "tasks": [{"fleetvpn.routing.endpoint": {**options, "state": "absent"}}]})
        assert routing(client) == before
        assert not pathlib.Path("/run/fleetvpn/netns", client.host.namespace).exists()


class TestStory:
    """From a fleet whose replies go astray to one that survives everything, and back."""

    before: t.ClassVar[dict[str, list[str]]] = {}
    unbound: t.ClassVar[dict[str, dict[str, object]]] = {}
    announced: t.ClassVar[dict[str, t.Any]] = {}

    @pytest.mark.controller
    def test_before_replies_are_lost_on_every_client(self, lab: Lab) -> None:
        rows = lab.survey(timeout=1)
        assert {row.client for row in wrong(rows)} == {client.name for client in lab.clients}
        self.before.update({client.name: routing(client) for client in lab.clients})
        self.unbound.update({client.name: ways(lab, client) for client in lab.clients})

    @pytest.mark.controller
    def test_check_mode_changes_nothing(self, lab: Lab, controller: Controller) -> None:
        self.announced.update(controller.declare("--check", "--diff", "-vvv"))
        assert {client.name: routing(client) for client in lab.clients} == self.before
        assert all(found["changed"] for found in self.announced.values())

    @pytest.mark.controller
    def test_the_real_run_carries_out_what_check_mode_announced(self, controller: Controller) -> None:
        found = controller.declare("--diff", "-vvv")
        for name, result in found.items():
            assert result["plan"] == self.announced[name]["plan"], name
            assert result["diff"] == self.announced[name]["diff"], name
            assert [entry["verdict"] for entry in result["identities"]] == ["proven"] * 2, result["identities"]

    @pytest.mark.controller
    def test_every_reply_is_right(self, lab: Lab) -> None:
        assert wrong(lab.survey()) == []

    def test_unbound_traffic_goes_where_it_went(self, lab: Lab) -> None:
        for client in lab.clients:
            assert ways(lab, client) == self.unbound[client.name], client.name

    def test_containers_second_router_and_neighbour_are_reached(self, lab: Lab) -> None:
        assert [failed for client in lab.clients for failed in around(lab, client)] == []

    @pytest.mark.controller
    def test_a_second_run_changes_nothing(self, lab: Lab, controller: Controller) -> None:
        after = {client.name: routing(client) for client in lab.clients}
        assert {name: result["changes"] for name, result in controller.declare().items()} == dict.fromkeys(after, 0)
        assert {client.name: routing(client) for client in lab.clients} == after

    @pytest.mark.controller
    def test_removal_leaves_nothing(self, lab: Lab, controller: Controller) -> None:
        remove(controller)
        for client in lab.clients:
            assert routing(client) == self.before[client.name], client.name
            assert not (left := leftovers(client)), f"{client.name}: {left}"

    def test_beside_rules_of_somebody_else(self, lab: Lab, controller: Controller) -> None:
        for client in lab.clients:
            if client.name == "wfull":
                client.host.write(f"{DROP_IN}/fleetvpn.conf", "")
            for family in ("-4", "-6"):
                rules = FOREIGN if family == "-4" else FOREIGN.replace("10.99.0.", "fd00:99::")
                client.host.run(["ip", family, "-batch", "-"], stdin=rules + FOREIGN_ROUTES[family])
        held = {client.name: routing(client) for client in lab.clients}
        unbound = {client.name: ways(lab, client) for client in lab.clients}
        found = controller.declare("--diff", "-vvv")
        for client in lab.clients:
            warned = " ".join(found[client.name]["warnings"])
            assert ("100:" in warned, "220:" in warned, "5210:" in warned) == (True, True, False), warned
            theirs = [line for line in held[client.name] if "group " not in line]
            assert [line for line in routing(client) if line in theirs] == theirs
            assert ways(lab, client) == unbound[client.name], client.name
        assert wrong(lab.survey()) == []

    def test_a_boot_is_tight_from_apply_on_and_right_when_the_vpn_is_up(self, lab: Lab) -> None:
        for client in lab.clients:
            boot(lab, client)

    def test_after_the_boot_unbound_traffic_goes_where_it_went(self, lab: Lab) -> None:
        for client in lab.clients:
            assert ways(lab, client) == self.unbound[client.name], client.name
        assert [failed for client in lab.clients for failed in around(lab, client)] == []

    def test_a_reconnect_with_other_addresses(self, lab: Lab, controller: Controller) -> None:
        for client in lab.clients:
            old, new = client.inside, [plan.shifted(address, 100) for address in client.inside]
            # Only a pool can keep addresses in that no rule names yet.
            with no_leak(client.host, *old, *(new if client.name in controller.pools else [])):
                bring_other_addresses(client, new)
                soon_right(lab, client)

    def test_a_killed_daemon_leaves_the_identity_unreachable(self, lab: Lab) -> None:
        for client in (client for client in lab.clients if client.name in ("wsplit", "wfull", "ofull", "cfull")):
            with no_leak(client.host, *client.inside):
                client.tunnel.kill()
                assert not any(lab.probes([Probe(lab.outside, to, timeout=0.5) for to in client.inside]))
                if client.name == "wfull":  # its rules stay behind, as wg-quick's own would
                    client.host.run(["wg-quick", "down", DERIVED], check=False)
                bring_up(client)
                soon_right(lab, client)

    def test_no_private_key_was_ever_said_or_written(self, lab: Lab, controller: Controller) -> None:
        said = "\n".join([*controller.said, *(text for client in lab.clients for text in program_says(client))])
        for client in lab.clients:
            files = client.host.shell("cat /etc/wireguard/*.conf /etc/openvpn/client/*.conf 2>&1 || :")
            keys = re.findall(r"PrivateKey = (\S+)|BEGIN[A-Z ]*PRIVATE KEY-----\n(\S+)", files)
            # openconnect keeps none: its password is on nobody's disk.
            assert bool(keys) == (client.tunnel.kind != "openconnect"), client.name
            assert not any(key in said for pair in keys for key in pair if key), client.name

    def test_removal_after_all_that_leaves_nothing_in_the_kernel(self, lab: Lab, controller: Controller) -> None:
        for client in lab.clients:
            client.host.signal("fleetvpn-endpoi", signal.SIGTERM)
            client.host.run(["rm", "-rf", DROP_IN])
        controller.declare(state="absent")
        for client in lab.clients:
            # Addresses and indexes are others by now; rules are not, but for those of somebody else.
            assert not [line for line in routing(client) if re.search("proto 15[12]|group 151", line)], client.name
            rules = [
                [line for line in lines if " lookup " in line] for lines in (routing(client), self.before[client.name])
            ]
            assert sorted(rules[0]) == sorted(rules[1]), client.name
            assert not (left := leftovers(client)), f"{client.name}: {left}"


def boot(lab: Lab, client: Client) -> None:
    """Power off and on: the boot unit's apply, the watch, and only then a network and a VPN."""
    with contextlib.ExitStack() as stack:

        def first(host: t.Any) -> None:
            host.run([PROGRAM, "apply"])
            stack.enter_context(no_leak(client.host, *client.inside))
            host.popen([PROGRAM, "watch"], stdout=subprocess.DEVNULL)

        lab.reboot(client, first=first)
        bring_up(client)
        soon_right(lab, client, SOON_AFTER_BOOT)


def soon_right(lab: Lab, client: Client, soon: float = SOON) -> None:
    """Every reply within the time that the issue allows; asked again and again."""
    start, rows = time.monotonic(), lab.survey([client], timeout=0.25)
    while wrong(rows) and time.monotonic() - start < soon:
        rows = lab.survey([client], timeout=0.25)
    print(f"{client.name}: {time.monotonic() - start:.2f} s")
    assert wrong(rows) == []


def bring_other_addresses(client: Client, addresses: t.Sequence[str]) -> None:
    """As its VPN does it."""
    if client.name != "wfull":
        client.renumber(addresses)
        return
    client.host.run(["wg-quick", "down", DERIVED])
    client.tunnel.configure(addresses, client.mode)  # type: ignore[attr-defined]
    client.inside = tuple(addresses)
    client.tunnel._gateway.sync()  # type: ignore[attr-defined]
    bring_up(client)


def remove(controller: Controller) -> None:
    """By the role, with the declaration still there."""
    for client in controller.lab.clients:
        client.host.run(["rm", "-rf", DROP_IN])  # without systemd the role cannot; Molecule has one
    variables = {"endpoint_identities": IDENTITIES, "endpoint_state": "absent", "pools": controller.pools}
    controller.play({"roles": ["fleetvpn.routing.endpoint"], "vars": variables}, "--diff", "-vvv")


def leftovers(client: Client) -> list[str]:
    """Files of ours on a host; pyroute2 stays."""
    places = "/etc/fleetvpn /run/fleetvpn /etc/iproute2 /etc/systemd/system /usr/local"
    found = client.host.run(
        ["sh", "-c", f"find {places} -name '*fleetvpn*' -o -path '*fleetvpn/*'"], check=False
    ).stdout
    return [
        line
        for line in found.splitlines()
        if not re.match("/usr/local/lib/fleetvpn|/run/fleetvpn(/lock|/wg-quick.*)?$", line)
    ]


def program_says(client: Client) -> t.Iterator[str]:
    """All that the program can say, and all that is in files of ours but for wg-quick's own derived one."""
    for words in (["status"], ["status", "--json"], ["apply"], ["path", plan.OUTSIDE_HOST[0], "--from", "inside"]):
        if client.name in ("wfull", "osplit"):
            done = client.host.run([PROGRAM, *words], check=False)
            yield done.stdout + done.stderr
    places = "/etc/fleetvpn /run/fleetvpn /etc/iproute2"
    yield client.host.shell(f"find {places} -name wg-quick -prune -o -type f -exec cat '{{}}' +")
