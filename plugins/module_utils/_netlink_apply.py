# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Operations that are done all or not at all."""

from __future__ import annotations

import errno
import functools
import typing as t

from . import _guard
from . import _netlink_host as host_messages
from . import _netlink_route as route_messages
from . import _netlink_rule as rule_messages
from ._errors import NotSupported, RoutingError
from ._model.guard import Guard
from ._model.operation import LinkGroup, Operation, OwnLink, Sysctl
from ._model.route import Route
from ._model.rule import Rule
from ._netlink_answers import Answers, device_index, failure
from ._netlink_codec import Codec, Content, Message
from ._netlink_delete import Held, count, first_hit, same
from ._netlink_link import change_link
from ._netlink_socket import NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, Refused
from ._sysctl import change_sysctl

# What the kernel answers when an operation has nothing left to do.
_NOTHING_TO_DO = {"add": (errno.EEXIST,), "remove": (errno.ENOENT, errno.ESRCH, errno.ENODEV)}

_REQUESTS = {
    "rule": {"add": "RTM_NEWRULE", "remove": "RTM_DELRULE"},
    "route": {"add": "RTM_NEWROUTE", "replace": "RTM_NEWROUTE", "remove": "RTM_DELROUTE"},
    "group": {"set": "RTM_SETLINK"},
}
_FLAGS = {"add": NLM_F_CREATE | NLM_F_EXCL, "replace": NLM_F_CREATE | NLM_F_REPLACE, "remove": 0, "set": 0}

Prepared = tuple[Operation, bytearray]


class Channel(t.Protocol):
    """What a transaction needs of a kernel."""

    def rules(self, family: int) -> list[Rule]:
        """All rules, in order."""

    def routes(self, family: int, *, table: int | None = None, protocol: int | None = None) -> list[Route]:
        """Routes of a table."""

    def tell(self, requests: t.Sequence[bytearray]) -> Answers:
        """Send requests; the answer to each."""

    def renew(self) -> None:
        """Another socket."""


