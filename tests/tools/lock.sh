#!/usr/bin/env bash
# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Writes the lock of a requirements file beside it:  lock.sh tests/requirements/NAME.in
set -euo pipefail

source=$1
lock=${source%.in}.txt
work=$(mktemp -d --tmpdir fvt-lock.XXXXXX)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --quiet --disable-pip-version-check --requirement "$source"
{
    sed -n '1,3p' "$source"
    echo "#"
    echo "# Made by \`make lock\` from ${source##*/}; do not edit."
    "$work/venv/bin/pip" freeze --disable-pip-version-check
} > "$work/lock"
mv "$work/lock" "$lock"
