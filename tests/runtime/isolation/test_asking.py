"""What a plugin asks for, hands over or is called: bounds that the process with the data holds it to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from leakbench import registry
from leakbench.contracts import (
    Access,
    Attack,
    AttackContext,
    Cost,
    DefenseContext,
    Params,
    Reference,
    TrainingData,
    Victim,
)
from leakbench.errors import NumericalError, PluginError, UsageError
from leakbench.models.storage import build_ann, load_network, save_network
from leakbench.models.untrusted import NetworkRecord
from leakbench.runtime.isolation import handlers
from leakbench.runtime.isolation.confinement import what_is_lacking
from leakbench.runtime.isolation.handlers import AttackHandler, DefenseHandler
from leakbench.runtime.isolation.messages import Broken, Message
from leakbench.runtime.isolation.remote import RemoteReferences
from leakbench.runtime.isolation.said import Description
from leakbench.runtime.isolation.server import _Warm
from leakbench.runtime.isolation.stand_in import built, stand_in
from leakbench.runtime.plugins import isolating, isolation_of, load_plugin
from leakbench.snn import SpikingConfig, SpikingNetwork

CPU = torch.device("cpu")
OPEN = cast(Any, SimpleNamespace(is_closed=False))
"""a server whose call goes on"""


def ann() -> Any:
    return build_ann("vgg4", (1, 8, 8), 3, (0, 1), torch.Generator().manual_seed(0)).eval()


def spiking() -> SpikingNetwork:
    network = SpikingNetwork.from_ann(ann(), SpikingConfig(4))
    for layer in network.neurons:
        layer.set_threshold(1.0)
    return network


def forgotten_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is known to no other."""
    monkeypatch.setattr(registry, "_registered", {kind: dict(known) for kind, known in registry._registered.items()})


def asked(handler: Any, what: str, **tensors: torch.Tensor) -> Any:
    return handler(Message({"type": what}, tensors))


def test_no_more_images_are_handed_out_at_a_time_than_there_are() -> None:
    data = TrainingData(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))
    handler = DefenseHandler(OPEN, data, DefenseContext(torch.Generator()))
    asked(handler, "take", index=torch.tensor([0, 1, 2, 2]))
    assert data.reads == 4
    answer, _ = asked(handler, "take", index=torch.zeros(5, dtype=torch.int64))
    assert answer["type"] == "refused" and data.reads == 4


def attack_handler(context: AttackContext) -> AttackHandler:
    return AttackHandler(OPEN, Victim(ann(), Access.LABELS, context.cost), context, members=False)


def test_a_query_has_a_largest_size() -> None:
    context = AttackContext(torch.Generator())
    handler = attack_handler(context)
    most = handlers._MOST_QUERIED // 64
    answer, _ = asked(handler, "labels", images=torch.zeros(1, 1, 8, 8).expand(most + 1, 1, 8, 8))
    assert answer["text"] == f"a victim is asked about {most} such images at a time at most"
    assert context.cost.queries == 0


def test_states_that_are_kept_have_a_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    context = AttackContext(torch.Generator())
    context.checkpoints = lambda _name: cast(Any, _Nowhere())
    handler = attack_handler(context)
    monkeypatch.setattr(handlers, "_MOST_KEPT", 1000)
    state = {"x": torch.zeros(200)}

    def save(name: str) -> None:
        handler(Message({"type": "save", "name": name, "last": True}, state))

    save("one")
    save("one")  # the same again
    with pytest.raises(Broken, match="kept too much"):
        save("other")


class _Nowhere:
    def save(self, state: Any, _last: bool) -> None:
        state()


