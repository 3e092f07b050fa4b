"""The one page that a plugin's author reads: what a defence and an attack are handed, and what they hand back.

Images outside a network are float tensors [B, C, H, W] in [0, 1]; labels are int64 [B]; logits are [B, classes].
A network maps them to its own input range itself (:class:`ImageClassifier`).
"""

from __future__ import annotations

import difflib
import enum
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NamedTuple, TypeVar, cast, final, get_args

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)
from torch import Tensor, nn
from torch.nn import functional

from leakbench.errors import NoSignal, NotApplicable, NumericalError, PluginError, UsageError

if TYPE_CHECKING:
    from leakbench.snn import SpikingNetwork


class Access(enum.IntEnum):
    """What an attacker is given, in rising order: answers, answers with confidences, the network itself."""

    LABELS = 1
    SCORES = 2
    WEIGHTS = 3


class Params(BaseModel):
    """Base of every plugin's parameters: frozen, unknown names refused. Give each field a description and bounds.

    A field without an upper bound of its own takes whole numbers within +-10 million, beyond which a slip in a grid
    would take all of a machine, and other numbers within +-1e38, beyond which float32 has only infinity. true and
    false are no numbers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="wrap")
    @classmethod
    def _sane(cls, given: Any, validate: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        value = validate(given)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return value
        if isinstance(given, bool):
            raise ValueError("input should be a number, not true or false")
        most, shown = (10_000_000, "10,000,000") if isinstance(value, int) else (1e38, "1e38")
        if abs(value) > most and not _bounded(cls.model_fields[str(info.field_name)].metadata):
            raise ValueError(f"input should be within +-{shown}")
        return value


def _bounded(constraints: Iterable[object]) -> bool:
    """Whether one of a field's constraints is an upper bound."""
    return any(getattr(one, bound, None) is not None for one in constraints for bound in ("le", "lt"))


class InputRange(NamedTuple):
    """The interval that [0, 1] images are mapped to before a network (or its encoder) sees them."""

    low: float
    high: float

    @property
    def scale(self) -> float:
        """Input units per image unit: a step of size s in the input range is s / scale in image units."""
        return self.high - self.low

    def __call__(self, images: Tensor) -> Tensor:
        return images if self == (0.0, 1.0) else images * self.scale + self.low


