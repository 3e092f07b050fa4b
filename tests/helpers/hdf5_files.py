"""HDF5 files as NIR's writer lays them out, hostile ones, and a reader that is forked for each file."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

h5py = pytest.importorskip("h5py", reason="NIR files not tested: pip install h5py")

WEIGHT = "/node/nodes/linear/weight"


def file_of(fill: Callable[[Any], object], **settings: Any) -> bytes:
    """The bytes of a file that ``fill`` writes into."""
    content = io.BytesIO()
    with h5py.File(content, "w", **settings) as file:
        fill(file)
    return content.getvalue()


def write_network(file: Any, weight: Callable[[Any], object] | None = None) -> None:
    """A linear layer and four neurons as nir.write lays them out; ``weight`` writes another weight into its group."""
    text = h5py.string_dtype()
    file.create_dataset("version", data="1.0.8", dtype=text)
    graph = file.create_group("node")
    graph.create_dataset("type", data="NIRGraph", dtype=text)
    graph["edges"] = [("input", "linear"), ("linear", "if"), ("if", "output")]
    nodes = graph.create_group("nodes")
    shape = np.array([4])
    arrays: dict[str, dict[str, Any]] = {
        "input": {"shape": shape},
        "linear": {"weight": np.arange(16, dtype=np.float32).reshape(4, 4)},
        "if": {"r": np.ones(4), "v_reset": np.zeros(4), "v_threshold": np.ones(4)},
        "output": {"shape": shape},
    }
    for name, kind in (("input", "Input"), ("linear", "Linear"), ("if", "IF"), ("output", "Output")):
        node = nodes.create_group(name)
        node.create_dataset("type", data=kind, dtype=text)
        for field, value in arrays[name].items():
            if field == "weight" and weight is not None:
                weight(node)
            else:
                node.create_dataset(field, data=value, compression="gzip")


def network(weight: Callable[[Any], object] | None = None) -> bytes:
    return file_of(lambda file: write_network(file, weight))


def changed(change: Callable[[Any], object]) -> bytes:
    """The network's file after a change."""

    def fill(file: Any) -> None:
        write_network(file)
        change(file)

    return file_of(fill)


def _added(group: str, name: str, value: Callable[[Any], object]) -> bytes:
    """The network's file with an object more."""
    return changed(lambda file: file[group].__setitem__(name, value(file)))


def _virtual(node: Any) -> None:
    layout = h5py.VirtualLayout((4, 4), dtype="f4")
    layout[...] = h5py.VirtualSource("/tmp/other.h5", "secret", shape=(4, 4))
    node.create_virtual_dataset("weight", layout)


def external(path: str) -> bytes:
    """Its weight is the first bytes of another file."""
    return network(lambda node: node.create_dataset("weight", shape=(4, 16), dtype="u1", external=[(path, 0, 64)]))


def _opaque(node: Any) -> None:
    kind = h5py.h5t.create(h5py.h5t.OPAQUE, 8)
    kind.set_tag(b"NUMPY:|O")  # h5py 3.16 takes the file's bytes for addresses of objects
    h5py.h5d.create(node.id, b"weight", kind, h5py.h5s.create_simple((4,)))


def _bomb(node: Any) -> None:
    """A quarter of a gigabyte in a chunk of 64 KiB."""
    dataset = node.create_dataset("weight", shape=(128, 128), dtype="f4", chunks=(128, 128), compression="gzip")
    stream = zlib.compressobj(1)
    dataset.id.write_direct_chunk(
        (0, 0), b"".join(stream.compress(bytes(1 << 20)) for _ in range(256)) + stream.flush()
    )


def _short_chunk(node: Any) -> None:
    dataset = node.create_dataset("weight", shape=(4, 4), dtype="f4", chunks=(4, 4), compression="gzip")
    dataset.id.write_direct_chunk((0, 0), zlib.compress(bytes(63)))


def _half_written(node: Any) -> None:
    node.create_dataset("weight", shape=(4, 4), dtype="f4", chunks=(2, 4), compression="gzip")[:2] = 1


def _deep(file: Any) -> None:
    group = file["node/nodes/linear"]
    for _ in range(3000):
        group = group.create_group("a")


def _renamed(old: bytes, new: bytes) -> bytes:
    """The network's file with another name for one of its objects, which no library would write."""
    content = _added("node/nodes/if", "v_resex", lambda _: 0.0)
    assert len(old) == len(new) and old in content
    return content.replace(old, new)


