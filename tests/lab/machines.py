# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts of the lab that are containers with systemd, where daemons that need it can run: networkd, NetworkManager.

The image is that of the Molecule scenarios, or a fresh one, as a newcomer's host. A container ends with the process
that made it, however that ends.
"""

from __future__ import annotations

import functools
import os
import pathlib
import subprocess

from .containers import container
from .host import Host
from .tunnel import wait_for

_REPOSITORY = pathlib.Path(__file__).parents[2]
# Not privileged, as in extensions/molecule/shared/create.yml: it has no devices and no global sysctls of this machine.
# SYS_PTRACE, as root has it on any host: by it the SSH connection of a play is seen through sudo.
_OPTIONS = (
    *("--network", "none", "--systemd", "always", "--device", "/dev/net/tun", "--security-opt", "unmask=ALL"),
    *("--cap-add", "NET_ADMIN,NET_RAW,SYS_ADMIN,SYS_PTRACE"),
)
# Whoever waits for the end of its input outlives a caller that is killed.
_GUARD = 'read -r _; exec podman rm --force --time 0 "$1"'


class Machine:
    """A container that is a host of the lab."""

    def __init__(self, run: str, name: str, *, fresh: bool = False) -> None:
        self.full_name = full = f"fvt-{run}-{name}"
        self._guard = subprocess.Popen(
            ["sh", "-c", _GUARD, "sh", full],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=_environment(),
        )
        start = ("--detach", "--name", full, "--hostname", name, *_OPTIONS, _image(fresh=fresh), "/lib/systemd/systemd")
        _podman("run", *start)
        found = container(full)
        self.host = Host(name=name, pid=found.pid, namespace="", root=found.root)
        wait_for(self._has_booted, f"{full} boots")

    def _has_booted(self) -> bool:
        done = self.host.run(["systemctl", "is-system-running"], check=False)
        return done.stdout.strip() in ("running", "degraded")

    def close(self) -> None:
        """Remove it."""
        self._guard.communicate(timeout=60)
        self.host.reap()


@functools.cache
def _image(*, fresh: bool) -> str:
    """The name of the image, which is built if it is not there."""
    script = str(_REPOSITORY / "tests" / "tools" / "image.sh")
    environment = {**_environment(), "FLEETVPN_FRESH": "yes" if fresh else ""}
    subprocess.run([script, "build"], check=True, capture_output=True, env=environment)
    named = subprocess.run([script, "name"], check=True, capture_output=True, text=True, env=environment)
    return named.stdout.strip()


def _environment() -> dict[str, str]:
    """With this project's settings for podman, unless the user has others."""
    settings = _REPOSITORY / "extensions" / "molecule" / "shared" / "containers.conf"
    return {"CONTAINERS_CONF": str(settings), **os.environ}


def _podman(*arguments: str) -> None:
    done = subprocess.run(["podman", *arguments], capture_output=True, text=True, check=False, env=_environment())
    if done.returncode:
        raise RuntimeError(f"podman {' '.join(arguments)}: {done.stderr}")
