# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""The systemd units that start the program."""

from __future__ import annotations

DIRECTORY = "/etc/systemd/system"
BOOT = "fleetvpn-endpoint.service"
WATCH = "fleetvpn-endpoint-watch.service"

_HEADER = """\
# Installed by module fleetvpn.routing.endpoint, which removes it with the last persistent set.
# Changes belong in a drop-in (systemctl edit), this file is written anew.
"""

_BOOT = """\
[Unit]
Description=Policy routing of this host's identities (fleetvpn.routing)
Documentation=https://galaxy.ansible.com/ui/repo/published/fleetvpn/routing/
ConditionPathExistsGlob=/etc/fleetvpn/sets.d/*.json
# Rules and backstops need no device. They stand before anything can send a packet. VPN units come after
# network-online.target, which comes after network-pre.target only where something manages the network.
DefaultDependencies=no
# nftables.service flushes the whole ruleset before it loads its own, and with it the egress guard.
After=local-fs.target systemd-modules-load.service systemd-sysctl.service nftables.service
Before=network-pre.target network.target network-online.target shutdown.target
Wants=network-pre.target
Conflicts=shutdown.target
RequiresMountsFor=/etc/fleetvpn /usr/local/sbin /usr/local/lib

[Service]
Type=oneshot
# Stopping it removes nothing: a host without its backstops would leak.
RemainAfterExit=yes
ExecStart={program} apply
TimeoutStartSec=60

[Install]
WantedBy=sysinit.target
"""

_WATCH = """\
[Unit]
Description=Watch over the policy routing of this host's identities (fleetvpn.routing)
Documentation=https://galaxy.ansible.com/ui/repo/published/fleetvpn/routing/
After={boot}
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={program} watch
Restart=always
RestartSec=1
# Rules and nftables need CAP_NET_ADMIN.
# CAP_SYS_PTRACE is for /proc/PID/fdinfo: it tells which tun device an OpenVPN client holds.
CapabilityBoundingSet=CAP_NET_ADMIN CAP_DAC_READ_SEARCH CAP_SYS_PTRACE
NoNewPrivileges=yes
ProtectSystem=strict
# The last two for option sysctls: settings of devices, and nothing else of what ProtectKernelTunables closes.
ReadWritePaths=-/etc/fleetvpn -/etc/iproute2 -/proc/sys/net/ipv4/conf -/proc/sys/net/ipv6/conf
RuntimeDirectory=fleetvpn
RuntimeDirectoryPreserve=yes
RuntimeDirectoryMode=0755
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_NETLINK AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
# Until a round is done packets may take a wrong way: it does not wait behind what else the host computes.
Nice=-10
OOMScoreAdjust=-500

[Install]
WantedBy=multi-user.target
"""


def unit_texts(program: str) -> dict[str, str]:
    """The units by file name."""
    return {name: _HEADER + text.format(program=program, boot=BOOT) for name, text in ((BOOT, _BOOT), (WATCH, _WATCH))}
