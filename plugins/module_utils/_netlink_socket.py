# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Requests and answers of rtnetlink: what happens on the socket, without knowledge of what is inside the messages.

The messages are those of pyroute2; its sockets differ too much between the versions that hosts have. Where
nlm_request_batch of 0.7 and 0.8 tells which of several requests was refused, that of 0.9 does not. 0.9 also passes over
the mark of an interrupted dump (NLM_F_DUMP_INTR), and its sockets, which are made with asyncio, take four times as long
to import as the messages. Here is what they cannot do alike: several requests in one write, the answers in order, dumps
that are whole.
"""

from __future__ import annotations

import array
import errno
import os
import socket
import struct
import typing as t

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP_INTR = 0x10
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_DUMP = 0x300
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800

_NLM_F_ACK_TLVS = 0x200
_NLMSG_ERROR = 2
_NLMSG_DONE = 3

_SOL_NETLINK = 270
_ADD_MEMBERSHIP = 1
_EXT_ACK = 11
_GET_STRICT_CHK = 12
_SO_RCVBUFFORCE = 33
_SO_ATTACH_FILTER = 26

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
HEADER_SIZE = _HEADER.size
_READ_SIZE = 1 << 18
_RECEIVE_BUFFER = 4 << 20
_DUMP_TRIES = 20
# Per write. The kernel answers within the send, so all acks of one write must fit into the receive buffer, which is
# 208 kB where we may not enlarge it; an ack takes about 1 kB of it.
_WRITE_MESSAGES = 150
_WRITE_BYTES = 64 << 10


class Refused(Exception):
    """The kernel's answer to a request was an error. C(text) is its extended explanation, else that of the number."""

    def __init__(self, number: int, text: str | None = None) -> None:
        self.errno = number
        self.explained = text is not None
        self.text = text or os.strerror(number)
        super().__init__(self.text)


class TooMany(Exception):
    """A dump has more messages than were wanted. The rest of it is still to come."""


class Overrun(Exception):
    """Messages were lost, because they came faster than they were read."""


class Message(t.NamedTuple):
    """One message as received; C(data) is all of it, with the header."""

    type: int
    flags: int
    seq: int
    data: bytes


class NetlinkSocket:
    """A socket for requests. C(received) counts the messages that the kernel has sent.

    C(explanation) gives the text of the extended ack in a message.
    """

    def __init__(self, explanation: t.Callable[[bytes], str | None], sock: socket.socket | None = None) -> None:
        self._explanation = explanation
        self._sock = _open() if sock is None else sock
        self._seq = 0
        self._first = 0
        self._reads = 0
        self._pending: t.Iterator[Message] = iter(())
        self.received = 0

    @property
    def port(self) -> int:
        """What the kernel writes into the events that requests of this socket cause."""
        return int(self._sock.getsockname()[0])

    def close(self) -> None:
        """Close it; closing twice is no error."""
        self._sock.close()

    def dump(self, request: bytearray, *, marks_changes: bool = True, most: int | None = None) -> list[bytes]:
        """All messages of a dump. A dump during which something changed may miss objects, so it is done again.

        Raises TooMany as soon as there are more than C(most); the socket is of no use then.

        Of some objects the kernel does not say that they changed (C(marks_changes) false): then a dump that took
        several reads counts when a second one is the same.
        """
        before: list[bytes] = []
        for _attempt in range(_DUMP_TRIES):
            messages, reads, interrupted = self._dump_once(request, most)
            bodies = [message[_HEADER.size :] for message in messages]
            if not interrupted and (marks_changes or reads <= 1 or bodies == before):
                return messages
            before = bodies
        raise Refused(errno.EINTR, f"the dump was interrupted by changes {_DUMP_TRIES} times in a row")

    def ask(self, request: bytearray) -> bytes:
        """The one answer to one request that is no dump."""
        self._send([request])
        answer = self._next()
        self._raise_error(answer)
        return answer.data

    def tell(self, requests: t.Sequence[bytearray]) -> list[Refused | None]:
        """Send requests in few writes; per request, in order, None for done or the refusal."""
        results: list[Refused | None] = []
        for chunk in _chunks(requests):
            self._send(chunk)
            results.extend(self._refusal(self._next()) for _request in chunk)
        return results

    def _dump_once(self, request: bytearray, most: int | None) -> tuple[list[bytes], int, bool]:
        """Messages, in how many reads they came, and whether the kernel said that something changed meanwhile."""
        self._send([request])
        messages: list[bytes] = []
        reads: set[int] = set()
        interrupted = False
        while True:
            message = self._next()
            interrupted = interrupted or bool(message.flags & NLM_F_DUMP_INTR)
            if message.type in (_NLMSG_DONE, _NLMSG_ERROR):
                self._raise_error(message)
                return messages, len(reads), interrupted
            messages.append(message.data)
            reads.add(self._reads)
            if most is not None and len(messages) > most:
                raise TooMany

    def _raise_error(self, message: Message) -> None:
        refusal = self._refusal(message)
        if refusal is not None:
            raise refusal

    def _refusal(self, message: Message) -> Refused | None:
        """The error in an ack or at the end of a dump."""
        if message.type not in (_NLMSG_ERROR, _NLMSG_DONE) or len(message.data) < _HEADER.size + 4:
            return None
        code = struct.unpack_from("=i", message.data, _HEADER.size)[0]
        text = self._explanation(message.data) if code < 0 and message.flags & _NLM_F_ACK_TLVS else None
        return Refused(-code, text) if code < 0 else None

    def _send(self, requests: t.Sequence[bytearray]) -> None:
        self._first = self._seq + 1
        for request in requests:
            self._seq += 1
            struct.pack_into("=I", request, 8, self._seq)
        self._pending = iter(())
        try:
            self._sock.send(b"".join(requests))
        except OSError as exc:
            raise Refused(exc.errno or errno.EIO, f"the request could not be sent: {exc.strerror}") from exc

    def _next(self) -> Message:
        """The next message that belongs to what was sent last; what an aborted dump left behind is passed over."""
        while True:
            for message in self._pending:
                self.received += 1
                if message.seq >= self._first:
                    return message
            self._pending = split(self._read())

    def _read(self) -> bytes:
        self._reads += 1
        try:
            return self._sock.recv(_READ_SIZE)
        except OSError as exc:
            why = "the receive buffer is too small" if exc.errno == errno.ENOBUFS else exc.strerror
            raise Refused(exc.errno or errno.EIO, f"answers were lost: {why}") from exc


