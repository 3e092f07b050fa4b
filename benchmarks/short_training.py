"""An ANN by a preset's recipe in fewer passes over the images, for networks whose training takes hours.

    python benchmarks/short_training.py --cache CACHE --passes 8 --out vgg16.safetensors
    leakbench run --dataset cifar10 --preset paper-cpu --precision bfloat16 --ann vgg16.safetensors ...

Everything else is as the preset has it. An interrupted training goes on from CACHE.
"""

from __future__ import annotations

import argparse
import os
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

from safetensors.torch import save_file

from leakbench.bench.grid import standardizes, victim_recipe
from leakbench.contracts import Context
from leakbench.metrics.accuracy import accuracy
from leakbench.models.standardized import standardized
from leakbench.models.storage import build_ann
from leakbench.models.training import predict, steps_of, train
from leakbench.runtime.process import tune_process
from leakbench.runtime.seeds import seed_of
from leakbench.runtime.store import Content
from leakbench.runtime.workspace import Settings, Stage, Workspace

SHORT = Stage("short-training", 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", required=True)
    parser.add_argument("--data", help="folder of data sets")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--model", default="vgg16")
    parser.add_argument("--preset", default="paper-cpu")
    parser.add_argument("--passes", type=int, required=True)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--out", type=Path, required=True, help="file of the weights, safetensors")
    given = parser.parse_args()
    tune_process()
    workspace = Workspace(Settings(given.cache, data=given.data, precision=given.precision), _said)
    data = workspace.dataset(given.dataset)
    recipe = victim_recipe(given.preset, given.model, len(data.train), min(data.image_shape[1:]), data.flips)
    recipe = replace(recipe, steps=steps_of(given.passes, len(data.train), recipe.batch_size))
    standard = standardizes(given.preset, given.model, len(data.train))

    def build(context: Context) -> Content:
        network = build_ann(given.model, data.image_shape, len(data.classes), data.input_range, context.generator)
        network.precision = given.precision
        with standardized(network) if standard else nullcontext():
            train(
                network, data.train.images, data.train.labels, recipe, context.generator, workspace.device,
                given.model, _said, context.loop("training"),
            )  # fmt: skip
        right = accuracy(predict(network, data.test.images, workspace.device), data.test.labels)
        return dict(network.body.state_dict()), {"accuracy": asdict(right)}

    inputs = {"data": data.fingerprint, "model": given.model, "precision": given.precision, **asdict(recipe)}
    made = workspace.make(SHORT, seed_of("short-training", **inputs), inputs | {"standardized": standard}, build)
    save_file({name: tensor.contiguous() for name, tensor in made.tensors.items()}, given.out)
    print(f"{recipe.steps:,} steps, accuracy {made.record['accuracy']}", flush=True)


def _said(what: str, done: int, total: int) -> None:
    if done % 50 == 0:
        print(f"{what}: {done}/{total}", flush=True)


if __name__ == "__main__":
    main()