def _one_string_often() -> bytes:
    """3000 strings that are the same 1000 characters of the file."""
    content = bytearray(file_of(lambda file: file.create_dataset("texts", data=["x" * 1000, *["y"] * 2999])))
    with h5py.File(io.BytesIO(content), "r") as file:
        start = file["texts"].id.get_offset()
    content[start : start + 16 * 3000] = content[start : start + 16] * 3000
    return bytes(content)


def _written(value: Any, **settings: Any) -> bytes:
    return network(lambda node: node.create_dataset("weight", data=value, **settings))


def _declared(**settings: Any) -> bytes:
    return network(lambda node: node.create_dataset("weight", **settings))


def _low_level(kind: Any) -> bytes:
    return network(lambda node: h5py.h5d.create(node.id, b"weight", kind, h5py.h5s.create_simple((4,))))


def _brain_float() -> Any:
    kind = h5py.h5t.IEEE_F16LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_ebias(127)
    return kind


_ONES = np.ones((4, 4), np.float32)
_LINEAR = "node/nodes/linear"
_OTHER = f"/{_LINEAR}/other"
_NO_NUMBERS = f"{WEIGHT} holds neither plain numbers nor text"
_FILTERED = f"{WEIGHT} is filtered or compressed otherwise than by gzip alone"
_TOO_LARGE = f"{WEIGHT} is too much: a file may hold 1048576000 bytes of numbers"
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "a group in itself": (
        lambda: _added(_LINEAR, "other", lambda file: file["node"]),
        f"{_OTHER} is there twice",
    ),
    "the root in a group": (
        lambda: _added("node", "a", lambda file: file["/"]),
        "/node/a/node is there twice",
    ),
    "an object twice": (
        lambda: _added("node", "other", lambda file: file["node/type"]),
        "/node/type is there twice",
    ),
    "a soft link": (
        lambda: _added(_LINEAR, "other", lambda _: h5py.SoftLink("/node")),
        f"{_OTHER} is a link",
    ),
    "an external link": (
        lambda: _added(_LINEAR, "other", lambda _: h5py.ExternalLink("/tmp/other.h5", "/secret")),
        f"{_OTHER} is a link",
    ),
    "external storage": (lambda: external("/etc/passwd"), f"{WEIGHT} lies in another file"),
    "external storage that is not there": (lambda: external("/no/such/file"), f"{WEIGHT} lies in another file"),
    "a virtual data set": (lambda: network(_virtual), f"{WEIGHT} is virtual: it lies in other data sets"),
    "3000 groups within each other": (
        lambda: changed(_deep),
        "/node/nodes/linear/a/a/a/a/a/a is a group more than 8 groups deep",
    ),
    "400 MB that nobody wrote": (
        lambda: _declared(shape=(10_000, 10_000), dtype="f4", chunks=(100, 100), compression="gzip"),
        f"{WEIGHT} was never written",
    ),
    "the same without chunks": (lambda: _declared(shape=(10_000, 10_000), dtype="f4"), f"{WEIGHT} was never written"),
    "half of its chunks": (lambda: network(_half_written), f"{WEIGHT} was written in part only"),
    "a chunk that inflates to 256 MB": (lambda: network(_bomb), f"{WEIGHT} inflates to more than it declares"),
    "a chunk that inflates to less": (
        lambda: network(_short_chunk),
        f"{WEIGHT} is damaged: a chunk of it has another size",
    ),
    "chunks of one number": (
        lambda: _declared(shape=(1000, 1000), dtype="f4", chunks=(1, 1)),
        f"{WEIGHT} is too much: a file may hold 200000 chunks",
    ),
    "chunks larger than all": (
        lambda: _written(_ONES, chunks=(1000, 1000), maxshape=(None, None)),
        f"{WEIGHT} has chunks that do not fit its shape",
    ),
    "a gigabyte": (
        lambda: _declared(shape=(1 << 14, 1 << 14), dtype="f4"),
        _TOO_LARGE,
    ),
    "nothing, 2^60 times": (
        lambda: _declared(shape=(0, 1 << 60), dtype="f4"),
        _TOO_LARGE,
    ),
    "nine axes": (lambda: _written(np.ones((1,) * 9)), f"{WEIGHT} has 9 axes: 8 at most are read"),
    "opaque data": (lambda: network(_opaque), _NO_NUMBERS),
    "lists of numbers": (
        lambda: _declared(shape=(4,), dtype=h5py.vlen_dtype(np.int32)),
        _NO_NUMBERS,
    ),
    "records": (
        lambda: _written(np.zeros(4, [("a", "f4"), ("b", "i4")])),
        _NO_NUMBERS,
    ),
    "complex numbers": (lambda: _written(np.zeros(4, complex)), _NO_NUMBERS),
    "references": (lambda: _declared(shape=(4,), dtype=h5py.ref_dtype), _NO_NUMBERS),
    "an enumeration": (
        lambda: _declared(shape=(4,), dtype=h5py.enum_dtype({"no": 0, "yes": 1})),
        _NO_NUMBERS,
    ),
    "floats of 16 bytes": (
        lambda: _written(np.zeros(4, np.longdouble)),
        _NO_NUMBERS,
    ),
    "floats of another kind": (
        lambda: _low_level(_brain_float()),
        _NO_NUMBERS,
    ),
    "a type": (
        lambda: _added(_LINEAR, "other", lambda _: np.dtype("f4")),
        f"{_OTHER} is neither a group nor a data set",
    ),
    "lzf": (lambda: _written(_ONES, compression="lzf"), _FILTERED),
    "gzip after a filter": (
        lambda: _written(_ONES, compression="gzip", shuffle=True),
        _FILTERED,
    ),
    "two megabytes of text": (
        lambda: _written("x" * (1 << 21)),
        f"{WEIGHT} is too much: a file may hold 2097152 bytes of text",
    ),
    "a string 3000 times": (_one_string_often, "/texts is too much: a file may hold 2097152 bytes of text"),
    "a cube of text": (
        lambda: _written([[["a"]]]),
        f"{WEIGHT} has 3 axes: text of 2 at most is read",
    ),
    "many strings": (
        lambda: _declared(shape=(200_000,), dtype=h5py.string_dtype()),
        f"{WEIGHT} is too much: a file may hold 100000 strings",
    ),
    "text that is none": (lambda: _written(np.array([b"\xff\xfe"])), f"{WEIGHT} holds text that is no UTF-8"),
    "a path for a name": (
        lambda: _renamed(b"v_threshold\0", b"v/threshold\0"),
        "/node/nodes/if/v/threshold has a name that no object can have",
    ),
    "a name that is no text": (
        lambda: _renamed(b"v_reset\0", b"v_res\xfft\0"),
        "/node/nodes/if/v_res\ufffdt holds text that is no UTF-8",
    ),
    "the same name twice": (
        lambda: _renamed(b"v_resex\0", b"v_reset\0"),
        "/node/nodes/if/v_reset has the name of another object",
    ),
    "a name for terminals": (
        lambda: _added("node", "\x1b[31m\n\u202e", lambda _: h5py.SoftLink("/node")),
        "/node/\\x1b[31m\\n\\u202e is a link",
    ),
    "a long name": (
        lambda: _added("node", "n" * 5000, lambda _: h5py.SoftLink("/node")),
        f"/node/{'n' * 94}... is a link",
    ),
    "another file before it": (lambda: file_of(write_network, userblock_size=512), "it is no HDF5 file"),
    "half of a file": (lambda: network()[:10_000], "it is damaged: "),
    "nothing": (lambda: b"", "it is no HDF5 file"),
    "its first bytes alone": (lambda: b"\x89HDF\r\n\x1a\n", "it is damaged: "),
    "noise": (lambda: np.random.default_rng(0).bytes(4096), "it is no HDF5 file"),
    "noise behind the first bytes": (lambda: network()[:8] + np.random.default_rng(0).bytes(4096), "it is damaged: "),
}
"""what is wrong with a file -> the file, and what a reader says of it first"""


_FORKED = r"""
import json, os, resource, sys

sys.path[:] = json.loads(sys.argv[1])
import h5py
from leakbench.foreign.hdf5 import Refused, read_tree

for path in sys.stdin.read().split("\n"):
    content = open(path, "rb").read()
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            read_tree(content)
            ending = "read"
        except Refused as error:
            ending = f"refused: {error}"
        except BaseException as error:
            ending = repr(error)
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        os.write(theirs, json.dumps([ending, kilobytes << 10]).encode())
        os._exit(0)
    os.close(theirs)
    said = os.read(ours, 1 << 16)
    os.close(ours)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(said.decode() or json.dumps([f"died: {status}", 0]), flush=True)
"""


def forked_readings(paths: Sequence[Path]) -> list[tuple[str, int]]:
    """What reading each of these files in a process of its own ends in: "read", "refused: reason", "died: status" or an
    exception; and by how many bytes it raised that process's peak of memory."""
    path = json.dumps([str(Path(one).absolute()) for one in sys.path if one])
    command = [sys.executable, "-c", _FORKED, path]
    text = "\n".join(str(one) for one in paths)
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    return [(ending, peak) for ending, peak in map(json.loads, done.stdout.splitlines())]
