# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""The host around its kernel: name files, VPN clients, leases, and where records are kept."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import pathlib
import typing as t

from . import _names
from ._confirm import Window
from ._errors import NotPermitted, NotSupported
from ._leases import lease_gateways
from ._model.declaration import Declaration
from ._recipe.block import BLOCK
from ._record import Record
from ._store import PERSISTENT_ROOT, RUNTIME_ROOT, Store, all_stores, store_for
from ._tunnels import Client, find_clients, refuse_lost_sockets, refuse_overtaking, told_clients

if t.TYPE_CHECKING:
    from ._kernel import Kernel


class Host:
    """This host, or one of its network namespaces, whose names and VPN clients are not ours to know."""

    def __init__(
        self,
        kernel: Kernel | None,
        netns: str | None,
        *,
        persistent: bool = False,
        build: t.Callable[[], bytes] | None = None,
    ) -> None:
        """C(build) makes the program that undoes a change which is not confirmed."""
        self._kernel = kernel
        self._netns = netns
        self.clients: list[Client] = []
        self.store: Store = store_for(persistent, netns)
        self.stores: t.Sequence[Store] = all_stores(netns)
        self.window = Window(self.runtime, netns, owner=self.store.owner, build=build)

    @functools.cached_property
    def _tables(self) -> _names.Names:
        return _names.Names.read(netns=self._netns)

    def table(self, value: object, field: str) -> int:
        """The number of a table that the host knows by name or number. Raises InvalidInput."""
        return self._tables.table(value, field)

    def named_tables(self) -> dict[str, int]:
        """All table names of the host."""
        return {entry.name: entry.id for entry in self._tables.entries}

    def refuse_contradiction(self, wanted: t.Sequence[tuple[str, int]]) -> None:
        """Refuse names that would contradict other files than ours. Raises Conflict. In a namespace none is written."""
        for index, (name, number) in enumerate(wanted if self._netns is None else ()):
            _names.refuse_contradiction(self._tables, name, number, field=f"tables[{index}].")

    def misnamed_tables(self, wanted: t.Mapping[str, int], before: t.Mapping[str, int]) -> list[str]:
        """The lines of our own file that naming these tables would change. A namespace has no files of its own."""
        if self._netns is not None:
            return []
        held = self._tables.own_text()
        after = _names.edited(held, add=_by_number(wanted), remove=set(before) - set(wanted))
        old, new = held.splitlines(), after.splitlines()
        changed = [*(f"-{line}" for line in old if line not in new), *(f"+{line}" for line in new if line not in old)]
        return [line for line in changed if not line[1:].startswith("#")]

    def name_tables(self, wanted: t.Mapping[str, int], before: t.Mapping[str, int]) -> None:
        """Write them, and the names of our protocols as long as any set is there."""
        if self._netns is not None:
            return
        _names.edit(self._tables, add=_by_number(wanted), remove=set(before) - set(wanted))
        if wanted:
            _names.name_protocols()
        elif not self._tables.own_text():
            _names.edit(_names.Names.read(_names.PROTOCOLS), remove=set(_names.OUR_PROTOCOLS.values()))

    def tunnels(self, declaration: Declaration) -> dict[str, str]:
        """The device of each tunnel identity, as its VPN client has it. Raises Conflict for a client that cannot be
        lived with.
        """
        self.clients = find_clients(declaration, self._files, self._holder)
        refuse_overtaking(self.clients)
        refuse_lost_sockets(declaration, self.clients)
        return {client.identity: client.interface for client in self.clients if client.interface}

    def clients_told(self, record: Record, name: str) -> list[dict[str, t.Any]]:
        """The clients for the result, with what each must be told of the tables and rules of all sets, C(record) being
        that of set C(name).
        """
        others = [other for store in self.stores for key, other in store.read_all().items() if key != name]
        sets = [record, *others]
        tables = [table for each in sets for table in each.tables.values()]
        end = max(each.numbers["priority_base"] for each in sets) + BLOCK
        return [client.as_result() for client in told_clients(self.clients, tables, end, self._files)]

    @property
    def _files(self) -> pathlib.Path:
        """The clients of a namespace have their files elsewhere; then a connection's name is all there is to go by."""
        return pathlib.Path("/") if self._netns is None else pathlib.Path("/nonexistent")

    def _holder(self, address: str) -> str | None:
        """The device that has an address now."""
        held = self._kernel.addresses() if self._kernel else []
        return next((found.dev for found in held if found.address == address), None)

    def gateways(self) -> dict[str, tuple[str, ...]]:
        """Gateways by device, from leases and router advertisements."""
        if self._kernel is None:
            return {}
        links = {link.index: link.name for link in self._kernel.links()}
        found = {} if self._netns is not None else lease_gateways(links)
        for device, address in self._kernel.router_neighbours():
            found[device] = (*found.get(device, ()), address)
        return found

    @contextlib.contextmanager
    def lock(self) -> t.Iterator[None]:
        """One change at a time: a module, the boot unit and the watch may run together."""
        with _lock(self.runtime / "lock"):
            yield

    @property
    def runtime(self) -> pathlib.Path:
        """Where this boot's state is."""
        return self.store.root.parent if self._netns else RUNTIME_ROOT

    @property
    def history(self) -> pathlib.Path:
        """What happened since the boot."""
        return self.runtime / "history.json"

    @property
    def notes(self) -> pathlib.Path:
        """What a boot does not end."""
        return (self.runtime if self._netns else PERSISTENT_ROOT) / "notes.json"

    def tidy(self, *, notes: bool = True) -> None:
        """After the last set nothing is left of this, or nothing but the notes: called by the holder of the lock."""
        if any(store.names() for store in self.stores):
            return
        for folder in (self.runtime / "sets.d" / "generations", self.runtime / "sets.d"):
            _remove_empty(folder)
        for path in (*([self.notes] if notes else []), self.history, self.runtime / "lock"):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        for folder in (self.notes.parent, self.runtime, RUNTIME_ROOT / "netns", RUNTIME_ROOT):
            _remove_empty(folder)


def _by_number(wanted: t.Mapping[str, int]) -> dict[int, str]:
    return {number: name for name, number in wanted.items()}


def _remove_empty(folder: pathlib.Path) -> None:
    with contextlib.suppress(OSError):  # not there, or not empty, or left: an empty directory does no harm
        folder.rmdir()


@contextlib.contextmanager
def _lock(path: pathlib.Path) -> t.Iterator[None]:
    handle = _locked(path)
    try:
        yield
    finally:
        os.close(handle)


def _locked(path: pathlib.Path) -> int:
    """The file, locked. Its last holder may have removed it while we waited; then the wait was for nothing."""
    while True:
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except PermissionError as exc:
            raise NotPermitted(f"cannot write {path}") from exc
        except FileNotFoundError:
            continue  # the directory went between the two calls
        except OSError as exc:
            raise NotSupported(f"cannot be written: {exc.strerror}", field="lock", value=str(path)) from exc
        fcntl.flock(handle, fcntl.LOCK_EX)
        if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
            return handle
        os.close(handle)
