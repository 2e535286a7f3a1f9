# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""Something that runs later, whatever becomes of the task: outside of its process group, and of its session.

Where systemd runs, a transient timer, which no process has to wait for and which the end of a login session does not
touch; elsewhere a process of its own session.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import pathlib
import secrets
import signal
import subprocess
import typing as t

_SYSTEMD = pathlib.Path("/run/systemd/system")
_UNIT = "fleetvpn-endpoint-restore-{}"
_DUE = "fleetvpn-endpoint-due-{}"
# The shell ends at once, so that what it started belongs to nobody and is waited for by init.
_DETACHED = '"$@" </dev/null >/dev/null 2>&1 & echo $!'
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


def start(command: t.Sequence[str], seconds: float, token: str) -> str:
    """Have C(command), which waits by itself if it is early, run by then. What is returned is for alive and stop."""
    timer = [f"--on-active={seconds:.3f}", "--timer-property=AccuracySec=10ms"]
    return _start(_UNIT.format(token), timer, command)


def start_at(command: t.Sequence[str], moment: datetime.datetime) -> str:
    """The same at a point in time, by the clock on the wall: a host that sleeps meanwhile does it when it wakes up.

    This does not wait for systemd, which starts timers only once a boot has come far enough.
    """
    soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=2)  # what is past never comes
    when = max(moment, soon).astimezone(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    timer = ["--no-block", f"--on-calendar={when}", "--timer-property=AccuracySec=1s"]
    return _start(_DUE.format(secrets.token_hex(4)), timer, command)


def _start(unit: str, timer: t.Sequence[str], command: t.Sequence[str]) -> str:
    if _can_be_unit() and _run(["systemd-run", "--quiet", "--collect", f"--unit={unit}", *timer, *command]):
        return f"unit {unit}"
    shell = subprocess.run(
        ["/bin/sh", "-c", _DETACHED, "sh", *command],
        start_new_session=True,
        cwd="/",
        env=_ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=True,
    )
    return f"process {int(shell.stdout)}"


def alive(handle: str, token: str) -> bool:
    """Whether it will run."""
    kind, _space, name = handle.partition(" ")
    if kind == "unit":
        return _run(["systemctl", "--quiet", "is-active", f"{name}.timer"])
    try:
        return token.encode() in pathlib.Path("/proc", name, "cmdline").read_bytes()
    except OSError:
        return False


def stop(handle: str, token: str) -> None:
    """It is not needed any more. Whoever calls this may be what was started."""
    kind, _space, name = handle.partition(" ")
    if kind == "unit":
        _run(["systemctl", "--quiet", "--no-block", "stop", f"{name}.timer"])
    elif alive(handle, token) and int(name) != os.getpid():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(name), signal.SIGTERM)


def _can_be_unit() -> bool:
    """Systemd starts units in its own namespaces: it helps where those are ours too."""
    try:
        return _SYSTEMD.is_dir() and all(
            os.path.samestat(os.stat(f"/proc/1/ns/{kind}"), os.stat(f"/proc/self/ns/{kind}")) for kind in ("net", "mnt")
        )
    except OSError:
        return False


def _run(command: list[str]) -> bool:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
