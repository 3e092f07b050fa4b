"""Where stages work: the store, the data sets and public images of a run, each loaded once.

A stage is a step from inputs to an artifact. It names itself and its version (:class:`Stage`), and has its artifact
made by :meth:`Workspace.make`, or read from the store where the same inputs were met before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from leakbench.contracts import Context, Precision, Progress, PublicImages
from leakbench.data import Dataset, Split, base_name, load_dataset, public_images
from leakbench.errors import PluginError
from leakbench.paths import default_cache, default_local_cache
from leakbench.runtime.checkpoints import CheckpointFolder
from leakbench.runtime.fence import unless_built_in
from leakbench.runtime.plugins import Isolation
from leakbench.runtime.process import environment, fixed_threads
from leakbench.runtime.store import Artifact, Content, Store, artifact_key

T = TypeVar("T")
C = TypeVar("C", bound=Context)


@dataclass(frozen=True)
class Settings:
    """What a run needs besides its cells: where things are, what they run on, and how evaluation models are made."""

    cache: str
    local_cache: str | None = None
    """folder on a disk of each machine for copies of what is in ``cache``"""
    data: str | None = None
    device: str = "cpu"
    inception: str | None = None
    features: str | None = None
    judges: str | None = None
    """folder of evaluation models that take the place of training"""
    precision: Precision = "float32"
    """that evaluation models of pictures are trained in"""
    isolation: Isolation = field(default_factory=Isolation)
    """how worker processes treat plugins: as the one that starts them"""

    def placed(self) -> list[str]:
        """Which of them say where files lie, but for what is so by default: a run that goes on needs them again."""
        usual = {"cache": default_cache(), "local_cache": default_local_cache()}
        names = ("cache", "local_cache", "data", "inception", "features")
        return [name for name in names if (path := getattr(self, name)) is not None and path != str(usual.get(name))]


@dataclass(frozen=True)
class Stage:
    """A step of a run. Its version stands beside its code: raise it with every change of what is computed."""

    name: str
    version: int


@dataclass
class Usage:
    """The artifacts that a task has read or made."""

    artifacts: dict[str, Artifact] = field(default_factory=dict)

    @property
    def environments(self) -> dict[str, tuple[Mapping[str, str], ...]]:
        """Key of each artifact -> what it was made with, and what it builds on."""
        return {key: artifact.environments for key, artifact in self.artifacts.items()}


class Workspace:
    """The store of a run and what its stages share in one process."""

    def __init__(self, settings: Settings, progress: Progress) -> None:
        self.settings = settings
        self.device = torch.device(settings.device)
        local = Path(settings.local_cache) if settings.local_cache else None
        self.store = Store(Path(settings.cache), environment(self.device), local)
        self.progress = progress
        self._datasets: dict[str, Dataset] = {}
        self._digests: dict[str, str] = {}
        self._kept: dict[Hashable, Any] = {}
        self._latest: dict[str, tuple[Hashable, Any, Mapping[str, Artifact]]] = {}
        self._seeds: dict[str, int] = {}
        self._usage = Usage()

    # --- data --------------------------------------------------------------------------------------------------------

    def dataset(self, name: str) -> Dataset:
        """The data set, loaded once."""
        if name not in self._datasets:
            self.progress(f"loading {name}", 0, 1)
            with unless_built_in("dataset", base_name(name)):
                data = self._datasets[name] = load_dataset(name, self._data_folder)
            self._digests[name] = _split_digest(data.train)
        return self._datasets[name]

    def check_private(self, name: str, plugin_name: str) -> None:
        """Raises PluginError where a plugin wrote to the private data; the next cell reads them anew."""
        if _split_digest(self.dataset(name).train) != self._digests[name]:
            del self._datasets[name]
            self._kept.clear()  # what was kept of them may hold the same tensors
            self._latest.clear()
            raise PluginError(f"{plugin_name} changed the private images or labels in place: work on copies")

    def public(self, source: str, dataset: str) -> tuple[PublicImages, str]:
        """The public images of that source beside the data set, loaded once, and their fingerprint."""

        def load() -> tuple[PublicImages, str]:
            self.progress(f"loading public images: {source}", 0, 1)
            private = self.dataset(dataset)
            with unless_built_in("dataset", base_name(source)):
                public = public_images(source, private, self._data_folder)
            # the shape stands in the name: a digest is of bytes
            return public, digest({f"{list(public.images.shape)}": public.images})

        return self.once(("public", dataset, source), load)

    @property
    def _data_folder(self) -> Path | None:
        return Path(self.settings.data) if self.settings.data else None

    def once(self, what: Hashable, compute: Callable[[], T]) -> T:
        """What many cells need and no artifact holds (loaded models, statistics): computed once a process."""
        if what not in self._kept:
            self._kept[what] = compute()
        kept: T = self._kept[what]
        return kept

    def latest(self, what: str, key: Hashable, compute: Callable[[], T]) -> T:
        """What several cells need one after the other: kept until another of that kind is asked for.

        The artifacts behind it count as used each time.
        """
        known, value, artifacts = self._latest.get(what, (None, None, {}))
        if known != key:
            self._latest.pop(what, None)  # it may be large
            with self.usage() as usage:
                value = compute()
            artifacts = usage.artifacts
            self._latest[what] = key, value, artifacts
        self.use(artifacts.values())
        kept: T = value
        return kept

    # --- artifacts ---------------------------------------------------------------------------------------------------

    def make(
        self,
        stage: Stage,
        seed: int,
        inputs: Mapping[str, Any],
        build: Callable[[C], Content],
        parents: Iterable[Artifact] = (),
        *,
        context: type[C] = Context,  # type: ignore[assignment]
        threads: int = 1,
    ) -> Artifact:
        """The artifact of a stage; its random numbers start from ``seed``. More ``threads`` than one are in the key.

        ``build`` gets a ``context`` of that class.
        """
        inputs = {**inputs, "seed": seed} | ({"threads": threads} if threads > 1 else {})

        def seeded() -> Content:
            given = context(torch.Generator().manual_seed(seed), self.device, progress=self.progress)
            with self.store.state(key) as folder, fixed_threads(threads):
                if folder is not None:
                    states = CheckpointFolder(folder, {**self.store.environment, "threads": str(threads)})
                    given.checkpoints = states.checkpoint
                # what a build takes is behind its artifact, whose environments say so, and only there when it is built
                with self.usage():
                    content = build(given)
            self.store.environment["threads"] = str(threads)
            return content

        key = artifact_key(stage.name, stage.version, inputs)
        artifact = self.store.get_or_make(stage.name, stage.version, inputs, seeded, parents)
        self._seeds[artifact.key] = seed
        self._usage.artifacts[artifact.key] = artifact
        return artifact

    def seed(self, artifact: Artifact) -> int:
        """What an artifact's random numbers started from: part of the seeds of what is built on it."""
        return self._seeds[artifact.key]

    @contextmanager
    def usage(self) -> Iterator[Usage]:
        """Keeps account of the artifacts that are read or made inside."""
        before, self._usage = self._usage, Usage()
        try:
            yield self._usage
        finally:
            self._usage = before

    def use(self, artifacts: Iterable[Artifact]) -> None:
        """Count artifacts as used that were kept since an earlier task."""
        self._usage.artifacts.update({artifact.key: artifact for artifact in artifacts})


def digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of tensors' names and bytes."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(name.encode())
        total.update(tensors[name].numpy().tobytes())
    return total.hexdigest()


def _split_digest(split: Split) -> str:
    return digest({"images": split.images, "labels": split.labels})
