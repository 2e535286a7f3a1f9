# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the collection leaves on a host: services, files, and an answer to how it stands."""

from __future__ import annotations

import json
import re
import time
import typing as t

import pytest
import testinfra

from extensions.molecule.shared.network import Client, Network, guard, state, sysctls, wait

BOOT, WATCH = "fleetvpn-endpoint.service", "fleetvpn-endpoint-watch.service"
FILES = {
    "/etc/fleetvpn/sets.d": 0o700,
    "/etc/fleetvpn/sets.d/main.json": 0o600,
    "/usr/local/sbin/fleetvpn-endpoint": 0o755,
    f"/etc/systemd/system/{BOOT}": 0o644,
    f"/etc/systemd/system/{WATCH}": 0o644,
    "/etc/iproute2/rt_tables.d/fleetvpn.conf": 0o644,
    "/etc/iproute2/rt_protos.d/fleetvpn.conf": 0o644,
}
# By kind of tunnel.
DERIVED = {
    "/etc/systemd/system/wg-quick@wg0.service.d/fleetvpn.conf": 0o644,
    "/usr/local/libexec/fleetvpn/wg_quick_derive.py": 0o755,
    "/run/fleetvpn/wg-quick/wg0.conf": 0o600,
}
MORE = {
    "ipsec": {"/etc/strongswan.d/fleetvpn.conf": 0o644},
    "openconnect": {
        "/etc/vpnc/connect.d/fleetvpn": 0o644,
        "/etc/vpnc/post-connect.d/fleetvpn": 0o644,
    },
    "ppp": {
        "/etc/ppp/ip-pre-up.d/fleetvpn": 0o755,
        "/etc/ppp/ip-up.d/fleetvpn": 0o755,
    },
}
# By option sysctls of scenario wireguard.
SET = {"rp_filter": "1", "arp_ignore": "1", "arp_announce": "2", "use_oif_addrs_only": "1"}
MOVED = ('"priority": 3220', '"priority": 220')  # strongSwan's rule


@pytest.fixture
def host(client: Client) -> t.Any:
    return testinfra.get_host(f"podman://{client.name}")


def is_derived(client: Client) -> bool:
    """Whether the role starts the tunnel from a derived file."""
    return (client.kind, client.name) == ("wireguard", "fvt-full")


def test_services(host: t.Any) -> None:
    assert host.service(BOOT).is_enabled
    watch = host.service(WATCH)
    assert watch.is_enabled
    assert watch.is_running, host.check_output("journalctl --no-pager --unit %s", WATCH)


def test_no_unit_failed(host: t.Any) -> None:
    failed = host.check_output("systemctl --failed --plain --no-legend")
    assert failed == "", host.check_output("journalctl --no-pager --boot --priority warning")


def test_watch_may_set_what_was_asked_for_and_no_other_tunable(client: Client, host: t.Any) -> None:
    if client.kind != "wireguard":
        pytest.skip("sysctls are asked for in scenario wireguard")
    names = [f"/proc/sys/net/ipv{path}" for path in ("4/conf/{}/arp_ignore", "6/conf/{}/use_oif_addrs_only")]
    files = [name.format(_uplink(host)) for name in names]
    host.check_output(f"echo 0 | tee {' '.join(files)} && ip addr add 192.0.2.77/32 dev lo")
    deadline = time.monotonic() + 5
    while "0" in host.check_output(f"cat {' '.join(files)}").split() and time.monotonic() < deadline:
        time.sleep(0.1)
    host.check_output("ip addr del 192.0.2.77/32 dev lo")
    assert host.check_output(f"cat {' '.join(files)}").split() == ["1", "1"]
    # As the process sees it: in its mount namespace.
    main = host.check_output("systemctl show --property MainPID --value %s", WATCH)
    for name in ("net/ipv4/ip_forward", "net/core/somaxconn", "kernel/panic"):
        tried = host.run(f"nsenter -t {main} -m sh -c 'cat /proc/sys/{name} >/proc/sys/{name}'")
        assert "Read-only file system" in tried.stderr, name


def _uplink(host: t.Any) -> str:
    return str(json.loads(host.check_output("ip -j route show default"))[0]["dev"])


