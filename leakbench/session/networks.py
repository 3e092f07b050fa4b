"""Networks that a run made, out of the store again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from leakbench.bench.stages.victim import READ, VictimRecord
from leakbench.built_ins import MODULE
from leakbench.contracts import ImageClassifier
from leakbench.errors import UnknownName, UsageError
from leakbench.models.storage import load_network
from leakbench.paths import default_cache
from leakbench.records import RunRecord
from leakbench.runtime.process import environment
from leakbench.runtime.store import Store
from leakbench.snn import SpikingNetwork


def deployed_network(
    record: RunRecord, defense: str, seed: int, cache: Path | None
) -> SpikingNetwork | ImageClassifier:
    """The network that a defence of a run deployed. UsageError where the run has several of it, or the store none."""
    known = [cell for cell in record.cells if cell.defense and not cell.attack and not cell.of]
    cells = [cell for cell in known if cell.defense == defense]
    if not cells:
        raise UnknownName("defence of this run", defense, {cell.defense for cell in known})
    of_seed = [cell for cell in cells if cell.seed == seed]
    if len(of_seed) != 1:
        seeds = ", ".join(map(str, sorted({cell.seed for cell in cells})))
        places = len({(cell.dataset, cell.model) for cell in cells})
        several = f"it has {places} data sets or models" if places > 1 else f"its seeds are {seeds}"
        raise UsageError(f"--snn {defense}: which network? --seed {seed} names {len(of_seed)}: {several}")
    (cell,) = of_seed
    key = cell.artifacts.get("victim")
    if key is None:
        raise UsageError(f"--snn {defense}: this network failed: {cell.reason or 'the report says why'}")
    folder = cache or default_cache()
    artifact = Store(folder, environment(torch.device("cpu"))).read(key)
    if artifact is None:
        raise UsageError(f"--snn {defense}: the store {str(folder)!r} has this network no more: run the grid again")
    saved = VictimRecord.read(artifact).network
    if str(saved.get("arch", "")).startswith(MODULE):
        raise UsageError(f"--snn {defense}: a module that is asked as it is can't be exported: its file is the network")
    tensors = {name: tensor for name, tensor in artifact.tensors.items() if name != READ}
    network = load_network(tensors, saved, torch.device("cpu"))
    if isinstance(network, SpikingNetwork) and cell.timesteps is not None:  # one network may serve every T
        network = network.configured(replace(network.config, timesteps=cell.timesteps))
    return network
