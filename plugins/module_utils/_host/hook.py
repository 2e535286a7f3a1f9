# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""What a hook of a VPN client says: which client, what happened, which device and which addresses.

A hook does nothing but ask for a new look at the host, so that no value that a VPN server chose decides anything. The
values are for the journal alone, and those that are not what they should be are only named.
"""

from __future__ import annotations

import dataclasses
import os
import re
import syslog
import typing as t

from .._errors import RoutingError
from .._model import fields

_LONGEST = 60  # characters of a refused value that are shown
_EVENT = re.compile(r"[a-z0-9:_-]{1,32}")


@dataclasses.dataclass(frozen=True)
class Variables:
    """The names by which a client hands over what happened."""

    event: str
    devices: tuple[str, ...]
    addresses: tuple[str, ...]  # each holds addresses, with or without length, separated by blanks


CLIENTS = {
    "openconnect": Variables(
        "reason", ("TUNDEV",), ("INTERNAL_IP4_ADDRESS", "INTERNAL_IP6_ADDRESS", "INTERNAL_IP6_NETMASK")
    ),
    "openvpn": Variables("script_type", ("dev",), ("ifconfig_local", "ifconfig_ipv6_local")),
    "ppp": Variables("PPP_EVENT", ("PPP_IFACE",), ("PPP_LOCAL", "PPP_REMOTE")),
}


def describe(client: str, environment: t.Mapping[str, str] | None = None) -> list[str]:
    """Lines for the journal: what the hook of C(client), one of CLIENTS, was called for, and each refused value."""
    variables = CLIENTS[client]
    environment = os.environ if environment is None else environment
    refused: list[str] = []
    event = _checked(environment, variables.event, _event, refused)
    devices = [_checked(environment, name, fields.device, refused) for name in variables.devices]
    addresses = [_checked(environment, name, _addresses, refused) for name in variables.addresses]
    said = " ".join(word for word in (event, *devices, *addresses) if word)
    return [f"{client}: {said or 'called'}", *(f"{client}: refused {line}" for line in refused)]


def log(lines: t.Iterable[str]) -> None:
    """To the system's log: what a client does with the output of its hooks is the client's."""
    syslog.openlog("fleetvpn-endpoint", syslog.LOG_PID, syslog.LOG_DAEMON)
    for line in lines:
        syslog.syslog(syslog.LOG_INFO, line)


def _checked(
    environment: t.Mapping[str, str], name: str, reader: t.Callable[[object, str], str], refused: list[str]
) -> str:
    value = environment.get(name, "")
    if not value:
        return ""
    try:
        return reader(value, name)
    except RoutingError:
        shown = ascii(value[:_LONGEST]) + ("..." if len(value) > _LONGEST else "")
        refused.append(f"value of {name}: {shown}")
        return ""


def _event(value: object, field: str) -> str:
    if not _EVENT.fullmatch(str(value)):
        raise RoutingError("is no event", field=field, value=value)
    return str(value)


def _addresses(value: object, field: str) -> str:
    return " ".join(fields.interface_address(word, field) for word in str(value).split(" "))
