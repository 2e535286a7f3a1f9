# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Makefile's targets by the names that sessions have in other collections: `nox -Re lint`.

Why the targets lead is in CONTRIBUTING.md. Whatever antsibull-nox.toml switches on comes from antsibull-nox; each other
session is one target.
"""

# /// script
# dependencies = ["nox>=2025.02.09", "antsibull-nox"]
# ///

from __future__ import annotations

import antsibull_nox
import nox

SESSIONS = {
    "lint": ("lint", "types"),
    "license-check": ("license-check",),
    "ansible-lint": ("ansible-lint",),
    "docs-check": ("docs-lint",),
    "docs-site": ("docs",),
    "build-import-check": ("import-check",),
    "ansible-test-sanity": ("sanity",),
    "ansible-test-units": ("unit",),  # by pytest itself; ansible-test needs a copy, and finds no more
    "functional": ("functional", "functional-alone", "functional-oldest"),
    "ansible-test-integration": ("integration",),
    "molecule": ("molecule",),
}

antsibull_nox.load_antsibull_nox_toml()


def add(name: str, targets: tuple[str, ...]) -> None:
    """A session that makes targets. They set themselves up, so it has no environment of its own."""

    @nox.session(name=name, python=False, default=name in ("lint", "docs-check", "ansible-test-units"))
    def run(session: nox.Session) -> None:
        session.run("make", "--no-print-directory", *targets, external=True)


for each in SESSIONS.items():
    add(*each)

if __name__ == "__main__":
    nox.main()
