"""The way of a run: data set -> ANN -> (synthetic set) -> victim -> reconstruction -> values, an artifact each.

A :class:`Workshop` computes cells one at a time and needs nothing but the cell and the store, so that it runs in this
process or in any other. Seeds are told from keys: see :mod:`leakbench.runtime.seeds`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leakbench import registry
from leakbench.bench.grid import SIZES, Cell, Variant, victim_recipe
from leakbench.contracts import (
    Access,
    Context,
    ImageClassifier,
    Params,
    Plugin,
    Progress,
    PublicImages,
    SharedBuild,
    TrainingData,
    Victim,
)
from leakbench.data import Dataset, Split, base_name, load_dataset, public_images
from leakbench.errors import NumericalError, PluginError, UsageError
from leakbench.leakage.inversion.panel import (
    Measured,
    Reference,
    compared,
    judged,
    merged,
    reference,
    some_of_each,
    split,
    value,
)
from leakbench.metrics.accuracy import accuracy
from leakbench.metrics.energy import LayerOperations, energy_ratios
from leakbench.metrics.estimate import Estimate, mean, proportion
from leakbench.metrics.inception import InceptionFeatures, find_inception_weights
from leakbench.metrics.motion import overall_cosine, weight_motion
from leakbench.metrics.uap import default_epsilon, fooling_rate, random_signs, universal_perturbation
from leakbench.models import Architecture, model_identity, model_label
from leakbench.models.judges import JUDGES, Ensemble, Judge, corrupted, train_judge
from leakbench.models.storage import build_ann, load_ann, load_checkpoint, load_network, save_network
from leakbench.models.training import predict, train
from leakbench.records import Value
from leakbench.runtime.fence import fenced, made_plugin, unless_built_in
from leakbench.runtime.process import environment, fixed_threads
from leakbench.runtime.seeds import seed_of
from leakbench.runtime.store import Artifact, Content, Store
from leakbench.snn import INPUT, SpikingNetwork, relu_network

log = logging.getLogger("leakbench")

# Versions of the stages: raise one with every change of what its stage computes.
ANN, JUDGE, JURY, FEATURES, PROTECT, UTILITY, ATTACK, ANCHOR, JUDGED, COMPARED, UAP = 1, 2, 1, 1, 1, 3, 2, 2, 1, 2, 2

JUDGED_IMAGES = 1000
"""test images at most on which the judges' own accuracy is measured"""
UAP_IMAGES = 200
"""real images on which fooling is measured: a spiking victim simulates each of them for every attack"""
ANCHOR_DRAWS = 3
"""independent draws of an anchor whose mean is the scale; one more is a check of it"""


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
    opinions: Tensor | None = None
    """the judges' mean class probabilities [N, classes]"""
    environments: dict[str, tuple[Mapping[str, str], ...]] = field(default_factory=dict)
    """of every artifact behind the values, by its key: what it was made with, and what it builds on"""


@dataclass(frozen=True)
class Jury:
    """What scores the images of one data set."""

    ensemble: Ensemble
    keys: list[str]
    """of the judges' artifacts"""
    scores: Mapping[str, Mapping[str, Any]]
    """judge (or "ensemble") -> accuracy and corrupted accuracy, as an Estimate's fields"""
    anchors: Tensor
    """indices of the test images that anchors draw from; the others are the reference"""
    real: Reference
    artifacts: tuple[Artifact, ...]
    """what it was made from"""


