"""Users' own weights: read from a file without running anything in it, and matched with a network by name and shape."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from leakbench.contracts import ImageClassifier
from leakbench.errors import NumericalError, UsageError, printable
from leakbench.models.catalogue import Architecture
from leakbench.paths import checked_path

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)

_LARGEST = 1 << 32
"""bytes of a file"""
_PICKLED = (".pt", ".pth")
_NESTED = ("state_dict", "model_state_dict", "model", "net")
"""keys of a training's checkpoint under which the weights are"""
_COUNTER = "num_batches_tracked"
"""batch norm's counter of steps, which plays no part in evaluation"""
_SHOWN = 3
"""tensors that a message names"""


def load_checkpoint(path: Path, ann: ImageClassifier) -> None:
    """Fill ``ann`` with a user's own weights (see :func:`read_weights`), named as in the body's ``state_dict()``, or as
    :func:`load_weights` takes them. Errors of both."""
    load_weights(read_weights(path, "--ann"), ann.body, f"--ann {str(path)!r}", Architecture.parse(ann.arch).label)


def read_weights(path: Path, option: str) -> dict[str, Tensor]:
    """The tensors in a file by name: safetensors, or a state dict that torch saved as .pt or .pth.

    A state dict may be inside of a training's checkpoint, under one of "state_dict", "model_state_dict", "model" and
    "net". Of a pickle nothing is run (``weights_only``). UsageError, one line, for anything else and for files above
    4 GiB.
    """
    where = f"{option} {str(path)!r}"
    try:
        if checked_path(path, option).stat().st_size > _LARGEST:
            raise UsageError(f"{where} is larger than {_LARGEST} bytes")
        if path.is_dir():
            raise UsageError(f"{where} is a folder: give the file of weights")
        if path.suffix in _PICKLED:
            return _unpickled(path, where)
        with path.open("rb"):  # safetensors says of one that may not be read that it is not there
            pass
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError:
        raise UsageError(f"{option}: no such file {str(path)!r}") from None
    except (SafetensorError, OSError) as error:
        if path.suffix == ".py":
            raise UsageError(f"{where}: which function builds the network? Give FILE.py:FUNCTION") from None
        hint = "" if path.suffix == ".safetensors" else " (a file of torch.save ends with .pt or .pth)"
        raise UsageError(f"{where} is no readable safetensors file: {error}{hint}") from None


def _unpickled(path: Path, where: str) -> dict[str, Tensor]:
    unpacked = 0
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as packed:
                unpacked = sum(entry.file_size for entry in packed.infolist())
        except (zipfile.BadZipFile, ValueError, NotImplementedError):
            raise UsageError(f"{where} is no file of torch.save: it can't be unpacked") from None
    if unpacked > _LARGEST:  # torch saves uncompressed, others may not
        raise UsageError(f"{where} is larger than {_LARGEST} bytes")
    try:
        with warnings.catch_warnings(action="ignore"):  # of pickles that torch did not write
            state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch raises a dozen kinds, by where the file breaks
        raise UsageError(
            f"{where} can't be read, or holds more than tensors, and code in a file is never run: save "
            "model.state_dict() alone"
        ) from None
    if isinstance(state, dict):
        nested = [state[key] for key in _NESTED if isinstance(state.get(key), dict)]
        state = nested[0] if nested else state
    if not (isinstance(state, dict) and state and all(map(_plain, state.values())) and all(map(_text, state))):
        raise UsageError(f"{where} holds no state dict, which maps names to tensors: save model.state_dict()")
    return {name: value.detach() for name, value in state.items()}


def _plain(value: object) -> bool:
    """Whether it is a tensor of numbers in memory, neither sparse nor of a device without any."""
    if type(value) not in (Tensor, nn.Parameter):
        return False
    assert isinstance(value, Tensor)
    return value.layout == torch.strided and value.device.type == "cpu"


def _text(value: object) -> bool:
    return isinstance(value, str)


def load_weights(tensors: Mapping[str, Tensor], network: nn.Module, where: str, model: str) -> None:
    """Fill a network with ``tensors`` of its names. Also taken are names that all begin with the same words
    ("module.", as DataParallel writes them), and those of torchvision's VGG and ResNet for the built-in ones.

    Weights in float64, float16 or bfloat16 become float32. float8 and whole numbers are refused: such weights mean
    something only together with scales that are no part of a network here.

    UsageError, one line that begins with ``where``, names the tensors at fault as the file does, with what ``model``
    expects; NumericalError where a weight is no number, or too large for float32.
    """
    wanted = network.state_dict()
    names = _matched(tensors, wanted)
    found = {name: tensors[theirs] for name, theirs in names.items()}
    found = {name: value for name, value in wanted.items() if name.endswith(_COUNTER)} | found
    fill(network, found, where, model, names)
    for name, value in network.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            problem = f"numbers beyond {value.dtype}" if torch.isfinite(found[name]).all() else "NaN or infinity"
            raise NumericalError(f"{where} holds {problem} in {_shown(names[name])!r}")


