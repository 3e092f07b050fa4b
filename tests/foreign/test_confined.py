"""Files parsed by a confined process: what it may do, and what is made of its death, its silence and its lies."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hdf5_files import HOSTILE, file_of, network
from torch import Tensor

from leakbench.errors import UsageError
from leakbench.foreign import confined, hdf5
from leakbench.foreign.confined import read_confined
from leakbench.foreign.hdf5 import Refused, read_tree
from leakbench.runtime.isolation.confinement import what_is_lacking
from leakbench.runtime.isolation.messages import Broken, Message, decode

apart = [pytest.mark.slow, pytest.mark.skipif(bool(what_is_lacking()), reason="this system can't confine a process")]
BEGINNING = "import json, sys; facts = json.loads(sys.stdin.buffer.readline()); sys.path[:] = facts['path']; "


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "NET.nir"
    file.write_bytes(network())
    return file


def refusal(path: Path) -> str:
    """What the message says behind the file's name."""
    with pytest.raises(UsageError) as caught:
        read_confined(path, "--snn")
    line = str(caught.value)
    assert line.isprintable()
    beginning = f"--snn {str(path)!r} is no NIR file that is read: "
    assert line.startswith(beginning)
    return line.removeprefix(beginning)


def assert_same(read: Any, expected: Any) -> None:
    assert type(read) is type(expected)
    if isinstance(expected, dict):
        assert list(read) == list(expected)
        for name, value in expected.items():
            assert_same(read[name], value)
    elif isinstance(expected, np.ndarray):
        assert (read.dtype, read.shape) == (expected.dtype, expected.shape)
        assert read.tobytes() == expected.tobytes()
    else:
        assert read == expected


# --- what is read ----------------------------------------------------------------------------------------------------


