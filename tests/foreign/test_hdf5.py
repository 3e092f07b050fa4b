"""HDF5 files: what was written is read, and what is hostile or damaged is refused in one line, in little memory."""

from __future__ import annotations

import io
import random
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hdf5_files import HOSTILE, file_of, forked_readings, h5py, network, write_network

from leakbench.errors import UsageError
from leakbench.foreign import hdf5
from leakbench.foreign.hdf5 import Refused, read_tree

MOST_MEMORY = 100 << 20
"""bytes that reading a hostile file may take beyond what the process had"""
_SLOW = ("3000 groups within each other", "a chunk that inflates to 256 MB")


def by_h5py(content: bytes) -> Any:
    """The same tree as h5py's own interface reads it."""

    def plain(value: Any) -> Any:
        if isinstance(value, h5py.Group):
            return {name: plain(member) for name, member in value.items()}
        if h5py.check_string_dtype(value.dtype) is None:
            read = value[()]
            return None if isinstance(read, h5py.Empty) else np.asarray(read)
        text = value.asstr()[()]
        return text if isinstance(text, str) else text.tolist()

    with h5py.File(io.BytesIO(content), "r") as file:
        return plain(file)


def assert_same(read: Any, expected: Any) -> None:
    assert type(read) is type(expected)
    if isinstance(expected, Mapping):
        assert list(read) == list(expected)
        for name, value in expected.items():
            assert_same(read[name], value)
    elif isinstance(expected, np.ndarray):
        assert read.dtype == expected.dtype.newbyteorder("=") and read.dtype.isnative
        assert read.shape == expected.shape
        assert np.array_equal(read, expected)
    else:
        assert read == expected


# --- what was written ------------------------------------------------------------------------------------------------

DTYPES = ["<f2", "<f4", ">f4", "<f8", ">f8", "i1", "<i2", "<i4", ">i4", "<i8", ">i8", "u1", "<u2", "<u4", "<u8", "?"]
LAYOUTS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "one number": ((), {}),
    "no chunks": ((5, 7), {}),
    "gzip": ((5, 7), {"compression": "gzip"}),
    "gzip in odd chunks": ((5, 7, 3), {"compression": 9, "chunks": (2, 3, 3)}),
    "odd chunks": ((5, 7), {"chunks": (4, 4)}),
    "chunks that may grow": ((5, 7), {"chunks": (8, 16), "maxshape": (None, None), "compression": "gzip"}),
    "nothing": ((0, 3), {}),
    "nothing in chunks": ((0, 3), {"chunks": (2, 3), "maxshape": (None, 3), "compression": "gzip"}),
}


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_numbers_come_back(libver: str) -> None:
    numbers = np.random.default_rng(0)
    written: dict[str, Any] = {}

    def fill(file: Any) -> None:
        for dtype, (layout, (shape, settings)) in product(DTYPES, LAYOUTS.items()):
            name = f"{dtype} {layout}".replace("<", "little ").replace(">", "big ")
            written[name] = np.asarray(numbers.normal(0, 20, shape).astype(dtype))
            file.create_dataset(name, data=written[name], **settings)

    read = read_tree(file_of(fill, libver=libver))
    assert_same(read, {name: written[name] for name in sorted(written)})


def test_nan_and_infinity_come_back() -> None:
    values = np.array([np.nan, np.inf, -np.inf, -0.0])
    read = read_tree(file_of(lambda file: file.create_dataset("values", data=values, compression="gzip")))
    assert isinstance(read["values"], np.ndarray)
    assert read["values"].tobytes() == values.tobytes()


def test_arrays_are_of_their_own_memory() -> None:
    read = read_tree(file_of(lambda file: file.update({"plain": np.arange(4), "flag": np.array([True])})))
    for array in read.values():
        assert isinstance(array, np.ndarray) and array.flags.writeable and array.flags.owndata


