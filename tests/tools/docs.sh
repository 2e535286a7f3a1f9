#!/usr/bin/env bash
# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Builds the documentation site in build/docs/html; every warning is an error:  docs.sh [html]
# Follows the links that leave it, and those of the texts in Markdown:          docs.sh linkcheck
#
# From a copy of the collection, in which the changelog is released: so the page shows what the next release brings.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
builder=${1:-html}
work=$root/build/docs
[ "$builder" = html ] || work=$root/build/docs-$builder
copy=$work/collections/ansible_collections/fleetvpn/routing
export PATH=$root/build/docs-env/bin:$PATH
export ANSIBLE_COLLECTIONS_PATH=$work/collections

rm -rf "$work"
mkdir -p "$copy"
mkdir -m 755 "$work/rst"
cd "$root"
git ls-files -z --cached --others --exclude-standard --deduplicate | while IFS= read -r -d '' file; do
    [ ! -e "$file" ] || printf '%s\0' "$file"
done | tar --create --null --files-from=- | tar --extract --directory "$copy"

if compgen -G "$copy/changelogs/fragments/*.yml" > /dev/null; then
    (cd "$copy" && antsibull-changelog release --reload-plugins > /dev/null)
fi
antsibull-docs --config-file docs/site/antsibull-docs.cfg collection --use-current --fail-on-error --squash-hierarchy \
    --dest-dir "$work/rst" fleetvpn.routing

# The site has no page for these texts, so their links get one that nothing leads to.
links_of_markdown() {
    printf ':orphan:\n\nLinks of the texts in Markdown\n==============================\n\n'
    git ls-files -z -- '*.md' ':!LICENSES' | xargs --null grep --only-matching --no-filename -E '\]\(https://[^)]+' |
        sed 's/^](/* /' | LC_ALL=C sort --unique
}

[ "$builder" = html ] || links_of_markdown > "$work/rst/markdown.rst"
sphinx-build -M "$builder" "$work/rst" "$work" -c docs/site -W --keep-going -q
[ "$builder" != html ] || echo "build/docs/html/index.html"
