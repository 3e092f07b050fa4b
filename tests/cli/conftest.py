"""Fixtures of the command line's tests: ``leakbench`` in this process, and the finished tiny run."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))  # the tiny run is the bench's

from cli_said import Leakbench, Said
from tiny_runs import Warm, in_process, warm_run

from leakbench.bench.process import fixed_threads
from leakbench.cli import main


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in ("LEAKBENCH_CACHE", "LEAKBENCH_DATA", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    for name in ("LEAKBENCH_INCEPTION", "LEAKBENCH_TEST_GATE", "LEAKBENCH_TEST_CALLS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    in_process(monkeypatch)
    with fixed_threads(1):
        yield


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Warm:
    """The finished tiny run; copy its store where a test changes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(tmp_path_factory.getbasetemp()))
        patch.delenv("LEAKBENCH_INCEPTION", raising=False)
        in_process(patch)
        return warm_run(tmp_path_factory.getbasetemp())


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
