# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only the real kernel has: namespaces, privileges, netlink itself, and the library that is imported."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import pathlib
import platform
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.module_utils import _kernel as kernel_module
from ansible_collections.fleetvpn.routing.plugins.module_utils._errors import (
    InvalidInput,
    KernelError,
    NotPermitted,
    NotSupported,
)
from ansible_collections.fleetvpn.routing.plugins.module_utils._kernel import open_kernel
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.operation import Operation
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.route import Route
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.rule import Rule
from ansible_collections.fleetvpn.routing.plugins.module_utils._netlink_answers import failure
from ansible_collections.fleetvpn.routing.plugins.module_utils._netlink_apply import Transaction
from ansible_collections.fleetvpn.routing.plugins.module_utils._netlink_socket import NetlinkSocket, Refused
from ansible_collections.fleetvpn.routing.plugins.module_utils._netns import inside

from tests.functional.conftest import ip

pytestmark = pytest.mark.kernel

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
OURS, FOREIGN = 151, 201
MANY = 50_000
DUMP_INTERRUPTED = 0x10
HEADER = struct.Struct("=IHHII")
NEWROUTE, DONE, ERROR = 24, 3, 2


def received(kernel: t.Any, read: t.Callable[[], object]) -> int:
    """How many messages a reading takes."""
    before = kernel.received
    read()
    count: int = kernel.received - before
    return count


class TestFilters:
    def test_foreign_routes_are_not_even_received(self, netns: str) -> None:
        lines = (
            f"route add 10.{number >> 16}.{number >> 8 & 255}.{number & 255} dev lo table 31000 proto {FOREIGN}"
            for number in range(MANY)
        )
        ip("-n", netns, lines=lines)
        ours = Route(4, "0.0.0.0/0", 2000, "unreachable", protocol=OURS)
        with open_kernel(netns) as kernel:
            kernel.apply([Operation("add", ours)])
            assert received(kernel, lambda: kernel.routes(4, table=2000)) == 2  # the route, and the end
            assert received(kernel, lambda: kernel.routes(4, protocol=OURS)) == 2
            assert received(kernel, lambda: kernel.routes(4, table=31337)) == 1
            assert received(kernel, lambda: kernel.apply([Operation("remove", ours)])) < 10
            assert received(kernel, lambda: kernel.routes(4, table=31000)) == MANY + 1

    def test_ipv6(self, netns: str) -> None:
        ip("-n", netns, lines=(f"route add 2001:db8::{n:x} dev lo table 31000 proto {FOREIGN}" for n in range(1, 500)))
        with open_kernel(netns) as kernel:
            assert received(kernel, lambda: kernel.routes(6, protocol=OURS)) == 1
            assert received(kernel, lambda: kernel.routes(6, table=2000)) == 1
            assert kernel.routes(6, dev="lo", table=31000) == kernel.routes(6, table=31000)


def message(kind: int, flags: int, seq: int, body: bytes = b"") -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, flags, seq, 0) + body


def answering(dumps: t.Sequence[t.Sequence[tuple[int, int, bytes]]]) -> tuple[NetlinkSocket, threading.Thread]:
    """A socket whose other end gives one prepared dump (type, flags, body) per request."""
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def serve() -> None:
        with theirs:
            for dump in dumps:
                seq = HEADER.unpack_from(theirs.recv(1024))[3]
                theirs.send(b"".join(message(kind, flags, seq, body) for kind, flags, body in dump))

    thread = threading.Thread(target=serve)
    thread.start()
    return NetlinkSocket(lambda _message: None, mine), thread


REQUEST = bytearray(message(26, 0x301, 0))
END = (DONE, 2, bytes(4))


