# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The process that holds all hosts of a run: one `sleep` per host, each in namespaces of its own.

Run as a program. It reads one JSON object per line, {"name", "root", "private"}, and answers {"pid"} or {"error"};
{"end": pid} ends a host. A holder is process 1 of its own pid namespace, so that with it every process of that host
ends; holders end with this process, and this process ends with its standard input. So a run that is killed leaves no
process behind.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import typing as t

import syscalls  # type: ignore[import-not-found]  # run as a program, its own directory is on the path

NAMESPACES = syscalls.CLONE_NEWNET | syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID | syscalls.CLONE_NEWUTS
OVERLAYS = ("/etc", "/usr/local", "/var/lib")


def main() -> None:
    """Serve requests until the input ends."""
    syscalls.die_with_parent()
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
    _forget_named_namespaces()
    pids: list[int] = []
    for line in sys.stdin:
        request = json.loads(line)
        if "end" in request:
            _end([request["end"]])
            pids.remove(request["end"])
            answer = {}
        else:
            answer = _serve(request)
            pids += [answer["pid"]] if "pid" in answer else []
        print(json.dumps(answer), flush=True)
    _end(pids)


def _end(pids: list[int]) -> None:
    """Left to the machine's init, the dead might be reaped late, and namespaces live until then."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        os.waitpid(pid, 0)


def _forget_named_namespaces() -> None:
    """Drop our copies of /run/netns/*: they would keep other people's namespaces alive as long as our hosts.

    Each goes with the mount that it stands on; one by one they might be gone before we come to them.
    """
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        count = sum(line.split()[4] == "/run/netns" for line in mounts)
    for _mount in range(count):
        syscalls.umount("/run/netns")


def _serve(request: dict[str, t.Any]) -> dict[str, t.Any]:
    ready, report = os.pipe()
    try:
        pid = syscalls.clone(NAMESPACES)
    except OSError as error:
        os.close(ready)
        os.close(report)
        return {"error": str(error)}
    if pid == 0:
        _become_holder(request, report)
    os.close(report)
    with os.fdopen(ready) as answer:
        failure = answer.read()
    return {"error": failure} if failure else {"pid": pid}


def _become_holder(request: dict[str, t.Any], report: int) -> t.NoReturn:
    """Never returns. The pipe closes by itself at exec; until then it carries what went wrong."""
    try:
        syscalls.die_with_parent()
        socket.sethostname(request["name"])
        if request["private"]:
            _private_directories(request["root"])
        syscalls.mount("proc", "/proc", "proc")
        syscalls.mount("sysfs", "/sys", "sysfs")
        # Ignored and inherited: the kernel reaps what is orphaned in the host, `sleep` would not.
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        _detach_from_parent()
        os.execv("/bin/sleep", ["sleep", "infinity"])
    except BaseException as error:  # noqa: BLE001  whatever it is must reach the parent; this copy of it must end
        os.write(report, f"{request['name']}: {error}".encode())
    os._exit(1)


def _private_directories(root: str) -> None:
    """/run of its own; what the host writes to /etc, /usr/local and /var/lib goes to its own directory."""
    for path in OVERLAYS:
        upper, work = root + "/upper" + path, root + "/work" + path
        os.makedirs(upper, exist_ok=True)
        os.makedirs(work, exist_ok=True)
        syscalls.mount("overlay", path, "overlay", data=f"lowerdir={path},upperdir={upper},workdir={work}")
    os.makedirs(root + "/run/root", exist_ok=True)
    syscalls.mount(root + "/run", "/run", flags=syscalls.MS_BIND)


def _detach_from_parent() -> None:
    """Signals from the terminal are for the test run; its pipes must not stay open in here."""
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)


if __name__ == "__main__":
    main()
