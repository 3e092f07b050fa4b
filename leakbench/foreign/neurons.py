"""Neurons of SpikingJelly, snnTorch, Norse and sinabs: how they are read, and how their framework runs them.

No framework is imported here: a module brings its own along. What a layer is, its exact class says, as subclasses may
be other neurons. Equations are those of the releases named beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from leakbench.errors import UsageError, printable
from leakbench.foreign.assemble import Neurons
from leakbench.foreign.layers import name_of


@dataclass(frozen=True)
class Kind:
    """How a framework's neurons are read, and how they are run."""

    read: Callable[[nn.Module], Neurons]
    step: Callable[[nn.Module, Tensor, dict[str, Any]], Tensor]
    reset: Callable[[nn.Module], None]


def neurons_of(module: nn.Module | None) -> Kind | None:
    """How the module is read where it is a layer of known neurons."""
    return None if module is None else _KINDS.get(name_of(module))


def framework_of(module: nn.Module | None) -> str | None:
    """Whose neurons the module is; None for any other layer."""
    return None if module is None or neurons_of(module) is None else name_of(module).partition(".")[0]


def keeps_states(module: Any, last: bool) -> bool:
    """Whether a network of such neurons can be called a step at a time: they keep their states themselves, and, but for
    the last, return spikes alone."""
    match framework_of(module):
        case "spikingjelly":
            return True
        case "snntorch":
            return bool(module.init_hidden and (last or not module.output))
    return False


def read_neurons(kind: Kind, module: nn.Module, name: str) -> Neurons:
    """The constants of a layer. UsageError, which names it, for what its kind does and LeakBench does not know."""
    try:
        return kind.read(module)
    except UsageError as error:
        raise UsageError(f"the neurons {printable(name)!r} ({type(module).__name__}): {error}") from None


def _number(value: Any) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64).detach().clone()


_ZERO, _ONE = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)


def _plain(**constants: Any) -> Neurons:
    """Neurons without leak and synapse, but for what is given."""
    usual = Neurons(_ONE, _ONE, _ONE, _ZERO, None, _ZERO, _ZERO, None, "above")
    return replace(usual, **constants)


def _spikingjelly(leaky: bool) -> Callable[[nn.Module], Neurons]:
    """SpikingJelly 2.0, activation_based/neuron: IFNode, LIFNode, ParametricLIFNode."""

    def read(module: Any) -> Neurons:
        rest = _ZERO if module.v_reset is None else _number(module.v_reset)
        theta = _number(module.v_threshold) - rest
        given = {"threshold": theta, "taken": theta if module.v_reset is None else None, "fires": "at"}
        if not leaky:
            return _plain(**given)
        inverse = torch.sigmoid(_number(module.w)) if hasattr(module, "w") else 1 / _number(module.tau)
        return _plain(**given, leak=1 - inverse, weight=inverse if module.decay_input else _ONE)

    return read


def _snntorch(synaptic: bool) -> Callable[[nn.Module], Neurons]:
    """snnTorch 1.0, _neurons/leaky.py and synaptic.py."""

    def read(module: Any) -> Neurons:
        mechanism = module.reset_mechanism
        if module.inhibition or module.state_quant:
            raise UsageError("inhibition and state_quant are not known")
        if mechanism == "none":
            raise UsageError("neurons that are never reset can only be the last layer, whose membrane is read out")
        theta, leak = _number(module.threshold), _number(module.beta).clamp(0, 1)
        synapse = _number(module.alpha).clamp(0, 1) if synaptic else _ZERO
        given = {"threshold": theta, "leak": leak, "synapse": synapse, "fires": "above"}
        if float(_number(module.graded_spikes_factor)) != 1:
            raise UsageError("a graded_spikes_factor other than 1 is not known")
        if mechanism == "zero":
            if synaptic and module.reset_delay:
                raise UsageError("reset_delay with reset_mechanism='zero' loses the step after a spike: not known")
            return _plain(**given)
        if not module.reset_delay:
            raise UsageError(
                "reset_mechanism='subtract' with reset_delay=False tests a membrane that was reduced: not known"
            )
        if bool((leak == 0).any()):
            raise UsageError("beta = 0 with a delayed reset is not known")
        return _plain(**given, taken=theta / leak)  # subtracted a step later, when the membrane has leaked

    return read


def _norse(kind: str) -> Callable[[nn.Module], Neurons]:
    """Norse 1.1, functional/iaf.py, lif_box.py and lif.py, by forward Euler."""

    def read(module: Any) -> Neurons:
        p, dt = module.p, float(module.dt)
        if kind == "iaf":
            rest = _number(p.v_reset)
            return _plain(threshold=_number(p.v_th) - rest)
        rest = _number(p.v_leak)
        theta, share = _number(p.v_th) - rest, dt * _number(p.tau_mem_inv)
        given = {"threshold": theta, "leak": 1 - share, "weight": share, "rest": _number(p.v_reset) - rest}
        if kind == "lif":
            return _plain(**given, synapse=1 - dt * _number(p.tau_syn_inv))
        method = getattr(p.reset_method, "__name__", "")
        if method not in ("reset_value", "reset_subtract"):
            raise UsageError(f"the reset method {printable(method)!r} is not known")
        # Norse takes v_th away, and not what is above the resting value
        return _plain(**given, taken=_number(p.v_th) if method == "reset_subtract" else None)

    return read