class TestDumps:
    @pytest.mark.parametrize(
        "interrupted",
        [
            [(NEWROUTE, 2 | DUMP_INTERRUPTED, b"old!"), END],
            [(NEWROUTE, 2, b"old!"), (DONE, 2 | DUMP_INTERRUPTED, bytes(4))],
        ],
    )
    def test_interrupted_dumps_are_repeated(self, interrupted: list[tuple[int, int, bytes]]) -> None:
        sock, thread = answering([interrupted, interrupted, [(NEWROUTE, 2, b"new!"), END]])
        assert [data[16:] for data in sock.dump(REQUEST)] == [b"new!"]
        sock.close()
        thread.join()

    def test_but_not_forever(self) -> None:
        sock, thread = answering([[(DONE, 2 | DUMP_INTERRUPTED, bytes(4))]] * 20)
        with pytest.raises(Refused) as caught:
            sock.dump(REQUEST)
        assert caught.value.errno == errno.EINTR
        sock.close()
        thread.join()

    @pytest.mark.parametrize("kind", [DONE, ERROR])
    def test_an_error_ends_a_dump(self, kind: int) -> None:
        sock, thread = answering(
            [[(NEWROUTE, 2, b"some"), (kind, 0x100, struct.pack("=i", -errno.ENOENT) + bytes(16))]]
        )
        with pytest.raises(Refused) as caught:
            sock.dump(REQUEST)
        assert caught.value.errno == errno.ENOENT
        sock.close()
        thread.join()

    def test_rules_that_change_while_they_are_read(self, netns: str) -> None:
        """Thousands of rules take several reads; the kernel does not say that they changed between two of them."""
        fixed = [f"rule add from 10.0.{n >> 8}.{n & 255} lookup 2000 prio 3000" for n in range(3000)]
        ip("-n", netns, lines=fixed)
        stop = threading.Event()

        def churn() -> None:
            rule = Rule(4, 2500, table=2000, protocol=OURS)
            with open_kernel(netns) as kernel:
                while not stop.is_set():
                    kernel.apply([Operation("add", rule)])
                    kernel.apply([Operation("remove", rule)])
                    time.sleep(0.02)

        thread = threading.Thread(target=churn)
        with open_kernel(netns) as kernel:
            thread.start()
            try:
                counts = {sum(one.priority == 3000 for one in kernel.rules(4)) for _time in range(4)}
            finally:
                stop.set()
                thread.join()
        assert counts == {3000}


class TestRuleset:
    """Events of nftables, of which there is no fake: nothing but the watch looks at them."""

    @pytest.mark.parametrize(
        ("script", "matters"),
        [
            ("add table inet other", False),
            ("add table inet fleetvpn_more", True),
            ("add chain inet fleetvpn more", True),
            ("add rule inet fleetvpn first drop", True),
            ("add element inet fleetvpn known { 192.0.2.1 }", False),
            ("flush ruleset", True),
            ("delete table inet another", False),
            ("delete table inet another; delete table inet fleetvpn", True),
        ],
    )
    def test_counts_as_far_as_it_is_ours(self, netns: str, script: str, matters: bool) -> None:
        self.nft(netns, "add table inet another; add chain inet another one; add table inet fleetvpn")
        self.nft(netns, "add chain inet fleetvpn first; add set inet fleetvpn known { type ipv4_addr; }")
        with open_kernel(netns) as kernel, contextlib.closing(kernel.events(ruleset=True)) as events:
            self.nft(netns, script)
            assert events.read() == (["ruleset"] if matters else [])

    def nft(self, netns: str, script: str) -> None:
        subprocess.run(["ip", "netns", "exec", netns, "nft", "-f", "-"], input=script, text=True, check=True)


