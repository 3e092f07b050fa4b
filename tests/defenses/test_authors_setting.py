"""``setting=authors`` against what the authors' public code says, written down here, and observed at work.

The numbers are those of the public repository (image synthesis, conversion script, spiking VGG) and, for encryption
training, of the options that its script had and of the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from test_synthesis import linear_ann
from torch import Tensor, nn
from torch.nn import functional

from leakbench.contracts import DefenseContext, ImageClassifier, TrainingData
from leakbench.defenses import datafree, privatesnn
from leakbench.defenses.datafree import DataFree
from leakbench.defenses.privatesnn import PrivateSNN
from leakbench.defenses.synthesis import class_similarity, synthetic_set
from leakbench.errors import UsageError
from leakbench.models.storage import build_ann
from leakbench.models.vgg import _vgg
from leakbench.snn import Neuron, SpikingConfig, SpikingNetwork, Surrogate
from leakbench.snn.neurons import TimeFixedDropout

NO_DATA = TrainingData(torch.zeros(0, 3, 32, 32, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64))
both = pytest.mark.parametrize("kind", [DataFree, PrivateSNN])


def context(flips: bool = False, timesteps: int = 5) -> DefenseContext:
    return DefenseContext(torch.Generator().manual_seed(3), timesteps=timesteps, flips=flips)


# --- synthesis -------------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.slow
def test_labels_and_images_are_those_of_the_public_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """One image at a time in [-1, 1], 2499 steps of Adam, cross-entropy at temperature 20, cut to bytes at the end.

    Gradients of an image are never cleared: Adam gets the sum of all so far.
    """
    ann, drawn, real = linear_ann(), [], torch.distributions.Dirichlet

    def dirichlet(alpha: Tensor) -> torch.distributions.Dirichlet:
        drawn.append(alpha)
        return real(alpha)

    monkeypatch.setattr(torch.distributions, "Dirichlet", dirichlet)
    made = synthetic_set(ann, DataFree(setting="authors", samples=5).params, context())
    # beta is 1: the concentrations are the similarities (a zero is none that torch takes)
    torch.testing.assert_close(drawn[0], class_similarity(ann), rtol=0, atol=2e-4)

    generator = torch.Generator().manual_seed(3)
    torch.randint(2**31 - 1, (1,), generator=generator)  # the labels'
    noise = torch.rand(5, 3, 2, 2, generator=generator)
    outside = 0
    for start, label, found in zip(noise, made["soft_labels"], made["images"], strict=True):
        z = ((start[None] - 0.5) / 0.5).requires_grad_()
        optimizer = torch.optim.Adam([z], lr=0.001)
        for _ in range(1, 2500):
            torch.mean(torch.sum(-label * torch.log_softmax(ann.body(z) / 20, 1), 1)).backward()
            optimizer.step()
        outside += int((z.detach().abs() > 1).sum())
        kept = (z.detach()[0] / 2 + 0.5).clamp(0, 1).mul(255).round()
        # rounding: Adam's steps differ in their last digits between batches of 1 and of 5
        assert (found - kept).abs().max() <= 1
    assert outside > 0


def test_grey_images_take_steps_of_the_same_length_in_their_own_range(digits_ann: ImageClassifier) -> None:
    seen: list[Tensor] = []
    handle = digits_ann.body.register_forward_pre_hook(lambda _module, args: seen.append(args[0].detach().clone()))
    params = DataFree(setting="authors", samples=10, synthesis_steps=2).params
    synthetic_set(digits_ann, params, context())
    handle.remove()
    assert digits_ann.input_range == (0.0, 1.0)
    assert (seen[1] - seen[0]).abs().max().item() == pytest.approx(1e-3, rel=1e-2)


# --- conversion ------------------------------------------------------------------------------------------------------


def striped(count: int) -> Mapping[str, Tensor]:
    """Images of 32x32 that are brighter to the right and nowhere black, so that shifts and flips can be seen."""
    stripes = (7 * torch.arange(1, 33, dtype=torch.uint8)).expand(count, 3, 32, 32)
    return {
        "images": stripes,
        "soft_labels": torch.full((count, 10), 0.1),
        "intended": torch.arange(count) * 10 // count,
    }


def views(images: Tensor) -> tuple[int, int, float]:
    """Most rows and columns that were shifted out, and the share of flipped images."""
    dark = images[:, 0] == 0
    # the middle of an image is never shifted out
    flipped = images[:, 0, 16, 12] > images[:, 0, 16, 20]
    return int(dark.all(2).sum(1).max()), int(dark.all(1).sum(1).max()), float(flipped.double().mean())


@pytest.mark.slow
@both
@pytest.mark.parametrize("flips", [True, False])
def test_calibration_is_on_2_times_1024_images_cropped_and_flipped(
    kind: type[DataFree], flips: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []

    def balanced(network: SpikingNetwork, images: Tensor, *_: Any, **__: Any) -> None:
        seen.append(images)
        for layer in network.neurons:
            layer.set_threshold(1.0)

    monkeypatch.setattr(datafree, "synthetic_set", lambda *_: striped(2500))
    monkeypatch.setattr(datafree, "balance_thresholds", balanced)
    ann = build_ann("vgg5", (3, 32, 32), 10, (-1.0, 1.0), torch.Generator())  # type: ignore[arg-type]
    given: dict[str, Any] = {} if kind is DataFree else {"cet": False}
    kind(setting="authors", **given)(ann, NO_DATA, context(flips))
    assert len(seen[0]) == 2048
    rows, columns, flipped = views(seen[0])
    assert (rows, columns) == (4, 4)
    assert flipped == (pytest.approx(0.5, abs=0.06) if flips else 0)
    kind(setting="sound", **given)(ann, NO_DATA, context(flips))
    assert len(seen[1]) == 512
    assert views(seen[1]) == (0, 0, 0)


@both
@pytest.mark.parametrize(("classes", "steps"), [(10, 150), (99, 150), (100, 200), (200, 200)])
def test_t_is_the_data_sets_and_neurons_are_those_of_the_public_network(
    kind: type[DataFree], classes: int, steps: int
) -> None:
    config = kind(setting="authors").params.config(classes, context())
    assert config == SpikingConfig(
        steps, "poisson", Neuron(1.0, "soft", detach_reset=True, surrogate=Surrogate("triangle", 1.0, 0.3))
    )
    assert kind(setting="authors", timesteps=7).params.config(classes, context()).timesteps == 7
    assert kind().params.config(classes, context()) == SpikingConfig(5)
    assert kind(timesteps=7).params.config(classes, context()).timesteps == 7


def test_t_of_the_deployed_network_and_whether_one_serves_every_t(
    digits_ann: ImageClassifier, digits_data: TrainingData
) -> None:
    small: dict[str, Any] = {"samples": 20, "synthesis_steps": 3, "images": 20}
    network = DataFree(setting="authors", **small)(digits_ann, digits_data, context())
    assert isinstance(network, SpikingNetwork)
    assert network.config.timesteps == 150
    assert digits_data.images_read == 0
    # where T is the defence's own, a grid must not put its T in the place of it
    assert DataFree(calibration_steps=6).anytime
    assert not DataFree(setting="authors", calibration_steps=6).anytime
    assert not DataFree(calibration_steps=6, timesteps=9).anytime
    assert not DataFree(setting="authors").anytime


def test_given_values_win() -> None:
    given: dict[str, Any] = {"synthesis_lr": 0.1, "images": 30, "augmented": False, "beta": 2.0, "detach_reset": False}
    trained: dict[str, Any] = {"hard_labels": False, "weight_decay": 0.0, "conv_dropout": 0.0, "epochs": 3}
    for params in (DataFree(setting="authors", **given).params, PrivateSNN(setting="authors", **given).params):
        assert {name: getattr(params, name) for name in given} == given
        assert (params.synthesis_steps, params.surrogate_height) == (2499, 0.3)
    chosen = PrivateSNN(setting="authors", **trained).params
    assert {name: getattr(chosen, name) for name in trained} == trained
    assert chosen.amsgrad
    with pytest.raises(UsageError, match=r"datafree\.setting: input should be 'sound' or 'authors'"):
        DataFree(setting="author")


# --- encryption training ---------------------------------------------------------------------------------------------

# the authors' VGG16 with fewer maps: 2, 2, 3, 3, 3 convolutions, a pooling behind each block, one hidden FC layer
THIN = ((8, 8), (8, 8), (8, 8, 8), (8, 8, 8), (8, 8, 8))
PLACES = [(8, 32, 32), (8, 16, 16), (8, 8, 8), (8, 8, 8), (8, 4, 4), (8, 4, 4), (8, 2, 2), (8, 2, 2)]
"""of the eight convolutions in front of no pooling"""


@pytest.fixture
def thin() -> ImageClassifier:
    body = _vgg((3, 32, 32), 10, torch.Generator().manual_seed(1), THIN, 16)
    return ImageClassifier(body, (3, 32, 32), 10, (-1.0, 1.0))


def encrypted(ann: ImageClassifier, monkeypatch: pytest.MonkeyPatch, flips: bool = False, **given: Any) -> Recorded:
    """Runs PrivateSNN on 40 striped images in few steps, with thresholds low enough for spikes in every layer."""

    def converted(ann: ImageClassifier, params: Any, context: DefenseContext) -> SpikingNetwork:
        network = SpikingNetwork.from_ann(ann, params.config(ann.classes, context))
        for number, layer in enumerate(network.neurons, 1):
            layer.set_threshold(0.5 * 0.5**number)
        return network

    monkeypatch.setattr(privatesnn, "convert_datafree", converted)
    monkeypatch.setattr(privatesnn, "synthetic_set", lambda *_: striped(40))
    ours = Recorded(torch.Generator().manual_seed(3), flips=flips)
    network = PrivateSNN(**{"epochs": 1, "timesteps": 3, **given})(ann, NO_DATA, ours)
    assert isinstance(network, SpikingNetwork)
    # nothing is left of what training put into the network
    blank = SpikingNetwork.from_ann(ann, network.config)
    assert network.state_dict().keys() == blank.state_dict().keys()
    assert [type(module) for module in network.body.modules()] == [type(module) for module in blank.body.modules()]
    return ours


class Recorded(DefenseContext):
    """A context that keeps the last seed it gave."""

    last = -1

    def seed(self) -> int:
        self.last = super().seed()
        return self.last


@pytest.mark.slow
@pytest.mark.parametrize(("setting", "given"), [("sound", None), ("authors", None), ("authors", 0.2)])
def test_dropout_is_behind_eight_convolutions_and_the_fc_layer(
    setting: str, given: float | None, thin: ImageClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, tuple[int, ...]]] = []
    real = TimeFixedDropout.dropped

    def dropped(self: TimeFixedDropout, x: Tensor, run: Any) -> Tensor:
        out = real(self, x, run)
        if self.acts:
            seen.append((self.p, tuple(x.shape[1:])))
            # a neuron is dropped in all steps or in none
            off = (out == 0).view(-1, run.batch, *x.shape[1:]).all(0)
            fired = (x != 0).view(-1, run.batch, *x.shape[1:]).any(0)
            torch.testing.assert_close(out, x * ~off.repeat(len(x) // run.batch, *[1] * (x.dim() - 1)) / (1 - self.p))
            if fired.sum() > 2000:
                assert float((off & fired).sum() / fired.sum()) == pytest.approx(self.p, abs=0.05)
        return out

    monkeypatch.setattr(TimeFixedDropout, "dropped", dropped)
    encrypted(thin, monkeypatch, setting=setting, dropout=given)
    hidden = [(given or 0.5, (16,))]  # what is given is of the ANN's own dropout alone
    assert seen == ([(0.3, place) for place in PLACES] + hidden if setting == "authors" else hidden)


def test_dropout_leaves_networks_without_such_convolutions_alone(digits_snn: SpikingNetwork) -> None:
    kinds = [type(module) for module in digits_snn.modules()]
    with privatesnn.conv_dropout(digits_snn, 0.3):
        assert [type(module) for module in digits_snn.modules()] == kinds


def test_dropout_behind_residual_sums_is_the_same_for_all_that_read_them() -> None:
    ann = build_ann("resnet8", (1, 8, 8), 10, (0.0, 1.0), torch.Generator().manual_seed(0)).eval()  # type: ignore[arg-type]
    network = SpikingNetwork.from_ann(ann, SpikingConfig(3))
    before = network.state_dict().keys()
    with privatesnn.conv_dropout(network, 0.3):
        put = [module for module in network.modules() if isinstance(module, TimeFixedDropout)]
        salts: dict[str, set[int]] = {}
        for module in put:
            salts.setdefault(module.layer, set()).add(module.salt)
        assert len(put) > len(salts) > 1
        assert all(len(one) == 1 for one in salts.values())
        assert len({one for few in salts.values() for one in few}) == len(salts)
    assert network.state_dict().keys() == before


@pytest.mark.slow
@pytest.mark.parametrize("flips", [True, False])
def test_training_sees_crops_and_flips_drawn_anew(
    flips: bool, thin: ImageClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught: list[Tensor] = []
    handle = thin.register_forward_pre_hook(lambda _module, args: taught.append(args[0] * 255))
    encrypted(thin, monkeypatch, flips, setting="authors", epochs=2, timesteps=1)
    handle.remove()
    assert [len(x) for x in taught] == [40, 40]
    rows, columns, flipped = views(torch.cat(taught))
    assert (rows, columns) == (4, 4)
    assert 0.3 < flipped < 0.7 if flips else flipped == 0
    assert not torch.equal(*taught)


@pytest.mark.slow
def test_the_loss_sees_hard_labels_and_the_undivided_membrane(
    thin: ImageClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Tensor, Tensor]] = []
    real = functional.cross_entropy

    def noted(logits: Tensor, y: Tensor) -> Tensor:
        asked.append((logits.detach(), y))
        return real(logits, y)

    monkeypatch.setattr(functional, "cross_entropy", noted)
    given: dict[str, Any] = {"setting": "authors", "dropout": 0.0, "conv_dropout": 0.0, "augmented": False}
    ours = encrypted(thin, monkeypatch, timesteps=6, **given)
    ((logits, labels),) = asked
    order = torch.randperm(40, generator=torch.Generator().manual_seed(3))
    data = striped(40)
    assert torch.equal(labels, torch.eye(10)[data["intended"][order]])

    # u_L(T): the last layer's weights times the number of spikes, of 1 each, before it
    network = SpikingNetwork.from_ann(thin, SpikingConfig(6))
    for number, layer in enumerate(network.neurons, 1):
        layer.set_threshold(0.5 * 0.5**number)
    spikes: list[Tensor] = []
    last = network.neurons[-1]
    network.observe(
        data["images"][order].float() / 255,
        lambda name, _x, _u, out: spikes.append((out / last.threshold).sum(0)) if name == last.layer else None,
        ours.last,
    )
    weight = [module.weight for module in thin.body.modules() if isinstance(module, nn.Linear)][-1]
    membrane = torch.stack(spikes).sum(0) @ weight.T
    assert membrane.abs().max() > 1
    torch.testing.assert_close(logits, membrane, rtol=1e-4, atol=1e-4)


def test_the_optimiser_is_adam_as_the_script_had_it(thin: ImageClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.optim.Adam] = []
    real = torch.optim.Adam.__init__

    def noted(self: torch.optim.Adam, *args: Any, **options: Any) -> None:
        made.append(self)
        real(self, *args, **options)

    monkeypatch.setattr(torch.optim.Adam, "__init__", noted)
    encrypted(thin, monkeypatch, setting="authors", timesteps=1)
    (optimizer,) = made
    assert type(optimizer) is torch.optim.Adam
    (group,) = optimizer.param_groups
    wanted = {"initial_lr": 1e-4, "betas": (0.9, 0.999), "weight_decay": 5e-4, "amsgrad": True}
    assert {name: group[name] for name in wanted} == wanted
    assert len(group["params"]) == 15
