"""Users' own weights: right ones, and every way to be wrong in one line."""

from __future__ import annotations

import math
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from leakbench.contracts import ImageClassifier, InputRange
from leakbench.errors import LeakBenchError, NumericalError, UsageError
from leakbench.models import weights
from leakbench.models.storage import build_ann
from leakbench.models.weights import load_checkpoint

SHAPE = (1, 8, 8)


def ann(seed: int = 0, classes: int = 10, shape: tuple[int, int, int] = SHAPE, model: str = "vgg4") -> ImageClassifier:
    return build_ann(model, shape, classes, InputRange(-1.0, 1.0), torch.Generator().manual_seed(seed)).eval()


@pytest.fixture
def images(generator: torch.Generator) -> Tensor:
    return torch.rand(3, *SHAPE, generator=generator)


def saved(tensors: dict[str, Tensor], path: Path) -> Path:
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)
    return path


def test_a_checkpoint_fills_the_network(images: Tensor, tmp_path: Path) -> None:
    theirs = ann(seed=1)
    for number, tensors in enumerate((theirs.body.state_dict(), theirs.state_dict())):
        mine = ann(seed=2)
        load_checkpoint(saved(tensors, tmp_path / f"{number}.safetensors"), mine)
        assert torch.equal(mine(images), theirs(images))


def refused(path: Path, wanted: type[LeakBenchError] = UsageError) -> str:
    """The message with which a checkpoint is refused: one line that names the option and the file."""
    with pytest.raises(LeakBenchError) as error:
        load_checkpoint(path, ann())
    assert type(error.value) is wanted
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith("--ann")
    assert path.name in message
    assert "body." not in message  # the file's own keys, as the user knows them
    return message


def test_checkpoints_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    right = ann().body.state_dict()
    assert list(right) == ["0.weight", "3.weight", "7.weight", "10.weight"]

    message = refused(saved(ann(classes=7).body.state_dict(), path))
    assert "'10.weight' is [7, 128] instead of [10, 128]" in message and "number of classes" in message
    message = refused(saved(ann(shape=(1, 16, 16)).body.state_dict(), path))
    assert "'7.weight' is [128, 1024] instead of [128, 256]" in message and "image size" in message
    message = refused(saved({**right, "0.bias": torch.zeros(32)}, path))
    assert "'vgg4'" in message and "has also 0.bias" in message
    message = refused(saved({key: value for key, value in right.items() if key != "3.weight"}, path))
    assert "lacks 3.weight" in message
    message = refused(saved({**right, "extra.weight": torch.zeros(3, 4)}, path))
    assert "has also extra.weight [3, 4]" in message
    message = refused(saved({f"x.{key}" if key[0] in "03" else f"y.{key}": v for key, v in right.items()}, path))
    assert "lacks 0.weight [32, 1, 3, 3], 3.weight [64, 32, 3, 3], 7.weight [128, 256] and 1 more" in message
    assert "has also x.0.weight [32, 1, 3, 3]" in message


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_checkpoints_that_hold_no_numbers(bad: float, tmp_path: Path) -> None:
    tensors = {key: value.clone() for key, value in ann().body.state_dict().items()}
    tensors["3.weight"][0, 0, 0, 0] = bad
    assert "'3.weight'" in refused(saved(tensors, tmp_path / "weights.safetensors"), NumericalError)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floats_are_converted(dtype: torch.dtype, tmp_path: Path) -> None:
    theirs = {key: value.to(dtype) for key, value in ann(seed=1).body.state_dict().items()}
    mine = ann(seed=2)
    load_checkpoint(saved(theirs, tmp_path / "weights.safetensors"), mine)
    assert {value.dtype for value in mine.body.state_dict().values()} == {torch.float32}
    assert all(torch.equal(value, theirs[key].float()) for key, value in mine.body.state_dict().items())


