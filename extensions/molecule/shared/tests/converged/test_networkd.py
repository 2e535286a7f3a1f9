# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd-networkd beside it, which deletes rules and routes that it did not make."""

from __future__ import annotations

import contextlib
import subprocess
import time
import typing as t

from extensions.molecule.shared.network import UPLINK, Network, wait
from tests.lab.host import Host
from tests.lab.senders import no_leak

# /run is empty after a reboot.
FILE = f"/run/systemd/network/{UPLINK}.network"


def test_networkd_starts_restarts_and_configures_the_uplink_anew(network: Network) -> None:
    """No packet of I leaves by the uplink, and all is right soon. A restart alone may keep foreign rules."""
    hosts = [network.host(client) for client in network.clients]
    with contextlib.ExitStack() as stack:
        for client, host in zip(network.clients, hosts, strict=True):
            host.run(["mkdir", "-p", FILE.rpartition("/")[0]])
            host.write(FILE, as_it_is(host))
            host.run(["systemctl", "start", "systemd-networkd"])
            stack.enter_context(no_leak(host, *client.inside))
        monitors = [monitor(host) for host in hosts]
        for host in hosts:
            host.run(["systemctl", "restart", "systemd-networkd"])
            wait(lambda host=host: is_configured(host), "networkd has the uplink")
            host.run(["networkctl", "reconfigure", UPLINK])
        for host in hosts:
            wait(lambda host=host: is_configured(host), "networkd has the uplink again")
        network.right_soon()
    for host, process in zip(hosts, monitors, strict=True):
        deleted = ended(process)
        if deletes_what_is_foreign(host):
            assert any(":\tfrom " in line for line in deleted), f"{host.name}: networkd deleted no rule of ours"
            assert any(" table 2001 " in line for line in deleted), f"{host.name}: networkd deleted no route of ours"


def as_it_is(host: Host) -> str:
    """The file of an uplink with the addresses and routes that it has. They have no broadcast addresses."""
    lines = ["[Match]", f"Name={UPLINK}", "[Network]", "LinkLocalAddressing=ipv6", "IPv6AcceptRA=no"]
    for address in host.ip_json("address", "show", "dev", UPLINK)[0]["addr_info"]:
        if address["scope"] != "global":
            continue
        lines += ["[Address]", f"Address={address['local']}/{address['prefixlen']}"]
        lines += ["Broadcast=no"] if address["family"] == "inet" else []
    for family, everything in (("-4", "0.0.0.0/0"), ("-6", "::/0")):
        for route in host.ip_json(family, "route", "show", "dev", UPLINK):
            if "gateway" in route:
                destination = route["dst"].replace("default", everything)
                lines += ["[Route]", f"Destination={destination}", f"Gateway={route['gateway']}"]
    return "\n".join([*lines, ""])


def is_configured(host: Host) -> bool:
    """Whether networkd is done with the uplink."""
    shown = host.run(["networkctl", "--no-pager", "--no-legend", "list", UPLINK], check=False).stdout
    return shown.split()[-2:] == ["routable", "configured"]


def deletes_what_is_foreign(host: Host) -> bool:
    """Debian 11's 247.3 does not. Of routes that go with an address that it takes away the kernel says nothing."""
    return int(host.run(["networkctl", "--version"]).stdout.split()[1]) > 247


def monitor(host: Host) -> subprocess.Popen[t.Any]:
    """Tells what is deleted, by the kernel's own word."""
    process = host.popen(["ip", "-N", "monitor", "rule", "route"], stdout=subprocess.PIPE, text=True)
    time.sleep(0.3)
    return process


def ended(process: subprocess.Popen[t.Any]) -> list[str]:
    """What of ours it saw deleted."""
    process.kill()
    output, _nothing = process.communicate()
    return [line for line in str(output).splitlines() if line.startswith("Deleted") and "proto 151" in line]
