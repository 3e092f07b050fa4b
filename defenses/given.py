"""Networks that are given as they are deployed: nothing is built, and nobody's training is repeated."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from pydantic import Field

from leakbench.contracts import Defense, DefenseContext, ImageClassifier, Params, TrainingData
from leakbench.errors import PluginError, UsageError
from leakbench.models.files import file_digest, read_network
from leakbench.snn import SpikingNetwork

PREFIX = "network:"
"""how the name of such a defence begins; the path of the network's file follows"""


def of_file(name: str) -> type[Defense[Params]]:
    """The defence that deploys the network of a file, ``network:PATH``. UsageError where there is none."""
    path = Path(name.removeprefix(PREFIX)).absolute()
    if not path.is_file():
        raise UsageError(f"{PREFIX}: no such file {str(path)!r}")
    return _given(path, file_digest(path))


@lru_cache(maxsize=16)
def _given(path: Path, digest: str) -> type[Defense[Params]]:
    network = read_network(path, PREFIX)
    title = "".join(char for char in path.stem if char.isprintable() and char not in "[]=,") or "network"

    class GivenParams(Params):
        """Which network it is."""

        sha256: str = Field(digest, description="of the file")

    class Given(Defense[GivenParams]):
        """A network as it is deployed."""

        name = title
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
