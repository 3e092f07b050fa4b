"""The Markdown files: links, paths and commands lead somewhere, and every measured page says how it was made."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from leakbench.cli import app

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for path in (
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("benchmarks/**/*.md"),
        *ROOT.glob("examples/*.md"),
        *ROOT.glob("leaderboard/*.md"),
    )
    if path.is_file()
)
GUIDES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(page for page in PAGES if {"docs", "examples"} & {*page.parts}),
]
FOLDERS = (
    ".ci", "attacks", "benchmarks", "defenses", "docs", "examples", "leaderboard", "leakbench", "reports", "tests",
)  # fmt: skip
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
UNSCRIPTED = {ROOT / "docs" / "results" / name for name in ("README.md", "single-measurements.md")}
"""pages of results that no script writes"""
RESULTS = sorted(set(ROOT.glob("docs/results/*.md")) - UNSCRIPTED)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose(path: Path) -> str:
    """The page without its code blocks."""
    return re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def spans(path: Path) -> list[str]:
    """What stands in backticks, each in one line."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(path))]


def commands(path: Path) -> Iterator[list[str]]:
    """The words of each command, of code blocks and of what stands in backticks."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for line in [*"".join(blocks).splitlines(), *spans(path)]:
        if re.match(r"(leakbench|make|python) ", line):
            yield shlex.split(line, comments=True)


def missing_paths(path: Path) -> Iterator[str]:
    """Paths of the repository that are not there; ``NAME`` in one stands for any name."""
    for span in spans(path):
        local = re.fullmatch(rf"({'|'.join(map(re.escape, FOLDERS))})/[\w./*-]*", span)
        if local and not any(ROOT.glob(span.replace("NAME", "*").rstrip("/"))):
            yield span


def unknown_words(words: list[str]) -> Iterator[str]:
    """What a command says that its program does not know: a script, a target, a verb or an option."""
    program, *rest = words
    if program == "python":
        yield from (word for word in rest[:1] if not (ROOT / word).is_file())
    elif program == "make":
        yield from (word for word in rest if "=" not in word and word not in TARGETS)
    else:
        command = typer.main.get_command(app)
        for word in rest:
            verbs = getattr(command, "commands", None)
            options = {"--help", *(name for one in command.params for name in (*one.opts, *one.secondary_opts))}
            if word.startswith("-"):
                yield from {word.partition("=")[0]} - options
            elif verbs is not None:
                if word not in verbs:
                    yield word
                    return
                command = verbs[word]


def anchors(path: Path) -> set[str]:
    """Ids that GitHub gives the headings."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(path: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        page = (path.parent / file).resolve() if file else path
        if not page.exists() or (anchor and anchor not in anchors(page)):
            yield target


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    assert list(dead_links(page)) == []


def test_dead_links_are_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One two\n[a](none.md) [b](#one-two) [c](#three) [d](https://example.org)\n```\n[e](none)\n```\n")
    assert list(dead_links(page)) == ["none.md", "#three"]


@pytest.mark.parametrize("page", GUIDES, ids=name)
def test_every_path_and_command_of_the_docs_exists(page: Path) -> None:
    assert list(missing_paths(page)) == []
    assert {shlex.join(words): unknown for words in commands(page) if (unknown := list(unknown_words(words)))} == {}


@pytest.mark.slow
def test_missing_paths_and_unknown_commands_are_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "`tests/test_docs.py` `tests/none.py` `attacks/NAME.py` `docs/*.none` `a/b` `leakbench none`\n"
        "```\nleakbench run -d x --none=1 --seeds 3  # --other\nleakbench cache ls --none\nmake test x=1 none\n"
        "python benchmarks/none.py --cache CACHE\nleakbench list --json\n```\n"
        "`make\ndemo` `leakbench --install-completion`\n"
    )
    assert list(missing_paths(page)) == ["tests/none.py", "docs/*.none"]
    unknown = [list(unknown_words(words)) for words in commands(page)]
    assert unknown == [["--none"], ["--none"], ["none"], ["benchmarks/none.py"], [], ["none"], [], []]


@pytest.mark.parametrize("page", RESULTS, ids=name)
def test_a_measured_page_says_when_where_and_by_which_script(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    when = r"\d{4}-\d\d-\d\d( to \d{4}-\d\d-\d\d)?"
    assert re.search(rf"^{when}, LeakBench \d+\.\d+\.\d+, .+; Python [\d.]+, PyTorch \S+, NumPy", text, re.M)
    (script,) = set(re.findall(r"^python (benchmarks/\w+\.py)", text, re.MULTILINE))
    assert (ROOT / script).is_file()


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/*.md")), ids=name)
def test_a_guide_links_to_measured_pages_and_quotes_no_dates(page: Path) -> None:
    """A number that was measured on a day belongs to docs/results."""
    assert not re.search(r"\b20\d\d-\d\d-\d\d\b", prose(page))
