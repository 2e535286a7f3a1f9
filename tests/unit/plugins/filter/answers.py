# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers of module endpoint_info as hosts give them, and as a hostile one may."""

from __future__ import annotations

import typing as t

Answer = dict[str, t.Any]

FINDING = {
    "kind": "ahead",
    "severity": "warning",
    "object": "ipv4: 1000: from all lookup 77 proto 99",
    "text": "is asked before our block, which begins at 2000",
    "advice": "give it 3000 or above",
}
REPAIR = {
    "set": "main",
    "done": "put back",
    "object": "rule ipv4 2301: from 198.51.100.10 iif lo lookup 2002",
    "first": "2026-11-28T03:00:00+00:00",
    "last": "2026-11-28T03:10:00+00:00",
    "times": 3,
}
META = {
    "when": "2026-11-28T04:00:00+00:00",
    "user": "alice",
    "controller": "192.0.2.250",
    "play": "Correct routing",
    "version": "1.0.0",
}
STEP = {"op": "add", "kind": "rule", "text": "2301:\tfrom 198.51.100.10 iif lo lookup 2002"}
# Of the path from the inside address: device and table.
LED = {"wrong": ("eth0", 77, "unicast"), "pending": (None, None, "unreachable")}

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title></style></script><script>alert(1)</script>",
    "--><svg onload=alert(1)>",
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "\x00\x1b]0;x\x07",
)


def host(state: str = "proven", addresses: t.Sequence[str] = ("198.51.100.10",)) -> Answer:
    """A host with two identities, the inside one in a state."""
    verdict = state if state in ("wrong", "pending") else "proven"
    dev, table, kind = LED.get(state, ("wg0", 2002, "unicast"))
    inside = _identity("inside", verdict, "wg0", addresses, 2002)
    return {
        "sets": [
            {
                "name": "main",
                "state": state,
                "error": None,
                "plan": [STEP] if state == "drifted" else [],
                "meta": META,
                "identities": [inside],
            }
        ],
        "identities": [_identity("outside", "proven", "eth0", ["192.0.2.10"], 2001), inside],
        "paths": [
            _path("outside", "192.0.2.10", "eth0", 2001, "unicast", "proven"),
            _path("inside", addresses[0], dev, table, kind, verdict),
        ],
        "findings": [FINDING] if state == "wrong" else [],
        "refused": [],
        "repairs": [REPAIR],
    }


def _identity(key: str, verdict: str, interface: str, addresses: t.Sequence[str], table: int) -> Answer:
    return {
        "set": "main",
        "key": key,
        "verdict": verdict,
        "interface": interface,
        "addresses": list(addresses),
        "pools": [],
        "gateways": [],
        "table": table,
    }


def _path(identity: str, source: str, dev: str | None, table: int | None, kind: str, verdict: str) -> Answer:
    return {
        "identity": identity,
        "from": source,
        "to": "203.0.113.1",
        "dev": dev,
        "gateway": None,
        "src": source,
        "table": table,
        "type": kind,
        "verdict": verdict,
    }


def everywhere(answer: t.Any, text: str, kept: t.Collection[str]) -> t.Any:
    """The same with this text in the place of every other, but for what is kept."""
    if isinstance(answer, dict):
        return {key: value if key in kept else everywhere(value, text, kept) for key, value in answer.items()}
    if isinstance(answer, list):
        return [everywhere(each, text, kept) for each in answer]
    return text if isinstance(answer, str) else answer
