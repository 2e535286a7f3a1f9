# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands in for the pip that ansible-test downloads: installs the pip that it asks for from the package index.

Called by ansible-test in an environment without pip, with requirements (`pip==24.2`) and get-pip's own options. With
`--version`, in an environment with ansible-test, it prints the version of pip under which ansible-test looks for it.
"""

from __future__ import annotations

import subprocess
import sys


def wanted_version() -> str:
    """Return the version of pip that ansible-test would download for this Python."""
    from ansible_test._internal.host_configs import VirtualPythonConfig
    from ansible_test._internal.python_requirements import get_venv_packages

    python = VirtualPythonConfig(version=f"{sys.version_info[0]}.{sys.version_info[1]}", path=sys.executable)
    return get_venv_packages(python)["pip"]


def bootstrap(arguments: list[str]) -> None:
    """Put the requirements among the arguments into the running environment."""
    requirements = [argument for argument in arguments if not argument.startswith("-")]
    subprocess.run([sys.executable, "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements], check=True
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["--version"]:
        print(wanted_version())
    else:
        bootstrap(sys.argv[1:])
