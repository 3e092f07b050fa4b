"""Fixtures of the command line's tests: ``leakbench`` in this process, and the finished tiny run."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from functools import cache

import pytest
import typer
from bench_fixtures import apart, short_lessons, warm
from cli_said import Leakbench, Said

from leakbench.cli import main

__all__ = ["apart", "leakbench", "short_lessons", "warm", "wide"]


@pytest.fixture(scope="session", autouse=True)
def commands() -> Iterator[None]:
    """Typer reads the commands off their functions once, and not at every call."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", cache(typer.main.get_command))
        yield


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal on which no line is wrapped."""
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def leakbench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Leakbench:
    """Runs a command in this process, through the same ``main`` as the script."""
    log = logging.getLogger("leakbench")

    def call(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["leakbench", *map(str, arguments)])
        handlers = list(log.handlers)
        capsys.readouterr()
        try:
            main()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        finally:
            log.handlers[:] = handlers  # main owns its process; this one outlives it
        said = capsys.readouterr()
        return Said(status, said.out, said.err)

    return call
