"""Writes docs/results/judges.md: how judge accuracy depends on the seeds of the evaluation models (judges).

leakbench run -d privatesnn -a reconversion,direct,auto --dataset digits --seeds 3 --cache CACHE --out runs/attacks
python benchmarks/judge_seeds.py runs/attacks --cache CACHE

A run's images of one network, classified by ensembles of evaluation models that were trained from other seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import result_page
import torch
from torch import Tensor

from leakbench.leakage.inversion.evaluation import evaluation_of, learnt_and_tested, outliers_of
from leakbench.models.judges import Ensemble, judges_of, train_judge
from leakbench.models.training import predict
from leakbench.reports.files import read_record
from leakbench.runtime.process import fixed_threads, tune_process
from leakbench.runtime.workspace import Settings, Workspace


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--cache", required=True)
    parser.add_argument("--attack", action="append", help="more than once; all attacks, if none is named")
    parser.add_argument("--defense", default="han2020")
    parser.add_argument("--ensembles", type=int, default=4)
    given = parser.parse_args()
    tune_process()
    folder, record = f"runs/{given.run.name}", read_record(given.run)
    workspace = Workspace(Settings(given.cache), lambda _what, _done, _total: None)
    data = workspace.dataset(record.datasets[0].name)
    labelled: dict[str, tuple[Tensor, Tensor]] = {"real test images": (data.test.images, data.test.labels)}
    for cell in record.cells:
        here = (cell.seed, cell.defense, cell.of) == (0, given.defense, "") and "images" in cell.artifacts
        if here and (not given.attack or cell.attack in given.attack):
            artifact = workspace.store.read(cell.artifacts["images"])
            assert artifact is not None, f"the images of {cell.attack} are not in {given.cache}"
            labelled[cell.attack] = artifact.tensors["images"], artifact.tensors["targets"]

    def accuracies(ensemble: Ensemble) -> list[str]:
        predicted = [predict(ensemble.answers, images, workspace.device) for images, _ in labelled.values()]
        hits = [p[:, :-1].argmax(1) == labels for p, (_, labels) in zip(predicted, labelled.values(), strict=True)]
        return [f"{float(hit.float().mean()):.3f}" for hit in hits]

    with fixed_threads(1):
        rows = [["of the run", *accuracies(evaluation_of(workspace, data.name).ensemble)]]
        outliers = [learnt_and_tested(images)[0] for images in outliers_of(workspace, data).tensors.values()]
        for seed in range(given.ensembles):
            judges = [
                train_judge(
                    kind, data.train.images, data.train.labels, len(data.classes), torch.cat(outliers),
                    kind.recipe(len(data.train), data.image_shape, data.flips),
                    torch.Generator().manual_seed(1000 + seed), workspace.device, lambda _what, _done, _total: None,
                ).eval()
                for kind in judges_of(data.image_shape)
            ]  # fmt: skip
            rows.append([f"other seeds, {seed + 1}", *accuracies(Ensemble(judges))])
    result_page.write(
        "judges.md",
        "Judge accuracy by the seeds of the evaluation models, measured",
        f"{data.name}: the same images that each attack made of {given.defense} (seed 0), and real test images, by the "
        "accuracy of the evaluation models (judges) of the run and of ensembles that were trained from other seeds.",
        result_page.of_run(record, folder, f"python benchmarks/judge_seeds.py {folder} --cache CACHE"),
        result_page.table(["ensemble", *labelled], rows),
    )


if __name__ == "__main__":
    main()
