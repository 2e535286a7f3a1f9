# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a fleet stands, out of what each host answered: for playbooks verify and rollout, people, and programs."""

from __future__ import annotations

import collections
import collections.abc as c
import math
import typing as t
import xml.etree.ElementTree as ET

from ansible.errors import AnsibleFilterError

Entry = dict[str, t.Any]
PROVEN = "proven"
PENDING = "pending"
WRONG = "wrong"
DRIFTED = "drifted"
WAITING = "waiting"
# The worst state of a host's sets is the host's.
WORST_FIRST = (WRONG, DRIFTED, PENDING, PROVEN)
_BAD = (WRONG, DRIFTED)


def fleet_state(answers: object) -> Entry:
    """The state of a fleet. C(answers) is a mapping of host names to the results of module endpoint_info there; a host
    without an answer, or with one that says C(unreachable), is waiting.
    """
    if not isinstance(answers, c.Mapping):
        raise AnsibleFilterError("fleet_state: takes a dictionary of host names and results of endpoint_info")
    hosts = [_read(str(name), answer) for name, answer in answers.items()]
    counts = collections.Counter(host["state"] for host in hosts)
    return {
        "hosts": hosts,
        "counts": {state: counts[state] for state in (PROVEN, PENDING, WRONG, DRIFTED, WAITING)},
        "ok": not any(host["state"] in _BAD for host in hosts),
    }


def _read(name: str, answer: t.Any) -> Entry:
    """A host may say anything, and must not spoil what is told of the others."""
    try:
        return _host(name, answer)
    except (AttributeError, KeyError, TypeError):
        return _entry(name, WRONG, ["gave an answer that cannot be read"])


def _host(name: str, answer: t.Any) -> Entry:
    """One host: its state, why, and what is known of its identities."""
    given = answer if isinstance(answer, c.Mapping) else {}
    if not given or given.get("unreachable"):
        return _entry(name, WAITING, [_text(given.get("msg"), "was not reached")])
    if given.get("failed"):
        return _entry(name, WRONG, [_text(given.get("msg"), "failed without a word")])
    sets = list(given.get("sets") or ())
    refused = [_refusal(each) for each in given.get("refused") or ()]
    if not sets:
        return _entry(name, WRONG, refused or ["has no declaration"])
    states = [each["state"] for each in sets]
    state = WRONG if refused else next((state for state in WORST_FIRST if state in states), WRONG)
    paused = given.get("suspended")
    reasons = [_text(paused.get("text"), "")] if paused else [reason for each in sets for reason in _reasons(each)]
    return {
        **_entry(name, state, [*refused, *reasons]),
        "identities": [_identity(each) for each in given.get("identities") or ()],
    }


def _entry(name: str, state: str, reasons: list[str]) -> Entry:
    return {"name": name, "state": state, "reasons": reasons, "identities": []}


def _text(message: t.Any, otherwise: str) -> str:
    """One line of what a host or the connection to it said."""
    return " ".join(str(message or otherwise).split())


def _refusal(found: c.Mapping[str, t.Any]) -> str:
    """What was declared last is not there, however well the older declaration stands."""
    return f"{found['set']}: refused at {found['last']}: {_text(found['reason'], '')}"


def _reasons(found: c.Mapping[str, t.Any]) -> c.Iterator[str]:
    if found.get("error"):
        yield f"{found['name']}: {found['error']}"
    for step in found.get("plan") or ():
        yield f"{found['name']}: would {step['op']} {step['kind']} {_text(step['text'], '')}"
    for identity in found.get("identities") or ():
        if identity.get("verdict") in (WRONG, PENDING):
            yield f"{found['name']}: {identity['key']} is {identity['verdict']}"


def _identity(found: c.Mapping[str, t.Any]) -> Entry:
    return {key: found.get(key) for key in ("set", "key", "verdict", "interface", "addresses", "table")}


