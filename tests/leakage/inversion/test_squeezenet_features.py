"""The Fréchet distance in SqueezeNet's features: its name and keys, what it leaves alone, and its place in a run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_runs import Quiet, Warm, artifacts, copied

from leakbench.bench.grid import make_config
from leakbench.bench.runner import run_grid
from leakbench.errors import UsageError
from leakbench.leakage.inversion.evaluation import evaluation_of
from leakbench.leakage.inversion.measurement import measured
from leakbench.leakage.kind import Measured
from leakbench.metrics import squeezenet
from leakbench.metrics.frechet import frechet_estimate, statistics
from leakbench.metrics.squeezenet import SQUEEZENET_WEIGHTS, SqueezeNetFeatures
from leakbench.reports import write_report
from leakbench.runtime.workspace import Settings, Stage, Workspace, digest

pytestmark = pytest.mark.slow


def weights(path: Path, seed: int = 0) -> Path:
    """Random weights of SqueezeNet."""
    from torchvision.models import squeezenet1_1

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        save_file(squeezenet1_1(weights=None).state_dict(), path, {"normalization": "torch"})
    return path


def name_of(path: Path) -> str:
    return f"fd_squeezenet_{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"


def workspace(cache: Path, features: Path | None = None) -> Workspace:
    return Workspace(Settings(str(cache), features=None if features is None else str(features)), lambda *_: None)


def measure(where: Workspace, warm: Warm, count: int = 9) -> Measured:
    """The metrics of real images that the evaluation models were not trained on, as those of an attack."""
    test = where.dataset(warm.tiny.dataset).test
    tensors = {"images": test.images[:count].contiguous(), "targets": test.labels[:count].contiguous()}
    made = where.make(Stage("by-hand", 1), 0, {"digest": digest(tensors)}, lambda _context: (tensors, {}))
    return measured(where, evaluation_of(where, warm.tiny.dataset), made, [], quick=False)


def manifests(cache: Path, keys: set[str]) -> list[dict[str, object]]:
    return [json.loads((cache / "objects" / key[:2] / key / "manifest.json").read_text()) for key in sorted(keys)]


def test_weights_add_one_distance_and_leave_all_else_as_it_is(warm: Warm, tmp_path: Path) -> None:
    cache, path = copied(warm.grown, tmp_path / "cache"), weights(tmp_path / "weights.safetensors")
    without = measure(workspace(cache), warm)
    before = artifacts(cache)
    where = workspace(cache, path)
    found = measure(where, warm)
    assert [one for one in found.values if one.metric != name_of(path)] == without.values
    (distance,) = (one for one in found.values if one.metric == name_of(path))

    test = where.dataset(warm.tiny.dataset).test
    network = SqueezeNetFeatures(path)
    real = evaluation_of(where, warm.tiny.dataset).real
    reference = statistics(network.features(real.images.float() / 255))
    expected = frechet_estimate(network.features(test.images[:9].float() / 255), reference)
    assert (distance.value, distance.n) == (pytest.approx(expected.value, rel=1e-4), 9)

    made = manifests(cache, artifacts(cache).keys() - before.keys())
    assert sorted(str(one["stage"]) for one in made) == ["image-features", "metric", "squeezenet-features"]
    whole = hashlib.sha256(path.read_bytes()).hexdigest()
    assert all(whole in one["inputs"].values() for one in made)  # type: ignore[attr-defined]


@pytest.mark.long
def test_two_files_never_share_a_name_nor_a_key(warm: Warm, tmp_path: Path) -> None:
    cache = copied(warm.grown, tmp_path / "cache")
    paths = [weights(tmp_path / f"{seed}.safetensors", seed) for seed in (1, 2)]
    found = [measure(workspace(cache, path), warm) for path in paths]
    values = [{one.metric: one.value for one in measured.values} for measured in found]
    (first,), (second,) = values[0].keys() - values[1].keys(), values[1].keys() - values[0].keys()
    assert (first, second) == (name_of(paths[0]), name_of(paths[1]))
    assert values[0][first] != pytest.approx(values[1][second], rel=0.01)
    later = workspace(cache, paths[0])
    assert measure(later, warm) == found[0]
    assert later.store.built == 0


def test_torchvisions_own_file_is_found_and_bears_the_plain_name(
    warm: Warm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models import squeezenet1_1

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    SQUEEZENET_WEIGHTS.cached.parent.mkdir(parents=True)
    torch.save(squeezenet1_1(weights=None).state_dict(), SQUEEZENET_WEIGHTS.cached)
    cache = copied(warm.grown, tmp_path / "cache")
    with pytest.raises(UsageError, match="no pickle but torchvision's"):
        measure(workspace(cache), warm)
    monkeypatch.setattr(
        squeezenet, "WEIGHTS_SHA256", hashlib.sha256(SQUEEZENET_WEIGHTS.cached.read_bytes()).hexdigest()
    )
    found = {one.metric for one in measure(workspace(cache), warm).values}
    assert {name for name in found if "squeezenet" in name} == {"fd_squeezenet"}


@pytest.mark.long
def test_a_run_has_it_at_both_anchors_and_an_index_by_it(warm: Warm, tmp_path: Path) -> None:
    cache, path = copied(warm.cache, tmp_path / "cache"), weights(tmp_path / "weights.safetensors")
    out = tmp_path / "run"
    settings = Settings(str(cache), features=str(path))
    record = run_grid(make_config(warm.tiny.options()), settings, out, None, "leakbench run", Quiet())
    name = name_of(path)
    values = {(cell.defense, cell.attack): one for cell in record.cells for one in cell.values if one.metric == name}
    noise, real = values["", "noise"], values["", "real"]
    attacked = {key: one for key, one in values.items() if key[0]}
    assert real.value < noise.value
    assert len(attacked) == 8 and {one.n for one in values.values()} == {real.n}
    assert any(index.metric == name and index.value is not None for row in record.rows for index in row.indices)
    (declared,) = (one for one in record.metrics if "squeezenet" in one.name)
    digits = name.rpartition("_")[2]
    assert (declared.name, declared.title) == (name, f"Fréchet distance (squeezenet {digits})")
    assert f"sha256 begins with {digits}. Lower means" in declared.meaning
    write_report(out)
    assert declared.title in (out / "report.html").read_text(encoding="utf-8")


def test_wrong_weights_end_a_run_before_it_computes(warm: Warm, tmp_path: Path) -> None:
    path = tmp_path / "wrong.safetensors"
    save_file({"features.0.weight": torch.zeros(1)}, path, {"normalization": "torch"})
    cache = copied(warm.cache, tmp_path / "cache")
    before = artifacts(cache)
    with pytest.raises(UsageError, match=r"wrong\.safetensors is not torchvision's"):
        run_grid(
            make_config(warm.tiny.options()),
            Settings(str(cache), features=str(path)),
            tmp_path / "run",
            None,
            "",
            Quiet(),
        )
    assert artifacts(cache) == before
