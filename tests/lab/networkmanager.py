# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NetworkManager on a client with systemd: its uplink, and OpenVPN by the plugin."""

from __future__ import annotations

import typing as t

from . import addresses as plan
from .host import Host
from .openvpn import PORT, Openvpn
from .tunnel import Client, wait_for

PROFILES = "/etc/NetworkManager/system-connections"
_SETTINGS = """
[main]
plugins=keyfile
no-auto-default=*
[device-cables]
match-device=interface-name:up*,interface-name:enp*,interface-name:wlp*,interface-name:vpn*
managed=1
"""
_VPN = f"""
[connection]
id=corp
type=vpn
autoconnect=false
[vpn]
service-type=org.freedesktop.NetworkManager.openvpn
connection-type=tls
remote={plan.GATEWAY[0]}:{PORT}
ca=/etc/openvpn/ca
cert=/etc/openvpn/cert
key=/etc/openvpn/key
cert-pass-flags=4
remote-cert-tls=server
[ipv4]
method=auto
[ipv6]
method=auto
"""


def start(host: Host, *devices: str) -> None:
    """NetworkManager starts and takes over devices as they are."""
    host.write("/etc/NetworkManager/conf.d/fvt.conf", _SETTINGS)
    for device in devices:
        profile(host, device, _addresses(host, device), _gateways(host, device))
    host.run(["systemctl", "start", "NetworkManager"])
    for device in devices:
        up(host, device)


def profile(
    host: Host, device: str, own: t.Sequence[str], gateways: t.Sequence[str] = (), name: str | None = None
) -> None:
    """A connection with these addresses, read when NetworkManager starts."""
    lines = [f"[connection]\nid={name or device}\ntype=ethernet\ninterface-name={device}"]
    for family, section in ((False, "ipv4"), (True, "ipv6")):
        addresses = [address for address in own if (":" in address) == family]
        lines += [f"[{section}]", "method=manual" if addresses else "method=disabled"]
        lines += [f"address{number}={address}" for number, address in enumerate(addresses, 1)]
        lines += [f"gateway={gateway}" for gateway in gateways if (":" in gateway) == family]
    host.write(f"{PROFILES}/{name or device}.nmconnection", "\n".join(lines) + "\n", 0o600)


def up(host: Host, connection: str) -> None:
    """Bring a connection up, anew if it is up already."""
    host.run(["nmcli", "connection", "up", "id", connection])


def down(host: Host, connection: str) -> None:
    """Bring it down."""
    host.run(["nmcli", "connection", "down", "id", connection])


class PluginOpenvpn:
    """A client's end that NetworkManager's plugin runs; the server pushes what the plain client would get."""

    kind = "openvpn"
    connection = "corp"

    def __init__(self, client: Client) -> None:
        assert isinstance(client.tunnel, Openvpn)
        self.host, self._plain = client.host, client.tunnel
        for name, text in self._plain.certificates().items():
            self.host.write(f"/etc/openvpn/{name}", text, 0o600)
        self.host.run(["rm", self._plain.path])
        self.host.write(f"{PROFILES}/corp.nmconnection", _VPN, 0o600)

    @property
    def device(self) -> str:
        """The one that has the address now: the kernel chose its number."""
        found = self.host.ip_json("address", "show", "to", self._plain.inside[0])
        return next((str(entry["ifname"]) for entry in found if entry), "tun0")

    def begin(self) -> None:
        """Nothing can be done beside: nmcli waits."""
        self._plain.sync()

    def finish(self) -> None:
        """Connect."""
        up(self.host, "corp")
        self._wait()

    def stop(self) -> None:
        """Disconnect."""
        down(self.host, "corp")

    def renumber(self, inside: t.Sequence[str]) -> None:
        """As a user does it who is told that something is wrong with his VPN."""
        self._plain.configure(inside)
        self.stop()
        self.finish()

    def kill(self) -> None:
        """End the daemon; the plugin notices."""
        self._plain.kill()

    def _wait(self) -> None:
        wait_for(lambda: all(self.host.owns(address) for address in self._plain.inside), f"{self.host.name}: addresses")


def _addresses(host: Host, device: str) -> list[str]:
    shown = host.ip_json("address", "show", "dev", device, "scope", "global")
    return [f"{i['local']}/{i['prefixlen']}" for entry in shown for i in entry.get("addr_info", ()) if i]


def _gateways(host: Host, device: str) -> list[str]:
    routes = [*host.ip_json("-4", "route", "show", "default"), *host.ip_json("-6", "route", "show", "default")]
    return [route["gateway"] for route in routes if route["dev"] == device]
