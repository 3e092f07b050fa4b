"""Networks that are given as they are deployed: nothing is built, and nobody's training is repeated."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from pydantic import Field

from leakbench import registry
from leakbench.contracts import Defense, DefenseContext, ImageClassifier, InputRange, Params, TrainingData
from leakbench.errors import PluginError, UsageError
from leakbench.models.asked import Asking, module_of
from leakbench.models.files import file_digest, read_network
from leakbench.models.storage import build_ann
from leakbench.runtime.workspace import digest as digest_of
from leakbench.snn import SpikingNetwork

PREFIX = "network:"
"""how the name of such a defence begins; the path of the network's file follows"""


def of_file(name: str) -> type[Defense[Params]]:
    """The defence that deploys the network of a file, ``network:PATH``. UsageError where there is none."""
    path = Path(name.removeprefix(PREFIX)).absolute()
    if not path.is_file():
        raise UsageError(f"{PREFIX}: no such file {str(path)!r}")
    return _given(path, file_digest(path))


def of_module(target: str) -> type[Defense[Params]]:
    """The defence that deploys a module, ``module: ... of path/to/file.py:function``.

    UsageError or PluginError, one line, where there is none.
    """
    file = registry.in_file(target)
    tensors = module_of(registry.from_file(file)).state_dict()
    said = f"{registry.source('model', file).digest} {digest_of(tensors)}"
    return _given_module(target, hashlib.sha256(said.encode()).hexdigest())


@lru_cache(maxsize=16)
def _given_module(target: str, digest: str) -> type[Defense[Params]]:
    asking, file = Asking.parse(target), registry.in_file(target)

    class GivenParams(Params):
        """Which module it is."""

        sha256: str = Field(digest, description="of the function's file and the module's tensors")

    class Given(Defense[GivenParams]):
        """A module as it is deployed."""

        name = _title(Path(file.rpartition(":")[0]))
        cites = "given as a module"
        spiking = False

        def protect(
            self,
            ann: ImageClassifier,
            data: TrainingData,  # noqa: ARG002
            context: DefenseContext,
        ) -> ImageClassifier:
            if digest != self.params.sha256:
                raise PluginError(f"{file!r} builds another module each time: let it load its weights from a file")
            ranges = InputRange(*asking.range)
            return build_ann(target, ann.image_shape, ann.classes, ranges).to(context.device)

    return Given  # type: ignore[return-value]


def _title(path: Path) -> str:
    return "".join(char for char in path.stem if char.isprintable() and char not in "[]=,") or "network"


@lru_cache(maxsize=16)
def _given(path: Path, digest: str) -> type[Defense[Params]]:
    network = read_network(path, PREFIX)

    class GivenParams(Params):
        """Which network it is."""

        sha256: str = Field(digest, description="of the file")

    class Given(Defense[GivenParams]):
        """A network as it is deployed."""

        name = _title(path)
        cites = "given as a file"
        spiking = isinstance(network, SpikingNetwork)
        anytime = True

        def protect(
            self,
            ann: ImageClassifier,  # noqa: ARG002 - another network of the same shape
            data: TrainingData,  # noqa: ARG002
            context: DefenseContext,
        ) -> SpikingNetwork | ImageClassifier:
            if file_digest(path) != self.params.sha256:
                raise PluginError(f"{str(path)!r} was edited while the run was under way: start it again")
            return read_network(path, PREFIX).to(context.device)

    return Given  # type: ignore[return-value]
