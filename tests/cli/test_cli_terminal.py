"""What others wrote reaches a terminal as text: no escape sequence, line end or turned writing direction is obeyed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from cli_said import Leakbench
from tiny_runs import Warm, copied

from leakbench import registry
from leakbench.cli.progress import Bars, Lines, Silent
from leakbench.cli.run import _summary
from leakbench.errors import LeakBenchError, printable

NASTY = "n\x1b[31m\n\r\x07\u202e\x85z"
SHOWN = "n\\x1b[31m\\n\\r\\x07\\u202e\\x85z"
RUN = ("run", "-d", "han2020", "-a", "direct", "--preset", "quick")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain [red]text[/red] \\x1b", "plain [red]text[/red] \\x1b"),
        ("Größe 大きさ مرحبا ☃ 🐈", "Größe 大きさ مرحبا ☃ 🐈"),
        ("", ""),
        ("a\tb\nc\r\x00\x7f", "a\\tb\\nc\\r\\x00\\x7f"),
        ("\x9b31m\u2028\u2029", "\\x9b31m\\u2028\\u2029"),
        ("\u202a\u202e\u2066\u2069\u200f\ufeff", "\\u202a\\u202e\\u2066\\u2069\\u200f\\ufeff"),
        ("\udcff\ud800", "\\udcff\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        (NASTY, SHOWN),
    ],
)
def test_what_can_not_be_printed_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


def harmless(text: str) -> str:
    """The text, in which nothing but line ends is not printable."""
    assert text.replace("\n", "").isprintable(), text
    return text


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", "{}"],
        [*RUN, "--inception", "{}"],
        [*RUN, "--device", "{}"],
        [*RUN, "--ann", "{}"],
        [*RUN, "--out", "/dev/null/{}"],
        [*RUN, "--cache", "/dev/null/{}"],
        [*RUN, "--dataset", "folder:{}"],
        [*RUN, "--public", "{}"],
        [*RUN, "--set", "{}=1"],
        [*RUN, "--set", "direct.iterations={}"],
        [*RUN, "--{}"],
        [*RUN, "{}"],
        [*RUN, "-a", "{}.py:Mine"],
        ["run", "--config", "{}"],
        ["run", "--resume", "--out", "{}"],
        ["info", "{}"],
        ["list", "{}"],
        ["{}"],
        ["cache", "ls", "--cache", "/dev/null/{}"],
    ],
    ids=" ".join,
)
def test_wrong_input_is_shown_and_not_obeyed(leakbench: Leakbench, arguments: list[str]) -> None:
    # typer strips the line ends of some arguments
    assert "\\x1b[31m" in harmless(leakbench(*(argument.format(NASTY) for argument in arguments)).line)


def test_a_report_s_path(leakbench: Leakbench, warm: Warm, tmp_path: Path) -> None:
    said = leakbench("report", copied(warm.out, tmp_path / NASTY))
    assert (said.status, said.err) == (0, "")
    assert harmless(said.out) == f"{tmp_path}/{SHOWN}/report.html\n"


def test_doctor(leakbench: Leakbench, tmp_path: Path) -> None:
    names = {name: tmp_path / f"{name}{NASTY}" for name in ("cache", "data", "inception")}
    said = leakbench("doctor", *(part for name, path in names.items() for part in (f"--{name}", path)))
    assert (said.status, said.err) == (0, "")
    assert all(f"{name}{SHOWN}" in harmless(said.out) for name in names)


DOC = f"First {NASTY}.\n\n    Second\tparagraph."
PLUGIN = f"""
from pydantic import Field
from leakbench.contracts import Access, Attack, Params

class Knobs(Params):
    iterations: int = Field(3, description={NASTY!r})

class Mine(Attack[Knobs]):
    __doc__ = {DOC!r}

    name = "mine"
    needs = Access.LABELS
    cites = {NASTY!r}

    def run(self, victim, targets, context):
        raise AssertionError
