"""States of stages on the disk: whole or nothing, and never somebody else's."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from leakbench.runtime import checkpoints
from leakbench.runtime.checkpoints import CheckpointFolder

STATE = {"x": torch.arange(6.0).view(2, 3), "step": torch.tensor(4)}


def folder(path: Path, environment: str = "here", every: float = 0) -> CheckpointFolder:
    return CheckpointFolder(path, {"machine": environment}, every)


def kept(path: Path, name: str = "a", environment: str = "here") -> dict[str, Tensor] | None:
    """What another process finds."""
    return folder(path, environment).checkpoint(name).load()


def same(one: dict[str, Tensor] | None, other: dict[str, Tensor]) -> bool:
    return one is not None and one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in other)


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    state = {
        "channels last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "turned": torch.randn(3, 5, dtype=torch.float64).t(),
        "one channel": torch.empty_strided((2, 1, 4, 4), (16, 1, 4, 1)).fill_(2),
        "empty": torch.empty(0, dtype=torch.long),
        "number": torch.tensor(0.1, dtype=torch.float64),
        "bytes": torch.arange(255, dtype=torch.uint8),
        "half": torch.tensor([1.5, float("nan"), float("inf")], dtype=torch.bfloat16),
        "flags": torch.tensor([True, False]),
        "a/b.c \n'\u202e": torch.ones(2, requires_grad=True),
    }
    folder(tmp_path).checkpoint("a").save(lambda: state)
    back = kept(tmp_path)
    assert back is not None and back.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(back[name].nan_to_num(), tensor.detach().nan_to_num())
        assert (back[name].dtype, back[name].stride()) == (tensor.dtype, tensor.stride())
        assert not back[name].requires_grad


def test_nothing_was_kept_yet(tmp_path: Path) -> None:
    assert kept(tmp_path) is None
    assert kept(tmp_path / "gone") is None


def test_the_last_state_counts_and_names_do_not_mix(tmp_path: Path) -> None:
    ours = folder(tmp_path)
    for number in range(3):
        ours.checkpoint("a").save(lambda number=number: {"x": torch.tensor(number)})  # type: ignore[misc]
    ours.checkpoint("../b").save(lambda: {"x": torch.tensor(7)})
    assert same(kept(tmp_path, "a"), {"x": torch.tensor(2)})
    assert same(kept(tmp_path, "../b"), {"x": torch.tensor(7)})
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".safetensors"] * 2  # nothing half written


def test_states_are_written_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    ours = folder(tmp_path, every=60)
    asked: list[float] = []

    def state() -> dict[str, Tensor]:
        asked.append(now[0])
        return {"now": torch.tensor(now[0])}

    for now[0] in (100.0, 159.0, 160.0, 161.0, 219.0, 221.0):
        ours.checkpoint("a").save(state)
    assert asked == [160, 221]  # it costs nothing in between
    assert same(kept(tmp_path), {"now": torch.tensor(221.0)})


def test_what_is_done_waits_for_the_next_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many short computations are not lost for never having been asked at the right time."""
    now = [0.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    ours, state = folder(tmp_path, every=60), {"x": torch.zeros(1)}
    for number in range(5):
        state["x"] += 1  # in place: what was taken stays what it was
        ours.checkpoint(f"part {number}").save(lambda: state, last=True)
    assert list(tmp_path.iterdir()) == []
    now[0] = 60
    ours.checkpoint("part 5").save(lambda: state)
    for number in range(5):
        assert same(kept(tmp_path, f"part {number}"), {"x": torch.tensor([number + 1.0])})
    assert same(kept(tmp_path, "part 5"), {"x": torch.tensor([5.0])})


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def put_a_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(STATE))


def put_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def link_elsewhere(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


@pytest.mark.parametrize(
    "damage", [flip_a_bit, cut, put_a_pickle, put_a_folder, link_elsewhere, lambda path: path.write_bytes(b"")]
)
def test_what_is_damaged_counts_as_nothing(damage: Callable[[Path], None], tmp_path: Path) -> None:
    ours = folder(tmp_path)
    ours.checkpoint("a").save(lambda: STATE)
    (path,) = tmp_path.iterdir()
    damage(path)
    assert kept(tmp_path) is None
    if not path.is_dir():  # and is written over
        folder(tmp_path).checkpoint("a").save(lambda: STATE)
        assert same(kept(tmp_path), STATE)


def test_what_was_written_elsewhere_or_for_another_counts_as_nothing(tmp_path: Path) -> None:
    ours = folder(tmp_path)
    ours.checkpoint("a").save(lambda: STATE)
    assert kept(tmp_path, environment="there") is None
    (path,) = tmp_path.iterdir()
    ours.checkpoint("b").save(lambda: STATE)
    (other,) = set(tmp_path.iterdir()) - {path}
    other.write_bytes(path.read_bytes())
    assert kept(tmp_path, "b") is None


def test_a_disk_that_takes_nothing_does_not_end_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    ours = folder(gone)
    gone.rmdir()
    with caplog.at_level(logging.WARNING, "leakbench"):
        ours.checkpoint("a").save(lambda: STATE)
    assert "the state of a stage can't be kept" in caplog.text and "No such file" in caplog.text
