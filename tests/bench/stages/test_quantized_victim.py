"""Rows with quantize=int8: the network of the row without it, its weights rounded, whoever wrote the defence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from isolated_cells import built, here
from tiny_runs import OURS, Warm, cell_of, run_here, value_of

from leakbench.bench.stages.victim import VICTIM
from leakbench.errors import NotApplicable
from leakbench.runtime.isolation.confinement import what_is_lacking
from leakbench.runtime.store import Store
from leakbench.snn.quantization import integers_of, quantized, weight_layers

NOISY = '''
import torch
from leakbench.contracts import Defense, Params

class Noisy(Defense[Params]):
    """Noise on the weights."""

    name = "noisy"
    spiking = False

    def protect(self, ann, data, context):
        import copy
        noisy = copy.deepcopy(ann)
        for weight in noisy.parameters():
            weight.data += 0.01 * torch.randn(weight.shape, generator=context.generator)
        return noisy
'''


def setting(name: str) -> dict[str, list[str]]:
    return {f"{name}.quantize": ["int8"]}


@pytest.mark.slow
@pytest.mark.parametrize("defense", ["han2020", "ann"])
def test_the_same_network_is_rounded_and_built_once(warm: Warm, tmp_path: Path, defense: str) -> None:
    plain = built(warm.tiny, tmp_path, defense).deployed
    rounded = built(warm.tiny, tmp_path, defense, set=setting(defense))
    wanted = quantized(plain.network).state_dict()
    got = rounded.deployed.network.state_dict()
    assert got.keys() == wanted.keys() and all(torch.equal(got[name], wanted[name]) for name in wanted)
    assert all(integers_of(layer.weight) is not None for layer in weight_layers(rounded.deployed.network).values())
    assert all(integers_of(layer.weight) is None for layer in weight_layers(plain.network).values())
    assert rounded.images_read == (48 if defense == "han2020" else 0)
    manifests = list((tmp_path / "objects").glob("??/*/manifest.json"))
    assert sum(f'"stage": "{VICTIM.name}"' in path.read_text() for path in manifests) == 2
    assert Store(tmp_path).read(plain.artifact.key) is not None and plain.artifact.key != rounded.deployed.artifact.key


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.skipif(bool(what_is_lacking()), reason="this system can't isolate")
def test_an_isolated_defence_needs_to_know_nothing_of_it(warm: Warm, tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(NOISY)
    target = f"{tmp_path / 'noisy.py'}:Noisy"
    with here(True, tmp_path / "cache", warm.tiny.images):
        plain = built(warm.tiny, tmp_path / "cache", target).deployed.network
        rounded = built(warm.tiny, tmp_path / "cache", target, set=setting("noisy")).deployed.network
    wanted = quantized(plain).state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in rounded.state_dict().items())


@pytest.mark.slow
def test_both_rows_are_in_the_record_with_what_they_measured(warm: Warm, tmp_path: Path) -> None:
    options = warm.tiny.options(
        attack=["direct"], controls=False,
        set={"direct.iterations": ["2"], f"{OURS}.images": ["16"], f"{OURS}.quantize": ["none", "int8"]},
    )  # fmt: skip
    record = run_here(options, warm.grown, tmp_path / "run")
    rows = [cell for cell in record.cells if cell.defense and not cell.attack]
    assert [row.defense for row in rows] == [f"{OURS}[images=16]", f"{OURS}[images=16,quantize=int8]"]
    plain, rounded = rows
    assert plain.defense_params == cell_of(warm.record, OURS).defense_params
    assert plain.artifacts == cell_of(warm.record, OURS).artifacts  # no key of other runs has changed
    assert rounded.defense_params == {**plain.defense_params, "quantize": "int8"}
    assert 0 < max(motion.relative_norm for motion in rounded.motion) < 0.01
    assert value_of(rounded, "weight_cosine") == pytest.approx(1, abs=1e-3)
    attacked = {cell.defense for cell in record.cells if cell.attack == "direct[iterations=2]" and not cell.of}
    assert attacked == {row.defense for row in rows}


@pytest.mark.slow
def test_why_it_is_not_applicable_is_said_of_the_row(
    warm: Warm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leakbench.snn.quantization.weight_layers", lambda _network: {})
    with pytest.raises(NotApplicable, match=r"^ann: quantize=int8: it has no convolution and no linear layer"):
        built(warm.tiny, tmp_path, "ann", set=setting("ann"))
