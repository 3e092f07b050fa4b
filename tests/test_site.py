"""The documentation as a site: it builds without a warning, its links lead somewhere, it asks nothing of a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import typer

from leakbench.cli import app

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


class Links(HTMLParser):
    """What a page links to, what it loads, and its ids."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.ids: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids |= {values["id"]} if "id" in values else set()
        for name in ("href", "src"):
            if name in values:
                (self.links if tag == "a" else self.loaded).append(values[name])


parsed = cache(Links)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("material", reason="mkdocs-material is not installed: pip install -e '.[docs]'")
    pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    # not --quiet, with which mkdocs does not count warnings, and so is not strict
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    build = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert build.returncode == 0, build.stderr
    return folder


def dead_links(page: Path) -> list[str]:
    """Links of a page to files or headings that are not there."""
    dead = []
    for link in parsed(page).links:
        parts = urlsplit(link)
        if parts.scheme:
            continue
        target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        if not target.is_file() or (parts.fragment and unquote(parts.fragment) not in parsed(target).ids):
            dead.append(link)
    return dead


@pytest.mark.slow
def test_every_link_leads_to_a_file_and_a_heading(site: Path) -> None:
    pages = sorted(page for page in site.rglob("*.html") if page.name != "404.html")  # its links are of a server's root
    assert {"index.html", "method.html", "contracts.html", "command-line.html"} <= {page.name for page in pages}
    assert {page.name: dead for page in pages if (dead := dead_links(page))} == {}


def test_dead_links_are_seen(tmp_path: Path) -> None:
    (tmp_path / "other.html").write_text('<p id="there">')
    page = tmp_path / "page.html"
    page.write_text(
        '<a href="none.html"></a><a href="other.html#there"></a><a href="other.html#none"></a><a href="#none"></a>'
    )
    assert dead_links(page) == ["none.html", "other.html#none", "#none"]


@pytest.mark.slow
def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert [url for url in parsed(page).loaded if urlsplit(url).netloc] == []
        assert text.index('http-equiv="Content-Security-Policy"') < text.index("<script")
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(\s*[\"']?(https?:)?//|@import", style.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_the_reference_has_every_command_and_option(site: Path) -> None:
    text = (site / "reference" / "command-line.html").read_text(encoding="utf-8")
    sections = {section.partition('"')[0]: section for section in text.split('<h2 id="')[1:]}
    commands = {"leakbench": typer.main.get_command(app)}
    seen = set()
    while commands:
        path, command = commands.popitem()
        section = sections["options-before-the-command" if path == "leakbench" else path.replace(" ", "-")]
        described = " ".join(re.findall(r"<dt><code>(.*?)</code></dt>", section)).replace(",", " ").split()
        options = {name for param in command.params for name in param.opts if name.startswith("-")}
        assert options <= {*described}
        seen |= options
        commands |= {f"{path} {name}": one for name, one in getattr(command, "commands", {}).items()}
    assert {"--debug", "--defense", "-d", "--older-than"} <= seen


@pytest.mark.slow
def test_docstrings_are_in_the_reference_without_the_roles_of_sphinx(site: Path) -> None:
    text = (site / "reference" / "contracts.html").read_text(encoding="utf-8")
    assert 'href="#leakbench.contracts.ImageClassifier"' in text
    for page in (site / "reference").glob("*.html"):
        assert not re.search(r":(class|func|meth|data|mod|attr):", page.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_the_palette_is_the_reports(site: Path) -> None:
    report = (ROOT / "reports" / "templates" / "report.css").read_text(encoding="utf-8")
    light, dark = (site / "assets" / "palette.css").read_text(encoding="utf-8").split("}")[:2]
    for scheme in (light, dark):
        paper = re.search(r"--paper: #\w{6};", scheme)
        assert paper and paper[0] in report
    assert light.count("#") == dark.count("#") > 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_nested_lists_are_indented_by_four_spaces(page: Path) -> None:
    """The site's Markdown takes fewer for the outer list; GitHub takes both."""
    assert re.findall(r"^ {1,3}(?:[-*]|\d+\.) .*", page.read_text(encoding="utf-8"), re.MULTILINE) == []


def test_an_index_of_packages_shows_no_broken_picture() -> None:
    """It shows README.md without the files that lie beside it."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [url for url in re.findall(r"!\[[^\]]*\]\(([^)\s]+)", readme) if not url.startswith("https://")] == []