class Transaction:
    """One run over operations, with what was done so far."""

    def __init__(self, kernel: Channel, codec: Codec) -> None:
        self._kernel = kernel
        self._codec = codec
        self._index = functools.lru_cache(maxsize=None)(device_index)
        self._done: list[Operation] = []

    def run(self, operations: t.Sequence[Operation]) -> None:
        """Everything is encoded before the first change, so that a device that is missing changes nothing.

        A device of our own has to be made before what names it can be encoded.
        """
        self._require_dscp(operations)
        made = [operation for operation in operations if (operation.op, operation.kind) == ("add", "link")]
        rest = [operation for operation in operations if operation not in made]
        for part in filter(None, (made, rest)):
            for batch in self._prepared(part):
                failed = self._sent(batch)
                if failed is not None:
                    raise self._undone(*failed)

    def _prepared(self, operations: t.Sequence[Operation]) -> list[list[Prepared]]:
        try:
            return [self._prepare(batch) for batch in _batches(operations)]
        except RoutingError:
            self._take_back()
            raise

    def _sent(self, batch: t.Sequence[Prepared]) -> tuple[Operation, Refused] | None:
        """As _send; when the answers are lost, all of the batch may have been done, and a new socket takes it back."""
        try:
            return self._send(batch)
        except (Refused, RoutingError) as exc:
            self._done.extend(operation for operation, _request in batch)
            self._kernel.renew()
            return batch[0][0], exc if isinstance(exc, Refused) else Refused(errno.EIO, str(exc))

    def _require_dscp(self, operations: t.Sequence[Operation]) -> None:
        """A kernel that does not know a selector ignores it, and the rule would match everything.

        Asked by a delete that can hit nothing: who knows dscp refuses its value, who does not finds no such rule.
        """
        targets = [operation.target for operation in operations if operation.op == "add"]
        wanted = [target for target in targets if isinstance(target, Rule) and target.dscp is not None]
        if not wanted:
            return
        nothing = Rule(wanted[0].family, 0, action="blackhole", iif="?", oif="?", dscp=255, protocol=255)
        try:
            answer = self._kernel.tell([self._encode(Operation("remove", nothing))])[0]
        except Refused as refused:
            raise failure(refused, "the question whether rules know dscp") from refused
        if answer is not None and answer.errno == errno.ENOENT:
            why = "is not known to this kernel as a selector of rules, which takes Linux 6.13 or later"
            raise NotSupported(why, field="dscp", value=wanted[0].dscp)

    def _encode(self, operation: Operation, flags: int | None = None) -> bytearray:
        """The message of an operation. Raises Refused (ENODEV) if it names a device that is not there."""
        if isinstance(operation.target, (Sysctl, OwnLink)):
            return bytearray()  # a file, or more than one message
        if isinstance(operation.target, Guard):
            return bytearray(_guard.script(operation.op, operation.target))
        message, content = _content(operation.target, self._index)
        asked = NLM_F_REQUEST | NLM_F_ACK | (_FLAGS[operation.op] if flags is None else flags)
        return self._codec.encode(message, _REQUESTS[operation.kind][operation.op], asked, content)

    def _prepare(self, batch: t.Sequence[Operation]) -> list[Prepared]:
        prepared = []
        for operation in batch:
            try:
                prepared.append((operation, self._encode(operation)))
            except Refused as refused:
                if not _is_done(operation, refused):
                    raise failure(refused, _text(operation)) from refused
        return prepared

    def _send(self, batch: t.Sequence[Prepared]) -> tuple[Operation, Refused] | None:
        """Send a batch; the first refusal. What the kernel has really done is remembered."""
        failed = None
        for (operation, _request), refused in zip(batch, self._answers(batch)):
            if refused is None:
                self._done.append(operation)
            elif failed is None and not _is_done(operation, refused):
                failed = (operation, refused)
        return failed

    def _answers(self, batch: t.Sequence[Prepared]) -> Answers:
        """A delete takes what the request leaves out as any: where it would hit something else, it is not just sent."""
        kind = batch[0][0].kind if batch else None
        if kind == "guard":
            return [_load(script) for _operation, script in batch]
        if kind in ("sysctl", "link"):
            return [self._answer_other(operation) for operation, _request in batch]
        held = Held(self._kernel)
        missed = [operation.op == "remove" and held.misses(operation.target) for operation, _request in batch]
        if any(missed) and kind == "rule":
            return [self._answer_alone(prepared) for prepared in batch]
        sent = [self._requests(prepared, held) for prepared in batch]
        answers = iter(self._kernel.tell([request for requests in sent for request in requests]))
        found = [[next(answers) for _request in requests] for requests in sent]
        return [next(filter(None, each), None) if each else Refused(errno.ESRCH) for each in found]

    def _requests(self, prepared: Prepared, held: Held) -> list[bytearray]:
        """The request. A route that a delete would take instead of the one meant then replaces that one, so that there
        is a route at all times; a delete that would take none of those meant is left out.
        """
        operation, request = prepared
        taken = held.takes(operation.target) if operation.op == "remove" else operation.target
        if taken is None:
            return []
        return [request] if taken == operation.target else [request, self._encode(Operation("replace", taken))]

    def _answer_other(self, operation: Operation) -> Refused | None:
        """Carry out what is no single message of netlink."""
        if isinstance(operation.target, OwnLink):
            return change_link(operation.op, operation.target, self._codec, self._kernel.tell)
        if isinstance(operation.target, Sysctl):
            return change_sysctl(operation.target)
        raise TypeError(f"no way to {_text(operation)}")

    def _answer_alone(self, prepared: Prepared) -> Refused | None:
        operation, request = prepared
        if isinstance(operation.target, Rule) and Held(self._kernel).misses(operation.target):
            return self._remove_behind(operation.target, request)
        return self._kernel.tell([request])[0]

    def _remove_behind(self, target: Rule, request: bytearray) -> Refused | None:
        """Remove a rule where the delete would hit another first: that one is put behind it, at no time missing.

        Somebody else's is not moved, unless it does the same: a twin without a protocol is hit through ours.
        """
        before = rules = self._kernel.rules(target.family)
        if not any(same(rule, target) for rule in rules):
            return Refused(errno.ENOENT)
        while count(target, rules) == count(target, before):
            hit = first_hit(target, rules)
            if hit is None or same(hit, target):
                return self._kernel.tell([request])[0]
            if hit != target and hit.protocol != target.protocol:
                return Refused(errno.EBUSY, f"the kernel would remove {hit.text()!r} instead")
            refused = self._move_behind(hit, request)
            if refused is not None:
                return refused
            rules = self._kernel.rules(target.family)
        return None

    def _move_behind(self, hit: Rule, request: bytearray) -> Refused | None:
        """A second copy at the end, then the delete, which takes the first copy."""
        before = count(hit, self._kernel.rules(hit.family))
        copy = self._encode(Operation("add", hit), flags=NLM_F_CREATE)
        answers = self._kernel.tell([copy, request])
        refused = next(filter(None, answers), None)
        if refused is not None or count(hit, self._kernel.rules(hit.family)) == before:
            return refused
        # A kernel that told the two apart after all: it has removed the right one, and the copy is one too many.
        return self._kernel.tell([self._encode(Operation("remove", hit))])[0]

    def _undone(self, operation: Operation, refused: Refused) -> RoutingError:
        """Take back what was done; the error to raise."""
        left = self._take_back()
        if left:
            refused = Refused(refused.errno, f"{refused.text}; could not be undone: {', '.join(left)}")
        return failure(refused, _text(operation))

    def _take_back(self) -> list[str]:
        """Take back what was done, the last first; what could not be, and why."""
        batches = _batches([_inverse(done) for done in reversed(self._done)])
        return [text for batch in batches for text in self._back(batch)]

    def _back(self, inverses: t.Sequence[Operation]) -> list[str]:
        """Carry out inverse operations; those that failed, and why."""
        prepared, left = [], []
        for inverse in inverses:
            try:
                prepared.append((inverse, self._encode(inverse)))
            except Refused as refused:
                left.append((inverse, refused))
        try:
            answers = self._answers(prepared) if prepared else []
        except (Refused, RoutingError) as exc:
            answers = [exc if isinstance(exc, Refused) else Refused(errno.EIO, str(exc))] * len(prepared)
        left += [(inverse, refused) for (inverse, _request), refused in zip(prepared, answers) if refused is not None]
        return [f"{_text(inverse)} ({refused.text})" for inverse, refused in left if not _is_done(inverse, refused)]


