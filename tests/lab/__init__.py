# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Topologies in network namespaces, with real VPN daemons: see README.md."""

from __future__ import annotations

from .capture import Capture, Packet
from .host import Host
from .lab import Lab
from .probes import Answer, Conversation, Probe
from .survey import Row
from .tunnel import Client

__all__ = ["Answer", "Capture", "Client", "Conversation", "Host", "Lab", "Packet", "Probe", "Row"]
