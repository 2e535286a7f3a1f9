# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""The kernel as this collection sees it, and the only import of pyroute2."""

from __future__ import annotations

import contextlib
import errno
import functools
import glob
import importlib
import importlib.util
import os
import re
import socket
import sys
import time
import types
import typing as t

from . import _guard
from . import _netlink_host as host_messages
from . import _netlink_route as route_messages
from . import _netlink_rule as rule_messages
from ._errors import InvalidInput, MissingDependency, NotSupported
from ._model.guard import Guard
from ._model.operation import Operation
from ._model.route import Route
from ._model.rule import Rule
from ._model.state import Address, Flow, Link, Path, Policy
from ._netlink_answers import Answers, device_index, failure
from ._netlink_codec import AF, Codec, Content, Library, Message
from ._netlink_socket import (
    HEADER_SIZE,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
    NetlinkSocket,
    Refused,
    TooMany,
)
from ._netns import inside, scratch
from ._reading import Readable
from ._sysctl import DIRECTORY, read_sysctl

if t.TYPE_CHECKING:
    from . import _netlink_copy as copies
    from ._netlink_filter import Interest

MINIMUM_PYROUTE2 = "0.7.2"
PRIVATE_SITE_PACKAGES = "/usr/local/lib/fleetvpn/site-packages"
IPV6_ADDRESSES = "/proc/net/if_inet6"


class Events(t.Protocol):
    """Changes in the kernel, as hints: what has changed is found out by reading."""

    def fileno(self) -> int:
        """For select and poll."""

    def read(self) -> list[str]:
        """Kinds (link, address, rule, route, ruleset) of the events that have come, without waiting; may be none after
        C(fileno) was readable. Raises EventsLost.
        """

    def narrow(self, interest: Interest) -> None:
        """Of the routes, let only these pass from now on; the kernel throws away the events of all others."""

    def close(self) -> None:
        """Stop listening."""


class Kernel(Readable, t.Protocol):
    """What the layers above need of a kernel. The tests hold a second implementation in memory to the same contract."""

    def apply(self, operations: t.Sequence[Operation]) -> None:
        """Carry out operations in order, many requests in one write.

        An add that exists already (EEXIST) and a remove of what is gone (ENOENT, ESRCH, ENODEV) count as done. On any
        other error, what was done is undone in reverse and KernelError (or NotPermitted, NotSupported) is raised.
        """

    def covering(self, family: int, table: int, destinations: t.Collection[str], most: int) -> list[Route] | None:
        """The routes of a table that hold one of the destinations.

        None if the table has more than C(most) routes, which shows before all of them are read.
        """

    def matched(self, flow: Flow) -> Route | None:
        """The route that answers a lookup; None if none does, or one that is an error."""

    def connections(self, most: int) -> list[Flow] | None:
        """What connected TCP and UDP sockets send; None if there are more than C(most). Raises NotSupported."""

    def router_neighbours(self) -> list[tuple[str, str]]:
        """Device and address of the IPv6 neighbours that said they are routers."""

    def answers(self, dev: str, address: str, seconds: float) -> bool:
        """Whether a neighbour is there: by ARP or neighbour discovery. On a device without, everybody is."""

    def events(self, *, rules: bool = False, routes: bool = False, ruleset: bool = False, own: bool = True) -> Events:
        """Listen to devices and addresses of both families, and on request to rules, routes, and our part of the
        nftables ruleset; without C(own) not to what C(apply) of this kernel does.
        """


@contextlib.contextmanager
def open_kernel(netns: str | None = None) -> t.Iterator[Kernel]:
    """The kernel of this host, or of a named network namespace (a name below /run/netns, or a path).

    While the context lasts, the calling thread is inside that namespace, so that /proc/sys/net is its too. Raises
    InvalidInput for an unknown namespace, NotPermitted, MissingDependency.
    """
    codec = _codec()
    with inside(netns), contextlib.closing(Netlink(codec)) as kernel:
        yield kernel


_REMEMBERED = 500  # decoded messages, of some kilobytes each


@contextlib.contextmanager
def open_scratch() -> t.Iterator[tuple[Kernel, copies.Scratch]]:
    """An empty network namespace, and what fills it. The calling thread is inside while the context lasts.

    Raises NotPermitted and NotSupported where none can be made.
    """
    from . import _netlink_copy as copies  # as all that a run without changes does not need

    codec = _codec()
    with scratch(), contextlib.closing(Netlink(codec)) as kernel:
        yield kernel, copies.Scratch(kernel, codec, DIRECTORY)