class TestTransactionsOnTheWire:
    def test_rules_are_not_sent_behind_a_route_that_failed(self, netns: str) -> None:
        with open_kernel(netns) as kernel:
            events = kernel.events(rules=True)
            bad = Route(4, "0.0.0.0/0", 2000, gateway="192.0.2.1", dev="lo", protocol=OURS)
            with pytest.raises(KernelError):
                kernel.apply([Operation("add", bad), Operation("add", Rule(4, 2500, table=2000, protocol=OURS))])
            assert events.read() == []
            events.close()

    def test_a_kernel_that_does_not_know_dscp_is_not_asked_to_ignore_it(self, netns: str) -> None:
        class Old:
            """Answers a delete of nothing as kernels do that pass over attributes that they do not know."""

            sent = 0

            def tell(self, requests: t.Sequence[bytearray]) -> list[Refused | None]:
                self.sent += len(requests)
                return [Refused(errno.ENOENT) for _request in requests]

            def rules(self, family: int) -> list[Rule]:
                return []

            def routes(self, family: int, *, table: int | None = None, protocol: int | None = None) -> list[Route]:
                return []

        old = Old()
        with pytest.raises(NotSupported) as caught:
            Transaction(old, kernel_module._codec()).run([Operation("add", Rule(4, 2500, table=2000, dscp=10))])
        assert (caught.value.field, caught.value.value, old.sent) == ("dscp", 10, 1)

    @pytest.mark.parametrize("number", [errno.EAFNOSUPPORT, errno.EOPNOTSUPP])
    def test_a_kernel_without_policy_routing(self, number: int) -> None:
        error = failure(Refused(number), "add rule")
        assert isinstance(error, NotSupported)
        assert (error.field, error.value) == ("kernel", platform.release())
        assert "CONFIG_IP_MULTIPLE_TABLES" in str(error.accepted)


class TestNamespaces:
    def test_the_thread_comes_back(self, netns: str) -> None:
        here = os.readlink("/proc/thread-self/ns/net")
        with open_kernel(netns) as kernel:
            assert os.readlink("/proc/thread-self/ns/net") != here
            assert [link.name for link in kernel.links()] == ["lo"]
        assert os.readlink("/proc/thread-self/ns/net") == here

    def test_also_on_an_error(self, netns: str) -> None:
        here = os.readlink("/proc/thread-self/ns/net")
        with pytest.raises(ZeroDivisionError), open_kernel(netns):
            _nothing = 1 / 0
        assert os.readlink("/proc/thread-self/ns/net") == here

    def test_by_path(self, netns: str) -> None:
        with open_kernel(f"/run/netns/{netns}") as kernel:
            assert [link.name for link in kernel.links()] == ["lo"]

    def test_its_own_sysctls(self, netns: str) -> None:
        with open_kernel(netns) as kernel:
            pathlib.Path("/proc/sys/net/ipv4/conf/all/rp_filter").write_text("2", encoding="ascii")
            assert kernel.sysctl("ipv4/conf/all/rp_filter") == "2"

    @pytest.mark.parametrize(
        "name", ["fvt-nowhere", "/nowhere/at/all", "", ".", "/proc/self/status", "/proc/self/ns/uts"]
    )
    def test_no_namespace(self, name: str) -> None:
        with pytest.raises(InvalidInput) as caught, open_kernel(name):
            pass
        assert (caught.value.field, caught.value.value) == ("netns", name)
        assert "\n" not in caught.value.line()


class TestPrivileges:
    @pytest.fixture
    def _nobody(self) -> t.Iterator[None]:
        os.seteuid(65534)
        yield
        os.seteuid(0)

    @pytest.mark.usefixtures("_nobody")
    def test_reading_needs_none(self) -> None:
        with open_kernel() as kernel:
            assert "lo" in {link.name for link in kernel.links()}
            assert kernel.rules(4)

    @pytest.mark.usefixtures("_nobody")
    def test_changing_does(self) -> None:
        with open_kernel() as kernel, pytest.raises(NotPermitted) as caught:
            kernel.apply([Operation("add", Rule(4, 2500, table=2000, protocol=OURS))])
        assert (caught.value.field, caught.value.value) == ("user", 65534)
        assert caught.value.accepted == "root with CAP_NET_ADMIN"

    def test_so_does_entering(self, netns: str) -> None:
        os.seteuid(65534)
        try:
            with pytest.raises(NotPermitted), open_kernel(netns):
                pass
        finally:
            os.seteuid(0)


