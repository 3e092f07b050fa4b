"""HDF5 files of strangers, read into plain values: groups, arrays of numbers, text.

libhdf5 is asked for a file's structure alone: which objects there are, of which type and shape, and where their bytes
lie. The bytes are cut out of the file here, so nothing leads to another file, is converted, inflates without a limit
or is taken for an address. The structure is parsed by C code that a damaged file can crash: see
:mod:`leakbench.foreign.confined`.

The global heap, where strings of variable length lie, is as in the HDF5 File Format Specification 3.0, III.E.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import product
from typing import Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from leakbench.errors import UsageError, printable

Texts: TypeAlias = str | list[str] | list[list[str]]
Value: TypeAlias = NDArray[Any] | Texts | None
Tree: TypeAlias = "dict[str, Tree | Value]"

DEEPEST = 8
"""groups within each other, the root not counted"""
MOST_AXES = 8
_MOST = {
    "objects": 20_000,
    "bytes of numbers": 1000 << 20,  # the largest message of leakbench.runtime.isolation.messages, 1 GiB, has room
    "strings": 100_000,
    "bytes of text": 2 << 20,  # of names, too; its JSON, 16 MiB, has room with each written as six characters
    "chunks": 200_000,  # h5py makes them of 8 KiB or more, but for data sets smaller than that
    "objects of heaps": 1 << 20,
}
"""in one file"""
_SMALL_CHUNK = 1 << 16
"""bytes that a chunk may always have, however small its data set is"""
_LONGEST_SHOWN = 100
"""characters of a name, or of what libhdf5 says, in a message"""

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_NUMBERS = {
    f"{name}{8 * size}{suffix}": np.dtype(f"{order}{kind}{size}")
    for name, kind, sizes in (("IEEE_F", "f", (2, 4, 8)), ("STD_I", "i", (1, 2, 4, 8)), ("STD_U", "u", (1, 2, 4, 8)))
    for size in sizes
    for suffix, order in (("LE", "<"), ("BE", ">"))
}
"""names of libhdf5's types -> NumPy's"""
_HEAP_STRING = np.dtype([("length", "<u4"), ("collection", "<u8"), ("index", "<u4")])
"""a string of variable length where its data set lies: its length, and which object of which heap it is"""
_COLLECTION = struct.Struct("<4sB3xQ")
"""a global heap's signature, version and size, this header included"""
_HEAP_OBJECT = struct.Struct("<HH4xQ")
"""index, references and size of an object in it; its bytes follow, padded to eight"""


class Refused(Exception):
    """A file that is not read; the text, one line, says which part of it and why."""


def need_h5py() -> None:
    """UsageError where h5py is not installed."""
    if find_spec("h5py") is None:
        raise UsageError("reading NIR files needs h5py: pip install h5py")


def read_tree(content: bytes) -> Tree:
    """What a file of these bytes holds, by name: a dictionary for a group, and for a data set

    - a NumPy array of its shape in the machine's byte order: floats of 2, 4 or 8 bytes, integers of 1 to 8, bool;
    - text, a string for no axes, a list for one, a list of lists for two; an empty one, too;
    - None where it is of HDF5's null space.

    Attributes are not looked at. Raises Refused for a file that is damaged, larger than the limits above, or holds
    anything else: links, an object twice, data outside of the file, filters other than gzip, other types, numbers that
    nobody wrote. UsageError where h5py is missing.
    """
    need_h5py()
    import h5py

    if not content.startswith(_SIGNATURE):
        raise Refused("it is no HDF5 file")
    reader = _Reader(h5py, content)
    try:
        with h5py.File(_Padded(content), "r") as file:
            return reader.file(file.id)
    except Refused:
        raise
    except MemoryError:
        raise Refused(f"{_shown(reader.place)} takes more memory than there is") from None
    except Exception as error:  # h5py makes exceptions of many kinds of what libhdf5 reports
        said = error.args[0] if error.args else type(error).__name__  # str() of a KeyError is in quotes
        raise Refused(f"{_shown(reader.place)} is damaged: {_shown(str(said))}") from None


