"""Networks to tensors and back, and users' checkpoints: right ones, and every way to be wrong in one line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from leakbench.contracts import ImageClassifier, InputRange
from leakbench.errors import LeakBenchError, NumericalError, UsageError
from leakbench.models.storage import build_ann, load_ann, load_checkpoint, load_network, save_network
from leakbench.snn import Neuron, SpikingConfig, SpikingNetwork, Surrogate

CPU = torch.device("cpu")
SHAPE = (1, 8, 8)


def ann(seed: int = 0, classes: int = 10, shape: tuple[int, int, int] = SHAPE) -> ImageClassifier:
    return build_ann("vgg4", shape, classes, InputRange(-1.0, 1.0), torch.Generator().manual_seed(seed)).eval()


def through_files(network: ImageClassifier | SpikingNetwork, folder: Path) -> ImageClassifier | SpikingNetwork:
    """Save and load as the store does: tensors as safetensors, the record as JSON."""
    tensors, record = save_network(network)
    save_file(tensors, folder / "tensors.safetensors")
    return load_network(load_file(folder / "tensors.safetensors"), json.loads(json.dumps(record)), CPU)


@pytest.fixture
def images(generator: torch.Generator) -> Tensor:
    return torch.rand(3, *SHAPE, generator=generator)


def test_an_ann_comes_back_as_it_was(images: Tensor, tmp_path: Path) -> None:
    network = ann()
    back = through_files(network, tmp_path)
    assert isinstance(back, ImageClassifier)
    assert torch.equal(back(images), network(images))
    assert (back.image_shape, back.classes, back.input_range, back.arch) == (SHAPE, 10, (-1.0, 1.0), "vgg4")
    assert not back.training
    assert not any(p.requires_grad for p in back.parameters())
    tensors, record = save_network(network)
    assert torch.equal(load_ann(tensors, record, CPU)(images), network(images))


def test_a_spiking_network_comes_back_with_thresholds_per_channel_and_initial_membranes(
    images: Tensor, tmp_path: Path, generator: torch.Generator
) -> None:
    neuron = Neuron(0.97, "hard", detach_reset=True, surrogate=Surrogate("arctan", 0.7, 0.3))
    network = SpikingNetwork.from_ann(ann(), SpikingConfig(9, "poisson", neuron))
    first, second, third = network.neurons
    first.set_threshold(0.5 + torch.rand(32, 1, 1, generator=generator))
    second.set_threshold(1.25)
    third.set_threshold(0.5 + torch.rand(128, generator=generator))
    first.initial = torch.tensor(0.3)
    third.initial = torch.rand(128, generator=generator)
    back = through_files(network, tmp_path)
    assert isinstance(back, SpikingNetwork)
    assert back.config == network.config
    for mine, theirs in zip(back.neurons, network.neurons, strict=True):
        assert torch.equal(mine.threshold, theirs.threshold)
        assert torch.equal(mine.initial, theirs.initial)
    first_run, second_run = network.simulate(images, seed=5), back.simulate(images, seed=5)
    assert first_run.logits.abs().max() > 0
    assert torch.equal(second_run.logits, first_run.logits)
    assert second_run.spikes == first_run.spikes
    assert not any(p.requires_grad for p in back.parameters())


def test_saved_tensors_are_no_views_of_the_network() -> None:
    """The store writes them later: a network that is trained on must not change what was saved."""
    network = ann()
    tensors, _ = save_network(network)
    kept = {key: value.clone() for key, value in tensors.items()}
    loaded = load_ann(tensors, save_network(network)[1], CPU)
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.zero_()
    assert all(torch.equal(tensors[key], kept[key]) for key in kept)


def test_a_network_without_a_name_can_not_be_kept() -> None:
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(UsageError, match=r"architecture '' can't be kept.*build_ann"):
        save_network(ImageClassifier(body, SHAPE, 10))


# --- checkpoints -----------------------------------------------------------------------------------------------------


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
    message = refused(saved({f"features.{key}": value for key, value in right.items()}, path))
    assert "lacks 0.weight" in message and "has also features.0.weight" in message


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
    torch.save(ann().body.state_dict(), tmp_path / "pickled.pt")
    assert "no readable safetensors file" in refused(tmp_path / "pickled.pt")
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder")


def test_a_checkpoint_of_integers_is_refused(tmp_path: Path) -> None:
    """Quantised weights would be read as numbers of a hundred times the size."""
    tensors = {key: (value * 100).to(torch.int8) for key, value in ann().body.state_dict().items()}
    assert "int8" in refused(saved(tensors, tmp_path / "weights.safetensors"))
