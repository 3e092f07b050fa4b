"""The report in a real browser, from disk: no error, no request, sorting by mouse and keyboard, print."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from realistic_samples import many_attacks, realistic
from report_page import hostile
from report_samples import write
from suite_samples import paper_suite

from leakbench.reports import write_report
from leakbench.reports.html import render

selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver on the path"),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = selenium.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    from selenium.webdriver.chrome.service import Service

    driver = selenium.Chrome(options=options, service=Service(DRIVER))
    driver.set_script_timeout(300)  # of axe, which takes some ten, and many times that on a busy machine
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    return write_report(write(run, realistic(run)))


def opened(browser: Any, path: Path) -> Any:
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # what came before
    browser.get(path.as_uri())
    # laid out, at the size of the window that was asked for last
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    return browser


def requests(browser: Any) -> list[str]:
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def test_no_console_error_and_no_request(browser: Any, report: Path) -> None:
    opened(browser, report)
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.get_log("browser") == []
    sent = requests(browser)
    assert report.as_uri() in sent
    # a browser that has just started asks for its own start page
    own = ("data:", "chrome:", "chrome-untrusted:")
    assert [url for url in sent if url != report.as_uri() and not url.startswith(own)] == []
    entries = browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in entries if not name.startswith("data:")] == []


def test_hostile_records_run_nothing(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_bytes(render(hostile(), tmp_path).encode())
    opened(browser, path)
    assert browser.get_log("browser") == []
    # an alert that is open would raise here
    assert browser.execute_script("return document.querySelectorAll('main script, main img').length") == 0


def test_styles_are_applied_and_pictures_drawn(browser: Any, report: Path) -> None:
    opened(browser, report)
    sizes = browser.execute_script(
        "return [...document.querySelectorAll('.wall img')].map(i => [i.naturalWidth, i.width,"
        " getComputedStyle(i).imageRendering])"
    )
    assert len(sizes) == 230 and all(size == [32, 64, "auto"] for size in sizes)
    heat = browser.execute_script("return getComputedStyle(document.querySelector('td.h7')).backgroundColor")
    assert heat not in ("rgba(0, 0, 0, 0)", "rgb(255, 255, 255)")
    hatched = browser.execute_script("return getComputedStyle(document.querySelector('td.hatched')).backgroundImage")
    assert hatched.startswith("repeating-linear-gradient")
    box = browser.execute_script("const b = document.querySelector('svg.figure').getBBox(); return [b.width, b.height]")
    assert min(box) > 100


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_take_the_pages_colours(browser: Any, report: Path, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "screen", "features": features})
    try:
        opened(browser, report)
        colours = browser.execute_script(
            "const s = e => getComputedStyle(e);"
            "return [s(document.querySelector('svg.figure text')).fill, s(document.body).color,"
            " s(document.body).backgroundColor,"
            " [...document.querySelectorAll('svg.figure *')].map(e => s(e).fill).concat("
            "[...document.querySelectorAll('svg.figure *')].map(e => s(e).stroke))]"
        )
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    text, ink, paper, all_colours = colours
    muted = "rgb(89, 96, 105)" if scheme == "light" else "rgb(160, 168, 176)"
    assert text in (ink, muted)
    assert paper == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 26)")
    drawing = {f"rgb({n}, {n}, {n})" for n in range(1, 13)}
    assert not drawing & set(all_colours)


def column(browser: Any, number: int) -> list[str]:
    rows = "[...document.querySelector('#grid table.sortable').tBodies[0].rows]"
    found: list[str] = browser.execute_script(f"return {rows}.map(row => row.cells[{number}].dataset.sort)")
    return found


@pytest.mark.parametrize(("scheme", "width"), [pytest.param("light", 1440, marks=pytest.mark.long), ("dark", 390)])
def test_axe_finds_nothing(browser: Any, report: Path, scheme: str, width: int) -> None:
    """All rules of axe-core, with everything unfolded."""
    axe = resources.files(pytest.importorskip("axe_core_python", reason="axe-core-python is not installed"))
    size = {"width": width, "height": 1200, "deviceScaleFactor": 1, "mobile": False}
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    try:
        opened(browser, report)
        browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
        browser.execute_script(axe.joinpath("axe.min.js").read_text(encoding="utf-8"))
        found = browser.execute_async_script(
            "const done = arguments[0]; axe.run(document, {resultTypes: ['violations']}).then(r => done("
            "r.violations.map(v => [v.id, v.nodes.length, v.nodes[0].html])))"
        )
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert found == []


def test_sorting_by_click(browser: Any, report: Path) -> None:
    opened(browser, report)
    browser.execute_script(UNFOLD)
    names = column(browser, 0)
    button = browser.find_element(
        "css selector", "#grid table.sortable th:nth-child(3) button"
    )  # direct: one cell failed
    anchors = browser.execute_script("return document.querySelector('#grid table.sortable tfoot').textContent")
    button.click()
    down = column(browser, 2)
    assert down[-1] == "" and down[:-1] == sorted(down[:-1], key=float, reverse=True)
    assert down != sorted(down)
    button.click()
    up = column(browser, 2)
    assert up[-1] == "" and up[:-1] == sorted(up[:-1], key=float)
    assert button.find_element("xpath", "..").get_attribute("aria-sort") == "ascending"
    button.click()
    assert column(browser, 0) == names
    assert browser.execute_script("return document.querySelector('#grid table.sortable tfoot').textContent") == anchors


def test_sorting_by_keyboard(browser: Any, report: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    opened(browser, report)
    browser.execute_script(UNFOLD)
    names = column(browser, 0)
    assert names != sorted(names)
    browser.execute_script("document.querySelector('#grid table.sortable').closest('.scroll').focus()")
    browser.switch_to.active_element.send_keys(Keys.TAB)
    head = browser.switch_to.active_element
    assert head.tag_name == "button" and head.text.startswith("Defence")
    head.send_keys(Keys.ENTER)
    assert column(browser, 0) == sorted(names)
    head.send_keys(Keys.SPACE)
    assert column(browser, 0) == sorted(names, reverse=True)


def test_the_prediction_stands_below_its_picture(browser: Any, report: Path) -> None:
    opened(browser, report)
    below = browser.execute_script(
        "return [...document.querySelectorAll('.prediction')].map(o => ["
        "o.getBoundingClientRect().top - o.previousElementSibling.getBoundingClientRect().bottom,"
        " o.textContent, getComputedStyle(o).fontWeight])"
    )
    assert len(below) == 220 and all(0 <= gap < 8 for gap, _, _ in below)  # nobody asked about the synthetic images
    assert {weight for _, text, weight in below if text.startswith("✓ ")} == {"650"}
    assert {weight for _, text, weight in below if not text.startswith("✓ ")} == {"400"}


@pytest.mark.parametrize("width", [320, 390, 800, 1280])
def test_no_page_is_wider_than_its_window(browser: Any, report: Path, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        opened(browser, report)
        browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def printed(browser: Any) -> bytes:
    """The page as a PDF on landscape paper as the page asks for it."""
    pdf = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})["data"])
    assert set(re.findall(rb"/MediaBox \[([^]]*)\]", pdf)) == {b"0 0 792 612"}
    return pdf


def test_eleven_attacks_print_small(browser: Any, tmp_path: Path) -> None:
    opened(browser, write_report(write(tmp_path, many_attacks(tmp_path))))
    assert browser.execute_script("return document.querySelectorAll('td.hatched').length") > 100
    assert len(printed(browser)) < 3_000_000


@pytest.fixture
def paper(browser: Any) -> Iterator[Any]:
    """The browser, laying pages out as for the narrower of the two papers, letter, between its margins."""
    width = 11 * 96 - 24 / 25.4 * 96
    metrics = {"width": int(width), "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    yield browser
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


UNFOLD = "document.querySelectorAll('details.folded').forEach(d => d.open = true)"
OVERFLOW = """
const right = document.documentElement.clientWidth + 1;
return [...document.querySelectorAll('main table, main table *')].filter(e => e.getBoundingClientRect().right > right)
  .map(e => (e.closest('.scroll') || e).ariaLabel + ': ' + e.textContent.slice(0, 40))
