"""The same again gives the same numbers, to the last bit: from the store, in other processes, orders and threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from planned_cells import anchors, attacks
from tiny_runs import (
    ALONE,
    OURS,
    OURS_LABEL,
    Warm,
    artifacts,
    cell_of,
    copied,
    forget,
    numbers,
    plain,
    run_here,
)

from leakbench.bench.executors import run_task
from leakbench.bench.grid import make_config
from leakbench.bench.pipeline import Pipeline
from leakbench.bench.plan import plan
from leakbench.runtime.workspace import Settings


def test_a_second_run_computes_nothing_and_records_the_same(warm: Warm, tmp_path: Path) -> None:
    before = artifacts(warm.cache)
    record = run_here(warm.tiny.options(), warm.cache, tmp_path / "run")
    assert artifacts(warm.cache) == before
    without = {"created", "seconds", "command"}
    assert record.model_dump(exclude=without) == warm.record.model_dump(exclude=without)
    pictures = {path.relative_to(warm.out): path.read_bytes() for path in warm.out.rglob("*.png")}
    assert {p.relative_to(tmp_path / "run"): p.read_bytes() for p in (tmp_path / "run").rglob("*.png")} == pictures


@pytest.mark.slow
def test_two_jobs_give_the_same_numbers_as_one(warm: Warm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal to the last bit, from the networks on, whatever number of threads the environment asks for."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    cache = copied(warm.cache, tmp_path / "cache")
    forget(cache, "victim")
    record = run_here(warm.tiny.options(controls=False), cache, tmp_path / "run", jobs=2)
    assert {cell.status for cell in record.cells} == {"ok"}
    assert len(record.cells) == ALONE
    assert numbers(record) == numbers(warm.record, OURS)
    assert artifacts(tmp_path / "cache").keys() < artifacts(warm.cache).keys()


@pytest.mark.slow
def test_a_damaged_artifact_is_mended_and_the_cell_says_so(warm: Warm, tmp_path: Path) -> None:
    cache = copied(warm.cache, tmp_path / "cache")
    key = cell_of(warm.record, OURS).artifacts["victim"]
    tensors = cache / "objects" / key[:2] / key / "tensors.safetensors"
    data = bytearray(tensors.read_bytes())
    data[-5] ^= 4
    tensors.write_bytes(data)
    record = run_here(warm.tiny.options(), cache, tmp_path / "run")
    assert numbers(record) == numbers(warm.record)
    warned = [(cell.defense, cell.attack, line) for cell in record.cells for line in cell.warnings]
    assert [(defense, attack) for defense, attack, _ in warned] == [(OURS_LABEL, "")]
    assert key[:12] in warned[0][2]
    assert tensors.read_bytes() == (warm.cache / tensors.relative_to(cache)).read_bytes()


@pytest.mark.long
@pytest.mark.slow
def test_the_number_of_threads_changes_no_bit(warm: Warm, tmp_path: Path) -> None:
    """Predictions, features, metrics and what perturbations do, all of it computed again."""
    cache = copied(warm.cache, tmp_path / "cache")
    forget(
        cache, "features", "training-features", "ensemble", "predictions", "image-features", "metric", "uap-brackets"
    )
    config = make_config(warm.tiny.options())
    of_one_thread = numbers(warm.record)
    torch.set_num_threads(2)
    try:
        pipeline = Pipeline(Settings(cache=str(cache)), lambda *_: None)
        cells = [
            *(cell for cell in anchors(plan(config)) if (cell.anchor, cell.fresh) == ("real", True)),
            *(cell for cell in attacks(plan(config)) if (cell.attack.name, cell.defense.name) == ("direct", OURS)),
        ]
        results = [run_task(pipeline, "compute", cell) for cell in cells]
        outcomes = [result.outcome for result in results]
    finally:
        torch.set_num_threads(1)
    assert len(outcomes) == 2
    for (defense, attack), outcome in zip((("", "real (fresh draw)"), (OURS, "direct")), outcomes, strict=True):
        found = {v.metric: (v.value, v.low, v.high, v.n) for v in outcome.values if v.metric != "seconds"}
        assert found == {key[5]: of_one_thread[key] for key in of_one_thread if key[2:4] == (defense, attack)}
        assert len(found) >= 10


@pytest.mark.long
@pytest.mark.slow
def test_the_order_of_defences_and_attacks_changes_no_bit(warm: Warm, tmp_path: Path) -> None:
    """Seeds are of what is computed and not of when: from the networks on, all is computed again in another order."""
    cache = copied(warm.cache, tmp_path / "cache")
    forget(cache, "victim")
    options: dict[str, Any] = warm.tiny.options(
        defense=[OURS, "random"], attack=[f"{warm.tiny.gated}:Gated", "direct"], controls=False
    )
    record = run_here(options, cache, tmp_path / "run")
    order = [
        (plain(cell.defense), plain(cell.attack))
        for cell in record.cells
        if cell.defense and cell.attack and not cell.of
    ]
    assert order == [(OURS, "gated"), (OURS, "direct"), ("random", "gated"), ("random", "direct")]
    before = [
        (plain(cell.defense), plain(cell.attack))
        for cell in warm.record.cells
        if plain(cell.defense) in (OURS, "random") and cell.attack
    ]
    assert [pair for pair in before if pair in order] == order[::-1]
    assert numbers(record) == numbers(warm.record, OURS, "random")
