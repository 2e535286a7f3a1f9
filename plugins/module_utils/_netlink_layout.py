# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""How messages of rtnetlink are laid out, as data, and addresses in them."""

from __future__ import annotations

import functools
import ipaddress
import socket
import typing as t


class Layout(t.NamedTuple):
    """A message: the fields of its header after nlmsghdr, and the closed list of attributes that we read or write."""

    name: str
    fields: tuple[tuple[str, str], ...]
    attrs: tuple[tuple[int, str, str], ...]


class Content(t.NamedTuple):
    """What goes into a message: header fields that are not 0, and attributes."""

    header: dict[str, int]
    attrs: list[tuple[str, t.Any]]


AF = {4: 2, 6: 10}
FAMILIES = {2: 4, 10: 6}


@functools.lru_cache(maxsize=4096)
def pack_address(text: str) -> bytes:
    """The address in network order."""
    return ipaddress.ip_address(text).packed


@functools.lru_cache(maxsize=4096)
def unpack_address(data: bytes) -> str:
    """The address as text, in the form that the model uses: inet_ntop's, which does not change between Pythons."""
    return socket.inet_ntop(socket.AF_INET6 if len(data) == 16 else socket.AF_INET, data)


def pack_prefix(prefix: str | None) -> tuple[bytes | None, int]:
    """Address and length. None, which is any, has neither."""
    if prefix is None:
        return None, 0
    address, _slash, length = prefix.partition("/")
    packed = pack_address(address)
    return packed, int(length) if length else len(packed) * 8


def unpack_prefix(fields: t.Mapping[str, t.Any], name: str, length: str) -> str | None:
    """The prefix of an attribute and its length in the header; None for length 0, which is any."""
    if not fields[length]:
        return None
    data = fields.get(name) or bytes(4 if fields["family"] == AF[4] else 16)
    return f"{unpack_address(data)}/{fields[length]}"
