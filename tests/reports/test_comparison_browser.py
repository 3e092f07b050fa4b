"""The page of a comparison in a real browser, from disk: inert, quiet, sortable, no wider than its window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from comparison_samples import defense, forced, three
from test_comparison_page import hostile
from test_report_browser import CHROMIUM, DRIVER, browser, opened, requests

from leakbench.reports import write_comparison

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver on the path"),
]
__all__ = ["browser"]
PAGES = {"three": three, "forced": forced, "hostile": hostile}


@pytest.mark.parametrize("name", PAGES)
def test_nothing_runs_and_nothing_is_asked_for(browser: Any, tmp_path: Path, name: str) -> None:
    path = write_comparison(PAGES[name](), tmp_path)
    opened(browser, path)
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.get_log("browser") == []
    # a browser that has just started asks for its own start page
    sent = [url for url in requests(browser) if not url.startswith(("data:", "chrome:", "chrome-untrusted:"))]
    assert sent == [path.as_uri()]
    # an alert that is open would raise here
    assert browser.execute_script("return document.querySelectorAll('main script, main img').length") == 0


@pytest.mark.parametrize("width", [320, 390, 800, 1440])
@pytest.mark.parametrize("name", PAGES)
def test_no_page_is_wider_than_its_window(browser: Any, tmp_path: Path, name: str, width: int) -> None:
    path = write_comparison(PAGES[name](), tmp_path)
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        opened(browser, path)
        browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_ranking_takes_no_scrolling_on_a_phone(browser: Any, tmp_path: Path) -> None:
    path = write_comparison(forced(), tmp_path)
    metrics = {"width": 390, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        opened(browser, path)
        for table in ("ranks", "pairs"):
            wide = f"const s = document.querySelector('.{table}').parentElement; return s.scrollWidth - s.clientWidth"
            assert browser.execute_script(wide) <= 0
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_table_sorts_by_the_leakage_index(browser: Any, tmp_path: Path) -> None:
    opened(browser, write_comparison(three(), tmp_path))
    labels = "return [...document.querySelector('table.beside').tBodies[0].rows].map(r => r.cells[0].dataset.sort)"
    assert browser.execute_script(labels) == ["low", "mid", "high", "open"]
    head = "[...document.querySelectorAll('table.beside thead button')].find(b => b.textContent.startsWith('Leakage'))"
    browser.execute_script(f"{head}.click()")
    assert browser.execute_script(labels) == ["high", "mid", "low", "open"]


def test_marks_lead_to_what_forbids_the_comparison(browser: Any, tmp_path: Path) -> None:
    opened(browser, write_comparison(forced(), tmp_path))
    browser.execute_script("document.querySelector('.ranks a.mark').click()")
    assert (
        browser.execute_script("return document.querySelector(':target').textContent")
        .strip()
        .startswith("Not comparable: 1.")
    )


def test_a_dot_lies_within_its_axis(browser: Any, tmp_path: Path) -> None:
    from comparison_samples import comparison

    made = comparison([defense("none", (1, 2), 0.0), defense("all", (1, 2), 1.0)])
    opened(browser, write_comparison(made, tmp_path))
    inside = browser.execute_script(
        "return [...document.querySelectorAll('.ranks svg')].map(s => {"
        "const a = s.getBoundingClientRect(), c = s.querySelector('circle').getBoundingClientRect();"
        "return [c.left - a.left, a.right - c.right]})"
    )
    assert len(inside) == 2 and all(min(gaps) > -4.5 for gaps in inside)
    assert inside[0][0] < inside[1][0]