def test_a_stored_network_is_of_float32_whatever_is_handed_over() -> None:
    """Kernels take memory for float32: another type would have them write beside it."""
    network = spiking()
    tensors, record = save_network(network)
    name = next(name for name in tensors if name.endswith("initial"))
    for dtype in (torch.int8, torch.uint8, torch.int64):
        with pytest.raises(UsageError, match=r"save it as torch\.float32"):
            load_network({**tensors, name: torch.zeros(64, 1, 1, dtype=dtype)}, record, CPU)
    for dtype in (torch.float16, torch.float64):
        loaded = load_network({**tensors, name: torch.zeros(32, 1, 1, dtype=dtype)}, record, CPU)
        assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("constant", ["threshold", "initial"])
def test_kernels_do_not_get_other_types(constant: str) -> None:
    network = spiking()
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    wanted = network(images, seed=0)
    for layer in network.neurons:
        setattr(layer, constant, getattr(layer, constant).to(torch.int8))
    assert torch.allclose(network(images, seed=0), wanted, atol=1e-5)


def test_code_of_a_model_that_nobody_named_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "unasked.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    forgotten_afterwards(monkeypatch)
    registry.register("model", "unasked", "unasked:build")
    record = NetworkRecord(arch="unasked@" + "0" * 64, image_shape=[1, 8, 8], classes=3, input_range=[0.0, 1.0])
    with pytest.raises(PluginError, match="'unasked': it must be built in, or the one that the plugin was given"):
        built("mine", record, {}, CPU, "vgg4")
    assert "unasked" not in sys.modules


@pytest.mark.skipif(bool(what_is_lacking()), reason="this system can't isolate")
def test_a_package_that_hides_its_code_is_not_run_beside_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = tmp_path / "elsewhere"
    hidden.mkdir()
    (hidden / "inner.py").write_text("raise SystemExit('imported')")
    (tmp_path / "hiding").mkdir()
    (tmp_path / "hiding" / "__init__.py").write_text(f"__path__.append({str(hidden)!r})")
    monkeypatch.syspath_prepend(tmp_path)
    forgotten_afterwards(monkeypatch)
    registry.register("attack", "hiding", "hiding.inner:Attack")
    found = pytest.raises(PluginError, match=r"its module 'hiding\.inner' is in no file that Python finds")
    with isolation_of(True, [], "cpu") as isolation, isolating(isolation), found:
        load_plugin("attack", "hiding")
    assert "hiding" not in sys.modules


def test_an_attack_that_needs_nothing_is_refused() -> None:
    facts = Description(
        name="mine", version=1, cites="", doc="", presets={}, parameters=[], leakage="inversion", needs=0, effort="",
        ensemble=False, uses_public=False, uses_references=False, uses_population=False,
        uses_synthetic=False, asks_of="", spiking=True, members=[],
    )  # fmt: skip
    opening = cast(Any, type("Opening", (), {"kind": "attack"})())
    with pytest.raises(PluginError, match="it must say what it needs"):
        stand_in(cast(Any, None), opening, facts)


def test_the_warm_process_reads_and_writes_where_no_plugin_can(tmp_path: Path) -> None:
    """Else it would take what a plugin left there, as compiled kernels in its cache, for its own."""
    given = SimpleNamespace(_own=str(tmp_path / "own"), home=str(tmp_path / "home"))
    variables = _Warm._environment(cast(Any, given))
    assert {variables["HOME"], variables["TMPDIR"]} == {given._own}
    assert not [name for name, value in variables.items() if given.home in value]


def test_joblib_does_not_try_for_semaphores_that_it_may_not_make(tmp_path: Path) -> None:
    """Else every cell of a plugin that imports scikit-learn would print its warning."""
    variables = _Warm._environment(cast(Any, SimpleNamespace(_own=str(tmp_path))))
    refused = "import _multiprocessing, errno\ndef no(*_, **__): raise PermissionError(errno.EACCES, 'no')\n"
    code = f"{refused}_multiprocessing.SemLock = no\nimport joblib"

    def status(variables: dict[str, str]) -> int:
        command = [sys.executable, "-W", "error::UserWarning", "-c", code]
        return subprocess.run(command, env=variables, check=False, stderr=subprocess.DEVNULL).returncode

    assert status(variables) == 0
    assert status({name: value for name, value in variables.items() if not name.startswith("JOBLIB")}) == 1