def test_a_checkpoint_that_float32_can_not_hold(tmp_path: Path) -> None:
    tensors = {key: value.double() for key, value in ann().body.state_dict().items()}
    tensors["3.weight"][0, 0, 0, 0] = 1e300
    message = refused(saved(tensors, tmp_path / "weights.safetensors"), NumericalError)
    assert "numbers beyond torch.float32 in '3.weight'" in message


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64, torch.bool, torch.int64, torch.uint16,
        *([torch.float8_e8m0fnu] if hasattr(torch, "float8_e8m0fnu") else []),  # PyTorch 2.7
    ],
)  # fmt: skip
def test_a_checkpoint_of_other_types_is_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = {key: value.to(dtype) for key, value in ann().body.state_dict().items()}
    assert f"holds {dtype}: save it as torch.float32" in refused(saved(tensors, tmp_path / "weights.safetensors"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.bool])
def test_the_counters_of_batch_norm_are_whole_numbers(dtype: torch.dtype, tmp_path: Path) -> None:
    network = build_ann("vgg4bn", SHAPE, 10, InputRange(0.0, 1.0))
    tensors = {key: value.clone() for key, value in network.body.state_dict().items()}
    counter = next(key for key in tensors if key.endswith("num_batches_tracked"))
    load_checkpoint(saved({**tensors, counter: torch.tensor(7, dtype=torch.int32)}, tmp_path / "whole"), network)
    assert network.body.state_dict()[counter] == 7
    wrong = saved({**tensors, counter: torch.tensor(1).to(dtype)}, tmp_path / "wrong")
    with pytest.raises(UsageError, match=f"{counter}' holds {dtype}: save it as torch.int64"):
        load_checkpoint(wrong, network)


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "missing.safetensors")
    for name, content in (
        ("empty", b""),
        ("garbage", b"\x00\x01garbage" * 100),
        ("text", b"not a network\n" * 20),
        ("cut", (saved(ann().body.state_dict(), tmp_path / "whole")).read_bytes()[:5000]),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        assert "no readable safetensors file" in refused(path)
    torch.save(ann().body.state_dict(), tmp_path / "pickled")
    assert "a file of torch.save ends with .pt or .pth" in refused(tmp_path / "pickled")
    for name in ("folder", "folder.pth"):
        (tmp_path / name).mkdir()
        assert "is a folder: give the file of weights" in refused(tmp_path / name)


def test_a_checkpoint_of_integers_is_refused(tmp_path: Path) -> None:
    """Quantised weights would be read as numbers of a hundred times the size."""
    tensors = {key: (value * 100).to(torch.int8) for key, value in ann().body.state_dict().items()}
    assert "int8" in refused(saved(tensors, tmp_path / "weights.safetensors"))


# --- files of torch ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["weights.pt", "weights.pth"])
@pytest.mark.parametrize(
    "packed",
    [
        lambda state: state,
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {f"module.net.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"lr": 0.1}},
        lambda state: {"model": {key: nn.Parameter(value) for key, value in state.items()}},
        lambda state: {"net": state, "acc": 97.5},
    ],
)
def test_a_file_of_torch_fills_the_network(images: Tensor, tmp_path: Path, packed: Any, name: str) -> None:
    theirs, mine = ann(seed=1), ann(seed=2)
    torch.save(packed(theirs.body.state_dict()), tmp_path / name)
    load_checkpoint(tmp_path / name, mine)
    assert torch.equal(mine(images), theirs(images))


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, written: Path) -> None:
        self.written = written

    def __reduce__(self) -> Any:
        return Path.touch, (self.written,)


def test_code_in_a_file_of_torch_is_not_run(tmp_path: Path) -> None:
    path, written = tmp_path / "weights.pt", tmp_path / "written"
    torch.save({**ann().body.state_dict(), "0.weight": Evil(written)}, path)
    assert "code in a file is never run: save model.state_dict() alone" in refused(path)
    path.write_bytes(pickle.dumps(Evil(written)))
    refused(path)
    torch.save(ann().body, path)  # the module itself
    assert "more than tensors" in refused(path)
    assert not written.exists()
    pickle.loads(pickle.dumps(Evil(written)))  # noqa: S301 - what the test is about
    assert written.exists()  # it would have been


@pytest.mark.parametrize(
    "state",
    [
        {},
        [torch.zeros(2)],
        {"0.weight": 3},
        {0: torch.zeros(2)},
        {"0.weight": torch.zeros(2, 2).to_sparse()},
        {"0.weight": torch.zeros(2, device="meta")},
    ],
    ids=["empty", "list", "number", "numbered", "sparse", "meta"],
)
def test_files_of_torch_that_hold_no_state_dict(tmp_path: Path, state: Any) -> None:
    torch.save(state, tmp_path / "weights.pt")
    message = refused(tmp_path / "weights.pt")
    assert "holds no state dict" in message or "more than tensors" in message


def test_files_above_the_limit_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_LARGEST", 100_000)
    for name in ("large.safetensors", "large.pt"):
        (tmp_path / name).write_bytes(bytes(100_001))
        assert "is larger than 100000 bytes" in refused(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("packed/data/0", bytes(100_001))  # 100 bytes in the file
    assert "is larger than 100000 bytes" in refused(tmp_path / "packed.pt")


# --- other names ------------------------------------------------------------------------------------------------------


def of_cifar(depth: int) -> nn.Module:
    """A residual network for small images, of torchvision's parts and with its names: 3 stages of ``depth`` blocks."""
    from torchvision.models.resnet import BasicBlock

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
            channels = 16
            for stage, width in enumerate((16, 32, 64)):
                blocks: list[nn.Module] = []
                for number in range(depth):
                    stride = 2 if stage and not number else 1
                    changes = stride > 1 or channels != width
                    shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))
                    blocks.append(BasicBlock(channels, width, stride, shortcut if changes else None))
                    channels = width
                setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
            self.fc = nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = self.bn1(self.conv1(x)).relu()
            x = self.layer3(self.layer2(self.layer1(x)))  # type: ignore[operator]
            return self.fc(x.mean((2, 3)))  # type: ignore[no-any-return]

    network = Network()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    return network.eval()


