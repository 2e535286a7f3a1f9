#!/usr/bin/env bash
# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Runs ansible-test on a copy of the working tree:  ansible_test.sh sanity|units|integration [ARGUMENTS]
#
# ansible-test wants a collection at .../ansible_collections/fleetvpn/routing, and no symbolic link will do. The copy
# stays in build/, with the environments that ansible-test makes below tests/output, so that only the first run is slow.
#
# FLEETVPN_VENV is another environment than build/venv, with another ansible-core: build/core-2.18, for example.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
root=$PWD
environment=$root/${FLEETVPN_VENV:-build/venv}
copy=$root/build/ansible-test/ansible_collections/fleetvpn/routing

# Tracked files and new ones that are not ignored; what is gone from the tree goes from the copy too. The copy is a
# repository of its own, since ansible-test looks upwards for one and would find the files ignored by ours.
copy_tree() {
    git init --quiet "$copy"
    find "$copy" -mindepth 1 -maxdepth 1 ! -name tests ! -name .git -exec rm -rf {} +
    [ ! -d "$copy/tests" ] || find "$copy/tests" -mindepth 1 -maxdepth 1 ! -name output -exec rm -rf {} +
    git ls-files -z --cached --others --exclude-standard --deduplicate | while IFS= read -r -d '' file; do
        [ ! -e "$file" ] || printf '%s\0' "$file"
    done | tar --create --null --files-from=- | tar --extract --directory "$copy"
}

# ansible-test fills its environments with a pip that it downloads from a server of its own. This stand-in, in the place
# where it would keep the download, does the same with the pip that Python carries: so the package index is enough.
# The home directory is one in build/, since nothing of this should meet the user's own use of ansible-test; but pip
# stays configured as the user has it.
prepare_home() {
    local home=$root/build/home version
    local cache=$home/.ansible/test/cache
    mkdir -p "$cache" "$home/.config" "$home/.cache" "${XDG_CACHE_HOME:-$HOME/.cache}/pip"
    ln -sfn "${XDG_CONFIG_HOME:-$HOME/.config}/pip" "$home/.config/pip"
    ln -sfn "${XDG_CACHE_HOME:-$HOME/.cache}/pip" "$home/.cache/pip"
    export HOME=$home
    version=$("$environment/bin/python" "$root/tests/tools/ansible_test_pip.py" --version)
    cp "$root/tests/tools/ansible_test_pip.py" "$cache/get_pip_${version//./_}.py"
}

# ansible-test checks each Python that it finds on the PATH. pyenv's are not there, only its shims, which refuse to
# start a version that is not selected.
path_of_pythons() {
    local path="" directory
    for directory in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.*/bin; do
        [ ! -x "$directory/python3" ] || path=$path:$directory
    done
    echo "$path"
}

# Integration targets change rules and routes: they get a network, an /etc and a /run of their own, gone afterwards.
in_namespaces() {
    # shellcheck disable=SC2016 # for the inner shell to expand
    unshare --net --mount --propagation private bash -euo pipefail -c '
        scratch=$(mktemp -d)
        mount -t tmpfs none "$scratch"
        mkdir "$scratch/upper" "$scratch/work"
        mount -t overlay -o "lowerdir=/etc,upperdir=$scratch/upper,workdir=$scratch/work" overlay /etc
        mount -t tmpfs none /run
        ip link set lo up
        exec "$@"
    ' bash "$@"
}

copy_tree
PATH=$environment/bin:$PATH$(path_of_pythons)
export PATH
prepare_home
cd "$copy"
case $1 in
    integration) in_namespaces ansible-test "$@" ;;
    *) ansible-test "$@" ;;
esac
