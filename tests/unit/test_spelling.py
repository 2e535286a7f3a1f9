# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the spelling check of `make lint` takes for words, and what it complains of."""

from __future__ import annotations

import pytest

from tests.unit.test_docs import loaded

TOOL = loaded("spelling")
MARKDOWN = """\
<!-- a remark -->
A host's [guide](https://example.com/other), `code` and
```sh
command  # with a remark
```
two-fold, IPv6 and plain/text of eth0; NAT.
"""
RST = """\
..
  Copyright

.. _label:

Title
=====

.. code-block:: text

   a message

.. list-table::
   :widths: 30 70

   * - ``code`` and the :ref:`guide
       <ansible_collections.fleetvpn>`, a `page <https://example.com/other>`__
"""


@pytest.mark.parametrize(
    ("text", "suffix", "words"),
    [
        (MARKDOWN, ".md", {"host", "guide", "and", "two", "fold", "plain", "text", "of"}),
        (RST, ".rst", {"Title", "and", "the", "guide", "a", "page"}),
    ],
    ids=["Markdown", "reStructuredText"],
)
def test_code_links_and_names_are_no_words(text: str, suffix: str, words: set[str]) -> None:
    assert TOOL.words(text, suffix) == words


@pytest.mark.parametrize(
    ("listed", "complaint"),
    [
        (["nft", "sudo", "VPNs"], None),
        (["nft", "sudo"], "VPNs: README.md"),
        (["nft", "sudo", "sysctl", "VPNs"], "tests/spelling.txt: sysctl is not needed"),
        (["sudo", "nft", "VPNs"], "tests/spelling.txt: not sorted, or a word stands there twice"),
    ],
    ids=["right", "unknown", "too many", "not sorted"],
)
def test_the_list_has_what_is_needed_in_its_order(listed: list[str], complaint: str | None) -> None:
    found = {"Nft": ["README.md"], "sudo": ["README.md"], "VPNs": ["README.md"]}
    assert list(TOOL.complaints(listed, found)) == ([complaint] if complaint else [])
