"""What the framework promises plugins, and what it refuses from them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import pytest
import torch
from pydantic import Field, ValidationError, model_validator
from torch import Tensor, nn

from leakbench.contracts import (
    Access,
    Attack,
    Context,
    Cost,
    Defense,
    ImageClassifier,
    InputRange,
    Params,
    Plugin,
    TrainingData,
    Victim,
)
from leakbench.errors import LeakBenchError, NotApplicable, NumericalError, PluginError, UsageError
from leakbench.snn import SpikingConfig, SpikingNetwork

SHAPE = (1, 2, 2)


def tiny(classes: int = 3, shape: tuple[int, int, int] = SHAPE) -> ImageClassifier:
    generator = torch.Generator().manual_seed(0)
    body = nn.Sequential(nn.Flatten(), nn.Linear(shape[1] * shape[2], 4), nn.ReLU(), nn.Linear(4, classes))
    for parameter in body.parameters():
        nn.init.normal_(parameter, generator=generator)
    return ImageClassifier(body, shape, classes, arch="tiny")


def context() -> Context:
    return Context(torch.Generator().manual_seed(0))


# --- input range, training data, context -----------------------------------------------------------------------------


def test_input_ranges() -> None:
    images = torch.tensor([0.0, 0.25, 1.0])
    assert InputRange(-1.0, 1.0)(images).tolist() == [-1, -0.5, 1]
    assert InputRange(-1.0, 1.0).scale == 2
    assert InputRange(0.0, 1.0)(images) is images
    assert InputRange(0.5, 0.75)(images).tolist() == [0.5, 0.5625, 0.75]


def training_data(count: int = 10) -> TrainingData:
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, *SHAPE)
    return TrainingData(images, torch.arange(count) * 2)


def test_training_data_counts_every_image_that_it_hands_out() -> None:
    data = training_data()
    assert (len(data), data.images_read, data.reads) == (10, 0, 0)
    images, labels = data.sample(4, torch.Generator().manual_seed(0))
    assert (data.images_read, data.reads) == (4, 4)
    # floats in [0, 1], each with its own label, none twice
    assert images.shape == (4, *SHAPE) and images.dtype == torch.float32
    assert labels.tolist() == (images[:, 0, 0, 0] * 255 * 2).round().long().tolist()
    assert len(set(labels.tolist())) == 4
    data.sample(4, torch.Generator().manual_seed(0))
    assert (data.images_read, data.reads) == (4, 8)
    everything, _ = data.sample(99, torch.Generator())
    assert len(everything) == 10
    assert (data.images_read, data.reads) == (10, 18)


def test_a_pass_in_batches_is_every_image_once_and_counted_as_it_is_read() -> None:
    data = training_data()
    batches = data.batches(4, torch.Generator().manual_seed(0))
    assert data.images_read == 0  # asking for a pass reads nothing
    first, _ = next(batches)
    assert (len(first), data.images_read) == (4, 4)
    labels = [label for _, labels in data.batches(4, torch.Generator()) for label in labels.tolist()]
    assert sorted(labels) == list(range(0, 20, 2))
    assert (data.images_read, data.reads) == (10, 14)


def test_steps_are_counted_and_shown() -> None:
    shown: list[tuple[str, int, int]] = []
    ours = Context(torch.Generator(), progress=lambda *args: shown.append(args))
    assert list(ours.steps(3, "here")) == [0, 1, 2]
    assert ours.cost.gradient_steps == 3
    assert shown == [("here", 0, 3), ("here", 1, 3), ("here", 2, 3), ("here", 3, 3)]
    for _ in ours.steps(5, "there"):
        break
    assert ours.cost.gradient_steps == 4  # only what was done


def test_seeds_come_from_the_generator() -> None:
    first, again = context(), context()
    seeds = [first.seed() for _ in range(5)]
    assert seeds == [again.seed() for _ in range(5)]
    assert len(set(seeds)) == 5
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_shared_artifacts_go_through_the_store_where_there_is_one() -> None:
    built = {"x": torch.ones(1)}
    assert context().shared("name", 1, {}, lambda _own: built) is built
    asked: list[Any] = []
    ours = context()
    ours.shared_store = lambda *args: asked.append(args[:3]) or {"x": torch.zeros(1)}  # type: ignore[func-returns-value]
    assert ours.shared("name", 2, {"a": 1}, lambda _own: built)["x"].item() == 0
    assert asked == [("name", 2, {"a": 1})]


# --- parameters ------------------------------------------------------------------------------------------------------


class Knobs(Params):
    """Parameters of the plugins below."""

    iterations: int = Field(3, ge=1, description="steps")
    rate: float = Field(0.1, gt=0, le=1, description="step size")
    mode: Literal["fast", "slow"] = Field("fast", description="how")

    @model_validator(mode="after")
    def _together(self) -> Knobs:
        if self.mode == "slow" and self.iterations < 2:
            raise ValueError("slow needs two iterations")
        return self


class Painter(Attack[Knobs]):
    """Gives the image that it was made with."""

    name = "painter"
    needs = Access.WEIGHTS
    paint: ClassVar[Callable[[Victim, Tensor, Context], Any]] = staticmethod(
        lambda victim, targets, _context: torch.full((len(targets), *victim.image_shape), 0.5)
    )

    def run(self, victim: Victim, targets: Tensor, context: Context) -> Tensor:
        made: Tensor = type(self).paint(victim, targets, context)
        return made


def painter(paint: Callable[[Victim, Tensor, Context], Any], access: Access = Access.WEIGHTS) -> Painter:
    made: type[Painter] = type("Made", (Painter,), {"paint": staticmethod(paint), "needs": access})
    return made()


def one_line(error: pytest.ExceptionInfo[LeakBenchError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"iteration": 5},
            "unknown parameter painter.iteration: did you mean 'iterations'? painter has: iterations, rate",
        ),
        ({"zzz": 5}, "unknown parameter painter.zzz: painter has: iterations, rate, mode"),
        ({"iterations": 0}, "painter.iterations: input should be greater than or equal to 1 (got 0)"),
        ({"rate": 2}, "painter.rate: input should be less than or equal to 1 (got 2)"),
        ({"rate": float("nan")}, "painter.rate: input should be a finite number (got nan)"),
        ({"mode": "fats"}, "painter.mode: input should be 'fast' or 'slow' (got 'fats')"),
        ({"iterations": "x"}, "painter.iterations: input should be a valid integer"),
        ({"iterations": 1, "mode": "slow"}, "painter: slow needs two iterations"),
    ],
)
def test_wrong_parameters_are_one_line_that_says_what_would_be_right(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        Painter(**given)
    assert one_line(error).startswith(message)
    assert error.value.__cause__ is None


class Fields(Params):
    """One of each kind; no bounds but those of ``seed`` and ``long``."""

    count: int = 1
    some: int | None = None
    rate: float = 0.5
    flag: bool = False
    maybe: bool | None = None
    either: int | bool = 1
    text: str = ""
    seed: int = Field(0, ge=0, lt=2**31)
    long: float = Field(1.0, le=1e200)


class Fielded(Painter):
    name = "fielded"
    Params = Fields


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": 10_000_001}, "fielded.count: input should be within +-10,000,000 (got 10000001)"),
        ({"count": -10_000_001}, "fielded.count: input should be within +-10,000,000 (got -10000001)"),
        ({"count": "10000001"}, "fielded.count: input should be within +-10,000,000 (got '10000001')"),
        ({"count": 10**400}, "fielded.count: input should be within +-10,000,000"),
        ({"some": 10**9}, "fielded.some: input should be within +-10,000,000"),
        ({"rate": 1.1e38}, "fielded.rate: input should be within +-1e38"),
        ({"rate": "-1e300"}, "fielded.rate: input should be within +-1e38 (got '-1e300')"),
        ({"seed": 2**31}, "fielded.seed: input should be less than 2147483648"),
        ({"count": True}, "fielded.count: input should be a number, not true or false (got True)"),
        ({"some": False}, "fielded.some: input should be a number, not true or false (got False)"),
        ({"rate": True}, "fielded.rate: input should be a number, not true or false (got True)"),
        ({"text": True}, "fielded.text: input should be a valid string (got True)"),
    ],
)
def test_every_number_has_bounds_and_true_is_none(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        Fielded(**given)
    assert one_line(error).startswith(message)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({"count": "5", "some": "7", "rate": "2"}, {"count": 5, "some": 7, "rate": 2.0}),
        ({"count": 10_000_000, "rate": -1e38}, {"count": 10_000_000, "rate": -1e38}),
        ({"seed": 2**31 - 1, "long": 1e199}, {"seed": 2**31 - 1, "long": 1e199}),  # bounds of their own
        ({"flag": "1", "maybe": "0"}, {"flag": True, "maybe": False}),
        ({"flag": True, "maybe": "false", "either": True}, {"flag": True, "maybe": False, "either": True}),
    ],
)
def test_texts_become_numbers_and_booleans(given: dict[str, Any], taken: dict[str, Any]) -> None:
    params = Fielded(**given).params.model_dump()
    assert {name: (type(params[name]), params[name]) for name in given} == {k: (type(v), v) for k, v in taken.items()}


def test_parameters_can_not_be_changed_afterwards() -> None:
    attack = Painter(iterations=7)
    assert (attack.params.iterations, attack.params.rate) == (7, 0.1)
    with pytest.raises(ValidationError):
        attack.params.iterations = 8  # type: ignore[misc]


def test_the_parameters_class_is_the_one_in_the_brackets() -> None:
    class Heir(Painter):
        name = "heir"

    class Generic_(Attack[Params]):  # noqa: N801
        name = "generic"

    assert Painter.Params is Knobs
    assert Heir.Params is Knobs
    assert Generic_.Params is Params


def test_an_heir_may_bring_parameters_of_its_own() -> None:
    class More(Knobs):
        extra: int = 1

    class Heir(Painter):
        name = "heir"
        Params = More

    assert Heir(extra=4).params.model_dump() == {"iterations": 3, "rate": 0.1, "mode": "fast", "extra": 4}


def test_a_plugin_without_brackets_has_no_parameters() -> None:
    class Plain(Attack):  # type: ignore[type-arg]
        name = "plain"
        needs = Access.WEIGHTS

        def run(self, victim: Victim, targets: Tensor, context: Context) -> Tensor:  # noqa: ARG002
            return torch.zeros(len(targets), *victim.image_shape)

    assert Plain()(Victim(tiny(), Access.WEIGHTS), torch.tensor([1]), context()).images.shape == (1, *SHAPE)
    with pytest.raises(UsageError, match=r"unknown parameter plain\.x: plain has: none"):
        Plain(x=1)


def test_kinds() -> None:
    assert (Attack.kind, Defense.kind) == ("attack", "defense")
    assert issubclass(Attack, Plugin) and issubclass(Defense, Plugin)


# --- attacks ---------------------------------------------------------------------------------------------------------

TARGETS = torch.tensor([0, 2, 1, 1])


def test_an_attack_returns_checked_images_with_targets_and_cost() -> None:
    def paint(victim: Victim, targets: Tensor, context: Context) -> Tensor:
        for _ in context.steps(7, "painting"):
            victim.scores(torch.zeros(5, *SHAPE))
        victim.labels(torch.zeros(2, *SHAPE))
        return torch.linspace(-5e-5, 1 + 5e-5, len(targets) * 4).double().view(-1, *SHAPE).requires_grad_()

    ours = context()
    made = painter(paint)(Victim(tiny(), Access.WEIGHTS), TARGETS, ours)
    assert made.images.shape == (4, *SHAPE)
    assert (made.images.dtype, made.images.requires_grad) == (torch.float32, False)
    # rounding is clamped away
    assert (float(made.images.min()), float(made.images.max())) == (0, 1)
    assert torch.equal(made.targets, TARGETS)
    assert (made.cost.queries, made.cost.gradient_steps) == (7 * 5 + 2, 7)
    assert made.cost.seconds > 0
    assert made.cost is ours.cost
    # the next call counts from nothing
    assert painter(paint)(Victim(tiny(), Access.WEIGHTS), TARGETS, ours).cost.queries == 37


def test_the_cost_of_an_attack_is_its_own() -> None:
    victim = Victim(tiny(), Access.WEIGHTS)
    victim.scores(torch.zeros(3, *SHAPE))
    made = painter(lambda v, t, _: v.scores(torch.zeros(1, *SHAPE)).new_zeros(len(t), *SHAPE))(
        victim, TARGETS, context()
    )
    assert (victim.cost.queries, made.cost.queries) == (3, 1)


@pytest.mark.parametrize(
    ("paint", "error", "message"),
    [
        (lambda _v, t, _: torch.full((len(t), *SHAPE), 1.1), PluginError, "images in [0, 1]: clamp inside the attack"),
        (lambda _v, t, _: torch.full((len(t), *SHAPE), -0.1), PluginError, "images in [0, 1]: clamp inside the attack"),
        (lambda _v, t, _: torch.full((len(t), *SHAPE), float("nan")), NumericalError, "images with NaN or infinity"),
        (lambda _v, t, _: torch.full((len(t), *SHAPE), float("inf")), NumericalError, "images with NaN or infinity"),
        (lambda _v, t, _: torch.zeros(len(t) - 1, *SHAPE), PluginError, "shape (4, 1, 2, 2), got (3, 1, 2, 2)"),
        (lambda _v, t, _: torch.zeros(len(t), 3, 2, 2), PluginError, "shape (4, 1, 2, 2), got (4, 3, 2, 2)"),
        (lambda _v, t, _: torch.zeros(len(t), 4), PluginError, "shape (4, 1, 2, 2), got (4, 4)"),
        (lambda _v, _t, _c: None, PluginError, "shape (4, 1, 2, 2), got NoneType"),
        (lambda _v, t, _: torch.zeros(len(t), *SHAPE).numpy(), PluginError, "shape (4, 1, 2, 2), got ndarray"),
    ],
    ids=["above 1", "below 0", "NaN", "inf", "too few", "channels", "flat", "None", "numpy"],
)  # fmt: skip
def test_images_that_break_the_contract_are_refused(paint: Any, error: type[LeakBenchError], message: str) -> None:
    with pytest.raises(error) as found:
        painter(paint)(Victim(tiny(), Access.WEIGHTS), TARGETS, context())
    assert type(found.value) is error
    assert message in one_line(found) and one_line(found).startswith("painter")


def test_one_bad_pixel_is_enough() -> None:
    def paint(_victim: Victim, targets: Tensor, _context: Context) -> Tensor:
        images = torch.zeros(len(targets), *SHAPE)
        images[2, 0, 1, 1] = float("nan")
        return images

    with pytest.raises(NumericalError):
        painter(paint)(Victim(tiny(), Access.WEIGHTS), TARGETS, context())


@pytest.mark.parametrize("granted", list(Access))
@pytest.mark.parametrize("needed", list(Access))
def test_an_attack_gets_what_it_needs_and_not_more(granted: Access, needed: Access) -> None:
    seen: list[Access] = []

    def paint(victim: Victim, targets: Tensor, _context: Context) -> Tensor:
        seen.append(victim.access)
        uses: list[tuple[Access, Callable[[], object]]] = [
            (Access.LABELS, lambda: victim.labels(torch.zeros(1, *SHAPE))),
            (Access.SCORES, lambda: victim.scores(torch.zeros(1, *SHAPE))),
            (Access.WEIGHTS, lambda: victim.network),
        ]
        for level, use in uses:
            if level <= needed:
                use()
            else:
                with pytest.raises(NotApplicable, match=f"needs {level.name}, the victim grants {needed.name}"):
                    use()
        return torch.zeros(len(targets), *SHAPE)

    attack, victim = painter(paint, needed), Victim(tiny(), granted)
    if granted < needed:
        with pytest.raises(NotApplicable, match=f"painter needs {needed.name}, the victim grants {granted.name}"):
            attack(victim, TARGETS, context())
        assert not seen  # its code is not even started
    else:
        attack(victim, TARGETS, context())
        assert seen == [needed]


def test_a_victim_at_some_access_never_grants_more_than_it_has() -> None:
    cost = Cost()
    assert Victim(tiny(), Access.LABELS).at(Access.WEIGHTS, cost).access == Access.LABELS
    assert Victim(tiny(), Access.WEIGHTS).at(Access.SCORES, cost).access == Access.SCORES
    assert Access.LABELS < Access.SCORES < Access.WEIGHTS


def test_answers_of_a_victim() -> None:
    network = tiny()
    images = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(0)).requires_grad_()
    victim = Victim(network, Access.SCORES)
    scores = victim.scores(images)
    assert torch.equal(scores, network(images))
    assert not scores.requires_grad  # no gradients without the weights
    assert torch.equal(victim.labels(images), scores.argmax(1))
    assert victim.cost.queries == 12
    assert (victim.image_shape, victim.classes) == (SHAPE, 3)


def test_a_refused_query_costs_nothing() -> None:
    victim = Victim(tiny(), Access.LABELS)
    with pytest.raises(NotApplicable):
        victim.scores(torch.zeros(4, *SHAPE))
    assert victim.cost.queries == 0


@pytest.mark.parametrize("targets", [[3], [-1, 0]])
def test_targets_outside_the_classes_are_refused(targets: list[int]) -> None:
    with pytest.raises(UsageError, match=r"targets must be classes 0\.\.2"):
        Painter()(Victim(tiny(), Access.WEIGHTS), torch.tensor(targets), context())


def test_no_targets_give_no_images() -> None:
    made = Painter()(Victim(tiny(), Access.WEIGHTS), torch.zeros(0, dtype=torch.long), context())
    assert made.images.shape == (0, *SHAPE)


def test_what_an_attack_raises_comes_through() -> None:
    def paint(_victim: Victim, _targets: Tensor, _context: Context) -> Tensor:
        raise ZeroDivisionError("in the attack")

    with pytest.raises(ZeroDivisionError, match="in the attack"):
        painter(paint)(Victim(tiny(), Access.WEIGHTS), TARGETS, context())


# --- defences --------------------------------------------------------------------------------------------------------


def defense(protect: Callable[[ImageClassifier], Any]) -> Defense[Any]:
    class Made(Defense[Params]):
        name = "made"

        def protect(self, ann: ImageClassifier, data: TrainingData, context: Context) -> Any:  # noqa: ARG002
            return protect(ann)

    return Made()


def converted(ann: ImageClassifier, theta: float | None = 1.0) -> SpikingNetwork:
    network = SpikingNetwork.from_ann(ann, SpikingConfig(2))
    if theta is not None:
        network.neurons[0].set_threshold(theta)
    return network


def test_a_defence_gets_a_frozen_ann_and_returns_a_frozen_network() -> None:
    seen: list[bool] = []

    def protect(ann: ImageClassifier) -> SpikingNetwork:
        seen.extend([ann.training, any(p.requires_grad for p in ann.parameters())])
        return converted(ann).train().requires_grad_(True)

    network = defense(protect)(tiny().train(), training_data(), context())
    assert seen == [False, False]
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("result", [None, 3, nn.Linear(2, 2)], ids=str)
def test_what_is_no_network_is_refused(result: Any) -> None:
    with pytest.raises(PluginError) as error:
        defense(lambda _: result)(tiny(), training_data(), context())
    assert one_line(error).startswith("made.protect must return a SpikingNetwork or an ImageClassifier")


def test_a_network_for_other_images_or_classes_is_refused() -> None:
    for other in (tiny(classes=4), tiny(shape=(1, 2, 3))):
        with pytest.raises(PluginError, match="other images or classes than the ANN's"):
            defense(lambda _, other=other: other)(tiny(), training_data(), context())  # type: ignore[misc]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_network_that_holds_no_numbers_is_refused(bad: float) -> None:
    def protect(ann: ImageClassifier) -> ImageClassifier:
        broken = copy.deepcopy(ann)
        with torch.no_grad():
            broken.body[3].weight[0, 0] = bad  # type: ignore[index]
        return broken

    with pytest.raises(NumericalError, match=r"made: the protected network holds NaN or infinity in 'body\.3\.weight'"):
        defense(protect)(tiny(), training_data(), context())


def test_a_network_whose_thresholds_were_forgotten_is_refused() -> None:
    with pytest.raises(NumericalError, match="threshold"):
        defense(lambda ann: converted(ann, theta=None))(tiny(), training_data(), context())


def write_in_place(ann: ImageClassifier) -> None:
    with torch.no_grad():
        ann.body[1].weight.mul_(2)  # type: ignore[index]


def write_to_data(ann: ImageClassifier) -> None:
    ann.body[1].weight.data.mul_(2)  # type: ignore[index]


def put_another_weight(ann: ImageClassifier) -> None:
    ann.body[1].weight = nn.Parameter(torch.zeros(4, 4))  # type: ignore[index]


def put_another_layer(ann: ImageClassifier) -> None:
    ann.body[1] = nn.Linear(4, 4, bias=False)  # type: ignore[operator]


@pytest.mark.parametrize("damage", [write_in_place, write_to_data, put_another_weight, put_another_layer])
def test_a_defence_that_writes_to_the_ann_is_refused(damage: Callable[[ImageClassifier], None]) -> None:
    def protect(ann: ImageClassifier) -> SpikingNetwork:
        network = converted(ann)
        damage(ann)
        return network

    with pytest.raises(PluginError, match=r"made\.protect changed the ANN.*copy"):
        defense(protect)(tiny(), training_data(), context())


def test_a_copy_may_be_changed_at_will() -> None:
    def protect(ann: ImageClassifier) -> ImageClassifier:
        mine = copy.deepcopy(ann)
        for damage in (write_in_place, write_to_data, put_another_weight, put_another_layer):
            damage(mine)
        return mine

    defense(protect)(tiny(), training_data(), context())


def test_what_a_defence_raises_comes_through() -> None:
    def protect(ann: ImageClassifier) -> None:
        write_in_place(ann)
        raise ZeroDivisionError("in the defence")

    with pytest.raises(ZeroDivisionError):
        defense(protect)(tiny(), training_data(), context())


class Talks(Attack[Params]):
    name = "talks"
    needs = Access.LABELS

    def run(self, victim: Victim, targets: Tensor, context: Context) -> Tensor:
        for number in range(1001):
            context.finding(f"finding {number}", number)
        return torch.zeros(len(targets), *victim.image_shape)


def test_more_findings_than_fit_a_report_are_refused() -> None:
    with pytest.raises(PluginError, match="talks has 1001 findings: 1000 at most"):
        Talks()(Victim(tiny(), Access.WEIGHTS), torch.tensor([0]), context())
