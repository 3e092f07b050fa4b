"""The Inception network from a file: the numbers of pytorch-fid's own class, and only tensors let in."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from leakbench.errors import UsageError
from leakbench.metrics import inception, published_networks
from leakbench.metrics.inception import INCEPTION_WEIGHTS, InceptionFeatures

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def layout() -> dict[str, Tensor]:
    """Names and shapes of the network that pytorch-fid itself builds before it loads its file."""
    from pytorch_fid import inception as original

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(original, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(nn.Module, "load_state_dict", lambda *_: None)
        return cast(dict[str, Tensor], original.fid_inception_v3().state_dict())


@pytest.fixture(scope="module")
def weights(layout: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with pytorch-fid's layout and random numbers that keep activations alive through all layers."""
    g = torch.Generator().manual_seed(0)
    state = {}
    for key, like in layout.items():
        if key.endswith("num_batches_tracked"):
            continue  # as older versions of torch saved it
        if key.endswith(("bn.weight", "running_var")):
            state[key] = 1 + torch.rand(like.shape, generator=g)
        elif like.ndim > 1:
            state[key] = torch.randn(like.shape, generator=g) * (2 / like[0].numel()) ** 0.5
        else:
            state[key] = 0.1 * torch.randn(like.shape, generator=g)
    path = tmp_path_factory.mktemp("inception") / INCEPTION_WEIGHTS.name
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def network(weights: Path) -> InceptionFeatures:
    return InceptionFeatures(weights)


def images(n: int, channels: int) -> Tensor:
    return torch.rand(n, channels, 20, 16, generator=torch.Generator().manual_seed(n + channels))


@pytest.mark.slow
def test_same_features_as_pytorch_fids_own_class(
    weights: Path, layout: dict[str, Tensor], network: InceptionFeatures
) -> None:
    from pytorch_fid import inception as original

    state = layout | torch.load(weights, weights_only=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(original, "load_state_dict_from_url", lambda *_, **__: state)
        theirs = original.InceptionV3([original.InceptionV3.BLOCK_INDEX_BY_DIM[2048]]).eval()
    x = images(2, 3)
    with torch.no_grad():
        expected = theirs(x)[0].flatten(1)
    features = network.features(x)
    assert features.shape == (2, 2048)
    assert features.std() > 0.01  # alive: equal zeros would prove nothing
    # 1e-5: the same float32 modules in the same order, up to the kernels' choice of blocking
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)


def test_the_file_is_the_one_that_pytorch_fid_downloads() -> None:
    from pytorch_fid import inception as original

    assert original.FID_WEIGHTS_URL.endswith(INCEPTION_WEIGHTS.name)
    # torch hub's convention: a file's name ends in the first digits of its hash
    assert INCEPTION_WEIGHTS.name.endswith(f"-{inception.WEIGHTS_SHA256[:8]}.pth")


def test_features_do_not_depend_on_the_batch(network: InceptionFeatures, monkeypatch: pytest.MonkeyPatch) -> None:
    x = images(3, 1)
    together = network.features(x)
    monkeypatch.setattr(published_networks, "BATCH", 2)
    # 1e-4: float32 kernels may block a batch otherwise
    torch.testing.assert_close(network.features(x), together, rtol=1e-4, atol=1e-4)
    assert network.features(x[:0]).shape == (0, 2048)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("fc.weight", torch.zeros(1000, 2048), r"fc.weight should be \(1008, 2048\), is \(1000, 2048\)"),
        ("Mixed_7c.branch1x1.conv.weight", None, "lacks Mixed_7c.branch1x1.conv.weight"),
        ("AuxLogits.fc.weight", torch.zeros(1), "should not hold AuxLogits.fc.weight"),
        ("fc.bias", torch.full((1008,), float("nan")), "fc.bias holds NaN"),
    ],
)
def test_another_networks_file_is_refused_in_one_line(
    tmp_path: Path, layout: dict[str, Tensor], key: str, value: Tensor | None, says: str
) -> None:
    # expanded zeros keep the file small
    state = {name: torch.zeros(()).expand(like.shape) for name, like in layout.items() if name != key}
    path = tmp_path / "other.pth"
    torch.save(state if value is None else state | {key: value}, path)
    with pytest.raises(UsageError, match=says) as caught:
        InceptionFeatures(path)
    assert "\n" not in str(caught.value)


class Payload:
    """A pickle that would write a file when it is read."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.target,))


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    path, target = tmp_path / "evil.pth", tmp_path / "touched"
    torch.save({"fc.weight": Payload(target)}, path)
    with pytest.raises(UsageError, match="more than tensors") as caught:
        InceptionFeatures(path)
    assert "\n" not in str(caught.value)
    assert not target.exists()
    torch.load(path, weights_only=False)
    assert target.exists()  # the payload works: it was refused, not broken


@pytest.mark.parametrize("content", [b"", b"not a zip file", b"PK\x03\x04 cut off"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged.pth"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="no weights file"):
        InceptionFeatures(path)


def test_a_list_of_tensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.pth"
    torch.save([torch.zeros(3)], path)
    with pytest.raises(UsageError, match="names to tensors"):
        InceptionFeatures(path)


def test_only_the_released_weights_are_the_released_ones(
    weights: Path, network: InceptionFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not network.released
    assert network.digest == hashlib.sha256(weights.read_bytes()).hexdigest()
    monkeypatch.setattr(inception, "WEIGHTS_SHA256", network.digest)
    assert InceptionFeatures(weights).released