def fleet_junit(fleet: c.Mapping[str, t.Any], suite: str = "fleetvpn.routing.verify") -> str:
    """The state of a fleet as JUnit XML: a test case for each host; waiting and pending hosts are skipped ones."""
    counts = fleet["counts"]
    root = ET.Element(
        "testsuite",
        name=suite,
        tests=str(len(fleet["hosts"])),
        failures=str(sum(counts[state] for state in _BAD)),
        skipped=str(counts[WAITING] + counts[PENDING]),
    )
    for host in fleet["hosts"]:
        case = ET.SubElement(root, "testcase", classname=suite, name=_printable(host["name"]))
        if host["state"] != PROVEN:
            kind = "failure" if host["state"] in _BAD else "skipped"
            reasons = _printable("; ".join(host["reasons"]))
            ET.SubElement(case, kind, message=f"{host['state']}: {reasons}")
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _printable(text: str) -> str:
    """Without what XML cannot hold."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def fleet_table(fleet: c.Mapping[str, t.Any]) -> list[str]:
    """The state of a fleet for people: a line of counts, then a line for each host that is not proven."""
    counts = ", ".join(f"{count} {state}" for state, count in fleet["counts"].items())
    others = [host for host in fleet["hosts"] if host["state"] != PROVEN]
    return [counts, *(_line(host) for host in others)]


def _line(host: c.Mapping[str, t.Any]) -> str:
    return f"{host['name']}: {host['state']}, {'; '.join(host['reasons']) or 'no reason given'}"


def rollout_progress(hosts: object, budget: object, seconds: float) -> Entry:
    """How a roll-out stands after a batch.

    C(hosts) maps the names of all its hosts to what is known of them: C(began) once it was their turn, C(reached)
    whether they answered then, C(changed), C(state) and C(reason) once they are done. A host that began, was not found
    to be away, and is not done has been lost on the way, which counts as failed. C(budget) is how many may fail, a
    number or a percentage of all. C(seconds) have passed since the first batch began.
    """
    if not isinstance(hosts, c.Mapping):
        raise AnsibleFilterError("rollout_progress: takes a dictionary of hosts")
    found = {str(name): known or {} for name, known in hosts.items()}
    failed = [{"host": name, "reason": reason} for name, known in found.items() if (reason := _failure(known))]
    begun = [known for known in found.values() if known.get("began")]
    allowed = _allowed(budget, len(found))
    return {
        "failed": failed,
        "exceeded": len(failed) > allowed,
        "line": _progress(found, begun, failed, seconds),
    }


def _failure(known: c.Mapping[str, t.Any]) -> str | None:
    if not known.get("began") or _away(known):
        return None
    state = known.get("state")
    if state is None:
        begun = known.get("reached")
        return "could not be reached any more once the change had begun" if begun else "could not be asked for anything"
    return _text(known.get("reason"), str(state)) if state in _BAD else None


def _away(known: c.Mapping[str, t.Any]) -> bool:
    return known.get("reached") is False


def _progress(found: Entry, begun: list[t.Any], failed: list[Entry], seconds: float) -> str:
    done = len(begun)
    rate = done / seconds if seconds > 0 else 0.0
    left = f"{(len(found) - done) / rate:.0f} s left" if rate else "time left unknown"
    count = {
        "changed": sum(bool(known.get("changed")) for known in begun),
        "pending": sum(known.get("state") == PENDING for known in begun),
        "failed": len(failed),
        "waiting": sum(map(_away, begun)),
    }
    counts = ", ".join(f"{number} {what}" for what, number in count.items())
    return f"{done} of {len(found)} hosts done: {counts}; {rate:.1f} hosts/s, {left}"


def _allowed(budget: object, total: int) -> int:
    text = str(budget).strip()
    number = text.removesuffix("%")
    if not number.isascii() or not number.isdigit():
        raise AnsibleFilterError(f"rollout_failure_budget: {text!r} is no budget; accepted: a number, or a percentage")
    return math.floor(total * int(number) / 100) if text.endswith("%") else int(number)


class FilterModule:
    """The filters of this file, as Ansible asks for them."""

    def filters(self) -> dict[str, t.Callable[..., object]]:
        """Name to function."""
        return {
            "fleet_junit": fleet_junit,
            "fleet_state": fleet_state,
            "fleet_table": fleet_table,
            "rollout_progress": rollout_progress,
        }
