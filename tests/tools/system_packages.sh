#!/usr/bin/env bash
# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Installs the Debian packages of bindep.txt that are missing; needs root only if one is.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."

wanted=$(sed -e 's/#.*//' -e '/platform:dpkg/!d' bindep.txt | awk '{ print $1 }')
if ! command -v dpkg-query >/dev/null; then
    echo "This is not Debian. The tests need these packages, by Debian's names:" "$wanted" >&2
    exit 1
fi
missing=()
for package in $wanted; do
    status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) || status=absent
    [ "$status" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
    echo "Missing packages; as root: apt-get install ${missing[*]}" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet=2
apt-get install --quiet=2 --yes --no-install-recommends "${missing[@]}"
