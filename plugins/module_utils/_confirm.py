# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""The dead-man's switch: a change is undone unless it is confirmed.

Before the kernel is changed, what takes the change back is written to C(armed.json) below /run, and something that
carries it out after a while is started (_switch). The new state is the set's pending record. It is confirmed at the
moment when that becomes the current one: who finds C(armed.json) without it only clears up. After a boot nothing of
this is left, and the earlier record is what is applied.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import secrets
import sys
import time
import typing as t

from . import _switch
from ._errors import Conflict, InvalidInput, RoutingError
from ._files import permitted, present, trusted, unfinished, write_whole
from ._model import fields
from ._record import operations_from, operations_of
from ._store import Store

if t.TYPE_CHECKING:
    from ._kernel import Kernel
    from ._model.operation import Operation

RECONNECT, PROBE, NONE = ("reconnect", "probe", "none")
PROGRAM = "fleetvpn-endpoint"  # what confirms and restores, where armed.json is
_BOOT_ID = pathlib.Path("/proc/sys/kernel/random/boot_id")


@dataclasses.dataclass(frozen=True)
class Terms:
    """How a change is confirmed, and after how many seconds it is undone otherwise."""

    by: str = NONE
    timeout: int = 30
    address: str | None = None  # of the probe
    port: int | None = None

    @classmethod
    def of(cls, params: t.Mapping[str, t.Any], *, connected: bool = True) -> Terms:
        """From option C(confirm). In a namespace where no controller is C(connected) it is none unless said otherwise.

        Raises InvalidInput.
        """
        given = {key: value for key, value in params.items() if value is not None}
        terms = cls(**{"by": RECONNECT if connected else NONE, **given})
        if not 1 <= terms.timeout <= 3600:
            raise InvalidInput("is no time", field="confirm.timeout", value=terms.timeout, accepted="1 to 3600 seconds")
        if terms.address is not None:
            fields.address(terms.address, "confirm.address")
        if terms.port is not None and not 1 <= terms.port <= 65535:
            raise InvalidInput("is no port", field="confirm.port", value=terms.port, accepted="1 to 65535")
        lacking = [key for key in ("address", "port") if getattr(terms, key) is None]
        if terms.by == PROBE and lacking:
            raise InvalidInput(
                "has nothing to reach",
                field=f"confirm.{lacking[0]}",
                accepted="the address and TCP port of something that answers",
            )
        return terms


@dataclasses.dataclass(frozen=True)
class Armed:
    """A change that waits for its confirmation. All of it is plain JSON data."""

    token: str
    name: str  # of the set
    store: str  # where its pending record is
    absent: bool  # whether the set is being removed
    names: dict[str, int]  # of tables, as they were
    holder: str
    timeout: int
    deadline: float  # seconds of CLOCK_BOOTTIME, which goes on while the host sleeps and heeds no clock that is set
    boot: str
    undo: list[dict[str, t.Any]]  # operations, in the order in which they are carried out
    switch: str = ""

    @property
    def left(self) -> float:
        """Seconds until it is undone; none after a boot."""
        return self.deadline - _now() if self.boot == _boot() else 0.0

    @property
    def expired(self) -> bool:
        """Whether it is to be undone now."""
        return self.left <= 0

    def line(self, *, counting: bool = True) -> str:
        """Who holds the host, and for how long; without C(counting) in the same words as long as it waits."""
        when = f"in {max(self.left, 0):.0f} s" if counting else f"{self.timeout} s after it was made"
        return f"the change of set {self.name} by {self.holder} is undone {when} unless confirmed"


def new(name: str, store: Store, terms: Terms, holder: str, *, absent: bool, names: dict[str, int]) -> Armed:
    """A change that is about to begin; its time starts now."""
    return Armed(
        token=secrets.token_hex(8),
        name=name,
        store=str(store.root),
        absent=absent,
        names=names,
        holder=holder,
        timeout=terms.timeout,
        deadline=_now() + terms.timeout,
        boot=_boot(),
        undo=[],
    )


