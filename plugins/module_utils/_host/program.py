# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Private to this collection: no other code should import it.
"""The program as one file, made of the modules that are running right now.

A zip archive of sources with a line ahead of it that names the interpreter. Nothing in it is compressed and every date
is the same, so that the same sources give the same bytes. On the host their bytecode is added: what lies in an archive
is compiled anew in every run otherwise.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import marshal
import re
import typing as t
import zipfile

if t.TYPE_CHECKING:
    from importlib.abc import ResourceLoader

    # Never run. Ansible sends to a host what is imported anywhere, and the program is made of what was sent.
    from . import cli  # noqa: F401

PACKAGE = __name__.rpartition("._host.")[0]

# Isolated: neither the environment nor the current directory decides what a program of root's imports.
SHEBANG = b"#!/usr/bin/python3 -I\n"
# All that _host.cli imports; a test compares. Listed, since to find out takes longer than a run without changes may.
MODULES = (
    "_adopt",
    "_borrowed",
    "_confirm",
    "_connections",
    "_controller",
    "_converge",
    "_errors",
    "_explain",
    "_files",
    "_gateways",
    "_guard",
    "_host",
    "_host.apply",
    "_host.cli",
    "_host.daemons",
    "_host.due",
    "_host.ear",
    "_host.generations",
    "_host.history",
    "_host.hook",
    "_host.install",
    "_host.metrics",
    "_host.notes",
    "_host.pace",
    "_host.path",
    "_host.program",
    "_host.release",
    "_host.sets",
    "_host.status",
    "_host.units",
    "_host.watch",
    "_host.window",
    "_interest",
    "_kernel",
    "_leases",
    "_management",
    "_model",
    "_model.declaration",
    "_model.fields",
    "_model.guard",
    "_model.identities",
    "_model.operation",
    "_model.path",
    "_model.route",
    "_model.rule",
    "_model.state",
    "_model.table",
    "_names",
    "_netlink_answers",
    "_netlink_apply",
    "_netlink_codec",
    "_netlink_copy",
    "_netlink_delete",
    "_netlink_diag",
    "_netlink_events",
    "_netlink_filter",
    "_netlink_host",
    "_netlink_link",
    "_netlink_route",
    "_netlink_rule",
    "_netlink_ruleset",
    "_netlink_socket",
    "_netlink_xfrm",
    "_netns",
    "_outlook",
    "_parse",
    "_path_options",
    "_paths",
    "_plan",
    "_policies",
    "_questions",
    "_reach",
    "_read",
    "_reading",
    "_record",
    "_recipe",
    "_recipe.block",
    "_recipe.closed",
    "_recipe.facts",
    "_recipe.follow",
    "_recipe.guard",
    "_recipe.local",
    "_recipe.nowhere",
    "_recipe.rules",
    "_recipe.sysctls",
    "_recipe.tables",
    "_recipe.twins",
    "_recipe.unbound",
    "_recipe.ways",
    "_refuse",
    "_request",
    "_sets",
    "_store",
    "_surroundings",
    "_suspension",
    "_switch",
    "_sysctl",
    "_tunnels",
    "_tunnels.client",
    "_tunnels.files",
    "_tunnels.ipsec",
    "_tunnels.networkmanager",
    "_tunnels.openconnect",
    "_tunnels.openvpn",
    "_tunnels.overlay",
    "_tunnels.ppp",
    "_tunnels.wireguard",
    "_verify",
    "_version",
    "_walks",
    "_whatif",
    "_work",
)
_PACKAGES = {name.rpartition(".")[0] for name in MODULES}
_VERSION_FILE = "_version"
_ROOT = __file__.rpartition("/_host/")[0]
_LOADER = t.cast("ResourceLoader", __spec__.loader)
_MAIN = f"""\
import sys

if sys.argv[1:2] in (["confirm"], ["restore"], ["wake"]):  # without what the other commands take long to import
    from {PACKAGE}._host.window import main
else:
    from {PACKAGE}._host.cli import main

sys.exit(main())
"""
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that the format can say
_CHECKED_HASH = (0b11).to_bytes(4, "little")  # PEP 552: bytecode is used where its source has the hash in it


def build() -> bytes:
    """The whole file, but for the bytecode."""
    files: dict[str, str | bytes] = {"__main__.py": _MAIN, **{f"{folder}/__init__.py": "" for folder in _folders()}}
    files.update(_source(name) for name in MODULES)
    target = io.BytesIO()
    target.write(SHEBANG)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            archive.writestr(_entry(name), files[name])
    return target.getvalue()


def compiled(program: bytes) -> bytes:
    """A program with the bytecode of its sources, for the Python that runs now; another one compiles them."""
    target = io.BytesIO(program)
    with zipfile.ZipFile(target, "a") as archive:
        for name in archive.namelist():
            source = archive.read(name)
            code = marshal.dumps(compile(source, name, "exec", dont_inherit=True))
            header = importlib.util.MAGIC_NUMBER + _CHECKED_HASH + importlib.util.source_hash(source)
            archive.writestr(_entry(f"{name}c"), header + code)
        archive.comment = _digest(b"")  # room for that of all before it
    whole = target.getvalue()[: -len(archive.comment)]
    return whole + _digest(whole)


def is_made_of(found: bytes, program: bytes) -> bool:
    """Whether a file is this program with bytecode, undamaged. The bytecode is that of whatever Python compiled it."""
    directory = zipfile.ZipFile(io.BytesIO(program)).start_dir  # what comes after the sources
    size = len(_digest(b""))
    return found.startswith(program[:directory]) and found[-size:] == _digest(found[:-size])


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


def version_of(program: bytes) -> tuple[int, ...] | None:
    """The version of a program; None if that is none of ours or a damaged one."""
    name = f"{PACKAGE.replace('.', '/')}/{_VERSION_FILE}.py"
    try:
        with zipfile.ZipFile(io.BytesIO(program)) as archive:
            text = archive.read(name).decode()
    except (zipfile.BadZipFile, KeyError, UnicodeDecodeError):
        return None
    found = re.search(r'^VERSION = "([0-9.]+)', text, re.MULTILINE)
    return as_numbers(found[1]) if found else None


def as_numbers(version: str) -> tuple[int, ...]:
    """A version as it is compared: 1.10 is later than 1.9."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _DATE)
    entry.create_system = 3  # where it was made says nothing
    entry.external_attr = 0o100644 << 16
    return entry


def _folders() -> list[str]:
    """Those of the package and above it."""
    parts = PACKAGE.split(".")
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _source(name: str) -> tuple[str, bytes]:
    """Where a module is in the archive, and its source, from wherever this one was loaded: a directory or an archive.

    Its loader is asked for a file, not for a module: to find a module in an archive is to compile it.
    """
    path = name.replace(".", "/")
    file = f"{path}/__init__.py" if name in _PACKAGES else f"{path}.py"
    return f"{PACKAGE.replace('.', '/')}/{file}", _LOADER.get_data(f"{_ROOT}/{file}")