def test_files(client: Client, host: t.Any) -> None:
    expected = {**FILES, **MORE.get(client.kind, {}), **(DERIVED if is_derived(client) else {})}
    found = host.check_output("stat --format '%n %U:%G %a' " + " ".join(expected))
    assert found.splitlines() == [f"{path} root:root {mode:o}" for path, mode in expected.items()]


def test_status(host: t.Any) -> None:
    """Proven, at the latest a moment after the tunnel came up."""
    deadline = time.monotonic() + 15
    while True:
        status = json.loads(host.run("fleetvpn-endpoint status --json").stdout)
        if status["state"] == "proven" or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    assert (status["state"], status["ok"]) == ("proven", True), status
    assert {found["name"]: found["verdict"] for found in status["sets"][0]["identities"]} == {
        "outside": "proven",
        "inside": "proven",
    }


def test_the_guard_holds_the_inside_addresses(network: Network, client: Client) -> None:
    def stands() -> bool:
        text = guard(network.host(client))
        return "hook postrouting" in text and all(address in text for address in client.inside)

    wait(stands, "guard with the inside addresses")


def test_the_timer_of_a_host_that_runs_its_play_itself(client: Client, host: t.Any) -> None:
    unit = "/etc/systemd/system/fleetvpn-pull.timer"
    if (client.kind, client.name) != ("wireguard", "fvt-split"):
        assert not host.file(unit).exists
        return
    timer = host.service("fleetvpn-pull.timer")
    assert (timer.is_enabled, timer.is_running) == (True, True)
    checked = host.run("systemd-analyze verify %s", unit)
    assert (checked.rc, checked.stderr) == (0, "")
    assert host.run("systemctl start fleetvpn-pull.service").rc == 0


def test_what_others_made_stands(network: Network, client: Client, notes: dict[str, t.Any]) -> None:
    """Their rules and routes, to the letter; those of wg-quick too, where the role starts it in another way.

    But strongSwan's rule, which it puts behind ours as the role tells it. Their nftables tables too, and
    the sysctls that nobody asked for.
    """
    now = {
        kind: sorted(one.replace(*MOVED) for one in found if not is_ours(one, client))
        for kind, found in state(network.host(client)).items()
    }
    before = notes["state"][client.name]
    assert now == {kind: sorted(one for one in found if not is_ours(one, client)) for kind, found in before.items()}


def is_ours(entry: str, client: Client) -> bool:
    """Whether a rule, route or table is the collection's, or a sysctl its to set."""
    found = json.loads(entry)
    asked = client.kind == "wireguard" and found.get("sysctl") in SET
    return found.get("protocol") == "151" or found.get("nftables") == "inet fleetvpn" or asked


def test_sysctls_that_were_asked_for_are_set(network: Network, client: Client) -> None:
    if client.kind != "wireguard":
        pytest.skip("sysctls are asked for in scenario wireguard")
    found = sysctls(network.host(client))
    assert {name: found[name] for name in SET} == SET


def test_no_key_anywhere(network: Network, client: Client, secrets: list[str]) -> None:
    host = network.host(client)
    places = "/var/log /run /tmp /root /etc/fleetvpn /etc/systemd /etc/iproute2 /usr/local"
    patterns = "\n".join(secrets) + "\n"
    found = host.run(
        ["sh", "-c", f"grep -rlsIF -f - --devices=skip {places}"], check=False, stdin=patterns
    ).stdout.split()
    assert set(found) <= {"/run/fleetvpn/wg-quick/wg0.conf"}
    for command in (["journalctl", "--no-pager", "--output", "verbose"], ["fleetvpn-endpoint", "status", "--json"]):
        output = host.run(command, check=False).stdout
        assert [secret for secret in secrets if secret in output] == []


def test_playbook_again(playbook: t.Callable[..., str], network: Network, secrets: list[str]) -> None:
    output = playbook("--diff", "-vvv")
    unchanged = [rf"^{client.name} .* changed=0" for client in network.clients]
    assert [line for line in unchanged if not re.search(line, output, re.MULTILINE)] == []
    assert [secret for secret in secrets if secret in output] == []
