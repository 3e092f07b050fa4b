"""A third party's metric: what it writes to, when its file changes, and which of its reasons are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_runs import Warm, artifacts, copied

from leakbench import registry
from leakbench.cells import Variant
from leakbench.leakage.inversion.evaluation import evaluation_of
from leakbench.leakage.inversion.measurement import measured
from leakbench.leakage.kind import Measured
from leakbench.runtime.store import Artifact
from leakbench.runtime.workspace import Settings, Stage, Workspace, digest

METRICS = '''
import os

import torch

from leakbench.contracts import Params
from leakbench.errors import UsageError
from leakbench.metrics.reconstructions import ImageMetric


class Writes(ImageMetric[Params]):
    """Writes to all that it is given."""

    name = "writes"

    def scores(self, drawn):
        real = drawn.real
        for tensor in (
            drawn.images, drawn.targets, drawn.predictions, drawn.features.tensor, drawn.distance_features.tensor,
            real.images, real.labels, real.features.tensor, real.distance_features.tensor,
            real.training_images, real.training_labels,
        ):
            tensor.zero_()
        for name in ("kernel", "frechet", "kes"):
            real.once(name, lambda: "in the way")
        return torch.zeros(len(drawn.images))


class Kept(ImageMetric[Params]):
    """How often it was called for what it computes once."""

    name = "kept"
    calls = 0

    def scores(self, drawn):
        def compute():
            Kept.calls += 1
            return Kept.calls

        return torch.full((len(drawn.images),), float(drawn.real.once("calls", compute)))


class Lacks(ImageMetric[Params]):
    """Needs a package that is missing until somebody installs it."""

    name = "lacks"

    def scores(self, drawn):
        if "INSTALLED" not in os.environ:
            raise ModuleNotFoundError("no module named 'lpips'")
        return torch.ones(len(drawn.images))


class Refuses(Lacks):
    """Says that the images are wrong."""

    name = "refuses"

    def scores(self, drawn):
        if "INSTALLED" not in os.environ:
            raise UsageError("too few images")
        return torch.ones(len(drawn.images))


class Percent(ImageMetric[Params]):
    """Says that it is a share, and is none."""

    name = "percent"
    unit = "share"

    def scores(self, drawn):
        return torch.full((len(drawn.images),), 28.0)
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "theirs.py"
    path.write_text(METRICS)
    return path


def theirs(file: Path, name: str) -> Variant:
    target = f"{file}:{name}"
    code = registry.source("metric", target)
    return Variant(
        target=target, name=name.lower(), label=name.lower(), version=1, params={}, code=code.digest, origin=code.origin
    )


def workspace(cache: Path) -> Workspace:
    return Workspace(Settings(cache=str(cache)), lambda *_: None)


def images(place: Workspace, warm: Warm, number: int) -> Artifact:
    """The n-th image of each class and the one behind it, as an attack leaves them."""
    train = place.dataset(warm.tiny.dataset).train
    order = torch.cat([(train.labels == c).nonzero().flatten()[number : number + 2] for c in range(3)])
    tensors = {"images": train.images[order], "targets": train.labels[order]}
    return place.make(Stage("by-hand", 1), 0, {"digest": digest(tensors)}, lambda _context: (tensors, {}))


def measure(place: Workspace, warm: Warm, number: int, *added: Variant) -> Measured:
    return measured(place, evaluation_of(place, warm.tiny.dataset), images(place, warm, number), added, quick=False)


@pytest.mark.slow
def test_what_a_metric_writes_to_is_its_own(warm: Warm, file: Path, tmp_path: Path) -> None:
    clean, written = (workspace(copied(warm.cache, tmp_path / name)) for name in ("clean", "written"))
    without = [measure(clean, warm, number) for number in (0, 2)]
    beside = [measure(written, warm, number, theirs(file, "Writes")) for number in (0, 2)]
    for one, other in zip(beside, without, strict=True):
        assert [v for v in one.values if v.metric != "writes"] == other.values
        assert one.refused == other.refused
    written.check_private(warm.tiny.dataset, "writes")
    assert int(evaluation_of(written, warm.tiny.dataset).real.images.sum()) > 0
    kept = [place.store.root for place in (clean, written)]
    assert artifacts(kept[0]).keys() < artifacts(kept[1]).keys()
    for key in artifacts(kept[0]):
        tensors = [(root / "objects" / key[:2] / key / "tensors.safetensors").read_bytes() for root in kept]
        assert tensors[0] == tensors[1]


@pytest.mark.slow
def test_what_a_metric_keeps_of_the_real_images_is_computed_once(warm: Warm, file: Path, tmp_path: Path) -> None:
    place = workspace(copied(warm.cache, tmp_path / "cache"))
    for number in (0, 2):
        assert [v.value for v in measure(place, warm, number, theirs(file, "Kept")).values if v.metric == "kept"] == [1]


@pytest.mark.slow
def test_a_metric_that_is_edited_under_way_is_not_kept_as_what_it_was(warm: Warm, file: Path, tmp_path: Path) -> None:
    variant = theirs(file, "Kept")
    file.write_text(METRICS.replace("float(", "7 + float("))
    place = workspace(copied(warm.cache, tmp_path / "cache"))
    total = measure(place, warm, 0, variant)
    assert total.values == measure(place, warm, 0).values
    assert (
        total.refused[-1] == "kept: not measured: theirs.py:Kept was edited while the run was under way: start it again"
    )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kept"), [("Lacks", False), ("Refuses", True)])
def test_a_reason_is_kept_where_it_follows_from_the_images(
    warm: Warm, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kept: bool
) -> None:
    cache = copied(warm.cache, tmp_path / "cache")
    first = measure(workspace(cache), warm, 0, theirs(file, name))
    (reason,) = (line for line in first.refused if line.startswith(name.lower()))
    monkeypatch.setenv("INSTALLED", "1")
    again = measure(workspace(cache), warm, 0, theirs(file, name))
    assert (reason in again.refused) == kept
    assert any(v.metric == name.lower() for v in again.values) != kept


@pytest.mark.slow
def test_a_share_that_is_none_is_a_reason(warm: Warm, file: Path, tmp_path: Path) -> None:
    place = workspace(copied(warm.cache, tmp_path / "cache"))
    total = measure(place, warm, 0, theirs(file, "Percent"))
    assert total.values == measure(place, warm, 0).values
    assert total.refused[-1] == (
        "percent: not measured: its unit is share, which is from 0 to 1, and image 0's score is 28"
    )
