"""Fixtures of the tests that compute cells: nothing of the user's own cache, data or weights takes part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tiny_runs import Warm, digits_run, in_process, warm_run

from leakbench.metrics import kes
from leakbench.runtime.process import fixed_threads


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in ("LEAKBENCH_CACHE", "LEAKBENCH_DATA", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    for name in ("LEAKBENCH_INCEPTION", "LEAKBENCH_FEATURES", "LEAKBENCH_TEST_GATE", "LEAKBENCH_TEST_CALLS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    in_process(monkeypatch)
    with fixed_threads(1):
        yield


@pytest.fixture
def short_lessons(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that look at no metric and compute in this process: most of a cell's time is the one metric that trains
    networks. Not with a store that other tests use."""
    monkeypatch.setattr(kes, "STUDENTS", 1)
    monkeypatch.setattr(kes, "STEPS", 1)


@contextmanager
def by_itself(base: Path) -> Iterator[None]:
    """Runs that several tests look at: in this process, without weights of the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(base))
        for name in ("LEAKBENCH_INCEPTION", "LEAKBENCH_FEATURES"):
            patch.delenv(name, raising=False)
        in_process(patch)
        with fixed_threads(1):  # the number stands in its record
            yield


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Warm:
    """The finished tiny run; copy its store where a test changes it."""
    base = tmp_path_factory.getbasetemp()
    with by_itself(base):
        return warm_run(base)


@pytest.fixture(scope="session")
def digits_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a finished quick run on the digits; copy it where a test changes it."""
    base = tmp_path_factory.getbasetemp()
    with by_itself(base):
        return digits_run(base)
