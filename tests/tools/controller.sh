#!/usr/bin/env bash
# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Runs the tests with marker `controller` on Debian 13, with the Python of that and what a lock names:  controller.sh NAME
# Runs ansible-test sanity in the same way:  controller.sh NAME sanity
# The lock is tests/requirements/NAME.txt.
#
# In a container that has neither a network nor a package index: this machine's pip gets the wheels. It sees the repository
# where it is here, so that every path holds, but cannot write to it, and has a build/ of its own.
set -euo pipefail

name=$1
what=${2:-tests}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=$root/build/debian13
export CONTAINERS_CONF=${CONTAINERS_CONF:-$root/extensions/molecule/shared/containers.conf}

cd "$root"
mkdir -p "$build/wheels/$name"

download() {
    build/venv/bin/pip download --quiet --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --python-version 3.13 --dest "$build/wheels/$name" "$@"
}

# ansible-test makes environments of its own: from locks that are in ansible-core, and with the pip that it names.
download_for_sanity() {
    local core lock version
    version=$(sed -nE 's/^ansible[_-]core==//p' "tests/requirements/$name.txt")
    core=$(mktemp -d --tmpdir fvt-core.XXXXXX)
    build/venv/bin/python -m zipfile --extract "$build/wheels/$name/ansible_core-$version-py3-none-any.whl" "$core"
    for lock in "$core"/ansible_test/_data/requirements/sanity.*.txt; do
        download --requirement "$lock"
    done
    download "pip==$(sed -nE "s/^ +pip='([0-9.]+)',$/\1/p" "$core/ansible_test/_internal/python_requirements.py")"
    rm -rf "$core"
}

download --requirement "tests/requirements/$name.txt"
[ "$what" != sanity ] || download_for_sanity

# Files of hosts in the lab lie over those of the container, and an overlay takes no overlay for what is written: hence /var/tmp.
# shellcheck disable=SC2016 # for the shell inside to expand
exec podman run --rm --privileged --network none --tmpfs /tmp --tmpfs /var/tmp \
    --volume "$root:$root:ro" --volume "$build:$root/build" --workdir "$root" \
    --env PIP_NO_INDEX=1 --env "PIP_FIND_LINKS=$root/build/wheels/$name" --env PYTHONDONTWRITEBYTECODE=1 \
    --env HYPOTHESIS_STORAGE_DIRECTORY=/tmp/hypothesis \
    "$(FLEETVPN_SUITE=trixie tests/tools/image.sh name)" bash -euo pipefail -c '
        lock=tests/requirements/$1.txt environment=build/$1
        if [ ! "$environment/.done" -nt "$lock" ]; then
            tests/tools/venv.sh "$environment" "$lock"
            touch "$environment/.done"
        fi
        ip link set lo up
        "$environment/bin/ansible" --version | sed -n "1p; /python version/p"
        if [ "$2" = sanity ]; then
            # Not by variables: ansible-test hands none of them on.
            printf "[global]\nno-index = true\nfind-links = %s\n" "$PIP_FIND_LINKS" > /etc/pip.conf
            FLEETVPN_VENV=$environment exec tests/tools/ansible_test.sh sanity --color yes
        fi
        "$environment/bin/pytest" -p no:cacheprovider tests/unit
        "$environment/bin/pytest" -p no:cacheprovider tests/functional -m controller
    ' bash "$name" "$what"