def run(code: str, *paths: pathlib.Path, options: tuple[str, ...] = ("-S",)) -> str:
    """Python without site-packages, but with these directories."""
    collections = REPOSITORY / "build" / "collections"
    program = f"""
import sys
sys.path[:0] = {[str(collections), *map(str, paths)]!r}
from ansible_collections.fleetvpn.routing.plugins.module_utils import _kernel, _errors
{code}
"""
    done = subprocess.run(
        [sys.executable, *options, "-c", program], capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


OPEN = """
try:
    with _kernel.open_kernel():
        print('opened')
except _errors.MissingDependency as exc:
    print(exc.line())
"""


def library(directory: pathlib.Path, version: str) -> pathlib.Path:
    """A package of that name and version with nothing in it."""
    config = directory / "pyroute2" / "config"
    config.mkdir(parents=True)
    (config.parent / "__init__.py").touch()
    (config / "__init__.py").touch()
    (config / "version.py").write_text(f"__version__ = {version!r}\n", encoding="ascii")
    return directory


def real_library(directory: pathlib.Path, metadata: str | None = None) -> pathlib.Path:
    """The installed package, alone in a directory, or beside what a package manager calls its version."""
    spec = importlib.util.find_spec("pyroute2")
    assert spec is not None
    assert spec.origin is not None
    directory.mkdir()
    (directory / "pyroute2").symlink_to(pathlib.Path(spec.origin).parent)
    if metadata is not None:
        (directory / metadata).mkdir()
    return directory


class TestLibrary:
    def test_missing(self) -> None:
        line = run(OPEN)
        assert re.search(r"pyroute2: 'none' .*pyroute2 0\.7\.2 or later.*install", line)

    @pytest.mark.parametrize("version", ["0.5.14", "0.7.1", "0.6.13.post1"])
    def test_too_old(self, tmp_path: pathlib.Path, version: str) -> None:
        line = run(OPEN, library(tmp_path, version))
        assert re.search(rf"pyroute2: '{re.escape(version)}' .*pyroute2 0\.7\.2 or later.*install", line)
        assert "\n" not in line

    def test_the_private_directory_comes_first(self, tmp_path: pathlib.Path) -> None:
        library(tmp_path / "system", "0.5.14")
        private = f"_kernel.PRIVATE_SITE_PACKAGES = {str(real_library(tmp_path / 'private'))!r}"
        assert run(private + OPEN, tmp_path / "system") == "opened"

    @pytest.mark.parametrize(
        ("metadata", "says"),
        [
            ("pyroute2-0.7.2.dist-info", "opened"),
            ("pyroute2-0.7.2.egg-info", "opened"),
            ("pyroute2-0.7.10-py3.9.egg-info", "opened"),
            ("pyroute2-0.6.13.dist-info", "pyroute2: '0.6.13' "),
        ],
    )
    def test_the_package_manager_knows_the_version(self, tmp_path: pathlib.Path, metadata: str, says: str) -> None:
        assert says in run(OPEN, real_library(tmp_path / "system", metadata))

    def test_a_package_that_does_not_know_its_version(self, tmp_path: pathlib.Path) -> None:
        directory = library(tmp_path, "")
        (directory / "pyroute2" / "config" / "version.py").unlink()
        assert "pyroute2: 'none' " in run(OPEN, directory)
        (directory / "pyroute2-0.7.1.egg-info").mkdir()
        assert "pyroute2: '0.7.1' " in run(OPEN, directory)

    def test_no_more_of_it_is_imported_than_the_messages(self) -> None:
        imported = run(f"{OPEN}print(*(name for name in sys.modules if name.startswith('pyroute2')))", options=())
        assert len(imported.split("\n")[1].split()) < 12

    @pytest.mark.parametrize("use", ["import pyroute2", "from pyroute2 import IPRoute", "import pyroute2.iproute"])
    @pytest.mark.parametrize("first", [True, False])
    def test_others_in_the_process_have_all_of_it(self, use: str, first: bool) -> None:
        code = f"{use}\nimport pyroute2\nwith pyroute2.IPRoute() as ipr: print(len(ipr.get_links()) > 0)\n"
        done = run(f"{code}{OPEN}{OPEN}" if first else f"{OPEN}{code}{OPEN}", options=())
        assert sorted(done.split()) == ["True", "opened", "opened"]

    def test_what_others_have_done_with_its_messages_leaves_no_attribute_out(self) -> None:
        """A class with more attributes than its parent inherits the table that was made for the parent."""
        code = """
from pyroute2.netlink.rtnl import fibmsg, rtmsg
fibmsg.fibmsg(), rtmsg.rtmsg()
from ansible_collections.fleetvpn.routing.plugins.module_utils import _netlink_rule
from ansible_collections.fleetvpn.routing.plugins.module_utils._model.rule import Rule
content = _netlink_rule.encode(Rule(4, 2500, table=2000, dscp=10))
codec = _kernel._codec()
data = codec.encode(_netlink_rule.MESSAGE, "RTM_NEWRULE", 0, content)
print(_netlink_rule.decode(codec.decode(_netlink_rule.MESSAGE, data)).dscp)
"""
        assert run(code, options=()) == "10"

    def test_it_is_imported_when_a_kernel_is_opened_and_not_before(self) -> None:
        assert run("print('pyroute2' in sys.modules)", options=()) == "False"

    def test_one_file_imports_it(self) -> None:
        imports = re.compile(r"^\s*(import|from) pyroute2|import_module\(f?.pyroute2", re.MULTILINE)
        files = (REPOSITORY / "plugins").rglob("*.py")
        assert [file.name for file in files if imports.search(file.read_text(encoding="utf-8"))] == ["_kernel.py"]


class TestConnections:
    def sockets(self, stack: contextlib.ExitStack, netns: str) -> dict[str, socket.socket]:
        """Connected ones of each kind, and one that only listens."""
        ip("-n", netns, "addr", "add", "2001:db8::5/64", "dev", "lo", "nodad")
        ip("-n", netns, "addr", "add", "192.0.2.5/24", "dev", "lo")
        made = {}
        with inside(netns):
            for name, to in (("4", "192.0.2.9"), ("6", "2001:db8::9"), ("mapped", "::ffff:192.0.2.8"), ("listens", "")):
                family = socket.AF_INET if name == "4" else socket.AF_INET6
                made[name] = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
                made[name].setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x77 if name == "4" else 0)
                if to:
                    made[name].connect((to, 7000))
                else:
                    made[name].bind(("::", 7001))
            bound = made["bound"] = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
            bound.connect(("192.0.2.7", 7000))
        return made

    def test_connected_sockets_are_flows(self, netns: str) -> None:
        with contextlib.ExitStack() as stack:
            made = self.sockets(stack, netns)
            with open_kernel(netns) as kernel:
                found = {flow.to: flow for flow in kernel.connections(100) or ()}
                assert kernel.connections(4) is not None
                assert kernel.connections(3) is None
            assert set(found) == {"192.0.2.9", "2001:db8::9", "192.0.2.8", "192.0.2.7"}
            flow = found["192.0.2.9"]
            assert (flow.source, flow.fwmark, flow.uid, flow.ipproto, flow.oif) == ("192.0.2.5", 0x77, 0, 17, None)
            assert (flow.sport, flow.dport) == (made["4"].getsockname()[1], 7000)
            assert (found["192.0.2.8"].family, found["192.0.2.8"].fwmark) == (4, None)
            assert (found["2001:db8::9"].family, found["2001:db8::9"].source) == (6, "2001:db8::5")
            assert found["192.0.2.7"].oif == "lo"

    def test_tcp_as_well(self, netns: str) -> None:
        with contextlib.ExitStack() as stack:
            with inside(netns):
                server = stack.enter_context(socket.create_server(("127.0.0.1", 7000)))
                client = stack.enter_context(socket.create_connection(("127.0.0.1", 7000)))
            port = client.getsockname()[1]
            with open_kernel(netns) as kernel:
                found = {(flow.ipproto, flow.sport, flow.dport) for flow in kernel.connections(100) or ()}
            assert found == {(6, 7000, port), (6, port, 7000)}
            assert server.fileno() > 0

    def test_a_kernel_that_does_not_tell(self, netns: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with open_kernel(netns) as kernel:
            monkeypatch.setattr(kernel_module.NetlinkSocket, "dump", _refuses)
            with pytest.raises(NotSupported, match="does not tell of its sockets"):
                kernel.connections(100)


def _refuses(*_arguments: object, **_options: object) -> list[bytes]:
    raise Refused(errno.ENOENT)
