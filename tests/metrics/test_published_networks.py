"""What Inception and SqueezeNet have in common: where their weights are found, and which images they take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from leakbench.errors import NumericalError, UsageError
from leakbench.metrics import published_networks
from leakbench.metrics.inception import INCEPTION_WEIGHTS
from leakbench.metrics.published_networks import PublishedFeatures, WeightsFile
from leakbench.metrics.squeezenet import SQUEEZENET_WEIGHTS


class Means(PublishedFeatures):
    """Mean red, green and blue."""

    width = 3
    device = torch.device("cpu")

    def _of_rgb(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))


@pytest.mark.parametrize("weights", [INCEPTION_WEIGHTS, SQUEEZENET_WEIGHTS], ids=lambda weights: weights.network)
def test_weights_are_found_by_path_then_variable_then_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: WeightsFile
) -> None:
    explicit, named = tmp_path / "explicit.pth", tmp_path / "named.pth"
    cached = tmp_path / "hub" / "hub" / "checkpoints" / weights.name
    monkeypatch.delenv(weights.variable, raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub" / "hub"))
    assert weights.find(None) is None
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert weights.find(None) == cached
    monkeypatch.setenv(weights.variable, str(named))
    with pytest.raises(UsageError, match=weights.variable):
        weights.find(None)
    named.touch()
    assert weights.find(None) == named
    with pytest.raises(UsageError, match=r"explicit\.pth .expected"):
        weights.find(explicit)
    explicit.touch()
    assert weights.find(explicit) == explicit


@pytest.mark.parametrize("weights", [INCEPTION_WEIGHTS, SQUEEZENET_WEIGHTS], ids=lambda weights: weights.network)
def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, weights: WeightsFile) -> None:
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(weights.most_bytes + 1)
    with pytest.raises(
        UsageError, match=f"has {weights.most_bytes + 1} bytes, and no {weights.network} weights have"
    ) as caught:
        weights.read(path)
    assert "\n" not in str(caught.value)


def test_features_come_in_the_images_order_whatever_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published_networks, "BATCH", 2)
    images = torch.rand(5, 3, 4, 6)
    torch.testing.assert_close(Means().features(images), images.mean((2, 3)))
    assert Means().features(images[:0]).shape == (0, 3)


def test_grey_images_are_grey_rgb_images() -> None:
    grey = torch.rand(2, 1, 4, 4)
    torch.testing.assert_close(Means().features(grey), grey.mean((2, 3)).repeat(1, 3))


@pytest.mark.parametrize(
    "bad", [torch.rand(2, 2, 8, 8), torch.rand(3, 8, 8), torch.zeros(1, 3, 8, 8).byte(), torch.full((1, 1, 8, 8), 1.1)]
)
def test_other_images_are_refused(bad: Tensor) -> None:
    with pytest.raises(UsageError, match="images must be"):
        Means().features(bad)


def test_nan_images_are_refused() -> None:
    with pytest.raises(NumericalError, match="NaN"):
        Means().features(torch.full((1, 1, 8, 8), float("nan")))


@pytest.mark.slow
def test_finding_files_imports_neither_torchvision_nor_pytorch_fid() -> None:
    code = (
        "import sys; from leakbench.metrics import frechet, inception, squeezenet; "
        "[w.find(None) for w in (inception.INCEPTION_WEIGHTS, squeezenet.SQUEEZENET_WEIGHTS)]; "
        "print([m for m in ('torchvision', 'pytorch_fid') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
