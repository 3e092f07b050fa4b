"""How much judge accuracy depends on the judges' seeds: a run's images, judged by ensembles of other seeds.

python benchmarks/judge_seeds.py RUN --cache CACHE --attack inversion --attack direct
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from leakbench.bench.pipeline import Settings, Workshop
from leakbench.models.judges import JUDGES, Ensemble, train_judge
from leakbench.models.training import predict
from leakbench.reports.files import read_record
from leakbench.runtime.process import fixed_threads, tune_process


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--cache", required=True)
    parser.add_argument("--attack", action="append", required=True)
    parser.add_argument("--defense", default="han2020")
    parser.add_argument("--ensembles", type=int, default=4)
    given = parser.parse_args()
    tune_process()
    record = read_record(given.run)
    workshop = Workshop(Settings(given.cache), lambda _what, _done, _total: None)
    data = workshop.dataset(record.datasets[0].name)
    made: dict[str, tuple[Tensor, Tensor]] = {"real test images": (data.test.images, data.test.labels)}
    for cell in record.cells:
        if (cell.seed, cell.defense, cell.of) == (0, given.defense, "") and cell.attack in given.attack:
            artifact = workshop.store.read(cell.artifacts["images"])
            assert artifact is not None, f"the images of {cell.attack} are not in {given.cache}"
            made[cell.attack] = artifact.tensors["images"], artifact.tensors["targets"]

    def show(name: str, ensemble: Ensemble) -> None:
        right = {
            what: float((predict(ensemble.probabilities, images, workshop.device).argmax(1) == labels).float().mean())
            for what, (images, labels) in made.items()
        }
        print(name, *(f"{what} {share:.3f}" for what, share in right.items()), sep="  ", flush=True)

    with fixed_threads(1):
        show("of the run", workshop.jury(data.name).ensemble)
        for seed in range(given.ensembles):
            judges = [
                train_judge(
                    kind, data.train.images, data.train.labels, len(data.classes),
                    kind.recipe(len(data.train), min(data.image_shape[1:]), data.flips),
                    torch.Generator().manual_seed(1000 + seed), workshop.device, lambda _what, _done, _total: None,
                ).eval()
                for kind in JUDGES
            ]  # fmt: skip
            show(f"ensemble {seed}", Ensemble(judges))


if __name__ == "__main__":
    main()
