"""What must not change a simulation: chunks of time, batches, shorter simulations, other calls before it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from toy_networks import Recorder, assert_same, toy_ann, toy_images, toy_snn

from leakbench.errors import NotApplicable, UsageError
from leakbench.snn import Neuron, SpikingConfig, SpikingNetwork, Surrogate, add_gradients
from leakbench.snn.folding import with_biases


def run(network: SpikingNetwork, training: bool) -> tuple[Tensor, dict[str, int], list[Tensor]]:
    network.train(training)
    images = toy_images().requires_grad_()
    simulation = network.simulate(images, seed=4)
    gradients = torch.autograd.grad(simulation.logits.square().sum(), [images, *network.parameters()])
    return simulation.logits.detach(), simulation.spikes, list(gradients)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "dropout"])
@pytest.mark.parametrize("neuron", [Neuron(), Neuron(0.9), Neuron(0.95, "hard"), Neuron(detach_reset=True)])
@pytest.mark.parametrize("chunk", [1, 3])
def test_time_chunks_change_nothing(neuron: Neuron, chunk: int, training: bool) -> None:
    steps = 11
    config = SpikingConfig(steps, "poisson", neuron)
    whole, parts = toy_snn(config, dropout=0.4), toy_snn(config, dropout=0.4)
    parts.memory_budget = chunk * parts.topology.elements * 4 * 4 * 2
    seen = Recorder(parts)
    assert (whole.chunk_steps(4), parts.chunk_steps(4)) == (steps, chunk)
    logits, spikes, gradients = run(whole, training)
    other_logits, other_spikes, other_gradients = run(parts, training)
    assert seen.chunks == 2 * -(-steps // chunk)  # each chunk once forwards and once more in the backward pass
    assert_same(other_logits, logits)
    assert other_spikes == spikes
    for mine, theirs in zip(other_gradients, gradients, strict=True):
        assert theirs.abs().max() > 0
        assert_same(mine, theirs)


@pytest.mark.parametrize("encoder", ["poisson", "direct"])
@pytest.mark.parametrize("chunk", [2, 100])
def test_one_simulation_gives_every_shorter_one(encoder: Any, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network = toy_snn(SpikingConfig(9, encoder, Neuron(0.9)))
    monkeypatch.setattr(SpikingNetwork, "chunk_steps", lambda _self, _batch: chunk)
    simulations = network.simulate_at(toy_images(), [9, 3, 4], seed=1, first_index=5)
    assert sorted(simulations) == [3, 4, 9]
    for steps, simulation in simulations.items():
        alone = toy_snn(SpikingConfig(steps, encoder, Neuron(0.9))).simulate(toy_images(), seed=1, first_index=5)
        assert_same(simulation.logits, alone.logits)
        assert simulation.spikes == alone.spikes
    for wrong in ([], [0, 3], [10]):
        with pytest.raises(UsageError, match=r"steps to look at must be in 1\.\.9"):
            network.simulate_at(toy_images(), wrong)


def test_a_current_is_added_to_what_enters_a_layer_at_each_step() -> None:
    ann = with_biases(toy_ann())
    network = SpikingNetwork.from_ann(ann, SpikingConfig(4, "direct")).double()
    for layer in network.neurons:
        layer.set_threshold(1.0)
    second = network.neurons[1]
    (before,) = network.currents(second, toy_images(), seed=0)
    network.add_current(second, torch.arange(5.0))
    (after,) = network.currents(second, toy_images(), seed=0)
    channels = before.shape.index(5)
    assert_same(
        (after - before).movedim(channels, -1),
        torch.arange(5.0).double().expand(*[4 * 4, 3, 3], 5).reshape((after - before).movedim(channels, -1).shape),
    )
    bare = toy_snn(SpikingConfig(4))
    with pytest.raises(NotApplicable, match="has no bias"):
        bare.add_current(bare.neurons[1], 0.1)


def test_a_surrogate_that_looks_back_is_never_cut_into_chunks() -> None:
    steps, config = 11, SpikingConfig(11, "poisson", Neuron(surrogate=Surrogate("potential")))
    whole, parts = toy_snn(config), toy_snn(config)
    parts.memory_budget = 1
    assert parts.chunk_steps(4) == steps
    with torch.no_grad():
        assert parts.chunk_steps(4) == 1
    _, _, gradients = run(whole, training=False)
    _, _, others = run(parts, training=False)
    for mine, theirs in zip(others, gradients, strict=True):
        assert theirs.abs().max() > 0
        assert_same(mine, theirs)


def test_splitting_a_set_into_batches_changes_nothing() -> None:
    network = toy_snn(SpikingConfig(15))
    images = toy_images(7)
    with torch.no_grad():
        whole = network.simulate(images, seed=6)
        parts = [network.simulate(images[a:b], seed=6, first_index=a) for a, b in ((0, 1), (1, 5), (5, 7))]
        elsewhere = network(images, seed=6, first_index=1)
    assert_same(torch.cat([part.logits for part in parts]), whole.logits)
    for name, count in whole.spikes.items():
        assert sum(part.spikes[name] for part in parts) == count
    assert not torch.allclose(elsewhere, whole.logits)


@pytest.mark.parametrize(("at_once", "parts"), [(7, 1), (6, 2), (3, 3), (1, 7)])
def test_gradients_in_parts_are_those_of_the_batch_and_nothing_is_computed_twice(at_once: int, parts: int) -> None:
    network, images = toy_snn(SpikingConfig(11), dropout=0.4).train(), toy_images(7)
    loss = network(images, seed=4).square().sum()
    wanted = torch.autograd.grad(loss, list(network.parameters()))
    network.memory_budget = at_once * network.topology.elements * 4 * 2 * 11
    assert network.batch_in_memory() == at_once
    seen, asked = Recorder(network), []

    def share(logits: Tensor, part: slice) -> Tensor:
        asked.append(len(images[part]))
        return logits.square().sum()

    assert add_gradients(network, images, 4, share) == pytest.approx(loss.item(), rel=1e-9)
    assert len(asked) == seen.chunks == parts
    assert sum(asked) == 7
    assert max(asked) <= at_once
    for weight, theirs in zip(network.parameters(), wanted, strict=True):
        assert theirs.abs().max() > 0
        assert weight.grad is not None
        assert_same(weight.grad, theirs)


def test_each_call_without_a_seed_draws_fresh_noise_and_reseed_starts_it_anew() -> None:
    network, images = toy_snn(SpikingConfig(8)), toy_images()
    network.reseed(5)
    first, second = network(images), network(images)
    assert not torch.allclose(first, second)
    network.reseed(5)
    assert torch.equal(network(images), first)
    # a seed leaves the stream of calls without one alone
    network.reseed(5)
    network(images, seed=1)
    assert torch.equal(network(images), first)


def test_no_call_draws_from_the_global_generator() -> None:
    network, before = toy_snn(SpikingConfig(3), dropout=0.5).train(), torch.get_rng_state()
    network(toy_images())
    assert torch.equal(torch.get_rng_state(), before)


def test_chunks_stay_within_the_memory_budget() -> None:
    steps, network = 64, toy_snn(SpikingConfig(64))
    # what the modules put out, at the 4 bytes a float that the budget is planned for
    taken: list[int] = []
    for module in network.body.modules():
        if not any(module.children()):
            module.register_forward_hook(lambda _m, _a, out: taken.append(out.numel() * 4))
    seen = Recorder(network)
    for budget, batch in ((25_000, 1), (100_000, 1), (100_000, 5), (500_000, 5)):
        network.memory_budget = budget
        taken.clear()
        before = seen.chunks
        with torch.no_grad():
            chunk = network.chunk_steps(batch)
            network(toy_images(batch))
        assert 1 < chunk < steps
        assert seen.chunks - before == -(-steps // chunk)
        a_step = sum(taken) / steps
        assert chunk * a_step <= budget < (chunk + 1) * a_step
        assert network.chunk_steps(batch) == budget // (2 * a_step)  # with gradients: as much again
    network.memory_budget = 1
    assert network.chunk_steps(100) == 1
    network.memory_budget = 1 << 40
    assert network.chunk_steps(100) == steps
