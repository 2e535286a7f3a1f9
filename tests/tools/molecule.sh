#!/usr/bin/env bash
# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Runs Molecule on the scenarios of the collection:  molecule.sh test --all,  molecule.sh converge -s wireguard, ...
# The environment that it needs is that of `make molecule`; FLEETVPN_IMAGE names another image.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export PATH=$root/build/venv/bin:$PATH
export ANSIBLE_HOME=$root/build/ansible
export ANSIBLE_COLLECTIONS_PATH=$root/build/collections
export CONTAINERS_CONF=${CONTAINERS_CONF:-$root/extensions/molecule/shared/containers.conf}
# Whole lines, so that the closing lines of the runners can be found.
export MOLECULE_COMMAND_BORDERS=false COLUMNS=160
FLEETVPN_IMAGE_NAME=$("$root/tests/tools/image.sh" name)
export FLEETVPN_IMAGE_NAME

cd "$root"
exec molecule --base-config extensions/molecule/config.yml "$@"
