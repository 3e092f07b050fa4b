"""What the tests of the store keep in it, and how they look at what lies on the disk."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from leakbench.runtime.artifact import Artifact, Content, artifact_key
from leakbench.runtime.store import Store

INPUTS = {"plugin": "mine", "params": {"steps": 3, "rate": 0.5}, "ann": "ab" * 32, "seed": 0}
KEY = artifact_key("victim", 1, INPUTS)


def content() -> Content:
    tensors = {
        "images": torch.arange(24, dtype=torch.uint8).reshape(2, 3, 2, 2),
        "scores": torch.tensor([[0.1, -0.0], [float("inf"), 1e-40]]),
        "labels": torch.tensor([1, -7]),
        "seen": torch.tensor([True, False]),
        "none": torch.zeros(0, 3),
        "one": torch.tensor(2.5),
        "turned": torch.arange(6.0).reshape(2, 3).t(),
    }
    return tensors, {"accuracy": {"value": 0.1 + 0.2, "n": 7}, "names": ["é", "\n"], "nothing": None}


def same(artifact: Artifact) -> bool:
    """Whether an artifact is the content, bit for bit."""
    tensors, record = content()
    return (
        artifact.record == record
        and artifact.tensors.keys() == tensors.keys()
        and all(
            artifact.tensors[name].dtype == tensor.dtype
            and artifact.tensors[name].shape == tensor.shape
            and bytes(artifact.tensors[name].contiguous().numpy().data) == bytes(tensor.contiguous().numpy().data)
            for name, tensor in tensors.items()
        )
    )


class Builder:
    """Builds the content and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Content:
        self.calls += 1
        return content()


class NoLock:
    """In place of FileLock: a file system that grants a lock to everyone."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class Refused(NoLock):
    """In place of FileLock: a file system that has no locks."""

    def __enter__(self) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def folder_of(store: Store) -> Path:
    """The folder of the only artifact."""
    (folder,) = (store.root / "objects").glob("??/*")
    return folder


def everything_in(store: Store) -> list[Path]:
    return [path for path in (store.root / "objects").rglob("*") if path.is_file()]


def within_a_minute(call: Callable[[], object]) -> None:
    """Fails where the call hangs, and with the error that it raises."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "it hangs"
    if errors:
        raise errors[0]


@contextmanager
def at_first_call(patch: Any, module: Any, name: str, action: Callable[[], object]) -> Iterator[None]:
    """Does something the first time that a module's function was called, after the call."""
    function, called = getattr(module, name), False

    def wrapped(*args: Any) -> Any:
        nonlocal called
        first, called = not called, True
        result = function(*args)
        if first:
            action()
        return result

    with patch.context() as one:
        one.setattr(module, name, wrapped)
        yield
    assert called
