# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks of the collection, called as an operator calls them."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import typing as t

from tests.functional.onhost import COLLECTIONS, REPOSITORY


def play(directory: pathlib.Path, playbook: str, **variables: t.Any) -> tuple[int, str]:
    """Run a playbook of the collection over the inventory of a directory; its exit status, and what it said."""
    return ansible_playbook(directory, f"fleetvpn.routing.{playbook}", **variables)


def ansible_playbook(directory: pathlib.Path, *arguments: str, **variables: t.Any) -> tuple[int, str]:
    """The same for any playbook, with further arguments."""
    program = str(pathlib.Path(sys.executable).with_name("ansible-playbook"))
    done = subprocess.run(
        [program, "-i", "inventory.yml", *arguments, "--extra-vars", json.dumps(variables)],
        cwd=directory,
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_CONNECTION_PLUGINS": str(REPOSITORY / "tests" / "plugins" / "connection"),
            "ANSIBLE_HOME": str(directory / "ansible"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "1",
            "PWD": str(directory),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr
