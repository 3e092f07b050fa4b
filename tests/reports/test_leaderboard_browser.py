"""The page of a leaderboard in a real browser, from disk: inert, quiet, sorted, filtered, no wider than its window."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from board_entries import entry, quoted, result
from test_leaderboard_page import filed, hostile
from test_report_browser import CHROMIUM, DRIVER, browser, opened, requests

from leakbench.bench.leaderboard.board import leaderboard
from leakbench.bench.leaderboard.entries import Entry
from leakbench.reports import write_leaderboard

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver on the path"),
]
__all__ = ["browser"]
SHOWN = """return [...document.querySelectorAll("tr.entry")].filter(row => row.offsetHeight)
    .map(row => row.cells[1].firstChild.textContent.trim())"""
BELOW = """return [...document.querySelectorAll("tr.entry")]
    .map(row => row.nextElementSibling.querySelector("pre").textContent.match(/--defense (\\w+)/)[1])"""


def several() -> dict[str, Entry]:
    return {
        "a": entry("a", 0.2, energy_ratio={"value": 5.0}),
        "b": entry("b", 0.5, attacks=quoted(result(), result("label_only", 0.1)), energy_ratio={"value": 30.0}),
        "c": entry("c", 0.9, training_images_read={"value": 9.0}, energy_ratio=None),
        "open": entry("open", 0.1, comparable=False, why="masking"),
    }


HOME = "\ue011"
"""the key, as WebDriver writes it"""
PAGES = {"several": several, "hostile": hostile}


def written(folder: Path, name: str) -> Path:
    made, _ = leaderboard(filed(**PAGES[name]()))
    return write_leaderboard(made, folder)


@contextlib.contextmanager
def window(browser: Any, width: int) -> Iterator[None]:
    """A window of that width, in CSS pixels."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        yield
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("name", PAGES)
def test_nothing_runs_and_nothing_is_asked_for(browser: Any, tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name)
    opened(browser, path)
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.get_log("browser") == []
    sent = [url for url in requests(browser) if not url.startswith(("data:", "chrome:", "chrome-untrusted:"))]
    assert sent == [path.as_uri()]
    assert browser.execute_script("return document.querySelectorAll('main script, main img').length") == 0


@pytest.mark.parametrize("width", [320, 390, 800, 1440])
@pytest.mark.parametrize("name", PAGES)
def test_no_page_is_wider_than_its_window(browser: Any, tmp_path: Path, name: str, width: int) -> None:
    path = written(tmp_path, name)
    with window(browser, width):
        opened(browser, path)
        browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_details_go_where_their_row_goes(browser: Any, tmp_path: Path) -> None:
    with window(browser, 1440):
        opened(browser, written(tmp_path, "several"))
        energy = browser.find_element("css selector", "table.board thead th:nth-child(8) button")
        for expected in (["b", "a", "c", "open"], ["a", "b", "c", "open"], ["a", "b", "c", "open"]):
            energy.click()
            assert browser.execute_script(SHOWN) == expected
            assert browser.execute_script(BELOW) == expected


def test_rows_are_filtered(browser: Any, tmp_path: Path) -> None:
    opened(browser, written(tmp_path, "several"))
    names = ("[type=search]", "select", "[type=checkbox]")
    box, choice, tick = (browser.find_element("css selector", f".filters {name}") for name in names)
    assert browser.execute_script(SHOWN) == ["a", "b", "c", "open"]
    tick.click()
    assert browser.execute_script(SHOWN) == ["a", "b", "open"]
    choice.send_keys("labels")
    assert browser.execute_script(SHOWN) == ["b"]
    assert browser.find_element("css selector", ".filters output").text == "1 of 4 defences"
    choice.send_keys(HOME)
    tick.click()
    box.send_keys("MASKING")
    assert browser.execute_script(SHOWN) == ["open"]
    assert browser.execute_script("return document.querySelectorAll('tr.more:not([hidden])').length") == 1