_MESSAGES = ("fibmsg", "rtmsg", "ifaddrmsg", "ndmsg")


class Netlink:
    """The kernel of the network namespace that the thread is in."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._socket = NetlinkSocket(codec.explanation)
        self._decoded: dict[tuple[str, bytes], dict[str, t.Any]] = {}

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def renew(self) -> None:
        """Another socket: answers of the one before were lost."""
        self._socket.close()
        self._socket = NetlinkSocket(self._codec.explanation)

    @property
    def received(self) -> int:
        """How many messages the kernel has sent: what reading has cost."""
        return self._socket.received

    def links(self) -> list[Link]:
        found = self._dump(host_messages.LINK, "RTM_GETLINK", host_messages.encode_links())
        return [host_messages.decode_link(fields) for fields in found]

    def addresses(self) -> list[Address]:
        found = self._dump(host_messages.ADDRESS, "RTM_GETADDR", Content({}, []))
        names = functools.lru_cache(maxsize=None)(device_name)
        addresses = [host_messages.decode_address(fields, names) for fields in found]
        return [address for address in addresses if address is not None]

    def rules(self, family: int) -> list[Rule]:
        # A host that was booted without IPv6 answers for its rules as a kernel without policy routing would.
        missing = (errno.EAFNOSUPPORT,) if family == 6 and not os.path.exists(IPV6_ADDRESSES) else ()
        asked = Content({"family": AF[family]}, [])
        found = self._dump(rule_messages.MESSAGE, "RTM_GETRULE", asked, missing=missing)
        return [rule_messages.decode(fields) for fields in found if fields["family"] == AF[family]]

    def routes(
        self, family: int, *, table: int | None = None, protocol: int | None = None, dev: str | None = None
    ) -> list[Route]:
        device = None if dev is None else _device_or_none(dev)
        if dev is not None and device is None:
            return []
        asked = route_messages.encode_filter(family, table, protocol, device)
        found = self._dump(route_messages.MESSAGE, "RTM_GETROUTE", asked, missing=(errno.ENOENT,))
        names = functools.lru_cache(maxsize=None)(device_name)
        routes = [route_messages.decode(fields, names) for fields in found]
        return [route for route in routes if route is not None and _wanted(route, family, table, protocol, dev)]

    def policies(self) -> list[Policy]:
        from . import _netlink_xfrm as xfrm_messages

        try:
            with contextlib.closing(self._other(xfrm_messages.NETLINK_XFRM)) as xfrm:
                found = xfrm.dump(xfrm_messages.encode_policies())
        except Refused as refused:
            if refused.errno == errno.EPROTONOSUPPORT:
                return []  # a kernel without IPsec
            raise failure(refused, "XFRM_MSG_GETPOLICY") from refused
        policies = [xfrm_messages.decode_policy(data) for data in found]
        return [policy for policy in policies if policy is not None]

    def covering(self, family: int, table: int, destinations: t.Collection[str], most: int) -> list[Route] | None:
        from . import _netlink_copy as copies

        wanted = copies.covering(frozenset(destinations))
        content = route_messages.encode_filter(family, table, None, None)
        asked = self._codec.encode(route_messages.MESSAGE, "RTM_GETROUTE", NLM_F_REQUEST | NLM_F_DUMP, content)
        try:
            with contextlib.closing(NetlinkSocket(self._codec.explanation)) as sock:
                found = sock.dump(asked, most=most)
        except TooMany:
            return None
        except Refused as refused:
            if refused.errno == errno.ENOENT:
                return []
            raise failure(refused, "RTM_GETROUTE") from refused
        kept = [self._codec.decode(route_messages.MESSAGE, m) for m in found if copies.destination(m) in wanted]
        routes = [route_messages.decode(fields, device_name) for fields in kept]
        return [route for route in routes if route is not None and _wanted(route, family, table, None, None)]

    def matched(self, flow: Flow) -> Route | None:
        content = route_messages.encode_flow(flow, device_index, route_messages.RTM_F_FIB_MATCH)
        asked = self._codec.encode(route_messages.MESSAGE, "RTM_GETROUTE", NLM_F_REQUEST, content)
        try:
            return route_messages.decode(
                self._codec.decode(route_messages.MESSAGE, self._socket.ask(asked)), device_name
            )
        except Refused:
            return None

    def lookup(self, flow: Flow) -> Path:
        for field, name in (("iif", flow.iif), ("oif", flow.oif)):
            if name is not None and _device_or_none(name) is None:
                raise InvalidInput("is no device of this host", field=field, value=name)
        message, content = route_messages.MESSAGE, route_messages.encode_flow(flow, device_index)
        try:
            answer = self._socket.ask(self._codec.encode(message, "RTM_GETROUTE", NLM_F_REQUEST, content))
        except Refused as refused:
            path = None if refused.explained else route_messages.path_of_error(refused.errno)
            if path is None:
                raise failure(refused, f"lookup {flow}") from refused
            return path
        return route_messages.decode_path(self._codec.decode(message, answer), device_name)

    def guard(self, table: str) -> Guard | None:
        return _guard.read(table)

    def apply(self, operations: t.Sequence[Operation]) -> None:
        from ._netlink_apply import Transaction  # what only reads is spared the time to load it

        Transaction(self, self._codec).run(operations)

    def tell(self, requests: t.Sequence[bytearray]) -> Answers:
        """Send requests; the answer to each."""
        return self._socket.tell(requests)

    def sysctl(self, path: str) -> str | None:
        return read_sysctl(path)

    def connections(self, most: int) -> list[Flow] | None:
        from . import _netlink_diag as socket_messages

        names = functools.lru_cache(maxsize=None)(device_name)
        flows: list[Flow] = []
        try:
            for family, protocol in socket_messages.KINDS:
                with contextlib.closing(self._other(socket_messages.NETLINK_SOCK_DIAG)) as diag:
                    found = diag.dump(socket_messages.encode_sockets(family, protocol), most=most - len(flows))
                flows += [socket_messages.decode_socket(data, protocol, names) for data in found]
        except TooMany:
            return None
        except Refused as refused:
            raise NotSupported(f"the kernel does not tell of its sockets: {refused.text}") from refused
        return flows

    def _other(self, protocol: int) -> NetlinkSocket:
        """A socket of another protocol than rtnetlink. Raises Refused where this kernel does not have it."""
        try:
            sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        except OSError as exc:
            raise Refused(exc.errno or errno.EIO) from exc
        return NetlinkSocket(self._codec.explanation, sock)

    def router_neighbours(self) -> list[tuple[str, str]]:
        found = self._dump(host_messages.NEIGHBOUR, "RTM_GETNEIGH", Content({"family": AF[6]}, []))
        routers = [host_messages.decode_router(fields, device_name) for fields in found]
        return [router for router in routers if router is not None]

    def events(self, *, rules: bool = False, routes: bool = False, ruleset: bool = False, own: bool = True) -> Events:
        from ._netlink_events import NetlinkEvents

        return NetlinkEvents(None if own else self._socket.port, rules=rules, routes=routes, ruleset=ruleset)

    def answers(self, dev: str, address: str, seconds: float) -> bool:
        index, family = _device_or_none(dev), 6 if ":" in address else 4
        deadline = time.monotonic() + seconds
        while index is not None and time.monotonic() < deadline:
            state = self._neighbour(family, index, address)
            if state & (host_messages.ANSWERED | host_messages.FAILED):
                return bool(state & host_messages.ANSWERED)
            if state == 0 or state & host_messages.KNOWN:
                self._ask_neighbour(family, index, address, probe=bool(state))
            time.sleep(0.02)
        return False

    def _neighbour(self, family: int, index: int, address: str) -> int:
        """What is known of a neighbour, 0 for nothing."""
        found = self._dump(host_messages.NEIGHBOUR, "RTM_GETNEIGH", Content({"family": AF[family]}, []))
        known = (host_messages.decode_neighbour(fields) for fields in found)
        return next((state for at, who, state in known if (at, who) == (index, address)), 0)

    def _ask_neighbour(self, family: int, index: int, address: str, *, probe: bool) -> None:
        content = host_messages.encode_neighbour(family, index, address, probe=probe)
        flags = NLM_F_REQUEST | NLM_F_ACK | (NLM_F_REPLACE if probe else NLM_F_CREATE)
        with contextlib.suppress(Refused):  # what comes of it is read
            self._socket.tell([self._codec.encode(host_messages.NEIGHBOUR, "RTM_NEWNEIGH", flags, content)])

    def _dump(
        self, message: Message, request: str, content: Content, missing: tuple[int, ...] = ()
    ) -> list[dict[str, t.Any]]:
        """The messages of a dump; empty if the kernel answers that what was asked for is missing."""
        try:
            asked = self._codec.encode(message, request, NLM_F_REQUEST | NLM_F_DUMP, content)
            found = self._socket.dump(asked, marks_changes=request != "RTM_GETRULE")
        except Refused as refused:
            if refused.errno in missing:
                return []
            raise failure(refused, request) from refused
        return [self._decode(message, data) for data in found]

    def _decode(self, message: Message, data: bytes) -> dict[str, t.Any]:
        """Most of what is read was read before, by this round or the last, and decoding is most of the work."""
        key = (message.base, data[HEADER_SIZE:])
        if key not in self._decoded:
            if len(self._decoded) >= _REMEMBERED:
                self._decoded.clear()
            self._decoded[key] = self._codec.decode(message, data)
        return self._decoded[key]


def _wanted(route: Route, family: int, table: int | None, protocol: int | None, dev: str | None) -> bool:
    """Kernels before 4.20 ignore the filter; and without IPv6, IPv4 answers for it."""
    return (
        route.family == family
        and table in (None, route.table)
        and protocol in (None, route.protocol)
        and (dev is None or route.dev in (None, dev))
    )


def _device_or_none(name: str) -> int | None:
    try:
        return device_index(name)
    except Refused:
        return None


def device_name(index: int) -> str | None:
    """The name of a device; None if it has gone."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return None


