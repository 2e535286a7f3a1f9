# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of a fleet of a thousand, as a browser shows it."""

from __future__ import annotations

import pathlib
import typing as t

import pytest
from ansible_collections.fleetvpn.routing.plugins.filter.report import fleet_page, fleet_report

from tests.functional import browser
from tests.functional.browser import Browser
from tests.unit.plugins.filter.answers import HOSTILE, everywhere, host

COUNT = 1000
BAD = {7: "wrong", 70: "wrong", 700: "wrong", 8: "drifted", 80: "pending"}
SHOWN = "Array.from(document.querySelectorAll('.host')).filter((host) => host.checkVisibility()).length"


def fleet() -> dict[str, t.Any]:
    """Most are proven; one was not reached, and some say what no honest host would say."""
    answers = {f"h{n:03}": host(BAD.get(n, "proven"), [f"10.9.{n // 250}.{n % 250}"]) for n in range(COUNT - 1)}
    hostile = {n: everywhere(host("wrong"), text, ()) for n, text in enumerate(HOSTILE)}
    return {**answers, **{f"{HOSTILE[n]} {n}": answer for n, answer in hostile.items()}, "away": {"unreachable": True}}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    made = tmp_path_factory.mktemp("report") / "fleet.html"
    made.write_text(fleet_page(fleet_report(fleet(), "today")), encoding="utf-8")
    return made


@pytest.fixture
def page(path: pathlib.Path, tmp_path: pathlib.Path) -> t.Iterator[Browser]:
    with Browser(browser.find(), tmp_path) as made:
        made.open(path)
        yield made


def choose(page: Browser, state: str) -> None:
    page.ask(f"document.getElementById('show-{state}').click()")


def test_runs_no_script_of_a_host_and_has_nothing_to_complain_of(page: Browser) -> None:
    assert page.ask("document.querySelectorAll('script, img, iframe, object, embed').length") == 1
    assert page.ask("Array.from(document.querySelectorAll('details')).forEach((each) => { each.open = true })") is None
    assert page.ask("performance.getEntriesByType('resource').length") == 0
    assert page.complaints == []


def test_would_complain_of_a_script_that_is_not_its_own(
    page: Browser, path: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    other = tmp_path / "other.html"
    other.write_text(path.read_text().replace("</main>", "<script>document.title = 'gone'</script></main>", 1))
    page.open(other)
    assert page.ask("document.title") != "gone"
    assert "Content Security Policy" in str(page.complaints)


def test_shows_the_hosts_of_a_state(page: Browser) -> None:
    assert page.ask(SHOWN) == COUNT + len(HOSTILE)
    choose(page, "drifted")
    assert page.ask(SHOWN) == 1
    choose(page, "wrong")
    assert page.ask(SHOWN) == 3 + len(HOSTILE)
    assert page.ask("document.getElementById('shown').textContent") == f"{3 + len(HOSTILE)} shown"


def test_finds_a_host_by_what_is_known_of_it(page: Browser) -> None:
    for words, found in (("h700", 1), ("10.9.2.200", 1), ("ahead H007", 1), ("nothing of that", 0)):
        page.ask(f"document.getElementById('words').value = '{words}'")
        took = page.ask(
            "(() => { const begun = performance.now();"
            " document.getElementById('words').dispatchEvent(new Event('input', {bubbles: true}));"
            " return performance.now() - begun })()"
        )
        assert (words, page.ask(SHOWN)) == (words, found)
        assert took < 1000  # ms; a few on an idle machine


def test_filters_without_scripts_too(page: Browser, path: pathlib.Path) -> None:
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    page.open(path)
    assert page.ask("document.getElementById('search').hidden") is True
    choose(page, "pending")
    assert page.ask(SHOWN) == 1


def test_can_be_used_by_keyboard(page: Browser) -> None:
    page.ask("document.getElementById('show-all').focus()")
    for key, kind in (("ArrowRight", "rawKeyDown"), ("ArrowRight", "keyUp")):
        page.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=39)
    assert page.ask("document.querySelector('[name=show]:checked').value") == "wrong"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_has_texts_that_stand_out_from_the_page(page: Browser, scheme: str) -> None:
    """A contrast of 4.5 to 1 at least, as WCAG 2 AA asks."""
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    colours = page.ask(
        "['page', 'box', 'text', 'soft', 'proven', 'pending', 'wrong', 'drifted', 'waiting'].map("
        "(name) => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim())"
    )
    grounds, inks = colours[:2], colours[2:]
    assert min(contrast(ground, ink) for ground in grounds for ink in inks) >= 4.5


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted(map(luminance, (one, other)))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    shares = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
