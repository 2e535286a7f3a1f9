#!/usr/bin/env bash
# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Runs make targets one after the other, all of them even if one fails, and closes with the time that each took.
# Fails if one failed:  steps.sh TARGET...
set -euo pipefail

report=()
failed=0
for target in "$@"; do
    printf '\n==== make %s ====\n' "$target"
    began=$SECONDS
    if "${MAKE:-make}" --no-print-directory "$target"; then
        verdict=passed
    else
        verdict=FAILED
        failed=$((failed + 1))
    fi
    report+=("$(printf '%-15s %-6s %5d s' "$target" "$verdict" $((SECONDS - began)))")
done

printf '\n==== steps ====\n'
printf '%s\n' "${report[@]}"
printf '%d of %d steps passed in %d s\n' $(($# - failed)) $# "$SECONDS"
[ "$failed" -eq 0 ]