def _shown(text: str) -> str:
    """What others wrote, for a message."""
    text = printable(text[: _LONGEST_SHOWN + 1])
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


class _Padded(io.BytesIO):
    """A file in memory with zeros behind its end, as libhdf5's own files have them.

    h5py does not look at how much was read, and libhdf5 would parse what its buffer held before.
    """

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = super().readinto(view)
        view[count:] = bytes(len(view) - count)
        return len(view)


class _Reader:
    """One pass over a file. Paths, as in "/node/edges", are for messages."""

    def __init__(self, h5py: Any, content: bytes) -> None:
        self._h5py, self._content = h5py, memoryview(content)
        numbers = [(getattr(h5py.h5t, name), dtype) for name, dtype in _NUMBERS.items()]
        # an enumeration of FALSE and TRUE in a byte, as h5py writes NumPy's bool
        self._types = [*numbers, (h5py.h5t.py_create(np.dtype(bool)), np.dtype(bool))]
        self._seen: set[int] = set()
        """addresses of objects"""
        self._collections: dict[int, dict[int, memoryview]] = {}
        """global heaps by address, their objects by index"""
        self._left = dict(_MOST)
        self.place = "it"
        """path of what is being read"""

    def _refuse(self, problem: str) -> NoReturn:
        raise Refused(f"{_shown(self.place)} {problem}")

    def _spend(self, what: str, count: int) -> None:
        self._left[what] -= count
        if self._left[what] < 0:
            self._refuse(f"is too much: a file may hold {_MOST[what]} {what}")

    def file(self, file: Any) -> Tree:
        plan = file.get_create_plist()
        if plan.get_userblock() != 0 or plan.get_sizes() != (8, 8):
            self._refuse("is no HDF5 file of the usual kind, with addresses of 8 bytes from its beginning on")
        return self._group(file, "", 0)

    def _group(self, group: Any, path: str, depth: int) -> Tree:
        tree: Tree = {}
        for name in self._names(group, path):
            self.place = f"{path}/{name}"
            opened = self._h5py.h5o.open(group, name.encode())
            if isinstance(opened, self._h5py.h5g.GroupID):
                if depth == DEEPEST:
                    self._refuse(f"is a group more than {DEEPEST} groups deep")
                tree[name] = self._group(opened, f"{path}/{name}", depth + 1)
            elif isinstance(opened, self._h5py.h5d.DatasetID):
                tree[name] = self._value(opened)
            else:
                self._refuse("is neither a group nor a data set")
        return tree

    def _names(self, group: Any, path: str) -> list[str]:
        """Those of a group's objects, each of which is of this file and was not met before."""
        links: list[tuple[bytes, int, int]] = []
        most = self._left["objects"]

        def collect(name: bytes, info: Any) -> bool:
            links.append((name, info.type, info.u))
            return len(links) > most  # ends it: damaged lists may have no end

        group.links.iterate(collect, info=True)
        self._spend("objects", len(links))
        names: list[str] = []
        for raw, kind, address in links:
            self.place = f"{path}/{raw.decode(errors='replace')}"
            self._spend("bytes of text", len(raw))
            if kind != self._h5py.h5l.TYPE_HARD:
                self._refuse("is a link")
            # libhdf5 would take a name with a slash for a path, and follow the links on it
            if not raw or b"/" in raw or raw == b".":
                self._refuse("has a name that no object can have")
            if address in self._seen:
                self._refuse("is there twice")
            self._seen.add(address)
            names.append(self._decoded(raw))
        if repeated := [name for name, count in Counter(names).items() if count > 1]:
            self.place = f"{path}/{repeated[0]}"
            self._refuse("has the name of another object")
        return names

    def _decoded(self, text: bytes) -> str:
        try:
            return text.decode()
        except UnicodeDecodeError:
            self._refuse("holds text that is no UTF-8")

    # --- data sets ---------------------------------------------------------------------------------------------------

    def _value(self, dataset: Any) -> Value:
        h5py = self._h5py
        plan, space, kind = dataset.get_create_plist(), dataset.get_space(), dataset.get_type()
        if plan.get_external_count() != 0:
            self._refuse("lies in another file")
        if plan.get_layout() == h5py.h5d.VIRTUAL:
            self._refuse("is virtual: it lies in other data sets")
        if space.get_simple_extent_type() == h5py.h5s.NULL:
            return None
        shape = tuple(space.get_simple_extent_dims())
        if len(shape) > MOST_AXES:
            self._refuse(f"has {len(shape)} axes: {MOST_AXES} at most are read")
        if kind.get_class() == h5py.h5t.STRING:
            return self._texts(dataset, plan, shape, kind)
        dtype = next((dtype for known, dtype in self._types if kind.equal(known)), None)
        if dtype is None:
            self._refuse("holds neither plain numbers nor text")
        # an axis of 0 does not make the others small: NumPy multiplies without it
        self._spend("bytes of numbers", math.prod(max(1, size) for size in shape) * dtype.itemsize)
        if dtype.kind == "b":
            stored = self._stored(dataset, plan, shape, np.dtype(np.uint8))
            if (stored > 1).any():
                self._refuse("holds what is neither true nor false")
            return stored.astype(np.bool_)
        stored = self._stored(dataset, plan, shape, dtype)
        return stored.astype(dtype.newbyteorder("="), copy=not stored.flags.writeable)

    def _texts(self, dataset: Any, plan: Any, shape: tuple[int, ...], kind: Any) -> Texts:
        if len(shape) > 2:
            self._refuse(f"has {len(shape)} axes: text of 2 at most is read")
        # an axis of 0 does not make the other a short list
        self._spend("strings", math.prod(max(1, size) for size in shape))
        if kind.is_variable_str():
            references = self._stored(dataset, plan, shape, _HEAP_STRING)
            raw = [self._heap_string(*map(int, one)) for one in references.reshape(-1).tolist()]
        else:
            width = int(kind.get_size())
            self._spend("bytes of text", width * math.prod(shape))
            raw = [bytes(one) for one in self._stored(dataset, plan, shape, np.dtype(f"V{width}")).reshape(-1)]
            if kind.get_strpad() == self._h5py.h5t.STR_SPACEPAD:
                raw = [one.rstrip(b" ") for one in raw]
        texts = np.empty(shape, object)
        texts.reshape(-1)[:] = [self._decoded(one.partition(b"\0")[0]) for one in raw]
        plain: Texts = texts.tolist()
        return plain

    def _heap_string(self, length: int, collection: int, index: int) -> bytes:
        if length == 0:  # is in no heap
            return b""
        self._spend("bytes of text", length)
        if collection not in self._collections:
            self._collections[collection] = self._heap_objects(collection)
        held = self._collections[collection].get(index)
        if held is None or len(held) < length:
            self._refuse("is damaged: its text is missing")
        return bytes(held[:length])

    def _heap_objects(self, address: int) -> dict[int, memoryview]:
        """The objects of the global heap collection at an address."""
        signature, version, size = _COLLECTION.unpack(self._cut(address, _COLLECTION.size))
        heap = self._cut(address, size)
        if (signature, version) != (b"GCOL", 1):
            self._refuse("is damaged: its text is in no heap")
        objects: dict[int, memoryview] = {}
        start = _COLLECTION.size
        while start + _HEAP_OBJECT.size <= size:
            self._spend("objects of heaps", 1)
            index, _, length = _HEAP_OBJECT.unpack_from(heap, start)
            if index == 0:  # the rest is free
                break
            start += _HEAP_OBJECT.size
            objects[index] = heap[start : start + length]
            start += -(-length // 8) * 8
        return objects

    # --- where the bytes of data sets lie ----------------------------------------------------------------------------

    def _cut(self, offset: int, size: int) -> memoryview:
        cut = self._content[offset : offset + size]
        if len(cut) != size:
            self._refuse("is damaged: it lies beyond the end of the file")
        return cut

    def _stored(self, dataset: Any, plan: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """A data set of this shape, with its bytes as they are in the file; read-only where they are the file's."""
        filters = [plan.get_filter(number)[0] for number in range(plan.get_nfilters())]
        if filters not in ([], [self._h5py.h5z.FILTER_DEFLATE]):
            self._refuse("is filtered or compressed otherwise than by gzip alone")
        size, layout = math.prod(shape) * dtype.itemsize, plan.get_layout()
        if size == 0:
            return np.empty(shape, dtype)
        if layout == self._h5py.h5d.CHUNKED:
            return self._from_chunks(dataset, plan, shape, dtype, compressed=bool(filters))
        if filters:
            self._refuse("is compressed without chunks")
        if layout == self._h5py.h5d.CONTIGUOUS:
            offset = dataset.get_offset()
            if offset is None:
                self._refuse("was never written")
            if dataset.get_storage_size() != size:
                self._refuse("is damaged: its size is not that of its shape")
            return np.frombuffer(self._cut(offset, size), dtype).reshape(shape)
        if dtype == _HEAP_STRING:
            self._refuse("holds compact text of variable length, which is not read")
        # compact: among the structure. As the type in memory is that of the file nothing is converted
        if layout != self._h5py.h5d.COMPACT or dataset.get_storage_size() != size:
            self._refuse("is damaged: its size is not that of its shape")
        compact = np.empty(shape, dtype)
        dataset.read(self._h5py.h5s.ALL, self._h5py.h5s.ALL, compact, mtype=dataset.get_type())
        return compact

    def _from_chunks(
        self, dataset: Any, plan: Any, shape: tuple[int, ...], dtype: np.dtype[Any], compressed: bool
    ) -> NDArray[Any]:
        chunk = tuple(plan.get_chunk())
        size = math.prod(chunk) * dtype.itemsize
        whole = math.prod(shape) * dtype.itemsize
        if len(chunk) != len(shape) or not 0 < size <= max(4 * whole, _SMALL_CHUNK):
            self._refuse("has chunks that do not fit its shape")
        self._spend("chunks", math.prod(-(-length // part) for length, part in zip(shape, chunk, strict=True)))
        # by where their first elements lie
        wanted = set(product(*(range(0, length, part) for length, part in zip(shape, chunk, strict=True))))
        listed: list[Any] = []

        def collect(info: Any) -> bool | None:
            listed.append(info)
            return True if len(listed) > len(wanted) else None  # ends it: damaged lists may have no end

        dataset.chunk_iter(collect)
        if len(listed) < len(wanted):
            self._refuse("was never written" if not listed else "was written in part only")
        if len(listed) > len(wanted) or {info.chunk_offset for info in listed} != wanted:
            self._refuse("has chunks that do not fit its shape")
        whole_array = np.empty(shape, dtype)
        for info in listed:
            content = self._cut(info.byte_offset, info.size)
            if compressed and info.filter_mask == 0:
                content = self._inflated(content, size)
            if len(content) != size:
                self._refuse("is damaged: a chunk of it has another size")
            _put(np.frombuffer(content, dtype).reshape(chunk), whole_array, info.chunk_offset)
        return whole_array

    def _inflated(self, content: memoryview, size: int) -> memoryview:
        """A chunk without gzip's compression: ``size`` bytes."""
        stream = zlib.decompressobj()
        inflated = stream.decompress(content, size + 1)
        if len(inflated) > size:
            self._refuse("inflates to more than it declares")
        if not stream.eof:  # where the checksum is
            self._refuse("is damaged: a chunk of it has another size")
        return memoryview(inflated)


def _put(chunk: NDArray[Any], array: NDArray[Any], offset: Sequence[int]) -> None:
    """A chunk into the array that it is a part of; at the array's end chunks go beyond it."""
    ends = [min(start + part, length) for start, part, length in zip(offset, chunk.shape, array.shape, strict=True)]
    inside = tuple(slice(start, end) for start, end in zip(offset, ends, strict=True))
    array[inside] = chunk[tuple(slice(0, end - start) for start, end in zip(offset, ends, strict=True))]
