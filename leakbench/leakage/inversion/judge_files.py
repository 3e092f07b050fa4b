"""Evaluation models in a folder, to be used again: ``judges.json`` says what they are, safetensors hold their weights.

Whoever wrote a folder, no code of theirs is run, links are not followed, and what does not fit the data is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from leakbench.data import Dataset
from leakbench.errors import NumericalError, StoreError, UsageError, printable
from leakbench.models.judges import Judge, judges_of
from leakbench.models.weights import load_weights
from leakbench.runtime.files import write_file
from leakbench.runtime.untrusted_files import Damaged, open_folder, parse_object, read_file
from leakbench.runtime.workspace import digest

FORMAT = 1
CONTENTS = "judges.json"
_MOST_TEXT = 1 << 24
_MOST_WEIGHTS = 1 << 28
"""bytes of a file; some hundred thousand to four million are usual"""


class _Written(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SavedModel(_Written):
    """An evaluation model."""

    name: str = Field(description="of its architecture")
    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,199}$")]
    sha256: str = Field(description="of the file")
    weights: str = Field(description="sha256 of the tensors' names and bytes, by which records know it")
    recipe: dict[str, Any] | None = Field(description="how it was trained; None: it was given to that run, too")
    accuracy: float = Field(description="on test images of the attacked classes, as that run measured it")
    corrupted: float = Field(description="the same with noise and blur")


class SavedEnsemble(_Written):
    """The evaluation models of one data set."""

    dataset: str
    fingerprint: str
    image_shape: tuple[int, int, int]
    classes: list[str]
    accuracy: float = Field(description="of the ensemble")
    corrupted: float
    models: list[SavedModel]


class Contents(BaseModel):
    """``judges.json``."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: int
    evaluation_models: list[SavedEnsemble]


def write_judges(folder: Path, ensembles: Sequence[SavedEnsemble], weights: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Writes the folder; ``weights``: file -> tensors. StoreError where it can't be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"can't write {str(folder)!r}: {error.strerror}") from None
    for name, tensors in weights.items():
        write_file(folder / name, weights_bytes(tensors))
    contents = Contents(format=FORMAT, evaluation_models=list(ensembles))
    write_file(folder / CONTENTS, f"{contents.model_dump_json(indent=1)}\n".encode())


def weights_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """The file of a model's tensors."""
    return save({name: tensor.contiguous().clone() for name, tensor in sorted(tensors.items())})


def read_judges(folder: Path, data: Dataset) -> dict[str, Judge]:
    """The evaluation models that a folder holds of a data set: name -> model in eval mode, all that
    such images need in their order.

    UsageError, one line, where there are none of this data, or a file is missing, altered or holds another network.
    """
    where = f"--judges {str(folder)!r}"
    try:
        with open_folder(folder) as opened:
            saved = _of_data(_contents(opened), data, where)
            needed, named = ([one.name for one in some] for some in (judges_of(data.image_shape), saved.models))
            if lacking := [name for name in needed if name not in named]:
                raise UsageError(
                    f"{where} lacks the evaluation model {lacking[0]!r} of {data.name}: {' and '.join(needed)} are "
                    f"needed, it has {printable(' and '.join(named)) or 'none'}"
                )
            return {kind.name: _judge(opened, kind, saved, data, where) for kind in judges_of(data.image_shape)}
    except FileNotFoundError:
        raise UsageError(f"--judges: no such folder {str(folder)!r}") from None
    except ValueError:  # a name that no file can have
        raise UsageError(f"--judges: no such folder {printable(str(folder))!r}") from None
    except (Damaged, OSError) as error:
        raise UsageError(f"{where} is no folder of evaluation models: {printable(str(error))}") from None
    except NumericalError as error:
        raise UsageError(str(error)) from None


def _contents(opened: int) -> Contents:
    text = read_file(opened, CONTENTS, _MOST_TEXT)
    try:
        contents = Contents.model_validate(parse_object(text, CONTENTS))
    except ValidationError as error:
        first = error.errors()[0]
        raise Damaged(f"{CONTENTS}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if contents.format != FORMAT:
        raise Damaged(f"{CONTENTS} is of format {contents.format}, and this LeakBench reads format {FORMAT}")
    return contents


def _of_data(contents: Contents, data: Dataset, where: str) -> SavedEnsemble:
    """What is there of a data set."""
    for saved in contents.evaluation_models:
        if saved.fingerprint == data.fingerprint:
            break
    else:
        others = ", ".join(f"{one.dataset} {one.fingerprint[:12]}" for one in contents.evaluation_models[:3])
        raise UsageError(
            f"{where}: its evaluation models are of other data ({printable(others) or 'none'}), not of {data.name} "
            f"{data.fingerprint[:12]}"
        )
    for what, theirs, ours in (
        ("images", list(saved.image_shape), list(data.image_shape)),
        ("classes", len(saved.classes), len(data.classes)),
    ):
        if theirs != ours:
            raise UsageError(f"{where}: its evaluation models are of {what} {theirs}, and {data.name} has {ours}")
    return saved


def _judge(opened: int, kind: type[Judge], saved: SavedEnsemble, data: Dataset, where: str) -> Judge:
    model = next(one for one in saved.models if one.name == kind.name)
    content = read_file(opened, model.file, _MOST_WEIGHTS)
    if hashlib.sha256(content).hexdigest() != model.sha256:
        raise Damaged(f"{model.file} was altered: its sha256 is another than {CONTENTS} says")
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError, RuntimeError):
        raise Damaged(f"{model.file} holds no tensors") from None
    with torch.random.fork_rng(devices=[]):
        judge = kind(data.image_shape, len(data.classes))
    load_weights(tensors, judge, f"{where}, {model.file}", kind.name)
    return judge.eval()


def weights_digest(judge: Judge) -> str:
    """What keys and records know a model by, where its weights were given."""
    return digest(judge.state_dict())
