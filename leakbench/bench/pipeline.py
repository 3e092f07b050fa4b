"""The way of a run: data set -> ANN -> (synthetic set) -> victim -> reconstruction -> values, an artifact each.

A :class:`Workshop` computes cells one at a time and needs nothing but the cell and the store, so that it runs in this
process or in any other.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leakbench import registry
from leakbench.bench.grid import Cell, Variant, judge_recipe, victim_recipe
from leakbench.bench.records import ClassScore, Value
from leakbench.bench.store import Artifact, Content, Store, seed_of
from leakbench.contracts import (
    Access,
    Attack,
    Context,
    Defense,
    ImageClassifier,
    Progress,
    SharedBuild,
    TrainingData,
    Victim,
)
from leakbench.data import Dataset, load_dataset
from leakbench.errors import NumericalError, UsageError
from leakbench.metrics.accuracy import accuracy
from leakbench.metrics.energy import FP32, INT32, LayerOperations, energy_ratio
from leakbench.metrics.estimate import Estimate, mean, proportion
from leakbench.metrics.frechet import FeatureStatistics, frechet_estimate, statistics
from leakbench.metrics.inception import InceptionFeatures, find_inception_weights, metric_name
from leakbench.metrics.judged import judge_accuracy
from leakbench.metrics.motion import overall_cosine, weight_motion
from leakbench.models.judges import Judge, train_judge
from leakbench.models.storage import build_ann, load_ann, load_checkpoint, load_network, save_network
from leakbench.models.training import predict, train
from leakbench.snn import INPUT, Simulation, SpikingNetwork, relu_network

log = logging.getLogger("leakbench")

# Versions of the stages: raise one with every change of what its stage computes.
ANN, JUDGE, PROTECT, UTILITY, ATTACK, LEAKAGE, ANCHOR = 1, 1, 1, 1, 1, 1, 1


@dataclass(frozen=True)
class Settings:
    """What a run needs that is in no key: where things are and what they run on."""

    cache: str
    data: str | None = None
    device: str = "cpu"
    inception: str | None = None


@dataclass
class Outcome:
    """What a computed cell gives the record."""

    values: list[Value] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)
    images: Tensor | None = None
    """uint8 [N, C, H, W]"""
    targets: Tensor | None = None


class Workshop:
    """Computes cells. Data sets and feature statistics are loaded once and kept for the cells to come."""

    def __init__(self, settings: Settings, progress: Progress) -> None:
        self.settings = settings
        self.store = Store(Path(settings.cache))
        self.device = torch.device(settings.device)
        self.progress = progress
        self._datasets: dict[str, Dataset] = {}
        self._references: dict[tuple[str, str], FeatureStatistics] = {}

    # --- what cells build on -------------------------------------------------------------------------------------

    def dataset(self, name: str) -> Dataset:
        """The data set, loaded once."""
        if name not in self._datasets:
            self.progress(f"loading {name}", 0, 1)
            folder = Path(self.settings.data) if self.settings.data else None
            self._datasets[name] = load_dataset(name, folder)
        return self._datasets[name]

    def _make(
        self, stage: str, version: int, inputs: Mapping[str, Any], build: Callable[[Context], Content]
    ) -> Artifact:
        def seeded(key: str) -> Content:
            return build(self._context(key))

        return self.store.get_or_make(stage, version, inputs, seeded)

    def _context(self, key: str) -> Context:
        return Context(torch.Generator().manual_seed(seed_of(key)), self.device, progress=self.progress)

    def ann(self, cell: Cell) -> Artifact:
        """The trained ANN of a cell (or the user's checkpoint), with its test accuracy."""
        data = self.dataset(cell.dataset)
        side = min(data.image_shape[1:])
        recipe = victim_recipe(cell.preset, len(data.train), side, data.flips)
        blank = build_ann(cell.model, data.image_shape, len(data.classes), data.input_range)
        if cell.checkpoint is not None:
            load_checkpoint(Path(cell.checkpoint), blank)
            tensors, _ = save_network(blank)
            origin: dict[str, Any] = {"weights": _digest(tensors)}
        else:
            origin = {"recipe": asdict(recipe), "seed": cell.seed}

        def build(context: Context) -> Content:
            network = blank
            if cell.checkpoint is None:
                network = build_ann(
                    cell.model, data.image_shape, len(data.classes), data.input_range, context.generator
                )
                train(
                    network, data.train.images, data.train.labels, recipe, context.generator, self.device,
                    "training the ANN", self.progress,
                )  # fmt: skip
            network.to(self.device).eval()
            score = accuracy(_finite(predict(network, data.test.images, self.device), "the ANN"), data.test.labels)
            tensors, record = save_network(network)
            return tensors, {"network": record, "accuracy": asdict(score)}

        return self._make("ann", ANN, {"data": data.fingerprint, "model": cell.model, **origin}, build)

    def judge(self, cell: Cell) -> tuple[Judge, Artifact]:
        """The judge of a cell's data set. Its seed is its own: every victim is scored by the same judge."""
        data = self.dataset(cell.dataset)
        recipe = judge_recipe(len(data.train), min(data.image_shape[1:]), data.flips)

        def build(context: Context) -> Content:
            judge = train_judge(
                data.train.images, data.train.labels, len(data.classes), recipe, context.generator, self.device,
                self.progress,
            )  # fmt: skip
            score = accuracy(predict(judge, data.test.images, self.device), data.test.labels)
            return judge.state_dict(), {"accuracy": asdict(score), "name": judge.name}

        inputs = {"data": data.fingerprint, "judge": Judge.name, "recipe": asdict(recipe), "seed": "judge"}
        artifact = self._make("judge", JUDGE, inputs, build)
        judge = Judge(data.image_shape, len(data.classes))
        judge.load_state_dict(artifact.tensors)
        return judge.to(self.device).eval(), artifact

    def victim(self, cell: Cell) -> tuple[ImageClassifier | SpikingNetwork, Artifact, Artifact]:
        """The protected network of a cell, its artifact, and the ANN's."""
        assert cell.defense is not None
        variant = cell.defense
        ann = self.ann(cell)
        data = self.dataset(cell.dataset)
        plugin = _plugin("defense", variant)
        shared: dict[str, str] = {}

        def build(context: Context) -> Content:
            network = load_ann(ann.tensors, ann.record["network"], self.device)
            context.timesteps = cell.timesteps or 1
            context.shared_store = self._shared(ann, cell, shared)
            handle = TrainingData(data.train.images, data.train.labels)
            start = time.perf_counter()
            victim = plugin(network, handle, context)
            seconds = time.perf_counter() - start
            tensors, record = save_network(victim)
            return tensors, {
                "network": record,
                "seconds": seconds,
                "training_images_read": handle.images_read,
                "training_image_reads": handle.reads,
                "shared": shared,
            }

        inputs = {**_of_variant(variant), "ann": ann.key, "seed": cell.seed, "timesteps": cell.timesteps}
        artifact = self._make("victim", PROTECT, inputs, build)
        return load_network(artifact.tensors, artifact.record["network"], self.device), artifact, ann

    def _shared(
        self, ann: Artifact, cell: Cell, used: dict[str, str]
    ) -> Callable[[str, int, Mapping[str, Any], SharedBuild], dict[str, Tensor]]:
        def shared(name: str, version: int, params: Mapping[str, Any], build: SharedBuild) -> dict[str, Tensor]:
            inputs = {"ann": ann.key, "params": dict(params), "seed": cell.seed}
            artifact = self._make(
                f"shared-{name}", version, inputs, lambda context: (build(context), {"params": dict(params)})
            )
            used[name] = artifact.key
            return artifact.tensors

        return shared

    # --- cells ---------------------------------------------------------------------------------------------------

    def prepare(self, cell: Cell) -> Outcome:
        """The ANN and the judge that a cell needs, so that later cells find them."""
        ann = self.ann(cell)
        _, judge = self.judge(cell)
        return Outcome(artifacts={"ann": ann.key, "judge": judge.key})

    def compute(self, cell: Cell) -> Outcome:
        """The values of a cell, from the store where they were computed before."""
        if cell.defense is None:
            return self._anchor(cell)
        if cell.attack is None:
            return self._utility(cell)
        return self._leakage(cell)

    def _utility(self, cell: Cell) -> Outcome:
        victim, artifact, ann = self.victim(cell)
        data = self.dataset(cell.dataset)

        def build(context: Context) -> Content:
            labels = data.test.labels
            picked = _some(len(labels), cell.test_images)
            images, labels = data.test.images[picked], labels[picked]
            spikes: dict[str, int] = {}
            if isinstance(victim, SpikingNetwork):
                logits = self._simulate(victim, images, context.seed(), spikes)
            else:
                logits = predict(victim, images, self.device)
            score = accuracy(_finite(logits, "the protected network"), labels)
            return {}, {
                "accuracy": asdict(score),
                "spikes": {name: count / len(images) for name, count in spikes.items()},
            }

        inputs = {"victim": artifact.key, "test_images": cell.test_images}
        measured = self._make("utility", UTILITY, inputs, build)
        values = [
            _value("accuracy", Estimate(**measured.record["accuracy"])),
            _value("ann_accuracy", Estimate(**ann.record["accuracy"])),
            _count("training_images_read", artifact.record["training_images_read"]),
            _count("seconds", artifact.record["seconds"]),
            _count("timesteps", victim.config.timesteps if isinstance(victim, SpikingNetwork) else 1),
        ]
        details: dict[str, Any] = {}
        reference = load_ann(ann.tensors, ann.record["network"], self.device)
        before, after = _weights(reference), _weights(relu_network(victim))
        if before.keys() == after.keys() and all(before[name].shape == after[name].shape for name in before):
            details["motion"] = weight_motion(before, after)
            values.append(_count("weight_cosine", overall_cosine(before, after)))
        if isinstance(victim, SpikingNetwork):
            layers = operations(victim, measured.record["spikes"])
            details["energy"] = layers
            details["timesteps"] = victim.config.timesteps
            values += [
                _count(f"energy_ratio_{constants.name}", energy_ratio(layers, constants)) for constants in (INT32, FP32)
            ]
        artifacts = {
            "ann": ann.key,
            "victim": artifact.key,
            "utility": measured.key,
            **artifact.record["shared"],
        }
        return Outcome(values, details, artifacts)

    def _simulate(
        self,
        network: SpikingNetwork,
        images: Tensor,
        seed: int,
        spikes: dict[str, int],
        batch_size: int = 200,
    ) -> Tensor:
        parts = []
        with torch.no_grad():
            for first in range(0, len(images), batch_size):
                self.progress("measuring accuracy", first, len(images))
                x = images[first : first + batch_size].to(self.device).float() / 255
                simulation: Simulation = network.simulate(x, seed, first)
                parts.append(simulation.logits.cpu())
                for name, count in simulation.spikes.items():
                    spikes[name] = spikes.get(name, 0) + count
        return torch.cat(parts)

    def _leakage(self, cell: Cell) -> Outcome:
        assert cell.attack is not None
        network, victim_artifact, _ = self.victim(cell)
        plugin = _plugin("attack", cell.attack)
        classes = network.classes

        def build(context: Context) -> Content:
            targets = torch.arange(classes).repeat_interleave(cell.images_per_class)
            # a copy of its own: what an attack does to the network must not reach what is measured on it
            handed = load_network(victim_artifact.tensors, victim_artifact.record["network"], self.device)
            made = plugin(Victim(handed, Access.WEIGHTS), targets, context)
            images = (made.images * 255).round().to(torch.uint8)
            if isinstance(network, SpikingNetwork):
                network.reseed(context.seed())
            draws = 4 if isinstance(network, SpikingNetwork) else 1
            answers = torch.stack([predict(network, images, self.device).softmax(1) for _ in range(draws)]).mean(0)
            own = answers.gather(1, made.targets[:, None]).squeeze(1)
            return {
                "images": images,
                "targets": made.targets,
                "confidence": own,
                "predicted": answers.argmax(1),
            }, {"cost": asdict(made.cost)}

        inputs = {
            **_of_variant(cell.attack),
            "victim": victim_artifact.key,
            "images_per_class": cell.images_per_class,
            "seed": cell.seed,
        }
        attack = self._make("attack", ATTACK, inputs, build)
        confidence = attack.tensors["confidence"].double()
        hits = int((attack.tensors["predicted"] == attack.tensors["targets"]).sum())
        outcome = self._judged(cell, attack)
        outcome.values += [
            _value("victim_accuracy", proportion(hits, len(confidence))),
            _value("victim_confidence", mean(confidence.tolist())),
            _count("seconds", attack.record["cost"]["seconds"]),
            _count("queries", attack.record["cost"]["queries"]),
            _count("gradient_steps", attack.record["cost"]["gradient_steps"]),
        ]
        outcome.artifacts["victim"] = victim_artifact.key
        return outcome

    def _anchor(self, cell: Cell) -> Outcome:
        """Noise or real images, scored as reconstructions are and at the same number of images."""
        data = self.dataset(cell.dataset)

        def build(context: Context) -> Content:
            targets = torch.arange(len(data.classes)).repeat_interleave(cell.images_per_class)
            if cell.anchor == "noise":
                shape = (len(targets), *data.image_shape)
                images = torch.randint(0, 256, shape, generator=context.generator, dtype=torch.uint8)
                return {"images": images, "targets": targets}, {}
            order = torch.randperm(len(data.test), generator=context.generator)
            labels = data.test.labels[order]
            # a class with fewer test images than twice that gives half of them: the others are the reference
            picked = []
            for c in range(len(data.classes)):
                own = order[labels == c]
                picked.append(own[: min(cell.images_per_class, max(1, len(own) // 2))])
            index = torch.cat(picked)
            return {"images": data.test.images[index], "targets": data.test.labels[index], "index": index}, {}

        inputs = {
            "data": data.fingerprint,
            "anchor": cell.anchor,
            "images_per_class": cell.images_per_class,
            "seed": cell.seed,
        }
        return self._judged(cell, self._make("anchor", ANCHOR, inputs, build))

    def _judged(self, cell: Cell, made: Artifact) -> Outcome:
        """What the judge says of images: how many it names as intended, and their distance from real ones."""
        judge, judge_artifact = self.judge(cell)
        inception = self.inception
        network: Judge | InceptionFeatures = inception or judge
        # the real anchor is measured against the test images that are not in it
        without = made.tensors.get("index")

        def build(_context: Context) -> Content:
            images = made.tensors["images"]
            opinions = predict(judge.probabilities, images, self.device)
            reference = self._reference(cell.dataset, network, without)
            distance = frechet_estimate(predict(network.features, images, self.device), reference)
            return {"opinions": opinions}, {
                "judge_accuracy": asdict(judge_accuracy(opinions, made.tensors["targets"])),
                "distance": asdict(distance),
            }

        inputs = {
            "images": made.key,
            "judge": judge_artifact.key,
            "features": inception.digest if inception else judge_artifact.key,
        }
        scored = self._make("judged", LEAKAGE, inputs, build)
        values = [
            _value("judge_accuracy", Estimate(**scored.record["judge_accuracy"])),
            _value(metric_name(network), Estimate(**scored.record["distance"])),
        ]
        targets = made.tensors["targets"]
        named = scored.tensors["opinions"].argmax(1)
        by_class = [
            ClassScore(target=c, hits=int((named[targets == c] == c).sum()), n=int((targets == c).sum()))
            for c in targets.unique().tolist()
        ]
        return Outcome(
            values,
            {"classes": by_class},
            artifacts={"images": made.key, "judge": judge_artifact.key},
            images=made.tensors["images"],
            targets=targets,
        )

    @cached_property
    def inception(self) -> InceptionFeatures | None:
        """pytorch-fid's network, where its weights are at hand."""
        given = self.settings.inception
        path = find_inception_weights(Path(given) if given else None)
        return InceptionFeatures(path, self.device) if path else None

    def _reference(self, dataset: str, network: Judge | InceptionFeatures, without: Tensor | None) -> FeatureStatistics:
        """Statistics of the real test images, computed once a data set (the real anchor's own ones once more)."""
        key = (dataset, network.name)
        if without is None and key in self._references:
            return self._references[key]
        images = self.dataset(dataset).test.images
        if without is not None:
            kept = torch.ones(len(images), dtype=torch.bool)
            kept[without] = False
            # of one test image a class, nothing else is left to compare with
            images = images[kept] if int(kept.sum()) > 1 else images
        fitted = statistics(predict(network.features, images, self.device))
        if without is None:
            self._references[key] = fitted
        return fitted


def operations(network: SpikingNetwork, spikes: Mapping[str, float]) -> list[LayerOperations]:
    """The operations of each weight layer, from spikes counted where they are made (mean per image)."""
    constant = network.config.encoder == "direct"
    weights = network.weights()
    return [
        LayerOperations(
            layer=layer.name,
            macs=layer.macs,
            input_neurons=layer.input_neurons,
            spikes_in=float(sum(spikes[name] for name in layer.producers)),
            constant_current=constant and INPUT in layer.producers,
            output_neurons=layer.output_neurons,
            parameters=weights[layer.name].numel(),
        )
        for layer in network.topology.weights
    ]


def _plugin(kind: registry.Kind, variant: Variant) -> Any:
    plugin: type[Attack[Any] | Defense[Any]] = registry.load(kind, variant.target)
    return plugin(**variant.params)


def _of_variant(variant: Variant) -> dict[str, Any]:
    identity = {"plugin": variant.name, "version": variant.version, "params": dict(variant.params)}
    return {**identity, "code": variant.code} if variant.code else identity


def _weights(network: ImageClassifier) -> dict[str, Tensor]:
    layers = dict(network.body.named_modules())
    return {
        name: module.weight.detach().cpu()
        for name, module in layers.items()
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)
    }


def _some(total: int, wanted: int | None) -> Tensor:
    """The same ``wanted`` test images for every victim, drawn over the whole split."""
    order = torch.randperm(total, generator=torch.Generator().manual_seed(0))
    return order[:wanted].sort().values if wanted is not None else torch.arange(total)


def _finite(logits: Tensor, what: str) -> Tensor:
    if not torch.isfinite(logits).all():
        raise NumericalError(f"{what} puts out NaN or infinity")
    return logits


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


def _value(metric: str, estimate: Estimate) -> Value:
    if not math.isfinite(estimate.value):
        raise NumericalError(f"{metric} came out as {estimate.value}")
    low, high = (None if bound != bound else bound for bound in (estimate.low, estimate.high))
    return Value(metric=metric, value=estimate.value, low=low, high=high, n=estimate.n)


def _count(metric: str, value: float) -> Value:
    """A value without sampling error."""
    return _value(metric, Estimate(float(value)))


def check_device(name: str) -> str:
    """``auto`` is the first accelerator that is there, else the CPU; anything else must exist."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"--device {name}: not usable here ({str(error).splitlines()[0]}): cpu always is") from None
    return name
