#!/usr/bin/env bash
# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The artefact of the version in galaxy.yml, in build/release:  release.sh [KEY]
#
# From the commit that is checked out and nothing else. With KEY, a key of gpg, MANIFEST.json gets a detached signature.
# It publishes nothing; CONTRIBUTING.md says what comes after it.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
key=${1:-}
release=$PWD/build/release
version=$(sed -nE 's/^version: (.*)/\1/p' galaxy.yml)
artefact=$release/fleetvpn-routing-$version.tar.gz

refuse() {
    echo "release $version: $*" >&2
    exit 1
}

check_tree() {
    [ -z "$(git status --porcelain)" ] || refuse "the tree is not clean: commit, or stash, what git status shows"
}

# A tag may have been pushed from somewhere else, so the remote repositories are asked as well.
check_version() {
    local remote found
    found=$(git tag --list "$version")
    for remote in $(git remote); do
        found+=$(git ls-remote --tags "$remote" "refs/tags/$version") ||
            refuse "$remote does not say whether it has a tag of this version; accepted: a remote that answers, or none"
    done
    [ -z "$found" ] ||
        refuse "the version is not new: there is a tag of this name; accepted: a higher version in galaxy.yml"
}

# The changelog is part of the commit that is released, so it is written, read by a human, and committed first.
check_changelog() {
    if ! grep -q "^  $version:" changelogs/changelog.yaml; then
        antsibull-changelog release --reload-plugins
        refuse "wrote CHANGELOG.md; read it, commit it with changelogs/, and run this again"
    fi
    ! compgen -G "changelogs/fragments/*.yml" > /dev/null || refuse "changelogs/fragments has changes that are in no release"
}

# From a copy of the commit, with the commit's time.
build() {
    local target=$1 tree=$1/tree
    mkdir -p "$tree"
    git archive HEAD | tar --extract --directory "$tree"
    ansible-galaxy collection build "$tree" --output-path "$target" > /dev/null
    python tests/tools/reproducible.py "$target/${artefact##*/}" "$(git log -1 --format=%ct)"
}

build_twice() {
    rm -rf "$release"
    build "$release/first"
    build "$release/second"
    cmp "$release/first/${artefact##*/}" "$release/second/${artefact##*/}" || refuse "two builds differ"
    mv "$release/first/${artefact##*/}" "$artefact"
    rm -rf "$release/first" "$release/second"
}

# On the tree: tests/config.yml, which says for which Pythons, is not in the artefact, and all that is in it is checked.
check_artefact() {
    FLEETVPN_ARTEFACT=$artefact pytest tests/artefact || withdraw "galaxy-importer does not take the artefact"
    "${MAKE:-make}" --no-print-directory sanity || withdraw "ansible-test sanity does not pass"
}

# What is in build/release has passed.
withdraw() {
    rm -rf "$release"
    refuse "$@"
}

sign() {
    tar --extract --to-stdout --file "$artefact" MANIFEST.json |
        gpg --local-user "$key" --armor --detach-sign --output "${artefact%.tar.gz}.asc" -
}

check_tree
check_version
check_changelog
build_twice
check_artefact
if [ -n "$key" ]; then sign; else echo "release $version: not signed, since no key is given (KEY=...)"; fi
(cd "$release" && sha256sum -- *)
