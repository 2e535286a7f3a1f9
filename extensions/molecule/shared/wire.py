# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lays the cables of a Molecule scenario: veth pairs straight into the network namespaces of the containers.

Nothing of a cable is ever seen in the machine's own namespace, and it is gone with either container. A cable that is
there stays, so that the script can run after any container was restarted.

Argument: a JSON list of links; a link is a list of two ends:

    host       name of the container
    dev        name of the device in it
    addresses  list of addresses with prefix length (optional)
    routes     list of routes as `ip route replace` takes them, `default via 192.0.2.1` (optional)
    bridge     bridge in the container that the device is a port of, made if it is not there (optional);
               addresses and routes are the bridge's then

Prints one line per cable that it laid.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import typing as t

End = dict[str, t.Any]


def run(*command: str) -> str:
    """Run a command, which must succeed, and return what it printed."""
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)}: {result.stderr.strip()}")
    return result.stdout


def pid_of(host: str) -> str:
    """Return the id of a container's first process, whose namespace is the container's."""
    return run("podman", "inspect", "--format", "{{.State.Pid}}", host).strip()


def ip(host: str, *arguments: str) -> str:
    """Run ip in the network namespace of a container."""
    return run("nsenter", "--target", pid_of(host), "--net", "ip", *arguments)


def devices(host: str) -> list[str]:
    """Return the names of a container's devices."""
    return [link["ifname"] for link in json.loads(ip(host, "-json", "link", "show"))]


def connect(ends: list[End]) -> bool:
    """Make the pair of devices unless both are there; return whether it was made."""
    if all(end["dev"] in devices(end["host"]) for end in ends):
        return False
    first, second = ends
    run(
        *("ip", "link", "add", first["dev"], "address", hardware_address(first["host"], first["dev"])),
        *("netns", pid_of(first["host"]), "type", "veth", "peer", "name", second["dev"]),
        *("address", hardware_address(second["host"], second["dev"]), "netns", pid_of(second["host"])),
    )
    return True


def hardware_address(host: str, device: str) -> str:
    """Return the address that a device has after every reboot, as those of real machines do: neighbours know it."""
    return "02:" + hashlib.sha256(f"{host} {device}".encode()).digest()[:5].hex(":")


def configure(end: End) -> None:
    """Give an end its bridge, its addresses and its routes, and bring it up."""
    host, device = end["host"], end["dev"]
    if "bridge" in end:
        make_bridge(host, end["bridge"])
        ip(host, "link", "set", device, "master", end["bridge"])
    for address in end.get("addresses", []):
        # Without duplicate address detection an IPv6 address can be used at once.
        ip(host, "address", "replace", address, "dev", speaker(end), *(["nodad"] if ":" in address else []))
    ip(host, "link", "set", device, "up")


def make_bridge(host: str, name: str) -> None:
    """Make a bridge unless it is there. Its address is stated, so that it does not change with the ports."""
    if name not in devices(host):
        ip(host, "link", "add", name, "address", hardware_address(host, name), "type", "bridge", "mcast_snooping", "0")
        ip(host, "link", "set", name, "up")


def speaker(end: End) -> str:
    """Return the device that has an end's addresses and routes."""
    device: str = end.get("bridge", end["dev"])
    return device


def add_routes(end: End) -> None:
    """Give an end its routes, once both ends are up."""
    for route in end.get("routes", []):
        ip(end["host"], "route", "replace", *route.split(), "dev", speaker(end))


def main() -> None:
    """Lay the cables given as the first argument."""
    for ends in json.loads(sys.argv[1]):
        if not connect(ends):
            continue
        for end in ends:
            configure(end)
        for end in ends:
            add_routes(end)
        print(" -- ".join(f"{end['host']}:{end['dev']}" for end in ends))


if __name__ == "__main__":
    main()