@functools.lru_cache(maxsize=1)
def _codec() -> Codec:
    """pyroute2, imported on first use: it is most of the time that a run without changes takes."""
    if os.path.isdir(PRIVATE_SITE_PACKAGES) and PRIVATE_SITE_PACKAGES not in sys.path:
        sys.path.insert(0, PRIVATE_SITE_PACKAGES)
    try:
        with _package() as package:
            found = _installed(package)
            if _version(found) < _version(MINIMUM_PYROUTE2):
                raise _missing(found)
            messages = {name: importlib.import_module(f"pyroute2.netlink.rtnl.{name}") for name in _MESSAGES}
            return Codec(Library(sys.modules["pyroute2.netlink"], sys.modules["pyroute2.netlink.rtnl"], messages))
    except ImportError as exc:
        raise _missing("none") from exc


@contextlib.contextmanager
def _package() -> t.Iterator[types.ModuleType]:
    """The package, at first without what its C(__init__) imports: that is all there is, and takes six times as long as
    the messages do. Whoever uses the package after the context makes C(__init__) run, and has all of it.
    """
    spec = None if "pyroute2" in sys.modules else importlib.util.find_spec("pyroute2")
    if spec is None or spec.loader is None:
        yield importlib.import_module("pyroute2")
        return
    package = sys.modules["pyroute2"] = importlib.util.module_from_spec(spec)
    try:
        yield package
    finally:
        importlib.util.LazyLoader(spec.loader).exec_module(package)


def _installed(package: types.ModuleType) -> str:
    """The version, by the name of what the package manager wrote beside the package: to ask importlib.metadata takes
    as long as all else here. Where there is nothing, what the package says; it says nothing in Debian.
    """
    beside = os.path.dirname(next(iter(package.__path__)))
    names = "\n".join(glob.glob(os.path.join(glob.escape(beside), "pyroute2-*-info")))
    stated = re.findall(r"/pyroute2-(\d[\d.]*\d)[^/]*$", names, re.MULTILINE)
    return max(stated, key=_version, default="") or str(importlib.import_module("pyroute2.config.version").__version__)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def _missing(found: str) -> MissingDependency:
    return MissingDependency(
        f"is what {sys.executable} finds, and not enough",
        field="pyroute2",
        value=found,
        accepted=f"pyroute2 {MINIMUM_PYROUTE2} or later, by 'apt install python3-pyroute2',"
        f" 'pip install pyroute2>={MINIMUM_PYROUTE2}', or the role's endpoint_pyroute2_source",
    )
