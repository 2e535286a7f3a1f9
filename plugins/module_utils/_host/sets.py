# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""The sets that this host keeps, also when some of them cannot be believed."""

from __future__ import annotations

import dataclasses
import typing as t

from .._confirm import Armed
from .._errors import Conflict, InvalidInput, NotPermitted, RoutingError
from .._model.path import IdentityPaths
from .._paths import present
from .._record import Record
from .._store import Store, all_stores, store_for
from .._surroundings import Host

if t.TYPE_CHECKING:
    import pathlib

    from .._kernel import Kernel


@dataclasses.dataclass(frozen=True)
class Kept:
    """One set as its file says, or why it does not say it."""

    name: str
    persistent: bool
    record: Record | None
    error: RoutingError | None = None
    armed: Armed | None = None  # what waits for its confirmation; then C(record) is the one that is not confirmed yet


class ReadableStore(Store):
    """A store that passes over what cannot be read, so that one bad file does not stop the other sets.

    C(without) are sets that are not to be seen either.
    """

    def __init__(self, root: pathlib.Path, *, owner: int, without: t.Container[str]) -> None:
        super().__init__(root, owner=owner)
        self._without = without

    def names(self) -> list[str]:
        return [name for name in super().names() if name not in self._without and self._is_readable(name)]

    def _is_readable(self, name: str) -> bool:
        try:
            self.read(name)
            self.pending(name)
        except RoutingError:
            return False
        return True


def kept_sets(netns: str | None, only: str | None = None) -> list[Kept]:
    """Every set of this host, the persistent ones first.

    Raises InvalidInput if C(only) names none of them, NotPermitted if this user may read none of them.
    """
    persistent = store_for(True, netns).root
    found: dict[str, Kept] = {}
    for store in all_stores(netns):
        for kept in _kept(store, persistent=store.root == persistent):
            found.setdefault(kept.name, kept)
    denied = [kept.error for kept in found.values() if isinstance(kept.error, NotPermitted)]
    if denied and len(denied) == len(found):
        raise denied[0]
    _as_armed(found, netns)
    if only is not None and only not in found:
        raise InvalidInput(
            "is no set of this host", field="set", value=only, accepted=", ".join(found) or "none, it has no sets"
        )
    return [kept for name, kept in found.items() if only in (None, name)]


def _as_armed(found: dict[str, Kept], netns: str | None) -> None:
    """As long as a change waits, it is what the kernel shall hold. One that is overdue is as good as undone."""
    armed = Host(None, netns).window.read() if found else None
    if armed is None or armed.expired:
        return
    store = next((store for store in all_stores(netns) if str(store.root) == armed.store), None)
    pending = store.pending(armed.name) if store else None
    if pending is None:
        return
    if armed.absent:
        del found[armed.name]
    else:
        found[armed.name] = dataclasses.replace(found[armed.name], record=pending, error=None, armed=armed)


def readable_stores(netns: str | None, *, without: t.Container[str] = ()) -> list[Store]:
    """The stores of this host as far as they can be believed, some sets left out."""
    found: list[Store] = []
    for store in all_stores(netns):
        try:
            store.names()
        except RoutingError:
            continue  # kept_sets reports it
        found.append(ReadableStore(store.root, owner=store.owner, without=without))
    return found


def _kept(store: Store, *, persistent: bool) -> t.Iterator[Kept]:
    try:
        names = store.names()
    except RoutingError as exc:
        yield Kept(str(store.root), persistent, None, exc)
        return
    for name in names:
        try:
            record = store.read(name)
            store.pending(name)
        except RoutingError as exc:
            yield Kept(name, persistent, None, exc)
            continue
        yield Kept(name, persistent, record, None if record else _unfinished(name))


def _unfinished(name: str) -> Conflict:
    """The first run for this set was killed: nobody has seen that what it was about to do works."""
    return Conflict("was begun and never finished", field="set", value=name, accepted="another run of its play")


def known_identities(kernel: Kernel, sets: t.Iterable[Kept]) -> list[IdentityPaths]:
    """The identities of these sets as last found, with the devices that are up now."""
    found: dict[str, IdentityPaths] = {}
    for entry in [entry for kept in sets if kept.record for entry in kept.record.identities]:
        known = found.get(entry["name"], IdentityPaths(entry["name"], required=entry["required"]))
        found[known.name] = dataclasses.replace(
            known,
            addresses=(*known.addresses, *entry["addresses"]),
            devices=(*known.devices, *([entry["interface"]] if entry["interface"] else [])),
            tables=(*known.tables, entry["table"]),
            gateways=(*known.gateways, *entry["gateways"]),
        )
    links = kernel.links()
    return [present(identity, links) for identity in found.values()]