def test_findings_that_no_mean_can_hold_are_refused() -> None:
    class Found(Attack[Params]):
        name = "found"
        needs = Access.LABELS

        def run(self, victim: Victim, targets: torch.Tensor, context: AttackContext) -> torch.Tensor:
            context.finding("x", 1.7e308)
            return torch.rand(len(targets), *victim.image_shape)

    with pytest.raises(NumericalError, match=r"found 1\.7e\+308"):
        Found()(Victim(ann(), Access.LABELS), torch.tensor([0]), AttackContext(torch.Generator()))


def with_references(number: int, access: Access) -> AttackHandler:
    context = AttackContext(torch.Generator())
    members = torch.zeros(4, dtype=torch.bool)
    context.references = tuple(
        Reference(members, lambda: Victim(spiking(), Access.WEIGHTS)).restricted_to(access) for _ in range(number)
    )
    return AttackHandler(OPEN, Victim(spiking(), access, context.cost), context, members=True)


def opened(handler: AttackHandler, reference: int, closed: tuple[int, ...] = ()) -> Any:
    return handler(Message({"type": "open", "reference": reference, "closed": list(closed)}, {}))


def test_references_answer_in_their_own_place_and_cost_no_queries() -> None:
    handler = with_references(2, Access.SCORES)
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    (one, _), (other, _) = opened(handler, 1), opened(handler, 1)
    answers = [
        handler(Message({"type": "scores", "opening": head["opening"]}, {"images": images}))[1]["answer"]
        for head in (one, other, one)
    ]
    assert torch.equal(answers[0], answers[1])  # each copy's noise starts anew
    assert not torch.equal(answers[0], answers[2])  # and goes on
    assert handler._cost.queries == 0


def test_a_network_comes_with_weights_alone() -> None:
    head, tensors = opened(with_references(1, Access.SCORES), 0)
    assert head.keys() == {"type", "opening"} and not tensors
    head, tensors = opened(with_references(1, Access.WEIGHTS), 0)
    assert "network" in head and "noise" in tensors


@pytest.mark.parametrize("question", [{"type": "open", "reference": 1, "closed": []}, {"type": "scores", "opening": 1}])
def test_a_reference_that_is_not_there_is_not_asked(question: dict[str, Any]) -> None:
    handler = with_references(1, Access.SCORES)
    with pytest.raises(Broken, match="reference that"):
        handler(Message(question, {"images": torch.zeros(1, 1, 8, 8)}))


def test_references_that_are_open_at_a_time_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "_MOST_OPEN", 2)
    handler = with_references(1, Access.SCORES)
    first, _ = opened(handler, 0)
    opened(handler, 0)
    answer, _ = opened(handler, 0)
    assert answer["text"] == "an isolated attack has 2 reference networks open at most: let go of some"
    answer, _ = opened(handler, 0, closed=(first["opening"], 99))
    assert answer["type"] == "opened"


def test_a_reference_that_is_no_longer_held_is_closed_with_the_next() -> None:
    asked: list[Any] = []

    def ask(head: Any, _tensors: Any = None) -> Message:
        asked.append(head)
        return Message({"type": "opened", "opening": len(asked)}, {"answer": torch.zeros(2, 3)})

    references = RemoteReferences((1, 8, 8), 3, Access.SCORES, CPU, ask)
    reference = references.reference(0, torch.zeros(4, dtype=torch.bool))
    labels_alone = reference.victim().restricted_to(Access.LABELS, Cost())  # still holds it
    reference.victim()
    kept = reference.victim()
    kept.scores(torch.zeros(2, 1, 8, 8))
    assert [head.get("closed", head.get("opening")) for head in asked] == [[], [], [2], 3]
    del labels_alone, kept
    reference.victim()
    assert sorted(asked[-1]["closed"]) == [1, 3]
