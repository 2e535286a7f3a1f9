# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""The nftables table of a set in the kernel: read and loaded by the program nft, which speaks JSON.

It runs in the network namespace that the calling thread is in. Nothing but the table named is ever looked at or
changed, and a change is one transaction: the old table is in force until the new one is.
"""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import subprocess
import typing as t

from ._errors import KernelError, NotPermitted, NotSupported, RoutingError
from ._model.guard import ADDRESSES, DEVICES, FAMILY, Chain, Guard, NamedSet, device, rule
from ._netlink_socket import Refused

# Not by PATH: what root runs here is not for the environment to choose.
PROGRAMS = ("/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft")
# Seconds. A ruleset that others change all the time makes nft read it again and again.
LONGEST = 30
_NEEDED = "package nftables, and a kernel with nf_tables"
_LACKING = (errno.EOPNOTSUPP, errno.EPROTONOSUPPORT)
_ERRORS = {os.strerror(number): number for number in (errno.ENOENT, errno.EPERM, *_LACKING)}

Json = t.Any


def read(table: str) -> Guard | None:
    """The table as the kernel has it; None if there is none. Raises NotSupported, NotPermitted, KernelError."""
    try:
        listed = _run(["list", "table", FAMILY, table])
    except Refused as refused:
        if refused.errno == errno.ENOENT:
            return None
        raise failure(refused, table) from refused
    return decoded(json.loads(listed)["nftables"])


def script(op: str, guard: Guard) -> bytes:
    """What nft has to be told for an operation: C(add) and C(replace) alike put it in the place of what is there."""
    named = {"family": FAMILY, "name": guard.table}
    commands: list[Json] = [{"add": {"table": named}}, {"delete": {"table": named}}]
    if op != "remove":
        commands += [{"add": {"table": named}}, *({"add": part} for part in _encoded(guard))]
    return json.dumps({"nftables": commands}).encode()


def load(commands: bytes) -> None:
    """Carry them out, all or nothing. Raises Refused."""
    _run(["-f", "-"], commands)


def _encoded(guard: Guard) -> t.Iterator[Json]:
    where = {"family": FAMILY, "table": guard.table}
    for each in guard.sets:
        yield {"set": {**where, "name": each.name, "type": each.type, **_members(each)}}
    for chain in guard.chains:
        hook = {"type": chain.type, "hook": chain.hook, "prio": chain.priority, "policy": chain.policy}
        yield {"chain": {**where, "name": chain.name, **(hook if chain.hook else {})}}
    for chain in guard.chains:
        for each_rule in chain.rules:
            yield {"rule": {**where, "chain": chain.name, "expr": json.loads(each_rule)}}


def _members(each: NamedSet) -> Json:
    if each.type == DEVICES:
        return {"elem": [device(name) for name in each.elements]}
    return {"flags": ["interval"], "elem": [_prefix(text) for text in each.elements]}


def _prefix(text: str) -> Json:
    address, _slash, length = text.partition("/")
    return {"prefix": {"addr": address, "len": int(length)}} if length else text


def decoded(listed: t.Sequence[Json]) -> Guard:
    """The table that nft lists. What we never make is kept as text, so that it makes a difference."""
    found: dict[str, list[Json]] = {}
    for entry in listed:
        for kind, content in entry.items():
            found.setdefault(kind, []).append(content)
    table = found.pop("table")[0]
    sets, chains, rules = (found.pop(kind, []) for kind in ("set", "chain", "rule"))
    found.pop("metainfo", None)
    usual = [each for each in sets if _is_usual(each)]
    odd = [("set", each) for each in sets if not _is_usual(each)]
    odd += [(kind, each) for kind, contents in found.items() for each in contents]
    strange = [f"{kind} {each.get('name')}" for kind, each in odd]
    strange += [f"flags {table['flags']}"] if table.get("flags") else []
    return Guard(
        table["name"],
        tuple(sorted(map(_set, usual), key=lambda each: each.name)),
        tuple(sorted((_chain(each, rules) for each in chains), key=lambda each: each.name)),
        tuple(sorted(strange)),
    )


def _is_usual(content: Json) -> bool:
    """Whether a set is of a kind that we make; one with timeouts or counters is not."""
    elements = content.get("elem", [])
    return (
        content["type"] in (DEVICES, *ADDRESSES.values())
        and content.get("flags", []) in ([], "interval", ["interval"])
        and not content.keys() & {"timeout", "stmt", "map"}
        and all(isinstance(each, str) or each.keys() & {"prefix", "range"} for each in elements)
    )


def _set(content: Json) -> NamedSet:
    if content["type"] == DEVICES:
        return NamedSet.devices(content["name"], content.get("elem", []))
    family = next(family for family, name in ADDRESSES.items() if name == content["type"])
    prefixes = [prefix for each in content.get("elem", []) for prefix in _prefixes(each)]
    return NamedSet.addresses(content["name"], family, prefixes)


def _prefixes(element: Json) -> list[str]:
    if isinstance(element, str):
        return [element]
    if "prefix" in element:
        return [f"{element['prefix']['addr']}/{element['prefix']['len']}"]
    first, last = map(ipaddress.ip_address, element["range"])
    return [str(network) for network in ipaddress.summarize_address_range(t.cast(t.Any, first), t.cast(t.Any, last))]


def _chain(content: Json, rules: t.Iterable[Json]) -> Chain:
    own = tuple(rule(*each["expr"]) for each in rules if each["chain"] == content["name"])
    if "hook" not in content:
        return Chain(content["name"], own)
    return Chain(content["name"], own, content["hook"], content["prio"], content["type"], content["policy"])


# -- the program


def _program() -> str | None:
    return next((path for path in PROGRAMS if os.access(path, os.X_OK)), None)


def _run(arguments: t.Sequence[str], commands: bytes = b"") -> bytes:
    """What nft prints. Raises Refused, also where there is no nft."""
    program = _program()
    if program is None:
        raise Refused(errno.EOPNOTSUPP, "this host does not have it")
    try:
        done = subprocess.run(
            [program, "-j", *arguments],
            input=commands,
            capture_output=True,
            check=False,
            cwd="/",
            env={"LC_ALL": "C"},
            timeout=LONGEST,
        )
    except subprocess.TimeoutExpired as exc:
        raise Refused(errno.ETIMEDOUT, f"nft did not end within {LONGEST} s") from exc
    if done.returncode:
        raise _refused(done.stderr.decode(errors="replace"))
    return done.stdout


def _refused(said: str) -> Refused:
    """Why nft failed. It prints what strerror(3) says, and behind it the command at fault, which is ours."""
    number = next((number for text, number in _ERRORS.items() if text in said), errno.EINVAL)
    return Refused(number, " ".join(said.partition("\n")[0].split()))


def failure(refused: Refused, table: str) -> RoutingError:
    """Our error for a table that could not be read or loaded."""
    if refused.errno == errno.EPERM:
        return NotPermitted(f"may not look at table {FAMILY} {table}", accepted="root with CAP_NET_ADMIN")
    if refused.errno in _LACKING or "JSON" in refused.text:
        return NotSupported(f"cannot be used: {refused.text}", field="nft", value=_program(), accepted=_NEEDED)
    return KernelError(refused.text, errno=refused.errno, operation=f"list table {FAMILY} {table}")