@pytest.mark.parametrize(("model", "depth"), [("resnet8", 1), ("resnet20", 3)])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_names_of_torchvisions_resnet(images: Tensor, tmp_path: Path, model: str, depth: int, elsewhere: bool) -> None:
    theirs, mine = of_cifar(depth), ann(model=model)
    state = {key: value for key, value in theirs.state_dict().items() if not key.endswith("num_batches_tracked")}
    if elsewhere:  # as networks for CIFAR are often written
        state = {key.replace("downsample", "shortcut").replace("fc", "linear"): v for key, v in state.items()}
    load_checkpoint(saved(state, tmp_path / "weights.safetensors"), mine)
    torch.testing.assert_close(mine(images), theirs(images * 2 - 1))


def test_names_of_torchvisions_vgg(images: Tensor, tmp_path: Path) -> None:
    theirs, mine = ann(seed=1), ann(seed=2)
    body = theirs.body
    assert isinstance(body, nn.Sequential)
    split = nn.ModuleDict({"features": body[:6], "classifier": nn.Sequential(*body[7:])})
    assert "classifier.3.weight" in split.state_dict()
    load_checkpoint(saved(split.state_dict(), tmp_path / "weights.safetensors"), mine)
    assert torch.equal(mine(images), theirs(images))


@pytest.mark.slow
def test_torchvisions_own_networks_are_of_other_shapes(tmp_path: Path) -> None:
    """The message names their tensors, with what is expected."""
    from torchvision.models import resnet18, vgg11

    network = ann(model="resnet18", shape=(3, 32, 32))
    path = saved(resnet18(num_classes=10).state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(UsageError, match=r"'conv1.weight' is \[64, 3, 7, 7\] instead of \[64, 3, 3, 3\]"):
        load_checkpoint(path, network)
    state = {key: value for key, value in vgg11().state_dict().items() if key.startswith("features")}
    with pytest.raises(UsageError, match=r"lacks 1.weight \[64\], .*has also features.0.bias \[64\], "):
        load_checkpoint(saved(state, path), ann(model="vgg9bn", shape=(3, 32, 32)))