class ImageClassifier(nn.Module):
    """An ANN on images: ``body`` works on the input range, ``forward`` takes images in [0, 1].

    ``arch`` names how the body is built again when it is loaded from the store (see leakbench.models).
    """

    def __init__(
        self,
        body: nn.Module,
        image_shape: tuple[int, int, int],
        classes: int,
        input_range: tuple[float, float] = (0.0, 1.0),
        arch: str = "",
    ) -> None:
        super().__init__()
        self.body = body
        self.image_shape = image_shape
        self.classes = classes
        self.input_range = InputRange(*input_range)
        self.arch = arch

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] in [0, 1] -> logits [B, classes]."""
        return cast(Tensor, self.body(self.input_range(images)))


class TrainingData:
    """The only handle by which a defence reaches private data. It counts every image that it hands out.

    Shapes and the number of classes are free: a deployer knows them without any image.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        """``images`` uint8 [N, C, H, W] in 0..255, ``labels`` int64 [N]."""
        self._images = images
        self._labels = labels
        self._seen = torch.zeros(len(images), dtype=torch.bool)
        self._handed = 0

    def __len__(self) -> int:
        return len(self._images)

    @property
    def images_read(self) -> int:
        """How many different training images were handed out so far."""
        return int(self._seen.sum())

    @property
    def reads(self) -> int:
        """How many images were handed out so far, repeats included."""
        return self._handed

    def _hand_out(self, index: Tensor) -> tuple[Tensor, Tensor]:
        self._seen[index] = True
        self._handed += len(index)
        return self._images[index].float() / 255, self._labels[index]

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """``count`` different images (all of them, if there are fewer) in random order, with their labels."""
        return self._hand_out(torch.randperm(len(self), generator=generator)[:count])

    def batches(self, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """One shuffled pass over all images."""
        for index in torch.randperm(len(self), generator=generator).split(size):
            yield self._hand_out(index)


@dataclass
class Cost:
    """What an attack took, counted by the framework."""

    queries: int = 0
    """images that the victim answered for SCORES or LABELS"""
    gradient_steps: int = 0
    """optimiser steps announced through Context.steps"""
    seconds: float = 0.0


class PublicImages(NamedTuple):
    """Images that anybody can have: of the private ones' kind and shape, and of other classes."""

    images: Tensor
    """uint8 [N, C, H, W] in 0..255"""
    source: str
    """where they come from, one line"""


Progress = Callable[[str, int, int], None]
"""(what is being done, steps done, steps in all)"""

Precision = Literal["float32", "tf32", "bfloat16"]
"""what a simulation's convolutions and products are computed in, see :mod:`leakbench.snn.precision`"""

SharedBuild = Callable[["Context"], dict[str, Tensor]]


@dataclass
class Context:
    """What the framework hands to every plugin call."""

    generator: torch.Generator
    """CPU generator, seeded by what the experiment is; draw on the CPU, then move: the same numbers everywhere"""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    timesteps: int = 32
    """T at which the spiking network is to be deployed"""
    precision: Precision = "float32"
    """of the spiking network's convolutions"""
    progress: Progress = lambda _what, _done, _total: None
    shared_store: Callable[[str, int, Mapping[str, Any], SharedBuild], dict[str, Tensor]] | None = None
    cost: Cost = field(default_factory=Cost)
    public: PublicImages | None = None
    """public images, for attacks that say so (``uses_public``)"""
    flips: bool = False
    """whether a mirrored image keeps its class: deployer and attacker both know what the images show"""
    findings: dict[str, float] = field(default_factory=dict)

    def finding(self, name: str, value: float) -> None:
        """Something measured on the way that the report should show, as in ("images won by rga", 34)."""
        self.findings[name] = float(value)

    def seed(self) -> int:
        """A fresh 31-bit seed from the generator."""
        return int(torch.randint(2**31 - 1, (1,), generator=self.generator))

    def steps(self, total: int, what: str) -> Iterator[int]:
        """``range(total)`` that shows progress and counts optimiser steps towards the cost."""
        for step in range(total):
            self.progress(what, step, total)
            self.cost.gradient_steps += 1
            yield step
        self.progress(what, total, total)

    def shared(self, name: str, version: int, params: Mapping[str, Any], build: SharedBuild) -> dict[str, Tensor]:
        """Tensors that several plugins have in common: built once, kept.

        Defences share what is made of one network (the synthetic set), attacks what is made of public images alone.

        ``build`` gets a context of its own, seeded by what is shared and not by whoever asks first.
        """
        if self.shared_store is not None:
            return self.shared_store(name, version, params, build)
        return build(self)


P = TypeVar("P", bound=Params)


class Plugin(ABC, Generic[P]):
    """What attacks and defences have in common: a name, a version, a citation and checked parameters.

    The parameters' class is the one in the brackets: ``class Mine(Attack[MyParams])``.
    """

    kind: ClassVar[str]
    name: ClassVar[str]
    version: ClassVar[int] = 1
    """a bump makes new artifacts: raise it with every change of what is computed"""
    cites: ClassVar[str] = ""
    """the paper, with equation or algorithm where there is one"""
    Params: ClassVar[type[Params]] = Params
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """preset name -> parameters that differ from the defaults there"""

    params: P

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "Params" in cls.__dict__:
            return
        for base in cls.__dict__.get("__orig_bases__", ()):
            for argument in get_args(base):
                if isinstance(argument, type) and issubclass(argument, Params):
                    cls.Params = argument

    def __init__(self, **params: Any) -> None:
        try:
            self.params = cast(P, self.Params(**params))
        except ValidationError as error:
            raise UsageError(_one_line(self.name, self.Params, error)) from None


def _one_line(name: str, params: type[Params], error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join([name, *(str(part) for part in first["loc"])])
    if first["type"] == "extra_forbidden":
        field_name = str(first["loc"][0])
        near = difflib.get_close_matches(field_name, params.model_fields, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        known = ", ".join(params.model_fields) or "none"
        return f"unknown parameter {where}: {hint}{name} has: {known}"
    given = "" if isinstance(first["input"], dict) else f" (got {first['input']!r})"
    said = first["msg"].removeprefix("Value error, ")
    return f"{where}: {said[0].lower()}{said[1:]}{given}"


class Defense(Plugin[P]):
    """Turns a trained ANN into the thing that is deployed."""

    kind = "defense"
    spiking: ClassVar[bool] = True
    """False where the deployed network has no time steps"""
    anytime: bool = False
    """whether the network is the same whatever T is, so that one simulation to the longest T gives all shorter ones;
    a property, where it depends on parameters"""

    @final
    def __call__(self, ann: ImageClassifier, data: TrainingData, context: Context) -> SpikingNetwork | ImageClassifier:
        """Runs :meth:`protect` and checks what it returns; the ANN it is handed is left as it was."""
        ann.eval().requires_grad_(False)
        with _unchanged(ann, self.name):
            network = self.protect(ann, data, context)
        if not isinstance(network, nn.Module) or not hasattr(network, "image_shape"):
            raise PluginError(
                f"{self.name}.protect must return a SpikingNetwork or an ImageClassifier, got {type(network).__name__}"
            )
        if network.classes != ann.classes or network.image_shape != ann.image_shape:
            raise PluginError(f"{self.name}.protect returned a network for other images or classes than the ANN's")
        for key, tensor in network.state_dict().items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise NumericalError(f"{self.name}: the protected network holds NaN or infinity in {key!r}")
        return network.eval().requires_grad_(False)

    @abstractmethod
    def protect(self, ann: ImageClassifier, data: TrainingData, context: Context) -> SpikingNetwork | ImageClassifier:
        """All that an author writes. Copy what you change: ``ann`` belongs to the framework."""


class _unchanged:  # noqa: N801 - reads as a statement
    """Guards the ANN against a defence that writes to it: every later cell would build on the damage."""

    def __init__(self, ann: ImageClassifier, name: str) -> None:
        self._ann, self._name = ann, name

    def __enter__(self) -> None:
        # copies: writes through .data or of another layer leave no trace in version counters
        self._layers = repr(self._ann)
        self._before = {key: value.clone() for key, value in self._ann.state_dict().items()}

    def __exit__(self, kind: object, *_: object) -> None:
        after = self._ann.state_dict()
        same = (
            self._layers == repr(self._ann)
            and after.keys() == self._before.keys()
            and all(
                after[key].shape == value.shape and torch.equal(after[key].nan_to_num(), value.nan_to_num())
                for key, value in self._before.items()
            )
        )
        if kind is None and not same:
            raise PluginError(f"{self._name}.protect changed the ANN in place: work on a copy (copy.deepcopy)")


class Victim:
    """The deployed network in the attacker's hands: it hands out only what the threat model allows."""

    def __init__(self, network: SpikingNetwork | ImageClassifier, access: Access, cost: Cost | None = None) -> None:
        self._network = network
        self.access = access
        self.cost = cost if cost is not None else Cost()
        self.image_shape: tuple[int, int, int] = network.image_shape
        self.classes: int = network.classes

    def at(self, access: Access, cost: Cost) -> Victim:
        """The same victim with no more than ``access``, its queries counted in ``cost``."""
        return Victim(self._network, min(self.access, access), cost)

    def _require(self, access: Access) -> None:
        if self.access < access:
            raise NotApplicable(f"the attack needs {access.name}, the victim grants {self.access.name}")

    @torch.no_grad()
    def require_answers(self) -> None:
        """Raises NoSignal where the network's answers are no numbers, or the same for every image.

        Asked on grey, black, white and noise images and on coarse patterns of black and white, which count as no
        queries: an attack on such a network would hand back what it started from, and that must not be read as
        protection. Coarse patterns are seen by spiking networks that are silent on noise: few steps, high thresholds.
        """
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand(16, *self.image_shape, generator=generator)
        coarse = torch.rand(16, self.image_shape[0], 4, 4, generator=generator).round()
        patterns = functional.interpolate(coarse, self.image_shape[1:])
        flat = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, *self.image_shape)
        probes = torch.cat([noise, patterns, flat]).to(next(self._network.parameters()).device)
        # a seed of its own: the noise of the attack's own queries stays what it was
        logits = self._network(probes) if isinstance(self._network, ImageClassifier) else self._network(probes, seed=0)
        if not torch.isfinite(logits).all():
            raise NoSignal("non-finite logits: the network answers NaN or infinity to ordinary images")
        if torch.equal(logits, logits[:1].expand_as(logits)):
            raise NoSignal("constant network: it gives flat images, noise and coarse patterns the same answer")

    @property
    def network(self) -> SpikingNetwork | ImageClassifier:
        """The network itself: weights, thresholds, gradients (WEIGHTS)."""
        self._require(Access.WEIGHTS)
        return self._network

    def scores(self, images: Tensor) -> Tensor:
        """Logits [B, classes] for images [B, C, H, W] in [0, 1] (SCORES). A spiking victim draws fresh noise."""
        self._require(Access.SCORES)
        return self._answers(images)

    def labels(self, images: Tensor) -> Tensor:
        """Predicted classes [B] (LABELS)."""
        self._require(Access.LABELS)
        return self._answers(images).argmax(1)

    @torch.no_grad()
    def _answers(self, images: Tensor) -> Tensor:
        self.cost.queries += len(images)
        logits = cast(Tensor, self._network(images))
        if not torch.isfinite(logits).all():
            raise NoSignal("non-finite logits: the victim answers NaN or infinity to an image that the attack made")
        return logits


_MOST_FINDINGS = 1000


class Reconstruction(NamedTuple):
    """The outcome of a class-leakage attack."""

    images: Tensor
    """[N, C, H, W] in [0, 1]"""
    targets: Tensor
    """[N] the class that each image was made for"""
    cost: Cost
    findings: dict[str, float]
    """what the attack measured on the way"""


class Attack(Plugin[P]):
    """What the attacker runs: draws pictures of the target classes out of a victim."""

    kind = "attack"
    needs: ClassVar[Access]
    effort: ClassVar[str] = ""
    """the whole-number parameter of which more should never be worse (steps, restarts, samples): a run also tries half
    of it, since an attack that does better with less tells of gradients that are masked"""
    ensemble: ClassVar[bool] = False
    """whether it runs other attacks: ``--attack all`` then leaves it out"""
    members: ClassVar[tuple[Attack[Any], ...]] = ()
    """the attacks that an ensemble runs, with their parameters: what they compute is what it computes"""
    uses_public: ClassVar[bool] = False
    """whether the attacker also has public images of other classes (``context.public``)"""

    @final
    def __call__(self, victim: Victim, targets: Tensor, context: Context) -> Reconstruction:
        """Runs :meth:`run` with no more access than ``needs``; shape, range, finiteness and cost are checked here."""
        if victim.access < self.needs:
            raise NotApplicable(f"{self.name} needs {self.needs.name}, the victim grants {victim.access.name}")
        if len(targets) and not (int(targets.min()) >= 0 and int(targets.max()) < victim.classes):
            raise UsageError(f"targets must be classes 0..{victim.classes - 1}")
        if not self.uses_public:
            context.public = None
        elif context.public is None:
            raise NotApplicable(f"{self.name} needs public images of other classes: name some with --public")
        victim.require_answers()
        context.cost, context.findings = Cost(), {}
        start = time.perf_counter()
        images = self.run(victim.at(self.needs, context.cost), targets.to(context.device), context)
        context.cost.seconds = time.perf_counter() - start
        expected = (len(targets), *victim.image_shape)
        if not isinstance(images, Tensor) or tuple(images.shape) != expected:
            got = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
            raise PluginError(f"{self.name}.run must return images of shape {expected}, got {got}")
        images = images.detach().float().cpu()
        if not len(images):
            return Reconstruction(images, targets.cpu(), context.cost, context.findings)
        if not torch.isfinite(images).all():
            raise NumericalError(f"{self.name} made images with NaN or infinity")
        if float(images.min()) < -1e-4 or float(images.max()) > 1 + 1e-4:
            raise PluginError(f"{self.name}.run must return images in [0, 1]: clamp inside the attack, not after it")
        if len(context.findings) > _MOST_FINDINGS:
            raise PluginError(
                f"{self.name} has {len(context.findings)} findings: {_MOST_FINDINGS} at most fit a report"
            )
        for name, value in context.findings.items():
            if not math.isfinite(value):
                raise NumericalError(f"{self.name} found {value} for {name!r}")
        return Reconstruction(images.clamp(0, 1), targets.cpu(), context.cost, context.findings)

    @abstractmethod
    def run(self, victim: Victim, targets: Tensor, context: Context) -> Tensor:
        """All that an author writes: images [N, C, H, W] in [0, 1], one for each of ``targets`` [N]."""
