"""A worker elsewhere, set up in this process: plugins that travel, and what is said where something is missing."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from planned_cells import attacks
from tiny_runs import DIRECT_LABEL, OURS, Warm, copied

import leakbench
from leakbench.bench.grid import make_config
from leakbench.bench.plan import plan
from leakbench.bench.remote_worker import RemoteWorker, Setup
from leakbench.cells import Cell
from leakbench.errors import LeakBenchError, UsageError
from leakbench.runtime import plugins
from leakbench.runtime.plugins import Isolation
from leakbench.runtime.store import Store
from leakbench.runtime.workspace import Settings

MARK = "driver-of-tests.part"
MODULE = '''
import torch

from leakbench.contracts import Access, Attack, Params


class Grey(Attack[Params]):
    """Grey images."""

    name = "grey-elsewhere"
    needs = Access.LABELS

    def run(self, victim, targets, context):
        return torch.full((len(targets), *victim.image_shape), 0.5)
'''


def silent(_what: str, _done: int, _total: int) -> None:
    return None


def cells_of(warm: Warm, **options: Any) -> list[Cell]:
    return plan(make_config(warm.tiny.options(controls=False, **options)))


@pytest.fixture
def settings(warm: Warm, tmp_path: Path) -> Settings:
    cache = copied(warm.cache, tmp_path / "cache")
    (cache / "locks" / MARK).touch()
    return Settings(cache=str(cache))


@pytest.fixture
def grey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module with an attack, registered here."""
    file = tmp_path / "modules" / "grey_elsewhere.py"
    file.parent.mkdir()
    file.write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(file.parent)
    leakbench.register("attack", "grey-elsewhere", "grey_elsewhere:Grey")
    yield file
    sys.modules.pop("grey_elsewhere", None)


@pytest.mark.slow
def test_plugins_of_files_travel_and_make_the_same_artifacts(
    warm: Warm, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is computed anew: a file that lies elsewhere is the same plugin."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    file = tmp_path / "only here" / "gated.py"
    file.parent.mkdir()
    file.write_bytes(warm.tiny.gated.read_bytes())
    cells = cells_of(warm, attack=[f"{file}:Gated", "direct"])
    settings = replace(settings, local_cache=os.path.relpath(tmp_path / "copies"))  # from the folder of the run
    setup = Setup.of_run(cells, settings, MARK)
    file.unlink()
    worker = RemoteWorker(setup, silent)
    try:
        results = [worker.run("compute", cell) for cell in attacks(cells)]
    finally:
        worker.close()
    assert [(result.status, result.seconds) for result in results] == [("ok", 0.0)] * 2
    ours = {cell.attack: cell.artifacts for cell in warm.record.cells if not cell.control and cell.attack}
    assert [result.outcome.artifacts for result in results] == [ours["gated"], ours[DIRECT_LABEL]]
    assert not list(tmp_path.glob("leakbench-worker-*"))
    read = {key for result in results for key in result.outcome.artifacts.values()}
    assert read <= {entry.key for entry in Store(tmp_path / "copies").entries()}


def test_a_class_of_this_process_alone_does_not_travel(warm: Warm, settings: Settings) -> None:
    cell = cells_of(warm)[0]
    leakbench.register("model", "stays", lambda *_: None)
    with pytest.raises(UsageError, match=r"^the model 'stays' is known to this process alone, .*: put it into a file$"):
        Setup.of_run([cell.model_copy(update={"model": "stays"})], settings, MARK)


def test_a_file_that_is_too_large_does_not_travel(
    warm: Warm, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = cells_of(warm)
    monkeypatch.setattr("leakbench.bench.remote_worker._LARGEST", 100)
    with pytest.raises(UsageError, match=r"^the plugin file '.*gated.py' is larger than 0 MiB"):
        Setup.of_run(cells, settings, MARK)


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("another store", "is not the cache of this run there: mount its folder at that path"),
        ("read-only store", "can't write to the cache at "),
        ("no module", "the attack 'grey-elsewhere' is not there: "),
        ("another version", "the attack 'grey-elsewhere' is another version there: install the same one"),
        ("no device", "--device cuda:77: not usable here"),
        ("no isolation", "plugins can't be isolated there (no Landlock): --no-isolate runs them beside the data"),
    ],
)
def test_what_a_worker_lacks_is_said_in_one_line_with_its_machine(
    warm: Warm, settings: Settings, grey: Path, monkeypatch: pytest.MonkeyPatch, fault: str, line: str
) -> None:
    setup = Setup.of_run(cells_of(warm, attack=["grey-elsewhere"], set={f"{OURS}.images": ["16"]}), settings, MARK)
    monkeypatch.setattr("platform.node", lambda: "node7")
    if fault == "another store":
        (Path(settings.cache) / "locks" / MARK).unlink()
    elif fault == "read-only store":

        def touch(_path: Path) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "touch", touch)
    elif fault == "no module":
        grey.unlink()
        sys.modules.pop("grey_elsewhere", None)
    elif fault == "another version":
        grey.write_text(MODULE.replace("0.5", "0.6"), encoding="utf-8")
        sys.modules.pop("grey_elsewhere", None)  # the other machine has imported neither
    elif fault == "no device":
        setup = replace(setup, settings=replace(setup.settings, device="cuda:77"))
    else:
        monkeypatch.setattr("leakbench.bench.remote_worker.what_is_lacking", lambda: "no Landlock")
        setup = replace(setup, settings=replace(setup.settings, isolation=Isolation("", (), "/nowhere")))
    with pytest.raises(LeakBenchError) as raised:
        RemoteWorker(setup, silent)
    assert str(raised.value).startswith("worker on node7: ") and line in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_worker_isolates_as_the_run_does_in_a_folder_of_its_own(
    warm: Warm, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leakbench.bench.remote_worker.what_is_lacking", lambda: "")
    asked = Isolation("", ("/secret",), "/gone")
    worker = RemoteWorker(Setup.of_run(cells_of(warm), replace(settings, isolation=asked), MARK), silent)
    try:
        here = plugins.isolation_here()
        assert not here.reason and here.hidden[0] == "/secret" and len(here.hidden) > 1
        assert Path(here.scratch).is_dir()
    finally:
        worker.close()
    assert not Path(here.scratch).exists()
    assert plugins.isolation_here() == Isolation()
