# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pictures of the documentation as a browser draws them: in both schemes, and no text covers or leaves anything."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from tests.functional import browser
from tests.functional.browser import Browser
from tests.tools import pictures

# Texts that touch each other, leave the paper, or stand on the edge of a box.
MISPLACED = """(() => {
  const place = (each) => each.getBoundingClientRect();
  const texts = Array.from(document.querySelectorAll('text'));
  const paper = place(document.querySelector('.paper'));
  const apart = (a, b) => a.right <= b.left || b.right <= a.left || a.bottom <= b.top + 3 || b.bottom <= a.top + 3;
  const within = (a, b) => a.left >= b.left && a.right <= b.right && a.top >= b.top - 3 && a.bottom <= b.bottom + 3;
  const edges = Array.from(document.querySelectorAll('rect'), place);
  const wrong = [];
  texts.forEach((one, number) => {
    const at = place(one);
    if (!within(at, paper)) wrong.push('leaves the paper: ' + one.textContent);
    for (const edge of edges)
      if (!apart(at, edge) && !within(at, edge)) wrong.push('on an edge: ' + one.textContent);
    for (const other of texts.slice(number + 1))
      if (!apart(at, place(other))) wrong.push(one.textContent + ' covers ' + other.textContent);
  });
  return wrong;
})()"""
PAPER = "getComputedStyle(document.querySelector('.paper')).fill"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Browser]:
    with Browser(browser.find(), tmp_path_factory.mktemp("browser")) as made:
        yield made


@pytest.mark.parametrize("path", sorted(pictures.current()), ids=lambda path: path.name)
def test_no_text_covers_or_leaves_anything(page: Browser, path: pathlib.Path) -> None:
    page.open(path)
    assert page.ask(MISPLACED) == []
    assert page.complaints == []


@pytest.mark.parametrize("path", sorted(pictures.current()), ids=lambda path: path.name)
def test_follows_the_scheme_of_the_reader(page: Browser, path: pathlib.Path) -> None:
    seen = []
    for scheme in ("light", "dark"):
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        page.open(path)
        seen.append("#" + "".join(f"{int(part):02x}" for part in page.ask(PAPER)[4:-1].split(",")))
    assert tuple(seen) == pictures.COLOURS["paper"]