class Workshop:
    """Computes cells. Data sets, public images, judges and real images' features are loaded once and kept."""

    def __init__(self, settings: Settings, progress: Progress) -> None:
        self.settings = settings
        self.device = torch.device(settings.device)
        self.store = Store(Path(settings.cache), environment(self.device))
        self.progress = progress
        self._datasets: dict[str, Dataset] = {}
        self._digests: dict[str, str] = {}
        self._public: dict[tuple[str, str], tuple[PublicImages, str]] = {}
        self._juries: dict[str, Jury] = {}
        self._seeds: dict[str, int] = {}
        self._used: dict[str, Artifact] = {}

    # --- what cells build on -------------------------------------------------------------------------------------

    def dataset(self, name: str) -> Dataset:
        """The data set, loaded once."""
        if name not in self._datasets:
            self.progress(f"loading {name}", 0, 1)
            with unless_built_in("dataset", base_name(name)):
                data = self._datasets[name] = load_dataset(name, self._data_folder)
            self._digests[name] = _split_digest(data.train)
        return self._datasets[name]

    def public(self, cell: Cell) -> tuple[PublicImages, str]:
        """The public images of an attack's cell, loaded once, and their fingerprint."""
        place = cell.dataset, cell.public
        if place not in self._public:
            self.progress(f"loading public images: {cell.public}", 0, 1)
            private = self.dataset(cell.dataset)
            with unless_built_in("dataset", base_name(cell.public)):
                found = public_images(cell.public, private, self._data_folder)
            # the shape stands in the name: a digest is of bytes
            self._public[place] = found, _digest({f"{list(found.images.shape)}": found.images})
        return self._public[place]

    @property
    def _data_folder(self) -> Path | None:
        return Path(self.settings.data) if self.settings.data else None

    def _make(
        self,
        stage: str,
        version: int,
        seed: int,
        inputs: Mapping[str, Any],
        build: Callable[[Context], Content],
        parents: Iterable[Artifact] = (),
        threads: int = 1,
    ) -> Artifact:
        """The artifact of a stage; its random numbers start from ``seed``. More ``threads`` than one are in the key."""
        inputs = {**inputs, "seed": seed} | ({"threads": threads} if threads > 1 else {})

        def seeded() -> Content:
            context = Context(torch.Generator().manual_seed(seed), self.device, progress=self.progress)
            with fixed_threads(threads):
                content = build(context)
            self.store.environment["threads"] = str(threads)
            return content

        artifact = self.store.get_or_make(stage, version, inputs, seeded, parents)
        self._seeds[artifact.key] = seed
        self._used[artifact.key] = artifact
        return artifact

    def _seed(self, artifact: Artifact) -> int:
        """What an artifact's random numbers started from: part of the seeds of what is built on it."""
        return self._seeds[artifact.key]

    def ann(self, cell: Cell) -> Artifact:
        """The trained ANN of a cell (or the user's checkpoint), with its test accuracy."""
        data = self.dataset(cell.dataset)
        side = min(data.image_shape[1:])
        recipe = victim_recipe(cell.preset, len(data.train), side, data.flips)
        with unless_built_in("model", Architecture.parse(cell.model).model):
            blank = build_ann(cell.model, data.image_shape, len(data.classes), data.input_range)
        if cell.checkpoint is not None:
            load_checkpoint(Path(cell.checkpoint), blank)
            tensors, _ = save_network(blank)
            origin: dict[str, Any] = {"weights": _digest(tensors)}
        else:
            origin = {"recipe": asdict(recipe), "replicate": cell.seed}

        def build(context: Context) -> Content:
            network = blank
            if cell.checkpoint is None:
                with unless_built_in("model", Architecture.parse(cell.model).model):
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

        inputs = {"data": data.fingerprint, "model": model_label(cell.model), **origin}
        threads = SIZES[cell.preset].training_threads if cell.checkpoint is None else 1
        seed = seed_of("ann", **inputs)
        return self._make("ann", ANN, seed, inputs | model_identity(cell.model), build, threads=threads)

    def judge(self, name: str, kind: type[Judge]) -> tuple[Judge, Artifact]:
        """A judge of a data set. Its seed is its own: every victim is scored by the same judge."""
        data = self.dataset(name)
        recipe = kind.recipe(len(data.train), min(data.image_shape[1:]), data.flips)

        def build(context: Context) -> Content:
            judge = train_judge(
                kind, data.train.images, data.train.labels, len(data.classes), recipe, context.generator, self.device,
                self.progress,
            )  # fmt: skip
            return judge.state_dict(), {}

        inputs = {"data": data.fingerprint, "judge": kind.name, "recipe": asdict(recipe)}
        artifact = self._make("judge", JUDGE, seed_of("judge", **inputs), inputs, build)
        judge = kind(data.image_shape, len(data.classes))
        judge.load_state_dict(artifact.tensors)
        judge.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return judge.eval(), artifact

    def jury(self, name: str) -> Jury:
        """All judges of a data set and the real images that metrics compare with, loaded once."""
        if name not in self._juries:
            self._juries[name] = self._jury(name)
        jury = self._juries[name]
        self._used.update({artifact.key: artifact for artifact in jury.artifacts})
        return jury

    def _jury(self, name: str) -> Jury:
        data = self.dataset(name)
        pairs = [self.judge(name, kind) for kind in JUDGES]
        judges = [judge for judge, _ in pairs]
        ensemble = Ensemble(judges)
        anchors, others = split(data.test.labels)
        images, labels = data.test.images[others], data.test.labels[others]
        network: Judge | InceptionFeatures = self.inception or judges[0]
        own = [artifact.key for _, artifact in pairs]
        keys = {"judges": own, "data": data.fingerprint}

        def features(_context: Context) -> Content:
            self.progress("features of the real images", 0, 1)
            found = {"judge": predict(judges[0].features, images, self.device)}
            if self.inception is not None:
                found["distance"] = predict(self.inception.features, images, self.device)
            return found, {}

        def scores(context: Context) -> Content:
            picked = _some(len(labels), JUDGED_IMAGES)
            clean = images[picked]
            sets = {"accuracy": clean, "corrupted": corrupted(clean, context.generator)}
            record: dict[str, dict[str, Any]] = {}
            for what, x in sets.items():
                self.progress("testing the judges", len(record), len(sets))
                answers = {one.name: predict(ensemble.alone(one).probabilities, x, self.device) for one in judges}
                answers["ensemble"] = torch.stack(list(answers.values())).mean(0)
                for who, found in answers.items():
                    record.setdefault(who, {})[what] = asdict(accuracy(found, labels[picked]))
            return {}, record

        inception = {"inception": self.inception.digest} if self.inception else {}
        parents = [artifact for _, artifact in pairs]
        seed = seed_of("jury", data=data.fingerprint)
        featured = self._make("features", FEATURES, seed, keys | inception, features, parents)
        scored = self._make("jury", JURY, seed, keys, scores, parents)
        found = featured.tensors
        real = reference(images, labels, found["judge"], network, found.get("distance", found["judge"]))
        return Jury(ensemble, own, scored.record, anchors, real, (*parents, featured, scored))

    def victim(self, cell: Cell) -> tuple[ImageClassifier | SpikingNetwork, Artifact, Artifact]:
        """The protected network of a cell, its artifact, and the ANN's."""
        assert cell.defense is not None
        variant = cell.defense
        ann = self.ann(cell)
        data = self.dataset(cell.dataset)
        plugin = _plugin_of("defense", variant)
        shared: dict[str, str] = {}
        identity = {"ann": self._seed(ann), "replicate": cell.seed}
        seed = seed_of("victim", **identity, plugin=variant.name, params=_changed(plugin))

        def build(context: Context) -> Content:
            network = load_ann(ann.tensors, ann.record["network"], self.device)
            context.timesteps = cell.timesteps or 1
            context.precision = cell.precision
            context.flips = data.flips
            context.shared_store = self._shared({"ann": ann.key, **_source_of(variant)}, identity, shared)
            handle = TrainingData(data.train.images, data.train.labels)
            start = time.perf_counter()
            try:
                with fenced(variant.name, seed):
                    victim = plugin(network, handle, context)
            finally:
                self._check_private(cell.dataset, variant.name)
            seconds = time.perf_counter() - start
            tensors, record = save_network(victim)
            _check_kept(variant.name, victim, load_network(tensors, record, self.device))
            return tensors, {
                "network": record,
                "seconds": seconds,
                "training_images_read": handle.images_read,
                "training_image_reads": handle.reads,
                "shared": shared,
            }

        inputs = {**_of_variant(variant), "ann": ann.key}
        if not cell.at:
            inputs["timesteps"] = cell.timesteps
        if cell.precision != "float32":
            inputs["precision"] = cell.precision
        artifact = self._make("victim", PROTECT, seed, inputs, build, [ann])
        return self._deployed(cell, artifact), artifact, ann

    def _check_private(self, name: str, who: str) -> None:
        """Raises PluginError where a defence wrote to the private data; the next cell reads them anew."""
        if _split_digest(self.dataset(name).train) != self._digests[name]:
            del self._datasets[name]
            raise PluginError(f"{who} changed the private images or labels in place: work on copies")

    def _deployed(self, cell: Cell, artifact: Artifact) -> ImageClassifier | SpikingNetwork:
        """A copy of a victim of its own; a network for every T comes at the cell's."""
        network = load_network(artifact.tensors, artifact.record["network"], self.device)
        if cell.at and isinstance(network, SpikingNetwork):
            network = network.configured(dataclasses.replace(network.config, timesteps=cell.timesteps or 1))
            network.requires_grad_(False)
        return network

    def _shared(
        self,
        made_of: Mapping[str, Any],
        identity: Mapping[str, Any],
        used: dict[str, str],
        equip: Callable[[Context], None] = lambda _context: None,
    ) -> Callable[[str, int, Mapping[str, Any], SharedBuild], dict[str, Tensor]]:
        """Keeps what plugins share under the keys it is ``made_of``; ``equip`` gives a build's context what it needs.

        Its seed follows from ``identity`` and the parameters. The artifacts' keys go to ``used``.
        """

        def shared(name: str, version: int, params: Mapping[str, Any], build: SharedBuild) -> dict[str, Tensor]:
            seed = seed_of(f"shared-{name}", **identity, params=dict(params))

            def equipped(context: Context) -> Content:
                equip(context)
                with fenced(f"shared {name}", seed):  # its global draws are its own, and not of whoever asks first
                    return build(context), {"params": dict(params)}

            artifact = self._make(f"shared-{name}", version, seed, {**made_of, "params": dict(params)}, equipped)
            used[name] = artifact.key
            # copies: what one plugin does to them, no other sees
            return {name: tensor.clone() for name, tensor in artifact.tensors.items()}

        return shared

    # --- cells ---------------------------------------------------------------------------------------------------

    def perform(self, task: str, cell: Cell) -> Outcome:
        """The values of a cell ("compute"), or what many cells build on: its "ann", the "judges" of its data set.

        What was computed before comes from the store.
        """
        self._used = {}
        outcome = Outcome()
        if task == "ann":
            outcome.artifacts["ann"] = self.ann(cell).key
        elif task == "judges":
            self.jury(cell.dataset)
        elif cell.defense is None:
            outcome = self._anchor(cell)
        elif cell.attack is None:
            outcome = self._utility(cell)
        else:
            outcome = self._leakage(cell)
        outcome.environments = {key: artifact.environments for key, artifact in self._used.items()}
        return outcome

    def _utility(self, cell: Cell) -> Outcome:
        victim, artifact, ann = self.victim(cell)
        data = self.dataset(cell.dataset)

        stops = cell.at or ((victim.config.timesteps if isinstance(victim, SpikingNetwork) else 1),)

        def build(context: Context) -> Content:
            labels = data.test.labels
            picked = _some(len(labels), cell.test_images)
            images, labels = data.test.images[picked], labels[picked]
            if isinstance(victim, SpikingNetwork):
                longest = victim.configured(dataclasses.replace(victim.config, timesteps=max(stops)))
                found = self._simulate(longest, images, context.seed(), stops)
            else:
                found = {1: (predict(victim, images, self.device), {})}
            record: dict[str, Any] = {
                str(steps): {
                    "accuracy": asdict(accuracy(_finite(logits, "the protected network"), labels)),
                    "spikes": {name: count / len(images) for name, count in spikes.items()},
                }
                for steps, (logits, spikes) in found.items()
            }
            read_out = _finite(predict(relu_network(victim), images, self.device), "the reconverted network")
            return {}, record | {"reconverted": asdict(accuracy(read_out, labels))}

        inputs: dict[str, Any] = {"victim": artifact.key, "test_images": cell.test_images}
        if cell.at:
            inputs["at"] = list(cell.at)
        seed = seed_of("utility", victim=self._seed(artifact))
        measured = self._make("utility", UTILITY, seed, inputs, build, [artifact])
        steps = victim.config.timesteps if isinstance(victim, SpikingNetwork) else 1
        own = measured.record[str(steps)]
        values = [
            value("accuracy", Estimate(**own["accuracy"])),
            value("ann_accuracy", Estimate(**ann.record["accuracy"])),
            value("reconverted_accuracy", Estimate(**measured.record["reconverted"])),
            _count("training_images_read", artifact.record["training_images_read"]),
            _count("seconds", artifact.record["seconds"]),
            _count("timesteps", steps),
        ]
        details: dict[str, Any] = {}
        reference = load_ann(ann.tensors, ann.record["network"], self.device)
        before, after = _weights(reference), _weights(relu_network(victim))
        if before.keys() == after.keys() and all(before[name].shape == after[name].shape for name in before):
            details["motion"] = weight_motion(before, after)
            values.append(_count("weight_cosine", overall_cosine(before, after)))
        if isinstance(victim, SpikingNetwork):
            layers = operations(victim, own["spikes"])
            details["energy"] = layers
            details["timesteps"] = steps
            ratios = energy_ratios(layers, steps)
            values += [_count(name, ratio) for name, ratio in ratios.values.items()]
            for name, reason in ratios.undefined.items():
                log.warning("%s left out: %s", name, reason)
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
        stops: Sequence[int],
        batch_size: int = 100,  # twice the images take twice the time each: tensors of a GiB miss every cache
    ) -> dict[int, tuple[Tensor, dict[str, int]]]:
        """Steps -> (logits [N, classes], spikes by layer) after so many, from one simulation."""
        logits: dict[int, list[Tensor]] = {steps: [] for steps in stops}
        spikes: dict[int, Counter[str]] = {steps: Counter() for steps in stops}
        with torch.no_grad():
            for first in range(0, len(images), batch_size):
                self.progress("asking the protected network", first, len(images))
                x = images[first : first + batch_size].to(self.device)
                x = x.float() / 255 if x.dtype == torch.uint8 else x
                for steps, simulation in network.simulate_at(x, stops, seed, first).items():
                    logits[steps].append(simulation.logits.cpu())
                    spikes[steps].update(simulation.spikes)
        return {steps: (torch.cat(logits[steps]), dict(spikes[steps])) for steps in stops}

    def _leakage(self, cell: Cell) -> Outcome:
        assert cell.attack is not None
        network, victim_artifact, _ = self.victim(cell)
        plugin = _plugin_of("attack", cell.attack)
        classes = network.classes
        known: dict[str, Any] = {"flips": self.dataset(cell.dataset).flips}
        public: PublicImages | None = None
        if cell.public:
            public, known["public"] = self.public(cell)
        shared: dict[str, str] = {}
        variant = cell.attack
        # of each network its own: starts that all networks share would make their outcomes alike
        seed = seed_of(
            "attack", victim=self._seed(victim_artifact), plugin=variant.name, params=_changed(plugin),
            replicate=cell.seed,
        )  # fmt: skip

        def equip(context: Context) -> None:
            context.flips = known["flips"]
            if public is not None:  # a copy of its own, as of the network
                context.public = public._replace(images=public.images.clone())

        def build(context: Context) -> Content:
            equip(context)
            if public is not None:
                made_of = {**known, **_source_of(variant)}
                context.shared_store = self._shared(made_of, {**known, "replicate": cell.seed}, shared, equip)
            targets = torch.arange(classes).repeat_interleave(cell.images_per_class)
            # a copy of its own: what an attack does to the network must not reach what is measured on it
            handed = self._deployed(cell, victim_artifact)
            with fenced(variant.name, seed):
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
            }, {"cost": asdict(made.cost), "findings": made.findings, "shared": shared}

        inputs = {
            **_of_variant(cell.attack),
            **known,
            "victim": _identity(cell, victim_artifact),
            "images_per_class": cell.images_per_class,
        }
        attack = self._make("attack", ATTACK, seed, inputs, build, [victim_artifact])
        confidence = attack.tensors["confidence"].double()
        hits = int((attack.tensors["predicted"] == attack.tensors["targets"]).sum())
        measured = self._measured(cell, attack)
        if not cell.of:
            measured.add(self._fooled(cell, attack, network, victim_artifact))
        outcome = self._outcome(cell, measured, attack)
        outcome.values += [
            value("victim_accuracy", proportion(hits, len(confidence))),
            value("victim_confidence", mean(confidence.tolist())),
            _count("seconds", attack.record["cost"]["seconds"]),
            _count("queries", attack.record["cost"]["queries"]),
            _count("gradient_steps", attack.record["cost"]["gradient_steps"]),
        ]
        outcome.details["findings"] = attack.record["findings"]
        outcome.details["public"] = public.source if public else ""
        outcome.artifacts["victim"] = victim_artifact.key
        outcome.artifacts = attack.record["shared"] | outcome.artifacts
        return outcome

    def _anchor(self, cell: Cell) -> Outcome:
        """Noise or real images, scored as reconstructions are and at the same number of images: several draws."""
        numbers = (ANCHOR_DRAWS,) if cell.of else range(ANCHOR_DRAWS)
        draws = [self._draw(cell, number) for number in numbers]
        return self._outcome(cell, merged([self._measured(cell, draw) for draw in draws]), draws[0])

    def _draw(self, cell: Cell, number: int) -> Artifact:
        data, jury = self.dataset(cell.dataset), self.jury(cell.dataset)

        def build(context: Context) -> Content:
            if cell.anchor == "noise":
                targets = torch.arange(len(data.classes)).repeat_interleave(cell.images_per_class)
                shape = (len(targets), *data.image_shape)
                images = torch.randint(0, 256, shape, generator=context.generator, dtype=torch.uint8)
                return {"images": images, "targets": targets}, {}
            own = data.test.labels[jury.anchors]
            index = jury.anchors[some_of_each(own, cell.images_per_class, context.generator)]
            return {"images": data.test.images[index], "targets": data.test.labels[index]}, {}

        inputs = {
            "data": data.fingerprint,
            "anchor": cell.anchor,
            "images_per_class": cell.images_per_class,
            "replicate": cell.seed,
            "draw": number,
        }
        return self._make("anchor", ANCHOR, seed_of("anchor", **inputs), inputs, build)

    def _opinions(self, jury: Jury, made: Artifact) -> Artifact:
        def build(_context: Context) -> Content:
            opinions = predict(jury.ensemble.probabilities, made.tensors["images"], self.device)
            return {"opinions": opinions}, judged(opinions, made.tensors["targets"]).to_json()

        seed = seed_of("judged", images=self._seed(made))
        inputs = {"images": made.key, "judges": jury.keys}
        return self._make("judged", JUDGED, seed, inputs, build, [made, *jury.artifacts])

    def _measured(self, cell: Cell, made: Artifact) -> Measured:
        """The metrics of a set of images; of a half-effort attack only what the judges say."""
        jury = self.jury(cell.dataset)
        found = Measured.from_json(self._opinions(jury, made).record)
        if cell.of and cell.attack:
            return found

        def build(context: Context) -> Content:
            images = made.tensors["images"]
            own = predict(jury.ensemble.judges[0].features, images, self.device)
            inception = self.inception
            features = predict(inception.features, images, self.device) if inception else own
            return {}, compared(images, made.tensors["targets"], own, features, jury.real, context).to_json()

        inputs = {
            "images": made.key,
            "judges": jury.keys,
            "features": self.inception.digest if self.inception else "",
        }
        seed = seed_of("compared", images=self._seed(made))
        measured = self._make("compared", COMPARED, seed, inputs, build, [made, *jury.artifacts])
        found.add(Measured.from_json(measured.record))
        return found

    def _fooled(
        self, cell: Cell, attack: Artifact, network: ImageClassifier | SpikingNetwork, victim_artifact: Artifact
    ) -> Measured:
        """What a universal perturbation from the reconstructions does to the deployed network, and its brackets."""
        jury = self.jury(cell.dataset)
        real = jury.real
        picked = some_of_each(real.labels, -(-UAP_IMAGES // network.classes), torch.Generator().manual_seed(3))
        images = real.images[picked].float() / 255
        epsilon = default_epsilon(network.image_shape[0])
        twin = relu_network(network)

        def named(delta: Tensor | float) -> Tensor:
            x = (images + delta).clamp(0, 1)
            if isinstance(network, SpikingNetwork):
                logits, _ = self._simulate(network, x, 0, [network.config.timesteps])[network.config.timesteps]
            else:
                logits = predict(network, x, self.device)
            return logits.argmax(1)

        def perturbation(x: Tensor) -> Tensor:
            return universal_perturbation(twin, (x.float() / 255).to(self.device), epsilon).cpu()

        def brackets(context: Context) -> Content:
            before = named(0.0)
            signs = named(random_signs(network.image_shape, epsilon, context.generator))
            data = self.dataset(cell.dataset)
            known = jury.anchors[some_of_each(data.test.labels[jury.anchors], cell.images_per_class, context.generator)]
            real_images = data.test.images[known]
            noise = torch.randint(0, 256, real_images.shape, generator=context.generator, dtype=torch.uint8)
            rates = {
                "uap_fooling_random": fooling_rate(before, signs),
                "uap_fooling_noise": fooling_rate(before, named(perturbation(noise))),
                "uap_fooling_real": fooling_rate(before, named(perturbation(real_images))),
            }
            return {"before": before}, Measured([value(name, rate) for name, rate in rates.items()]).to_json()

        def build(_context: Context) -> Content:
            after = named(perturbation(attack.tensors["images"]))
            rate = fooling_rate(bracketed.tensors["before"], after)
            return {}, Measured([value("uap_fooling", rate)]).to_json()

        victim = _identity(cell, victim_artifact)
        at = {"victim": victim, "images_per_class": cell.images_per_class, "test_images": len(picked)}
        seed = seed_of("uap-brackets", victim=self._seed(victim_artifact))
        bracketed = self._make("uap-brackets", UAP, seed, at, brackets, [victim_artifact])
        seed = seed_of("uap", attack=self._seed(attack))
        made_of = {"attack": attack.key, "brackets": bracketed.key}
        measured = self._make("uap", UAP, seed, made_of, build, [attack, bracketed])
        found = Measured.from_json(measured.record)
        found.add(Measured.from_json(bracketed.record))
        return found

    def _outcome(self, cell: Cell, measured: Measured, made: Artifact) -> Outcome:
        for line in measured.refused:
            log.warning("%s", line)
        jury = self.jury(cell.dataset)
        return Outcome(
            list(measured.values),
            {"classes": measured.classes},
            artifacts={"images": made.key, **dict(zip((f"judge {k.name}" for k in JUDGES), jury.keys, strict=True))},
            images=made.tensors["images"],
            targets=made.tensors["targets"],
            opinions=self._opinions(jury, made).tensors["opinions"],
        )

    @cached_property
    def inception(self) -> InceptionFeatures | None:
        """pytorch-fid's network, where its weights are at hand."""
        given = self.settings.inception
        path = find_inception_weights(Path(given) if given else None)
        return InceptionFeatures(path, self.device) if path else None


def operations(network: SpikingNetwork, spikes: Mapping[str, float]) -> list[LayerOperations]:
    """The operations of each weight layer, from spikes counted where they are made (mean per image)."""
    constant = network.config.encoder == "direct"
    weights = network.weights()
    topology = network.topology
    own = {
        layer.name: [name for name, fed_by in topology.feeders.items() if layer.name in fed_by]
        for layer in topology.weights
    }
    return [
        LayerOperations(
            layer=layer.name,
            macs=layer.macs,
            input_neurons=layer.input_neurons,
            spikes_in=float(sum(spikes[name] for name in layer.producers)),
            constant_current=constant and INPUT in layer.producers,
            output_neurons=layer.output_neurons,
            parameters=weights[layer.name].numel(),
            spikes_out=float(sum(spikes[name] for name in own[layer.name])),
            spiking_neurons=sum(topology.neurons[name] for name in own[layer.name]),
        )
        for layer in topology.weights
    ]


def _identity(cell: Cell, victim: Artifact) -> str:
    """What an attack's key says of a victim: a network for every T is another victim at every T."""
    return f"{victim.key} at {cell.timesteps}" if cell.at else victim.key


def _of_variant(variant: Variant) -> dict[str, Any]:
    """What a key says of a plugin: what it runs itself, and of a third party's where it is from and its source."""
    identity: dict[str, Any] = {"plugin": variant.name, "version": variant.version, "params": dict(variant.params)}
    if variant.members:
        identity["members"] = [member.model_dump(mode="json") for member in variant.members]
    if not variant.code:
        return identity
    # one file may hold several classes of one name: a variant of an attack inherits it
    made_by = {"code": variant.code, "origin": variant.origin, "class": variant.target.rpartition(":")[2]}
    return {**identity, **made_by}


def _plugin_of(kind: registry.Kind, variant: Variant) -> Any:
    """The plugin of a variant. PluginError where its code is no longer what the variant's key says."""
    plugin = made_plugin(kind, variant.target, variant.params)
    if variant.code and registry.source(kind, variant.target).digest != variant.code:
        raise PluginError(f"{variant.target} was edited while the run was under way: start it again")
    return plugin


def _source_of(variant: Variant) -> dict[str, str]:
    """Of a third party's plugin its source and where it is from: part of the key of whatever it makes."""
    return {"code": variant.code, "origin": variant.origin} if variant.code else {}


@torch.no_grad()
def _check_kept(who: str, made: ImageClassifier | SpikingNetwork, kept: ImageClassifier | SpikingNetwork) -> None:
    """Raises PluginError where a network answers otherwise after it went through the store.

    Weights and thresholds are kept, and no code: a forward of its own, hooks and layers without weights are lost, and
    another network than the defence's would be measured. Spikes may differ at ties, answers as a whole may not.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(8, *made.image_shape, generator=generator)
    # networks of few steps are silent on noise
    coarse = torch.rand(8, made.image_shape[0], 4, 4, generator=generator).round()
    patterns = torch.nn.functional.interpolate(coarse, made.image_shape[1:])
    probes = torch.cat([noise, patterns]).to(next(kept.parameters()).device)
    before, after = (
        network(probes, seed=0) if isinstance(network, SpikingNetwork) else network(probes) for network in (made, kept)
    )
    if float((before - after).abs().mean()) > 0.1 * float(before.std()) + 1e-6:
        raise PluginError(
            f"{who}: the network answers otherwise after it was stored and loaded: of a SpikingNetwork or "
            "ImageClassifier only weights, thresholds and settings are kept, no code of its own"
        )


def _changed(plugin: Plugin[Any]) -> dict[str, Any]:
    """The parameters that are not the defaults: what a seed follows from, so that a new one changes no old number."""
    params: Params = plugin.params
    return params.model_dump(mode="json", exclude_defaults=True)


def _split_digest(split: Split) -> str:
    return _digest({"images": split.images, "labels": split.labels})


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


def _count(metric: str, amount: float) -> Value:
    """A value without sampling error."""
    return value(metric, Estimate(float(amount)))


def check_device(name: str) -> str:
    """``auto`` is the first accelerator that is there, else the CPU; anything else must exist."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(
            f"--device {name}: not usable here ({str(error).partition(chr(10))[0]}): cpu always is"
        ) from None
    return name
