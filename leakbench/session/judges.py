"""The evaluation models of a run, out of the store into a folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from leakbench.errors import UsageError
from leakbench.leakage.inversion.judge_files import SavedEnsemble, SavedModel, weights_bytes, write_judges
from leakbench.leakage.inversion.kind import MODEL
from leakbench.paths import default_cache
from leakbench.records import RunRecord
from leakbench.runtime.process import environment
from leakbench.runtime.store import Artifact, Store
from leakbench.runtime.workspace import digest


def export_judges(record: RunRecord, out: Path, cache: Path | None) -> None:
    """Writes the evaluation models of all data sets of a run into the folder ``out``, see
    :mod:`leakbench.leakage.inversion.judge_files`.

    UsageError where the run has none, or the store has them no more.
    """
    folder = cache or default_cache()
    store = Store(folder, environment(torch.device("cpu")))
    weights: dict[str, dict[str, Tensor]] = {}
    ensembles: list[SavedEnsemble] = []
    for dataset in record.datasets:
        scores = {judge.name: judge for judge in record.judges if judge.dataset == dataset.name}
        if not scores:
            continue
        models = []
        for name in (name for name in scores if name != "ensemble"):
            artifact = _artifact(store, record, dataset.name, name)
            file = f"{dataset.fingerprint[:12]}-{name}.safetensors"
            weights[file] = artifact.tensors
            models.append(
                SavedModel(
                    name=name,
                    file=file,
                    sha256=hashlib.sha256(weights_bytes(artifact.tensors)).hexdigest(),
                    weights=digest(artifact.tensors),
                    recipe=artifact.inputs.get("recipe"),
                    accuracy=scores[name].accuracy.value,
                    corrupted=scores[name].corrupted.value,
                )
            )
        ensembles.append(
            SavedEnsemble(
                dataset=dataset.name,
                fingerprint=dataset.fingerprint,
                image_shape=(dataset.channels, dataset.height, dataset.width),
                classes=dataset.classes,
                accuracy=scores["ensemble"].accuracy.value,
                corrupted=scores["ensemble"].corrupted.value,
                models=models,
            )
        )
    if not ensembles:
        raise UsageError("--judges: this run has no evaluation models: nothing in it was attacked")
    write_judges(out, ensembles, weights)


def _artifact(store: Store, record: RunRecord, dataset: str, name: str) -> Artifact:
    role = f"{MODEL}{name}"
    keys = {cell.artifacts[role] for cell in record.cells if cell.dataset == dataset and role in cell.artifacts}
    for key in keys:
        if (artifact := store.read(key)) is not None:
            return artifact
    raise UsageError(
        f"--judges: the store {str(store.root)!r} has the evaluation model {name!r} of {dataset} no more: run the grid "
        "again"
    )