"""


SAMPLES = {
    "eleven attacks": many_attacks,
    "four defences": realistic,
    "the paper's suite": lambda _: paper_suite(),
    "hostile": lambda _: hostile(),
}


@pytest.mark.parametrize("sample", SAMPLES)
def test_no_table_is_cut_at_the_edge_of_the_paper(paper: Any, tmp_path: Path, sample: str) -> None:
    opened(paper, write_report(write(tmp_path, SAMPLES[sample](tmp_path))))
    paper.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert paper.execute_script(OVERFLOW) == []


def test_headings_of_eleven_attacks_take_two_lines_of_paper_at_most(paper: Any, tmp_path: Path) -> None:
    opened(paper, write_report(write(tmp_path, many_attacks(tmp_path))))
    lines = "const e = document.querySelector('#grid thead'), s = getComputedStyle(e.querySelector('th'));"
    assert paper.execute_script(f"{lines} return e.offsetHeight / parseFloat(s.lineHeight)") < 3


def test_what_is_folded_stays_folded_on_paper_but_for_the_reasons_of_the_gates(paper: Any, report: Path) -> None:
    opened(paper, report)
    found = paper.execute_script(
        "return [...document.querySelectorAll('details:not([open])')].map(d => [d.className, d.offsetHeight,"
        " getComputedStyle(d.firstElementChild, '::after').content])"
    )
    printed = [(height, after) for name, height, after in found if "prints" in name.split()]
    assert len(printed) > 5 and all(height > 100 and after == "none" for height, after in printed)
    rest = [(height, after) for name, height, after in found if "prints" not in name.split()]
    assert len(rest) > 3 and all(height < 60 and "folded" in after for height, after in rest)