class EventSocket:
    """A socket that listens to multicast groups, of rtnetlink unless said otherwise."""

    def __init__(self, groups: t.Iterable[int], protocol: int = socket.NETLINK_ROUTE) -> None:
        self._sock = _open(protocol)
        self._sock.setblocking(False)
        for group in groups:
            self._sock.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)

    def close(self) -> None:
        """Close it; closing twice is no error."""
        self._sock.close()

    def fileno(self) -> int:
        """For select and poll."""
        return self._sock.fileno()

    def attach(self, program: bytes) -> None:
        """Let the kernel throw away what this program of classic BPF does not pass, from the next event on."""
        lines = array.array("B", program)
        address, length = lines.buffer_info()
        self._sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", length // 8, address))

    def read(self) -> list[Message]:
        """All that is there, without waiting. Raises Overrun if something was lost; the next read goes on after it."""
        messages: list[Message] = []
        while True:
            try:
                messages.extend(split(self._sock.recv(_READ_SIZE)))
            except BlockingIOError:
                return messages
            except OSError as exc:
                if exc.errno == errno.ENOBUFS:
                    raise Overrun("the kernel had more events than fit into the receive buffer") from exc
                raise


def split(data: bytes) -> t.Iterator[Message]:
    """The messages of one read."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, seq, _pid = _HEADER.unpack_from(data, offset)
        yield Message(kind, flags, seq, data[offset : offset + length])
        offset += (max(length, _HEADER.size) + 3) & ~3


def attributes(data: bytes) -> t.Iterator[tuple[int, bytes]]:
    """Number and content of the attributes behind a message's own fields."""
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        yield kind, data[offset + _ATTRIBUTE.size : offset + length]
        offset += (max(length, _ATTRIBUTE.size) + 3) & ~3


def _open(protocol: int = socket.NETLINK_ROUTE) -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    sock.bind((0, 0))
    _enlarge(sock)
    for option in (_EXT_ACK, _GET_STRICT_CHK):
        _try_option(sock, option)
    return sock


def _enlarge(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)


def _try_option(sock: socket.socket, option: int) -> None:
    """Kernels before 4.20 lack the strict check: they ignore filters, which costs time but nothing else."""
    try:
        sock.setsockopt(_SOL_NETLINK, option, 1)
    except OSError as exc:
        if exc.errno != errno.ENOPROTOOPT:
            raise


def _chunks(requests: t.Sequence[bytearray]) -> t.Iterator[list[bytearray]]:
    chunk: list[bytearray] = []
    size = 0
    for request in requests:
        if chunk and (len(chunk) == _WRITE_MESSAGES or size + len(request) > _WRITE_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(request)
        size += len(request)
    if chunk:
        yield chunk