class TestApart:
    pytestmark = apart

    def test_a_file_comes_back(self, tmp_path: Path) -> None:
        def fill(file: Any) -> None:
            for dtype in ("f2", "f4", "f8", ">f8", "i1", "i2", "i4", "i8", ">i4", "u1", "u2", "u4", "u8", "?"):
                file[f"numbers {dtype}"] = np.arange(-6, 6).reshape(3, 4).astype(dtype)
                file[f"number {dtype}"] = np.ones((), dtype)
                file[f"no numbers {dtype}"] = np.ones((2, 0), dtype)
            file["not finite"] = np.array([np.nan, np.inf])
            file.create_dataset("packed", data=np.random.default_rng(0).normal(size=(100, 70)), compression="gzip")
            file.create_group("group/empty")
            file["text"], file["pairs"], file["none"] = "é\x1b", [("a", "b"), ("c", "")], np.array([], dtype="S1")

        (tmp_path / "file").write_bytes(file_of(fill))
        assert_same(read_confined(tmp_path / "file", "--snn"), read_tree(file_of(fill)))

    def test_an_empty_file_and_links_come_back(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(file_of(lambda _: None))
        (tmp_path / "link").symlink_to("file")
        assert read_confined(tmp_path / "link", "--snn") == {}

    @pytest.mark.parametrize(
        "problem", ["external storage", "400 MB that nobody wrote", "a name for terminals", "nothing"]
    )
    def test_a_refusal_is_one_line(self, path: Path, problem: str) -> None:
        build, says = HOSTILE[problem]
        path.write_bytes(build())
        assert refusal(path) == says

    def test_its_process_has_nothing_else(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Even where a file's author has taken it over."""
        secret = path.with_name("secret")
        secret.write_text("secret")
        attempts = f"""
import os, socket, subprocess
from leakbench.foreign import child

def tried(attempt):
    try:
        return f"open: {{attempt()}}"
    except Exception as error:
        return type(error).__name__

def attempts(content):
    return {{
        "content": str(len(content)),
        "read": tried(lambda: open({str(secret)!r}).read()),
        "list": tried(lambda: os.listdir("/")),
        "write": tried(lambda: open({str(path.with_name("new"))!r}, "w")),
        "connect": tried(socket.socket),
        "start": tried(lambda: subprocess.run(["/bin/true"])),
        "kill": tried(lambda: os.kill(os.getppid(), 0)),
        "environment": ", ".join(sorted(os.environ)),
        "descriptors": tried(lambda: os.fstat(3)),
    }}

child.read_tree = attempts
child.serve(facts)
"""
        monkeypatch.setattr(confined, "_BOOT", BEGINNING + f"exec({attempts!r})")
        monkeypatch.setenv("SECRET", "secret")
        monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
        assert read_confined(path, "--snn") == {
            "content": str(path.stat().st_size),
            "read": "PermissionError",
            "list": "PermissionError",
            "write": "PermissionError",
            "connect": "PermissionError",
            "start": "PermissionError",
            "kill": "PermissionError",
            "environment": "LC_CTYPE, MKL_NUM_THREADS, OMP_NUM_THREADS, OPENBLAS_NUM_THREADS",
            "descriptors": "OSError",
        }
        assert not path.with_name("new").exists() and caplog.messages == []

    @pytest.mark.parametrize(
        ("act", "says"),
        [("time.sleep(60)", "parsing it takes more than 1 s"), ("", "the process that parses it ended with status 0")],
    )
    def test_it_may_not_listen(self, path: Path, monkeypatch: pytest.MonkeyPatch, act: str, says: str) -> None:
        """To more than a pipe holds."""
        path.write_bytes(network() + bytes(1 << 20))
        monkeypatch.setattr(confined, "_BOOT", f"import time; {act}")
        monkeypatch.setattr(confined, "_PATIENCE", 1.0)
        assert refusal(path) == says

    def test_its_memory_is_limited(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        boot = "from leakbench.foreign import child; child.read_tree = lambda _: bytes(7 << 30); child.serve(facts)"
        monkeypatch.setattr(confined, "_BOOT", BEGINNING + boot)
        assert refusal(path) == "it takes more memory than there is"

    @pytest.mark.parametrize(
        ("act", "says"),
        [
            ("os.kill(os.getpid(), 11)", "the process that parses it ended by SIGSEGV"),
            ("os.kill(os.getpid(), 9)", "the process that parses it ended by SIGKILL (out of memory?)"),
            ("os.kill(os.getpid(), 40)", "the process that parses it ended by signal 40"),
            ("os._exit(3)", "the process that parses it ended with status 3"),
            ("raise ValueError", "the process that parses it ended with status 1"),
            ("os.kill(os.getpid(), 24)", "the process that parses it ended by SIGXCPU (it took too long)"),
            ("os.close(1); time.sleep(60)", "the process that parses it closes its pipes and does not end"),
            ("time.sleep(60)", "parsing it takes more than 1 s"),
            ("os.write(1, b'x' * 15); time.sleep(60)", "parsing it takes more than 1 s"),
            ("os.write(1, b'x' * 16)", "a message of 17361641481138401520 bytes is too large: 1073741824 at most"),
            ("os.write(1, bytes(16))", "what it sent is no message (JSONDecodeError)"),
            ("os.write(1, b'\\x02' + bytes(15) + b'{}')", "the process that parses it answers what is no answer"),
        ],
    )
    def test_what_it_may_do_instead(self, path: Path, monkeypatch: pytest.MonkeyPatch, act: str, says: str) -> None:
        monkeypatch.setattr(
            confined, "_BOOT", BEGINNING + f"sys.stdin.buffer.read(facts['size']); import os, time; {act}"
        )
        monkeypatch.setattr(confined, "_PATIENCE", 1.0)
        assert refusal(path) == says
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)  # nothing is left of it


def test_without_confinement_the_file_is_read_here_and_a_warning_says_so(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(confined, "what_is_lacking", lambda: "libseccomp.so.2 is not installed")
    with caplog.at_level(logging.WARNING, logger="leakbench"):
        assert_same(read_confined(path, "--snn"), read_tree(network()))
    (line,) = caplog.messages
    assert line.startswith(f"--snn {str(path)!r} is parsed in this process") and line.endswith("is not installed")
    path.write_bytes(b"")
    assert refusal(path) == "it is no HDF5 file"


# --- what is no file -------------------------------------------------------------------------------------------------


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # which would hang whoever waits for its writer
    (tmp_path / "loop").symlink_to("loop")
    with (tmp_path / "large").open("wb") as file:
        file.truncate((1 << 30) + 1)
    assert refusal(tmp_path / "pipe") == "pipe is no file"
    assert refusal(tmp_path) == f"{tmp_path.name} is no readable file"
    assert refusal(tmp_path / "large") == "large is too large"
    assert refusal(tmp_path / "loop") == "loop is no readable file"
    assert refusal(Path("/dev/zero")) == "zero is no file"


def test_a_missing_file_is_named(path: Path) -> None:
    for missing in (path.with_name("other"), path.with_name("folder") / "other", path / "other"):
        with pytest.raises(UsageError, match=f"^--snn: no such file '{missing}'$"):
            read_confined(missing, "--snn")
    with pytest.raises(UsageError, match=r"^--snn: the name .* is too long"):
        read_confined(path.with_name("n" * 300), "--snn")


def test_missing_h5py_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"^reading NIR files needs h5py"):
        read_confined(path, "--snn")


# --- what the process says -------------------------------------------------------------------------------------------


def entry(name: Any, kind: str = "group", group: Any = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "group": group, "kind": kind, **more}


def tree_of(*entries: Any, **tensors: Tensor) -> Any:
    """What is made of an answer; tensors are named t0, t1, ..."""
    named = {name.removeprefix("t"): tensor for name, tensor in tensors.items()}
    return confined._tree(Message({"type": "tree", "entries": list(entries)}, named))


def test_an_answer_is_a_tree() -> None:
    read = tree_of(
        entry("a"), entry("b", "array", 0), entry("c", "text", 0, text=[["x"]]), entry("b", "nothing"),
        t1=torch.tensor(1.0, dtype=torch.float64),
    )  # fmt: skip
    assert_same(read, {"a": {"b": np.array(1.0), "c": [["x"]]}, "b": None})


@pytest.mark.parametrize("layout", [[1, 2], [2, 1]])
def test_arrays_are_laid_out_plainly(layout: list[int]) -> None:
    tensor = torch.arange(4.0).reshape(2, 2).permute([one - 1 for one in layout])
    array = tree_of(entry("a", "array"), t0=tensor)["a"]
    assert array.flags.c_contiguous and array.tolist() == tensor.tolist()


@pytest.mark.parametrize(
    ("entries", "tensors"),
    [
        ([entry("a", group=0)], []),
        ([entry("a", group=1), entry("b")], []),
        ([entry("a", group=-1)], []),
        ([entry("a", "nothing"), entry("b", group=0)], []),
        ([entry("a"), entry("a", "nothing")], []),
        ([entry("")], []),
        ([entry("a/b")], []),
        ([entry(1)], []),
        ([entry(None)], []),
        ([entry("a", group="0")], []),
        ([entry("a", group=True)], []),
        ([entry("a", "other")], []),
        ([entry("a", more=1)], []),
        ([entry("a", text="x")], []),
        ([entry("a", "text")], []),
        ([entry("a", "text", text=1)], []),
        ([entry("a", "text", text=["x", 1])], []),
        ([entry("a", "text", text=["x", ["y"]])], []),
        ([entry("a", "text", text=[[["x"]]])], []),
        ([entry("a", "array")], []),
        ([entry("a", "array")], [torch.ones(1), torch.ones(1)]),
        ([entry("a")], [torch.ones(1)]),
        ([entry("a", "array")], [torch.ones(1, dtype=torch.bfloat16)]),
        ([entry("a", "array")], [torch.ones(1, dtype=torch.complex64)]),
        ([entry("a", "array")], [torch.ones((1,) * 9)]),
        ([entry("a", "array")], [torch.tensor([2], dtype=torch.uint8).view(torch.bool)]),
        ([entry(str(number), group=number - 1 if number else None) for number in range(9)], []),
        ([["a", None, "group"]], []),
        (["a"], []),
    ],
)
def test_other_answers_are_refused(entries: list[Any], tensors: list[Tensor]) -> None:
    with pytest.raises(Broken, match=r"^the process that parses it answers "):
        tree_of(*entries, **{f"t{number}": tensor for number, tensor in enumerate(tensors)})


@pytest.mark.parametrize(
    "text",
    [b'{"type": "tree"}', b'{"type": "tree", "entries": {}}', b'{"type": "other"}', b'{"type": "refused"}', b"{}",
     b'{"type": "refused", "reason": 1}', b'{"type": "refused", "reason": "' + b"x" * 501 + b'"}',
     b'{"type": "tree", "entries": [], "more": 1}'],
)  # fmt: skip
def test_other_heads_are_refused(text: bytes) -> None:
    with pytest.raises(Broken, match=r"^the process that parses it answers what is no answer$"):
        confined._tree(decode(text, b""))


def test_a_refusal_is_passed_on() -> None:
    with pytest.raises(Refused, match=r"^no\x1b$"):
        confined._tree(Message({"type": "refused", "reason": "no\x1b"}, {}))
