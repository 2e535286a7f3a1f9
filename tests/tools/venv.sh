#!/usr/bin/env bash
# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Makes a virtual environment anew:  venv.sh DIRECTORY REQUIREMENTS
#
# The requirements are a lock (every package, exact versions), so that two runs install the same.
set -euo pipefail

directory=$1
requirements=$2

rm -rf "$directory"
python3 -m venv "$directory"
"$directory/bin/pip" install --quiet --quiet --disable-pip-version-check --no-deps --requirement "$requirements"
"$directory/bin/pip" check --disable-pip-version-check
