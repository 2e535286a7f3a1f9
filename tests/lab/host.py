# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One host of the lab: network, mount, pid and uts namespaces held by one sleeping process."""

from __future__ import annotations

import dataclasses
import errno
import json
import pathlib
import socket
import subprocess
import typing as t

from . import syscalls
from .netlink import Batch
from .settled import await_ipv6, device_flags

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/run/root",
    "LANG": "C.UTF-8",
}
_NO_DAD = 0x02
_IFF_RUNNING = 0x40
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


def family_of(address: str) -> int:
    """4 or 6."""
    return 6 if ":" in address else 4


@dataclasses.dataclass
class Host:
    """A host. `pid` is its holder's, which `nsenter -t` takes; `root` keeps what it writes to /etc and /run."""

    name: str
    pid: int
    namespace: str
    root: pathlib.Path
    private: bool = True
    _started: list[subprocess.Popen[t.Any]] = dataclasses.field(default_factory=list, repr=False)

    # -- processes ------------------------------------------------------------------------------------------------

    def enter(self, argv: t.Sequence[str]) -> list[str]:
        """The command line that runs `argv` inside, as root, killed when its caller is killed."""
        return ["nsenter", "-t", str(self.pid), "-n", "-m", "-p", "-u", "--", "setpriv", "--pdeathsig", "KILL", *argv]

    def run(
        self,
        argv: t.Sequence[str],
        *,
        check: bool = True,
        stdin: str | None = None,
        env: t.Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside and wait for it. A failure carries what the command wrote."""
        done = subprocess.run(
            self.enter(argv),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            env={**ENVIRONMENT, **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(argv)}: exit {done.returncode}: {done.stderr}{done.stdout}")
        return done

    def popen(self, argv: t.Sequence[str], **options: t.Any) -> subprocess.Popen[t.Any]:
        """Start a command inside. `kill` on the result ends it; so does the end of the host."""
        options["env"] = {**ENVIRONMENT, **options.pop("env", {})}
        started: subprocess.Popen[t.Any] = subprocess.Popen(self.enter(argv), **options)
        self._started.append(started)
        return started

    def reap(self) -> None:
        """Wait for what `popen` started. For the end of the host: its processes are dead by then."""
        for started in self._started:
            try:
                started.wait(10)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()
        self._started.clear()

    def shell(self, script: str) -> str:
        """Run a shell script inside that stops at the first failure; its output."""
        return self.run(["sh", "-ec", script]).stdout

    def ip_json(self, *arguments: str) -> list[dict[str, t.Any]]:
        """`ip -j ARGUMENTS`."""
        text = self.run(["ip", "-j", *arguments]).stdout
        return t.cast("list[dict[str, t.Any]]", json.loads(text or "[]"))

    def pids(self, command: str) -> list[int]:
        """Processes of this host by their exact command name, as numbers inside."""
        return [int(pid) for pid in self.run(["pgrep", "-x", command], check=False).stdout.split()]

    def signal(self, command: str, number: int) -> None:
        """Send a signal to the processes of that name in this host. Raises LookupError if there is none."""
        pids = self.pids(command)
        if not pids:
            raise LookupError(f"{self.name}: no process {command}")
        # One of them may have been a child that has ended by now.
        done = [self.run(["kill", f"-{int(number)}", str(pid)], check=False) for pid in pids]
        if all(one.returncode for one in done):
            raise LookupError(f"{self.name}: {done[0].stderr.strip()}")

    # -- files ----------------------------------------------------------------------------------------------------

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file inside; its directory is made."""
        script = 'umask 077; mkdir -p -m 755 "$(dirname "$1")"; cat >"$1"; chmod "$2" "$1"'
        self.run(["sh", "-ec", script, "sh", path, f"{mode:o}"], stdin=text)

    def read(self, path: str) -> str:
        """Read a file inside."""
        return self.run(["cat", path]).stdout

    # -- network --------------------------------------------------------------------------------------------------

    def batch(self) -> Batch:
        """An empty batch of rtnetlink requests for this host."""
        return Batch(self.pid)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket of this host, for this process."""
        with syscalls.network_of(self.pid):
            return socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)

    def index(self, device: str) -> int:
        """A device's index. Raises OSError."""
        with syscalls.network_of(self.pid):
            return socket.if_nametoindex(device)

    def has_device(self, device: str) -> bool:
        """Whether there is such a device now."""
        with syscalls.network_of(self.pid):
            return any(name == device for _index, name in socket.if_nameindex())

    def carries(self, device: str) -> bool:
        """Whether a device that is up passes packets already: the end that came up first does so a moment later."""
        with syscalls.network_of(self.pid):
            return bool(device_flags(device) & _IFF_RUNNING)

    def owns(self, address: str) -> bool:
        """Whether an address is local and usable now: it can be bound."""
        with self.socket(_FAMILIES[family_of(address)], socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((address, 0))
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL:
                    raise
                return False
        return True

    def sysctl(self, **values: int | str) -> None:
        """Set values below /proc/sys/net; `ipv4__ip_forward` is net.ipv4.ip_forward."""
        with syscalls.network_of(self.pid):
            for name, value in values.items():
                pathlib.Path("/proc/sys/net", *name.split("__")).write_text(str(value), encoding="ascii")

    def address(self, device: str, *addresses: str) -> None:
        """Put addresses with a prefix length on a device, usable at once."""
        batch, index = self.batch(), self.index(device)
        for text in addresses:
            queue_address(batch, index, text)
        batch.send()
        with syscalls.network_of(self.pid):
            await_ipv6()

    def up(self, *devices: str) -> None:
        """Set devices up."""
        batch = self.batch()
        for device in devices:
            batch.add("link", "set", index=self.index(device), state="up")
        batch.send()

    def remove(self, device: str) -> None:
        """Remove a device, unless the kernel was quicker: it takes those away whose other end is gone."""
        try:
            self.batch().add("link", "del", index=self.index(device)).send()
        except OSError as error:
            if error.errno not in (errno.ENODEV, None):  # Python's search by name gives no number
                raise

    def route(self, destination: str, *, via: str | None = None, dev: str | None = None, **more: t.Any) -> None:
        """Add a route to the main table, or as `more` says."""
        arguments = dict(more)
        if via:
            arguments["gateway"] = via
        if dev:
            arguments["oif"] = self.index(dev)
        family = _FAMILIES[family_of(via or destination)]
        self.batch().add("route", "add", dst=destination, family=family, **arguments).send()


def queue_address(batch: Batch, index: int, text: str) -> None:
    """Queue one address `a/len`, without duplicate address detection."""
    address, _slash, bits = text.partition("/")
    arguments: dict[str, t.Any] = {"index": index, "address": address, "prefixlen": int(bits)}
    if family_of(address) == 6:
        arguments.update(family=socket.AF_INET6, flags=_NO_DAD)
    batch.add("addr", "add", **arguments)
