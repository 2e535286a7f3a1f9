#!/usr/bin/env bash
# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Writes the lock of a requirements file beside it:  lock.sh tests/requirements/NAME.in
#
# With a line `# Python 3.13` in it the lock is for that Python, which this machine need not have: then of wheels alone.
set -euo pipefail

source=$1
lock=${source%.in}.txt
work=$(mktemp -d --tmpdir fvt-lock.XXXXXX)
trap 'rm -rf "$work"' EXIT
version=$(sed -nE 's/^# Python ([0-9.]+)$/\1/p' "$source")

export PIP_DISABLE_PIP_VERSION_CHECK=1
python3 -m venv "$work/venv"
if [ -z "$version" ]; then
    "$work/venv/bin/pip" install --quiet --quiet --requirement "$source"
    "$work/venv/bin/pip" freeze > "$work/packages"
else
    "$work/venv/bin/pip" download --quiet --quiet --python-version "$version" --only-binary :all: --dest "$work/wheels" \
        --requirement "$source"
    # A wheel's name begins with those of the package and of the version.
    find "$work/wheels" -name '*.whl' -printf '%f\n' | sed -E 's/^([^-]+)-([^-]+)-.*/\1==\2/' |
        LC_ALL=C sort --ignore-case > "$work/packages"
fi
{
    sed -n '1,3p' "$source"
    echo "#"
    echo "# Made by \`make lock\` from ${source##*/}; do not edit."
    cat "$work/packages"
} > "$work/lock"
mv "$work/lock" "$lock"
