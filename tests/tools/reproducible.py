# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make an artefact of ansible-galaxy the same bytes wherever and whenever it was built.

reproducible.py ARTEFACT EPOCH    EPOCH is the time that its files get, in seconds; that of the commit

ansible-galaxy lists files as the file system gives them, and marks some of them with the present time.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sys
import tarfile
import typing as t
from pathlib import Path

Member = tuple[tarfile.TarInfo, bytes]


def rewrite(artefact: Path, epoch: int) -> None:
    """Files in the order of their names, in the archive and in its list; no time, no owner of the builder."""
    members = sorted(_read(artefact), key=lambda member: member[0].name)
    data = _ordered({info.name: content for info, content in members})
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, _content in members:
            archive.addfile(_anonymous(info, len(data[info.name]), epoch), io.BytesIO(data[info.name]))
    artefact.write_bytes(gzip.compress(plain.getvalue(), mtime=0))


def _read(artefact: Path) -> t.Iterator[Member]:
    with tarfile.open(artefact) as archive:
        for info in archive:
            file = archive.extractfile(info) if info.isfile() else None
            yield info, file.read() if file else b""


def _ordered(data: dict[str, bytes]) -> dict[str, bytes]:
    """The list of files in order, and the manifest with the digest of that list."""
    listed = json.loads(data["FILES.json"])
    listed["files"].sort(key=lambda entry: entry["name"])
    files = _dumped(listed)
    manifest = json.loads(data["MANIFEST.json"])
    manifest["file_manifest_file"]["chksum_sha256"] = hashlib.sha256(files).hexdigest()
    return {**data, "FILES.json": files, "MANIFEST.json": _dumped(manifest)}


def _dumped(content: t.Any) -> bytes:
    """As ansible-galaxy writes it."""
    return json.dumps(content, indent=True).encode()


def _anonymous(info: tarfile.TarInfo, size: int, epoch: int) -> tarfile.TarInfo:
    found = tarfile.TarInfo(info.name)
    found.type, found.mode, found.linkname = info.type, info.mode, info.linkname
    found.size, found.mtime = size, epoch
    return found


if __name__ == "__main__":
    rewrite(Path(sys.argv[1]), int(sys.argv[2]))