def _sinabs(leaky: bool) -> Callable[[nn.Module], Neurons]:
    """sinabs 3.1, layers/functional/lif.py and activation/."""

    def read(module: Any) -> Neurons:
        fires = {"MultiSpike": "many", "SingleSpike": "at"}.get(getattr(module.spike_fn, "__name__", ""))
        if fires is None:
            raise UsageError(f"the spike function {printable(str(module.spike_fn))[:60]} is not known")
        theta = _number(module.spike_threshold)
        reset = type(module.reset_fn).__name__
        if reset == "MembraneSubtract":
            by = getattr(module.reset_fn, "subtract_value", None)
            taken: Tensor | None = theta if by is None else _number(by)
        elif reset == "MembraneReset" and float(getattr(module.reset_fn, "reset_value", 1)) == 0:
            taken = None
        else:
            raise UsageError(f"the reset {printable(reset)!r} is not known, or to a value other than 0")
        leak = _number(module.alpha_mem_calculated) if leaky else _ONE
        weight, synapse = 1 - leak if leaky and module.norm_input else _ONE, _ZERO
        if module.alpha_syn_calculated is not None:
            synapse = _number(module.alpha_syn_calculated)
            weight = weight * synapse
        floor = None if module.min_v_mem is None else float(module.min_v_mem)
        return _plain(threshold=theta, leak=leak, weight=weight, synapse=synapse, taken=taken, fires=fires, floor=floor)

    return read


def _step_called(module: Any, x: Tensor, _memory: dict[str, Any]) -> Tensor:
    """SpikingJelly's: the module remembers."""
    return module(x)  # type: ignore[no-any-return]


def _step_snntorch(module: Any, x: Tensor, memory: dict[str, Any]) -> Tensor:
    if module.init_hidden:
        out = module(x)
        return out[0] if isinstance(out, tuple) else out  # type: ignore[no-any-return]
    states = memory.get("states") or tuple(torch.zeros_like(x) for _ in range(1 + hasattr(module, "alpha")))
    out, *kept = module(x, *states)
    memory["states"] = tuple(kept)
    return out  # type: ignore[no-any-return]


def _step_norse(module: Any, x: Tensor, memory: dict[str, Any]) -> Tensor:
    out, memory["state"] = module(x, memory.get("state"))
    return out  # type: ignore[no-any-return]


def _step_sinabs(module: Any, x: Tensor, _memory: dict[str, Any]) -> Tensor:
    # of a squeezing layer the class that it squeezes for: [B, T, ...]
    kind = next(one for one in type(module).__mro__ if not one.__name__.endswith(("Squeeze", "Mixin")))
    return kind.forward(module, x.unsqueeze(1)).squeeze(1)  # type: ignore[attr-defined, no-any-return]


def _forget_spikingjelly(module: Any) -> None:
    module.step_mode = "s"
    module.reset()


def _forget_snntorch(module: Any) -> None:
    for state in ("mem", "syn"):
        if hasattr(module, state):
            setattr(module, state, torch.zeros(0, dtype=torch.float64))


def _forget_sinabs(module: Any) -> None:
    for state in ("v_mem", "i_syn"):
        if state in module._buffers:
            module._buffers[state] = torch.zeros((0), dtype=torch.float64)


def _nothing_to_forget(_module: Any) -> None:
    return None


_SJ, _ST, _NO, _SI = (
    "spikingjelly.activation_based.neuron", "snntorch._neurons", "norse.torch.module", "sinabs.layers",
)  # fmt: skip
_KINDS: Mapping[str, Kind] = {
    **{
        name: Kind(_spikingjelly(leaky), _step_called, _forget_spikingjelly)
        for name, leaky in (
            (f"{_SJ}.integrate_and_fire.IFNode", False), (f"{_SJ}.IFNode", False), (f"{_SJ}.lif.LIFNode", True),
            (f"{_SJ}.LIFNode", True), (f"{_SJ}.plif.ParametricLIFNode", True), (f"{_SJ}.ParametricLIFNode", True),
        )
    },
    f"{_ST}.leaky.Leaky": Kind(_snntorch(False), _step_snntorch, _forget_snntorch),
    f"{_ST}.synaptic.Synaptic": Kind(_snntorch(True), _step_snntorch, _forget_snntorch),
    f"{_NO}.iaf.IAFCell": Kind(_norse("iaf"), _step_norse, _nothing_to_forget),
    f"{_NO}.lif_box.LIFBoxCell": Kind(_norse("box"), _step_norse, _nothing_to_forget),
    f"{_NO}.lif.LIFCell": Kind(_norse("lif"), _step_norse, _nothing_to_forget),
    **{
        f"{_SI}.{name}": Kind(_sinabs(leaky), _step_sinabs, _forget_sinabs)
        for name, leaky in (("iaf.IAF", False), ("iaf.IAFSqueeze", False), ("lif.LIF", True), ("lif.LIFSqueeze", True))
    },
}  # fmt: skip


def integrator(module: nn.Module) -> tuple[float, float] | None:
    """(weight of currents, leak) of a last layer that never spikes; None for any other."""
    if name_of(module) == f"{_ST}.leaky.Leaky" and module.reset_mechanism == "none":
        leaks = _number(module.beta).clamp(0, 1).unique()
        if len(leaks) > 1:
            raise UsageError("a last layer whose membrane is read out must have one beta for all classes")
        return 1.0, float(leaks)
    return None
