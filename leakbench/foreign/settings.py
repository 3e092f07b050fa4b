"""What a file of another framework does not say of its network, and what each framework does where nobody says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from leakbench.errors import UsageError
from leakbench.models.untrusted import MOST_STEPS
from leakbench.snn.general import MOST_SHIFT

Framework = Literal["spikingjelly", "snntorch", "norse", "sinabs", "none"]
Finite = Annotated[float, Field(allow_inf_nan=False)]
_LARGEST = 1 << 20
"""bytes"""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NeuronSettings(_Part):
    """How neurons fire and reset; None: as the framework does."""

    reset: Literal["subtract", "value"] | None = Field(
        None, description="subtract: a spike takes the threshold away; value: to the v_reset of the file"
    )
    reset_delay: bool | None = Field(None, description="of subtract: a step later, as snnTorch does by default")
    fires: Literal["above", "at", "many"] | None = Field(
        None, description="above the threshold, at it too, or as many spikes as thresholds fit in"
    )
    input_weight: Finite | Literal["1-leak"] | None = Field(
        None, description="what currents are multiplied by, where the file does not say it"
    )
    leak_shift: Annotated[int, Field(ge=1, le=MOST_SHIFT)] | None = Field(
        None, description="the chip leaks by v -= v >> k in whole numbers, in place of the factor 1 - 2^-k of the file"
    )
    floor: Finite | Literal["none"] | None = Field(None, description="lowest membrane")
    initial: Finite | None = Field(None, description="membrane before the first step; None: the resting value")


class InputSettings(_Part):
    """What enters the network."""

    encoder: Literal["poisson", "direct"] = "poisson"
    range: tuple[Finite, Finite] = (0.0, 1.0)
    mean: tuple[Finite, ...] | None = Field(None, description="of each channel, taken off; with the encoder direct")
    std: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] | None = Field(
        None, description="of each channel, which what is left is divided by"
    )

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _by_channel(cls, value: object) -> object:
        if isinstance(value, int | float) and not isinstance(value, bool):
            raise ValueError(f"must be a list with a number for each channel, as in [{value}]")
        return value

    def check(self, channels: int) -> None:
        """UsageError where mean or std is not of so many channels, which images have."""
        for name, value in (("mean", self.mean), ("std", self.std)):
            if value is not None and len(value) != channels:
                raise UsageError(f"settings: input.{name} is of {len(value)} channels, and the images have {channels}")


class ReadoutSettings(_Part):
    """What the logits are."""

    over: Literal["sum", "mean", "last"] = Field("sum", description="of the last node's output over the steps")
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0


class NetworkSettings(_Part):
    """The JSON beside a file."""

    format: Literal[1]
    framework: Framework = "none"
    forward: Literal["images", "spikes", "step"] | None = Field(
        None, description="of a module that is not read layer by layer: what it takes, as in leakbench.models.asked"
    )
    timesteps: Annotated[int, Field(ge=1, le=MOST_STEPS)] = 1
    dt: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(None, description="seconds a step")
    integration: Literal["euler", "exponential"] | None = Field(
        None, description="euler: leak 1 - dt / tau; exponential: exp(-dt / tau)"
    )
    input: InputSettings = InputSettings()
    neurons: NeuronSettings = NeuronSettings()
    layers: Mapping[str, NeuronSettings] = Field({}, description="node -> what is otherwise there")
    readout: ReadoutSettings = ReadoutSettings()

    @model_validator(mode="after")
    def _complete(self) -> NetworkSettings:
        given = self.model_fields_set
        if self.forward != "images" and "timesteps" not in given:
            raise ValueError("timesteps: field required")
        inside = given & {"framework", "dt", "integration", "neurons", "layers"}
        if self.forward is not None and inside:
            raise ValueError(f"{min(inside)} is of networks that are read layer by layer: leave it or forward out")
        entering = self.input
        if self.forward == "images":
            if "encoder" in entering.model_fields_set:
                raise ValueError("input.encoder: a module that takes images encodes them itself: leave it out")
        elif entering.encoder == "poisson":
            if max(map(abs, entering.range)) > 1:
                raise ValueError(
                    f"input.range: of the encoder poisson a value is a probability to fire, between -1 and 1, got "
                    f"{list(entering.range)}; direct takes any"
                )
            if entering.mean is not None or entering.std is not None:
                raise ValueError('input: mean and std are of values that enter as they are: put "encoder": "direct"')
        return self


class Convention(_Part):
    """What a framework's files mean where nobody says."""

    dt: float | None = None
    integration: Literal["euler", "exponential"] | None = None
    neurons: NeuronSettings = NeuronSettings()


CONVENTIONS: Mapping[Framework, Convention] = {
    # spikingjelly 2.0: activation_based/nir_exchange; IF has r = 1 / dt
    "spikingjelly": Convention(
        dt=1e-4, integration="euler", neurons=NeuronSettings(reset="value", fires="at", floor="none")
    ),
    # snntorch 1.0: export_nir; beta = 1 - dt / tau and r = tau / dt; resets are lost
    "snntorch": Convention(dt=1e-4, integration="euler", neurons=NeuronSettings(fires="above", floor="none")),
    # norse 1.1: utils/export_nir; writes tau times dt, and r = 1 whatever the current's weight is
    "norse": Convention(
        dt=1e-3, integration="euler",
        neurons=NeuronSettings(reset="value", fires="above", floor="none", input_weight="1-leak"),
    ),
    # sinabs 3.1: nir; tau in steps; norm_input, MultiSpike and min_v_mem are lost
    "sinabs": Convention(dt=1.0, integration="exponential", neurons=NeuronSettings(reset="subtract")),
    "none": Convention(),
}  # fmt: skip


def read_settings(path: Path, what: str) -> NetworkSettings:
    """The settings of a file. UsageError, one line, where it holds none."""
    where = f"{what} {str(path)!r}"
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except FileNotFoundError:
        raise UsageError(f"{what}: no such file {str(path)!r}") from None
    except OSError as error:
        raise UsageError(f"{where} can't be read: {error.strerror}") from None
    if len(content) > _LARGEST:
        raise UsageError(f"{where} is larger than {_LARGEST} bytes")
    try:
        return settings_of(json.loads(content), where)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is no JSON: {str(error)[:200]}") from None


def settings_of(said: Any, where: str) -> NetworkSettings:
    """The settings that a JSON document holds. UsageError, one line that begins with ``where``, where it holds none."""
    try:
        return NetworkSettings.model_validate(said)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        known = _known(first["loc"][:-1]) if first["type"] == "extra_forbidden" else ""
        wrong = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{where}: {place and f'{place}: '}{wrong[0].lower()}{wrong[1:]}{known}") from None


def _known(place: tuple[int | str, ...]) -> str:
    kinds: dict[str, type[_Part]] = {
        "input": InputSettings, "neurons": NeuronSettings, "layers": NeuronSettings, "readout": ReadoutSettings,
    }  # fmt: skip
    kind = kinds.get(str(place[0]), NetworkSettings) if place else NetworkSettings
    return f" (known: {', '.join(kind.model_fields)})"


def settled(settings: NetworkSettings, node: str) -> dict[str, Any]:
    """What is said of a node's neurons: of the node, else of all, else by the framework."""
    parts = settings.layers.get(node, NeuronSettings()), settings.neurons, CONVENTIONS[settings.framework].neurons
    return {
        name: next((said for part in parts if (said := getattr(part, name)) is not None), None)
        for name in NeuronSettings.model_fields
    }