def write_texts(file: Any) -> None:
    file["one"] = "héllo"
    file["empty"] = ""
    file["list"] = ["a", "", "日本", "a"]
    file["pairs"] = [("a", "b"), ("bb", "c")]
    file["none"] = np.array([], dtype=h5py.string_dtype())
    file["no pairs"] = np.empty((0, 2), dtype=h5py.string_dtype())
    file["ascii"] = np.array(["plain"], dtype=h5py.string_dtype("ascii"))
    file["fixed"] = np.array([b"ab", b"cde", b""])
    file["fixed scalar"] = np.bytes_(b"xyz")
    file.create_dataset("many", data=[str(number) for number in range(3000)])
    file.create_dataset("packed", data=["a", "bcd", "e"], chunks=(2,), compression="gzip")


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_texts_come_back(libver: str) -> None:
    content = file_of(write_texts, libver=libver)
    read = read_tree(content)
    assert (read["one"], read["list"], read["pairs"]) == ("héllo", ["a", "", "日本", "a"], [["a", "b"], ["bb", "c"]])
    assert (read["none"], read["no pairs"], read["fixed scalar"]) == ([], [], "xyz")
    assert_same(read, by_h5py(content))


def test_texts_padded_with_spaces_come_back() -> None:
    def fill(file: Any) -> None:
        kind = h5py.h5t.C_S1.copy()
        kind.set_size(6)
        kind.set_strpad(h5py.h5t.STR_SPACEPAD)
        dataset = h5py.h5d.create(file.id, b"padded", kind, h5py.h5s.create_simple((2,)))
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array([b"a b   ", b"123456"], dtype="V6"), mtype=kind)

    assert read_tree(file_of(fill)) == {"padded": ["a b", "123456"]}


def compact(file: Any, name: str, value: Any) -> None:
    """Among the file's structure, which h5py's own interface does not write."""
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_layout(h5py.h5d.COMPACT)
    kind = h5py.h5t.py_create(value.dtype, logical=True)
    dataset = h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(value.shape), plan)
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, value)


def test_compact_numbers_come_back_and_compact_texts_are_refused() -> None:
    arrays = {"b": np.array([True, False]), "f": np.arange(6.0).reshape(2, 3), "i": np.arange(3, dtype=">i4")}

    def fill(file: Any) -> None:
        for name, value in arrays.items():
            compact(file, name, value)
        compact(file, "s", np.array([b"ab", b"c"]))

    assert_same(read_tree(file_of(fill)), {**arrays, "s": ["ab", "c"]})
    text = np.array(["ab"], dtype=h5py.string_dtype())
    with pytest.raises(Refused, match=r"^/t holds compact text of variable length, which is not read$"):
        read_tree(file_of(lambda file: compact(file, "t", text)))


def test_groups_and_nothing_come_back() -> None:
    def fill(file: Any) -> None:
        file.create_group("a/b/c")
        file["a/b/none"] = h5py.Empty("f4")
        file["a"].attrs["ignored"] = 1

    assert read_tree(file_of(fill)) == {"a": {"b": {"c": {}, "none": None}}}


def test_a_network_comes_back() -> None:
    assert_same(read_tree(network()), by_h5py(network()))


def test_groups_may_be_eight_deep() -> None:
    path = "/".join("abcdefgh")
    assert list(read_tree(file_of(lambda file: file.create_group(path)))) == ["a"]
    with pytest.raises(Refused, match=r"^/a/b/c/d/e/f/g/h/i is a group more than 8 groups deep$"):
        read_tree(file_of(lambda file: file.create_group(f"{path}/i")))


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "problem", [pytest.param(name, marks=[pytest.mark.slow] if name in _SLOW else []) for name in HOSTILE]
)
def test_hostile_files_are_refused_in_one_line(problem: str) -> None:
    build, says = HOSTILE[problem]
    with pytest.raises(Refused) as caught:
        read_tree(build())
    line = str(caught.value)
    assert line.startswith(says) and line.isprintable() and len(line) < 300