"""


def test_info_and_list_show_a_plugin_s_words(
    leakbench: Leakbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    said = leakbench("info", "mine.py:Mine")
    assert (said.status, said.err) == (0, "")
    lines = harmless(said.out).splitlines()
    # its own line ends stay, and tabs become spaces
    assert lines[2:6] == ["First n\\x1b[31m", "\\r\\x07\\u202e\\x85z.", "", "    Second      paragraph."]
    assert f"source: {SHOWN}" in lines
    assert lines[-1] == f"  iterations  3    {SHOWN}"
    plugin = registry.load("attack", "mine.py:Mine")
    monkeypatch.setattr(registry, "_registered", {"attack": {f"mine{NASTY}": plugin}, "defense": {}})
    listed = harmless(leakbench("list", "attacks").out)
    assert f"  mine{SHOWN}  First n\\x1b[31m (needs LABELS) [registered]\n" in listed


def test_what_a_plugin_raises_and_logs(leakbench: Leakbench, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        f"import logging\nlogging.getLogger('leakbench').warning({NASTY!r})\nraise ImportError({NASTY!r})"
    )
    said = leakbench(*RUN, "-a", "mine.py:Mine")
    warning, error = harmless(said.err).splitlines()
    assert warning == f"leakbench: warning: {SHOWN}"
    assert error == "leakbench: mine.py can't be imported: ImportError: n\\x1b[31m"


@pytest.mark.parametrize("error", [LeakBenchError, RuntimeError])
def test_every_error(leakbench: Leakbench, monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def breaks(*_: Any) -> None:
        raise error(NASTY)

    monkeypatch.setattr("leakbench.registry.load", breaks)
    said = leakbench("info", "direct")
    assert len(harmless(said.err).splitlines()) == 1
    assert "n\\x1b[31m" in said.err


@pytest.mark.parametrize("reporter", [Silent, Lines, Bars])
def test_failed_cells(reporter: type[Silent], capsys: pytest.CaptureFixture[str]) -> None:
    with reporter() as progress:
        progress.plan(1)
        progress.ended(f"[red]:cat:{NASTY}[/red]", "failed", NASTY)
    lines = harmless(capsys.readouterr().err).splitlines()
    (line,) = [line for line in lines if "failed" in line]
    assert line.endswith(f"failed: [red]:cat:{SHOWN}[/red]: {SHOWN}")


def test_progress_bars() -> None:
    progress = Bars()
    progress.started(NASTY)
    progress.stage(NASTY, 1, 2)
    assert [task.description for task in progress._bars.tasks] == [SHOWN, SHOWN]


def test_lines_of_a_stage(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Lines()
    progress._last -= 60
    progress.stage(NASTY, 1, 2)
    assert capsys.readouterr().err == f"  {SHOWN}: 1/2\n"


def test_verdicts_and_the_table(warm: Warm, capsys: pytest.CaptureFixture[str]) -> None:
    foreign = f"[red]:cat:{NASTY}"
    record = warm.record.model_copy(
        update={
            "rows": [row.model_copy(update={"attack": foreign}) for row in warm.record.rows],
            "verdicts": [
                verdict.model_copy(update={"defense": foreign, "reason": foreign}) for verdict in warm.record.verdicts
            ],
        }
    )
    _summary(record)
    out = harmless(capsys.readouterr().out)
    assert out.count(f"[red]:cat:{SHOWN}") == 2 * len(record.verdicts) + 1


def test_names_complete_only_where_they_can_be_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    from leakbench.cli.completion import attack_names, starting

    monkeypatch.setattr(registry, "_registered", {"attack": {f"mine{NASTY}": "a:B", "mine": "a:B"}, "defense": {}})
    assert starting(attack_names)("mi") == ["mine"]


def test_records_of_the_log_are_one_line() -> None:
    from leakbench.cli.terminal import LineFormatter

    record = logging.makeLogRecord({"msg": "%s", "args": (NASTY,)})
    assert LineFormatter("> %(message)s").format(record) == f"> {SHOWN}"
