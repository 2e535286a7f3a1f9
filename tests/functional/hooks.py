# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hooks of VPN clients are tried with: a system log of their own, and a hostile server's values."""

from __future__ import annotations

import socket
import threading
import time
import typing as t

from tests.functional import onhost
from tests.lab import Host

CANARY = "/run/fvt-canary"
HOSTILE = {
    "space": "a b",
    "quote": 'it\'s "quoted"',
    "command": f"$(touch {CANARY})",
    "backtick": f"`touch {CANARY}`",
    "semicolon": f"x; touch {CANARY}",
    "newline": f"x\ntouch {CANARY}\nfleetvpn-endpoint: all is well",
    "path": "../../etc/shadow",
    "option": "--help",
    "long": "x" * 20000,
}
# What could have a program choose another path or command, for a hook that inherits it.
EVIL = "/run/evil"
INHERITED = {
    "PATH": f"{EVIL}:/usr/sbin:/usr/bin:/sbin:/bin",
    "LD_PRELOAD": f"{EVIL}/evil.so",
    "PYTHONPATH": EVIL,
    "PYTHONSTARTUP": f"{EVIL}/evil.py",
    "BASH_ENV": f"{EVIL}/evil.sh",
    "ENV": f"{EVIL}/evil.sh",
    "IFS": "/",
    "FLEETVPN_CANARY": CANARY,
}
CLEAN = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
_RECORDED = "/run/fvt-environments"
_DEV = """
mkdir /run/dev
mount -t tmpfs -o mode=755 tmpfs /run/dev
cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /run/dev/
mkdir /run/dev/net
cp -a /dev/net/tun /run/dev/net/
mount --bind /run/dev /dev
"""


def record_environments(host: Host) -> None:
    """From now on the program only writes down its environment; whoever searches for commands finds bad ones."""
    host.shell(f"mkdir -p {EVIL} {_RECORDED}")
    host.write(onhost.PROGRAM, f'#!/bin/sh\ncat "/proc/$$/environ" >"{_RECORDED}/$$"\n', 0o755)
    for command in ("env", "timeout", "fleetvpn-endpoint"):
        host.write(f"{EVIL}/{command}", f"#!/bin/sh\ntouch {CANARY}\n", 0o755)
    host.write(f"{EVIL}/evil.sh", f"touch {CANARY}\n")


def environments(host: Host) -> list[dict[str, str]]:
    """Those that were written down since the last call."""
    folder = onhost.seen(host, _RECORDED)
    found = []
    for path in sorted(folder.iterdir()):
        entries = path.read_text().rstrip("\0").split("\0")
        found.append(dict(entry.split("=", 1) for entry in entries))
        path.unlink()
    assert host.run(["test", "-e", CANARY], check=False).returncode == 1
    return found


class Log:
    """The host's /dev/log, which this process reads."""

    def __init__(self, host: Host) -> None:
        host.shell(_DEV)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(onhost.seen(host, "/dev/log")))
        self._lines: list[str] = []
        # Its queue is short, and who finds it full waits.
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while line := self._socket.recv(65536):
            self._lines.append(line.decode().rstrip("\0").partition("]: ")[2])

    def lines(self) -> list[str]:
        """What was said since the last call, without the header of syslog."""
        time.sleep(0.1)
        found, self._lines = self._lines, []
        return found

    def close(self) -> None:
        """Stop reading."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()


def refused(lines: t.Sequence[str], client: str) -> list[str]:
    """The names of the variables whose values were refused. Each takes one line, which shows a harmless piece."""
    found = [line for line in lines if line.startswith(f"{client}: refused value of ")]
    assert all(line.isprintable() and len(line) < 500 for line in found), found
    return [line.split()[4].rstrip(":") for line in found]


def state(host: Host) -> str:
    """Rules, routes and addresses, and the files of the collection."""
    script = "for f in 4 6; do ip -N -$f rule; ip -N -$f route show table all; done; ip -br addr; ls -lR /etc/fleetvpn"
    return host.shell(script)