def fill(
    network: nn.Module, tensors: Mapping[str, Tensor], where: str, model: str, theirs: Mapping[str, str] | None = None
) -> None:
    """Fill a network with ``tensors`` of its names, shapes and kinds of numbers; UsageError where they are not.

    ``theirs``: name -> what messages call a tensor, where it is another.
    """
    wanted, theirs = network.state_dict(), theirs or {}
    called = {name: _shown(theirs.get(name, name)) for name in (*wanted, *tensors)}
    missing = [name for name in wanted if name not in tensors]
    extra = sorted(tensors.keys() - wanted.keys(), key=_in_order)
    if missing or extra:
        lists = (("lacks", missing, wanted), ("has also", extra, tensors))
        parts = [f"{verb} {_listed(names, of, called)}" for verb, names, of in lists if names]
        raise UsageError(f"{where} does not fit the model {model!r}: it {' and '.join(parts)}")
    for name, value in wanted.items():
        given = tensors[name]
        if given.dtype not in (FLOATS if value.is_floating_point() else WHOLE):
            raise UsageError(f"{where}: {called[name]!r} holds {given.dtype}: save it as {value.dtype}")
        if given.shape != value.shape:
            raise UsageError(
                f"{where} does not fit the model {model!r}: {called[name]!r} is {list(given.shape)} instead of "
                f"{list(value.shape)} (other image size or number of classes?)"
            )
    network.load_state_dict(dict(tensors))


def _listed(names: list[str], tensors: Mapping[str, Tensor], called: Mapping[str, str]) -> str:
    shown = [f"{called[name]} {list(tensors[name].shape)}" for name in names[:_SHOWN]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _in_order(name: str) -> list[tuple[int, str]]:
    """Sorts numbers in names as numbers."""
    return [(int(part), "") if part.isdecimal() and len(part) < 10 else (-1, part) for part in re.split(r"(\d+)", name)]


def _shown(name: str) -> str:
    return printable(name.removeprefix("body."))[:100]


# --- names -----------------------------------------------------------------------------------------------------------


def _matched(given: Iterable[str], wanted: Iterable[str]) -> dict[str, str]:
    """Name in the network -> name in the file; names that fit nothing stand for themselves."""
    same = {name: name for name in given}
    known = {name for name in wanted if not name.endswith(_COUNTER)}
    plain = same
    while not known <= plain.keys() and (shorter := _without_first_word(plain)):
        plain = shorter
    tries = [same, plain, _of_torchvision(plain, known)]
    return max(tries, key=lambda names: len(known & names.keys()))  # the first of equals


def _without_first_word(names: Mapping[str, str]) -> dict[str, str]:
    """Without a word that all names begin with; empty where they begin with several."""
    words = {name.partition(".")[0] for name in names}
    shorter = {name.partition(".")[2]: theirs for name, theirs in names.items()}
    return shorter if len(words) == 1 and "" not in shorter else {}


_RESIDUAL = re.compile(r"layer(?P<stage>\d{1,3})\.(?P<block>\d{1,3})\.(?P<rest>.+)")
_NUMBERED = re.compile(r"(?P<part>features|classifier)\.(?P<number>\d{1,3})\.(?P<rest>.+)")
_STEM = {"conv1": "0", "bn1": "1"}


def _of_torchvision(names: Mapping[str, str], wanted: Iterable[str]) -> dict[str, str]:
    """Names of torchvision's VGG ("features.0", "classifier.3") and ResNet ("layer1.0.conv1", "fc"), also with
    "shortcut" and "linear", as networks for CIFAR have them, to those of the built-in families. Others stay."""
    numbers = [int(word) for name in wanted if (word := name.partition(".")[0]).isdigit()]
    last = max(numbers, default=0)
    classifier = max((int(m["number"]) for m in map(_NUMBERED.fullmatch, names) if m and m["part"] == "classifier"),
                     default=0)  # fmt: skip
    blocks: dict[int, int] = {}
    for match in filter(None, map(_RESIDUAL.fullmatch, names)):
        stage = int(match["stage"])
        blocks[stage] = max(blocks.get(stage, 0), int(match["block"]) + 1)

    def ours(name: str) -> str:
        first, _, rest = name.partition(".")
        if match := _RESIDUAL.fullmatch(name):
            before = sum(count for stage, count in blocks.items() if stage < int(match["stage"]))
            layer = re.sub(r"^downsample\.", "shortcut.", match["rest"])
            return f"{len(_STEM) + 1 + before + int(match['block'])}.{layer}"  # behind the stem's ReLU
        if match := _NUMBERED.fullmatch(name):
            behind = last - classifier if match["part"] == "classifier" else 0
            return f"{behind + int(match['number'])}.{match['rest']}"
        return f"{last}.{rest}" if first in ("fc", "linear") else f"{_STEM.get(first, first)}.{rest}"

    renamed = {ours(name): theirs for name, theirs in names.items()}
    return renamed if len(renamed) == len(names) else dict(names)