@pytest.mark.slow
def test_hostile_files_are_refused_in_little_memory(tmp_path: Path) -> None:
    paths = {problem: tmp_path / str(number) for number, problem in enumerate(HOSTILE)}
    for problem, path in paths.items():
        path.write_bytes(HOSTILE[problem][0]())
    readings = dict(zip(HOSTILE, forked_readings(list(paths.values())), strict=True))
    wrong = {
        problem: reading
        for problem, reading in readings.items()
        if not reading[0].startswith(f"refused: {HOSTILE[problem][1]}") or reading[1] > MOST_MEMORY
    }
    assert not wrong


@pytest.mark.parametrize(
    ("what", "most"),
    [("objects", 12), ("bytes of numbers", 170), ("strings", 9), ("bytes of text", 150), ("chunks", 5),
     ("objects of heaps", 5)],
)  # fmt: skip
def test_files_have_limits(monkeypatch: pytest.MonkeyPatch, what: str, most: int) -> None:
    """Of all data sets together: none of the network's alone is beyond them."""
    monkeypatch.setitem(hdf5._MOST, what, most)
    with pytest.raises(Refused, match=f" is too much: a file may hold {most} {what}$"):
        read_tree(network())


def test_a_list_without_an_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of links: damaged trees lead back to where they began."""
    monkeypatch.setitem(hdf5._MOST, "objects", 100)
    seen: list[bytes] = []

    class Endless:
        def iterate(self, collect: Any, **_: Any) -> None:
            link = type("Link", (), {"type": h5py.h5l.TYPE_HARD, "u": 0})
            while not collect(b"a", link):
                seen.append(b"a")

    reader = hdf5._Reader(h5py, b"")
    with pytest.raises(Refused, match="it is too much"):
        reader._names(type("Group", (), {"links": Endless()}), "")
    assert len(seen) == 100


def test_truth_is_one_or_zero() -> None:
    content = bytearray(file_of(lambda file: file.create_dataset("flags", data=np.array([True, False, True]))))
    with h5py.File(io.BytesIO(content), "r") as file:
        start = file["flags"].id.get_offset()
    assert read_tree(bytes(content))["flags"].tolist() == [True, False, True]  # type: ignore[union-attr]
    content[start + 1] = 2
    with pytest.raises(Refused, match=r"^/flags holds what is neither true nor false$"):
        read_tree(bytes(content))


def test_missing_h5py_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"^reading NIR files needs h5py: pip install h5py$"):
        read_tree(network())


# --- what is damaged -------------------------------------------------------------------------------------------------


def every_layout(file: Any) -> None:
    write_network(file)
    write_texts(file)
    values = np.arange(35.0).reshape(5, 7)
    for name, (shape, settings) in LAYOUTS.items():
        if shape == (5, 7):
            file.create_dataset(f"values {name}", data=values, **settings)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_damaged_files_are_read_or_refused(libver: str, tmp_path: Path) -> None:
    """Or they crash the process, which is why that is another one; nothing hangs and nothing takes much memory."""
    content = file_of(every_layout, libver=libver)
    flips = random.Random(0)
    # most bytes of such a file are zeros that nothing looks at
    places = [place for place in range(len(content)) if any(content[max(0, place - 8) : place + 8])]
    paths = []
    for number in range(200):
        damaged = bytearray(content)
        for _ in range(flips.choice((1, 1, 1, 3))):
            damaged[flips.choice(places)] ^= flips.randrange(1, 256)
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(damaged)
    readings = forked_readings(paths)
    endings = [ending for ending, _ in readings]
    assert [ending for ending in endings if not ending.startswith(("read", "refused: ", "died: -"))] == []
    assert "died: -24" not in endings  # SIGXCPU
    assert max(peak for _, peak in readings) < MOST_MEMORY
    assert {ending.partition(":")[0] for ending in endings} >= {"read", "refused"}


def test_behind_the_end_of_a_file_are_zeros() -> None:
    buffer = bytearray(b"xxxxx")
    assert hdf5._Padded(b"abc").readinto(buffer) == 5
    assert bytes(buffer) == b"abc\0\0"
