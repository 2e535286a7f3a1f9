#!/usr/bin/env bash
# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The functional tests: two runs side by side, since most of a test is waiting, then those that measure time, alone.
# What each run says comes when it has ended, so that the lines of two do not mix.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
said=$(mktemp --tmpdir fvt-functional.XXXXXX)
trap 'rm -f "$said"' EXIT

pytest tests/functional/recipe > "$said" 2>&1 &
recipe=$!
# A run that is stopped stops the other one, which then removes what it made.
trap 'kill "$recipe" 2>/dev/null; wait "$recipe"; exit 143' TERM INT

failed=0
pytest tests/functional --ignore=tests/functional/recipe -m "not alone and not long" || failed=1
wait "$recipe" || failed=1
cat "$said"
pytest tests/functional --ignore=tests/functional/recipe -m "alone and not long" || failed=1
exit "$failed"