class Window:
    """The one change of a host, or of a network namespace, that may wait for its confirmation.

    C(build) gives the program that undoes and confirms. Only who holds the lock of the host may write.
    """

    def __init__(
        self, folder: pathlib.Path, netns: str | None, *, owner: int = 0, build: t.Callable[[], bytes] | None = None
    ) -> None:
        self._file = folder / "armed.json"
        self._program = folder / PROGRAM
        self._netns = netns
        self._owner = owner
        self._build = build

    def read(self) -> Armed | None:
        """What waits. Raises Conflict where the file is not to be believed, NotPermitted."""
        if not present(self._file):
            return None
        trusted(self._file, owner=self._owner, mode=0o600)
        try:
            with permitted(self._file):
                return Armed(**json.loads(self._file.read_bytes()))
        except (ValueError, TypeError) as exc:
            raise Conflict("is damaged", field="confirm", value=str(self._file), accepted="its removal") from exc

    def open(self, armed: Armed, undo: t.Iterable[Operation]) -> Armed:
        """Write down what takes the change back, then have it carried out when the time is up."""
        if self._build is None:
            raise ValueError("who only looks arms nothing")
        armed = dataclasses.replace(armed, undo=operations_from(undo))
        self._write(armed)
        write_whole(self._program, self._build())
        handle = _switch.start(self.command("restore", armed.token), armed.left, armed.token)
        armed = dataclasses.replace(armed, switch=handle)
        self._write(armed)
        return armed

    def extend(self, undo: t.Iterable[Operation]) -> None:
        """More is about to be done while the change waits; it is taken back first."""
        armed = self.read()
        if armed is not None:
            self._write(dataclasses.replace(armed, undo=[*operations_from(undo), *armed.undo]))

    def refuse_dead(self) -> None:
        """Refuse to rely on what does not run. Raises RoutingError."""
        armed = self.read()
        if armed is None or not _switch.alive(armed.switch, armed.token):
            raise RoutingError("what undoes the change unless it is confirmed does not run", field="confirm")

    def close(self) -> None:
        """Nothing waits any more."""
        armed = self.read()
        for path in (self._file, unfinished(self._file), self._program, unfinished(self._program)):
            with permitted(path):
                path.unlink(missing_ok=True)
        if armed is not None:
            _switch.stop(armed.switch, armed.token)

    def command(self, word: str, token: str) -> list[str]:
        """The command line that confirms or restores."""
        where = ["--netns", self._netns] if self._netns else []
        return [sys.executable, "-I", str(self._program), word, *where, token]

    def _write(self, armed: Armed) -> None:
        write_whole(self._file, json.dumps(dataclasses.asdict(armed), indent=1, sort_keys=True).encode())


class Surroundings(t.Protocol):
    """What of a host is needed to confirm or to restore."""

    stores: t.Sequence[Store]

    @property
    def window(self) -> Window:
        """The change that waits."""

    def name_tables(self, wanted: t.Mapping[str, int], before: t.Mapping[str, int]) -> None:
        """Give tables their names, and take away those that are no longer wanted."""


def settle(host: Surroundings, store: Store, name: str, before: t.Mapping[str, int], *, absent: bool) -> None:
    """What is pending becomes current, in one step; what comes behind it can be done again."""
    pending = store.pending(name)
    if pending is None and store.begun(name):
        raise Conflict("is damaged", field="set", value=name, accepted="another run of its play")
    if pending is not None:
        host.name_tables(pending.names, before)
        if absent:
            store.discard(name)
        else:
            store.commit(name)
    for other in host.stores:
        if absent:
            other.remove(name)
        elif other.root != store.root:
            with contextlib.suppress(RoutingError):  # it is current by now; the next run removes what is left
                other.remove(name)


def waiting(host: Surroundings, token: str | None) -> Armed:
    """What waits (the change of C(token) if that is given) and can be confirmed. Raises Conflict."""
    armed = host.window.read()
    if armed is None or token not in (None, armed.token) or armed.expired:
        raise Conflict(
            "does not wait for a confirmation: it has been undone, or is confirmed already",
            field="confirm",
            value=token or "the change",
            accepted="a confirmation in time",
        )
    return armed


def confirm(host: Surroundings, armed: Armed) -> None:
    """What waits is to stay, under the lock of the host. What is left to do is to close the window."""
    settle(host, _store(host, armed), armed.name, armed.names, absent=armed.absent)


def restore(kernel: Kernel, host: Surroundings, armed: Armed) -> list[str]:
    """Undo what was not confirmed, under the lock of the host; what could not be undone, one line each."""
    store, left = _store(host, armed), []
    pending = store.pending(armed.name)
    if store.begun(armed.name):
        left = take_back(kernel, operations_of(armed.undo))
        host.name_tables(armed.names, pending.names if pending else {})
        host.window.close()
        store.discard(armed.name)
    else:  # its confirmation was cut short
        confirm(host, armed)
        host.window.close()
    return left


def take_back(kernel: Kernel, operations: t.Sequence[Operation]) -> list[str]:
    """Carry out inverse operations: all at once, again if that failed, else one by one; the errors that are left."""
    for _attempt in range(2):
        try:
            kernel.apply(operations)
        except RoutingError:
            continue
        return []
    left = []
    for operation in operations:
        try:
            kernel.apply([operation])
        except RoutingError as exc:
            left.append(exc.line())
    return left


def overdue(host: Surroundings) -> Armed | None:
    """What should have been undone by now. Raises Conflict if somebody's change waits for its confirmation.

    To ask it before the lock of the host spares waiting for a controller that holds it while it probes.
    """
    armed = host.window.read()
    if armed is not None and not armed.expired:
        raise Conflict(
            f"is held: {armed.line()}", field="confirm", value=armed.name, accepted=f"another try in {armed.left:.0f} s"
        )
    return armed


def make_way(kernel: Kernel, host: Surroundings) -> None:
    """Before a change, under the lock of the host: undo what is overdue. Raises Conflict if somebody else's waits."""
    armed = overdue(host)
    if armed is not None:
        restore(kernel, host, armed)


def _store(host: Surroundings, armed: Armed) -> Store:
    for store in host.stores:
        if str(store.root) == armed.store:
            return store
    raise Conflict("is in no store of this host", field="confirm", value=armed.store, accepted="one of its own")


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _boot() -> str:
    return _BOOT_ID.read_text(encoding="ascii").strip()