def _load(script: bytearray) -> Refused | None:
    """Load a table; why it was refused. Raises Refused where nft was given up: it may have done its work."""
    try:
        _guard.load(bytes(script))
    except Refused as refused:
        if refused.errno == errno.ETIMEDOUT:
            raise
        return refused
    return None


def _content(target: Rule | Route | LinkGroup, index: route_messages.Index) -> tuple[Message, Content]:
    if isinstance(target, Rule):
        return rule_messages.MESSAGE, rule_messages.encode(target)
    if isinstance(target, Route):
        return route_messages.MESSAGE, route_messages.encode(target, index)
    return host_messages.LINK, host_messages.encode_group(index(target.name), target.group)


def _inverse(operation: Operation) -> Operation:
    """A replace that had nothing to replace has created."""
    if operation.op == "replace" and operation.before is None:
        return Operation("remove", operation.target)
    return operation.inverse()


def _batches(operations: t.Sequence[Operation]) -> t.Iterator[list[Operation]]:
    """Runs of the same kind of operation, which go in one write.

    The kernel goes on behind a request that it refuses. Were rules sent together with the routes that they need, a
    refused backstop would be followed by the rule that leaks without it.
    """
    batch: list[Operation] = []
    for operation in operations:
        if batch and (operation.op, operation.kind) != (batch[0].op, batch[0].kind):
            yield batch
            batch = []
        batch.append(operation)
    if batch:
        yield batch


def _is_done(operation: Operation, refused: Refused) -> bool:
    return refused.errno in _NOTHING_TO_DO.get(operation.op, ())


def _text(operation: Operation) -> str:
    return f"{operation.op} {operation.kind} {operation.target.text()}"
