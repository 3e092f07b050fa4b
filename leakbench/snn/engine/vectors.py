"""Vector instructions for :mod:`leakbench.snn.engine.kernels`, written out for LLVM.

Sums over listed spikes have to stay in registers: that is what makes reading spikes faster than a dense convolution,
and what a loop in Numba does not achieve, as it writes a local array to memory at each turn. These are the bodies of
the kernels' loops, as code on vectors of LANES numbers; machines with narrower registers split them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
"""float32 numbers that are handled as one"""
TRIANGLE, RECTANGLE, FAST_SIGMOID, ARCTAN, FIRED = range(5)
ONES, VALUES, EVERY = range(3)
"""what is read of spikes: a list of those that are worth 1, a list with their values, or all entries"""

PATCH, OUTPUT = 6, 4
"""sides of what Winograd's convolution reads and writes at a time"""
WINOGRAD = (math.sqrt(0.5), math.sqrt(2.0))
"""its points: 0, these and their negatives, and infinity, which round a quarter as much as 0, +-1, +-2 and infinity"""

_BIT, _BYTE, _I32, _I64 = ir.IntType(1), ir.IntType(8), ir.IntType(32), ir.IntType(64)
_FLOAT = ir.FloatType()
_VECTOR, _BYTES = ir.VectorType(_FLOAT, LANES), ir.VectorType(_BYTE, LANES)
_long = types.intp


class _Code:
    """LLVM's builder in the words that are needed here."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any) -> None:
        self.context, self.builder, self.types, self.args = context, builder, signature.args, args

    def address(self, argument: int, at: Any, kind: Any = _VECTOR) -> Any:
        """Where the array that is handed over as this argument has its element ``at``, as a pointer to ``kind``."""
        data = self.context.make_array(self.types[argument])(self.context, self.builder, self.args[argument]).data
        return self.builder.bitcast(self.builder.gep(data, [at]), kind.as_pointer())

    def next(self, pointer: Any, by: int) -> Any:
        return self.builder.gep(pointer, [_number(by)])

    def load(self, pointer: Any) -> Any:
        return self.builder.load(pointer, align=1 if pointer.type.pointee == _BYTES else 4)

    def load_where(self, inside: Any, pointer: Any) -> Any:
        """LANES float32 or int8 numbers as float32; zeros, and nothing is read, where not ``inside``."""
        kind = pointer.type.pointee
        mask_kind = ir.VectorType(_BIT, LANES)
        mask = self.builder.bitcast(self.builder.sext(inside, ir.IntType(LANES)), mask_kind)
        signature = ir.FunctionType(kind, [pointer.type, _I32, mask_kind, kind])
        name = f"llvm.masked.load.v{LANES}{'i8' if kind == _BYTES else 'f32'}.p0"
        function = cgutils.get_or_insert_function(self.builder.module, signature, name)
        align = ir.Constant(_I32, 1 if kind == _BYTES else 4)
        read = self.builder.call(function, [pointer, align, mask, ir.Constant(kind, None)])
        return self.builder.sitofp(read, _VECTOR) if kind == _BYTES else read

    def store(self, value: Any, pointer: Any) -> None:
        self.builder.store(value, pointer, align=1 if value.type == _BYTES else 4)

    def splat(self, scalar: Any) -> Any:
        undefined = ir.Constant(_VECTOR, ir.Undefined)
        one = self.builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
        return self.builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES))

    def call(self, name: str, *operands: Any) -> Any:
        """An intrinsic of LLVM's on vectors."""
        kind = ir.FunctionType(_VECTOR, [_VECTOR] * len(operands))
        return self.builder.call(
            cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.{name}.v{LANES}f32"), operands
        )

    def bit(self, argument: int) -> Any:
        flag = self.args[argument]
        return flag if flag.type == _BIT else self.builder.trunc(flag, _BIT)

    def loop(self, start: Any, stop: Any, sums: Sequence[Any]) -> _Loop:
        return _Loop(self.builder, start, stop, sums)


class _Loop:
    """for i in range(start, stop), with vectors that are carried from turn to turn in registers."""

    def __init__(self, builder: Any, start: Any, stop: Any, sums: Sequence[Any]) -> None:
        self._builder = builder
        before = builder.block
        self._head, body, self._done = (builder.append_basic_block(name) for name in ("head", "body", "done"))
        builder.branch(self._head)
        builder.position_at_end(self._head)
        self.i = builder.phi(_I64)
        self.i.add_incoming(start, before)
        self.sums = [builder.phi(_VECTOR) for _ in sums]
        for phi, value in zip(self.sums, sums, strict=True):
            phi.add_incoming(value, before)
        builder.cbranch(builder.icmp_signed("<", self.i, stop), body, self._done)
        builder.position_at_end(body)

    def end(self, sums: Sequence[Any]) -> list[Any]:
        """Closes the loop; the sums after it."""
        for phi, value in zip(self.sums, sums, strict=True):
            phi.add_incoming(value, self._builder.block)
        self.i.add_incoming(self._builder.add(self.i, _number(1)), self._builder.block)
        self._builder.branch(self._head)
        self._builder.position_at_end(self._done)
        return self.sums


def _number(value: int) -> Any:
    return ir.Constant(_I64, value)


def _constant(value: float) -> Any:
    return ir.Constant(_VECTOR, [value] * LANES)


def _add_rows(
    code: _Code, sums: Sequence[Any], start: Any, stop: Any, offset: Any, stride: Any, weighted: bool,
    rows: int, index: int, value: int,
) -> list[Any]:  # fmt: skip
    """sums += sum over i in start ... stop - 1 of value[i] * rows[index[i] * stride + offset :]."""
    builder = code.builder
    loop = code.loop(start, stop, sums)
    row = builder.zext(builder.load(code.address(index, loop.i, _I32)), _I64)
    source = code.address(rows, builder.add(builder.mul(row, stride), offset))
    read = [code.load(code.next(source, v)) for v in range(len(sums))]
    if weighted:
        factor = code.splat(builder.load(code.address(value, loop.i, _FLOAT)))
        return loop.end([code.call("fma", r, factor, s) for r, s in zip(read, loop.sums, strict=True)])
    return loop.end([builder.fadd(s, r) for r, s in zip(read, loop.sums, strict=True)])


def _add_every_row(
    code: _Code, sums: Sequence[Any], start: Any, count: Any, offset: Any, stride: Any, rows: int, value: int
) -> list[Any]:
    """sums += sum over i in 0 ... count - 1 of value[start + i] * rows[i * stride + offset :], of int8 values."""
    builder = code.builder
    loop = code.loop(_number(0), count, sums)
    source = code.address(rows, builder.add(builder.mul(loop.i, stride), offset))
    read = [code.load(code.next(source, v)) for v in range(len(sums))]
    byte = builder.load(code.address(value, builder.add(start, loop.i), _BYTE))
    factor = code.splat(builder.sitofp(byte, _FLOAT))
    return loop.end([code.call("fma", r, factor, s) for r, s in zip(read, loop.sums, strict=True)])


def _fire(code: _Code, current: Any, theta: Any, membrane: Any, leak: Any, hard: Any) -> tuple[Any, Any]:
    """Membranes before the reset, and which neurons fired; those after it are written."""
    builder = code.builder
    v = code.call("fma", code.load(membrane), leak, current)
    fired = builder.fcmp_ordered(">", v, theta)
    zero = _constant(0.0)
    soft = builder.fsub(v, builder.select(fired, theta, zero))
    code.store(builder.select(hard, builder.select(fired, zero, v), soft), membrane)
    return v, fired


def _put(code: _Code, v: Any, fired: Any, spikes: Any, inside: Any, pre: Any, keep: Any) -> Any:
    """Writes down what a step of neurons gave; how many fired."""
    builder = code.builder
    with builder.if_then(inside):
        code.store(builder.add(code.load(spikes), builder.zext(fired, _BYTES)), spikes)
    with builder.if_then(keep):
        code.store(v, pre)
    return builder.zext(builder.ctpop(builder.bitcast(fired, ir.IntType(LANES))), _I64)


@intrinsic(prefer_literal=True)
def add_rows(
    _typing: Any, total: Any, at: Any, rows: Any, index: Any, value: Any, start: Any, stop: Any, stride: Any,
    offset: Any, vectors: Any, weighted: Any,
) -> Any:  # fmt: skip
    """total[at :] += sum over i in start ... stop - 1 of value[i] * rows[index[i] * stride + offset :].

    ``vectors`` * LANES numbers of each row; without value where not ``weighted``. Both are constants.
    """
    count, has_value = vectors.literal_value, bool(weighted.literal_value)
    signature = types.void(total, _long, rows, index, value, _long, _long, _long, _long, vectors, weighted)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = _Code(context, builder, signature, args)
        places = [code.next(code.address(0, args[1]), v) for v in range(count)]
        sums = [code.load(place) for place in places]
        start_, stop_, stride_, offset_ = args[5:9]
        found = _add_rows(code, sums, start_, stop_, offset_, stride_, has_value, rows=2, index=3, value=4)
        for place, sum_ in zip(places, found, strict=True):
            code.store(sum_, place)
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)
def neurons_of_spikes(
    _typing: Any, every: Any, ends: Any, line: Any, width: Any, span: Any, index: Any, value: Any, rows: Any,
    first: Any, last: Any, offset: Any, step: Any, bias: Any, theta: Any, channel: Any, u: Any, u_at: Any, leak: Any,
    hard: Any, spikes: Any, spikes_at: Any, inside: Any, pre: Any, pre_at: Any, keep: Any, vectors: Any, read: Any,
) -> Any:  # fmt: skip
    """One step of ``vectors`` * LANES neurons of one pixel; returns how many fired.

    Their current is the bias and the rows of the spikes under the kernel, on its lines ki = first ... last - 1, with
    rows at offset + ki * step. ``read`` says which: where ONES or VALUES, those listed from ends[line + ki * width] to
    where they end ``span`` pixels further on, each worth 1 or its value; where EVERY, the int8 entries
    every[line + ki * width :] as far as ``span``, zeros among them, a row each. It is a constant, as ``vectors``.
    """
    count, kind = vectors.literal_value, read.literal_value
    flag = types.boolean
    signature = types.int64(
        every, ends, _long, _long, _long, index, value, rows, _long, _long, _long, _long, bias, theta, _long, u, _long,
        types.float32, flag, spikes, _long, flag, pre, _long, flag, vectors, read,
    )  # fmt: skip

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = _Code(context, builder, signature, args)
        line_, width_, span_ = args[2:5]
        first_, last_, offset_, step_ = args[8:12]
        channel_, u_at_, leak_, spikes_at_, pre_at_ = args[14], args[16], code.splat(args[17]), args[20], args[23]
        start = code.address(12, channel_)
        stride = _number(count * LANES)
        lines = code.loop(first_, last_, [code.load(code.next(start, v)) for v in range(count)])
        begin = builder.add(line_, builder.mul(lines.i, width_))
        at = builder.add(offset_, builder.mul(lines.i, step_))
        if kind == EVERY:
            sums = _add_every_row(code, lines.sums, begin, span_, at, stride, rows=7, value=0)
        else:
            from_, to = (builder.load(code.address(1, place, _I64)) for place in (begin, builder.add(begin, span_)))
            sums = _add_rows(code, lines.sums, from_, to, at, stride, kind == VALUES, rows=7, index=5, value=6)
        currents = lines.end(sums)
        fired_in_all = _number(0)
        for v, current in enumerate(currents):
            theta_, membrane, pre_ = (
                code.next(code.address(*where), v) for where in ((13, channel_), (15, u_at_), (22, pre_at_))
            )
            before, fired = _fire(code, current, code.load(theta_), membrane, leak_, code.bit(18))
            made = code.next(code.address(19, spikes_at_, _BYTES), v)
            fired_in_all = builder.add(fired_in_all, _put(code, before, fired, made, code.bit(21), pre_, code.bit(24)))
        return fired_in_all

    return signature, generate


@intrinsic
def neurons_of_currents(
    _typing: Any, current: Any, current_at: Any, theta: Any, channel: Any, u: Any, u_at: Any, leak: Any, hard: Any,
    spikes: Any, spikes_at: Any, inside: Any, pre: Any, pre_at: Any, keep: Any,
) -> Any:  # fmt: skip
    """One step of LANES neurons whose currents are there; returns how many fired."""
    flag = types.boolean
    signature = types.int64(
        current, _long, theta, _long, u, _long, types.float32, flag, spikes, _long, flag, pre, _long, flag
    )

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = _Code(context, builder, signature, args)
        theta_, membrane = code.load(code.address(2, args[3])), code.address(4, args[5])
        current_, leak_ = code.load(code.address(0, args[1])), code.splat(args[6])
        before, fired = _fire(code, current_, theta_, membrane, leak_, code.bit(7))
        made, pre_ = code.address(8, args[9], _BYTES), code.address(11, args[12])
        return _put(code, before, fired, made, code.bit(10), pre_, code.bit(13))

    return signature, generate


@intrinsic(prefer_literal=True)
def back_a_step(
    _typing: Any, pre: Any, pre_at: Any, inverse: Any, channel: Any, incoming: Any, incoming_at: Any, inside: Any,
    share: Any, g: Any, g_at: Any, leak: Any, hard: Any, attached: Any, narrow: Any, height: Any, out: Any, out_at: Any,
    summed: Any, shape: Any,
) -> Any:  # fmt: skip
    """The backward pass of one step of LANES neurons.

    With v = pre / theta, slope = height * shape((v - 1) * narrow), gs = share * incoming (0 where not ``inside``) and g
    the gradient of the membrane after the step: dL/du = g + slope * (gs - attached * g) for the soft reset,
    g * [v <= 1] + slope * (gs - attached * v * g) for the hard one; attached is 0 or 1. Writes it to ``out`` (adds it
    where ``summed``) and leak * dL/du to g. ``shape`` is a constant, ``inverse`` 1 / theta.
    """
    kind = shape.literal_value
    number, flag = types.float32, types.boolean
    signature = types.void(
        pre, _long, inverse, _long, incoming, _long, flag, number, g, _long, number, flag, number, number, number,
        out, _long, flag, shape,
    )  # fmt: skip

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = _Code(context, builder, signature, args)
        one, zero = _constant(1.0), _constant(0.0)
        never = ir.Constant(ir.VectorType(_BIT, LANES), [0] * LANES)
        v = builder.fmul(code.load(code.address(0, args[1])), code.load(code.address(2, args[3])))
        z = builder.fmul(builder.fsub(v, one), code.splat(args[13]))
        size = code.call("fabs", z)
        if kind == TRIANGLE:
            form = code.call("maxnum", builder.fsub(one, size), zero)
        elif kind == RECTANGLE:
            form = builder.select(builder.fcmp_ordered("<", size, one), _constant(0.5), zero)
        elif kind == FAST_SIGMOID:
            form = builder.fadd(one, size)
            form = builder.fdiv(one, builder.fmul(form, form))
        elif kind == FIRED:
            form = builder.select(builder.fcmp_ordered(">", z, zero), one, zero)
        else:
            form = builder.fmul(_constant(math.pi / 2), z)
            form = builder.fdiv(one, code.call("fma", form, form, one))
        slope = builder.fmul(form, code.splat(args[14]))
        # a place that pooling leaves out reads another's gradient, times nothing
        weight = builder.select(code.bit(6), args[7], ir.Constant(_FLOAT, 0.0))
        gs = builder.fmul(code.load(code.address(4, args[5])), code.splat(weight))
        place = code.address(8, args[9])
        gu = code.load(place)
        hard_, attached_ = code.bit(11), code.splat(args[12])
        taken = builder.fmul(attached_, builder.fmul(gu, builder.select(hard_, v, one)))
        kept = builder.select(builder.select(hard_, builder.fcmp_ordered(">", v, one), never), zero, gu)
        value = code.call("fma", slope, builder.fsub(gs, taken), kept)
        code.store(builder.fmul(value, code.splat(args[10])), place)
        to = code.address(15, args[16])
        before = builder.select(code.bit(17), code.load(to), zero)
        code.store(builder.fadd(before, value), to)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def which_spike(_typing: Any, spikes: Any, at: Any) -> Any:
    """A uint64 whose bit n says, for n < LANES, whether the int8 spikes[at + n] is not 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = _Code(context, builder, signature, args)
        some = builder.icmp_unsigned("!=", code.load(code.address(0, args[1], _BYTES)), ir.Constant(_BYTES, None))
        return builder.zext(builder.bitcast(some, ir.IntType(LANES)), _I64)

    return types.uint64(spikes, _long), generate


@intrinsic
def first_bit(_typing: Any, _word: Any) -> Any:
    """Number of the lowest bit of a uint64 that is set; the word must not be 0."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(_BIT, 1))

    return types.uint64(types.uint64), generate


def _spread(code: _Code, d: Sequence[Any]) -> list[Any]:
    """B^T d of a patch's six numbers, or A d of an output's four."""
    b = code.builder

    def fma(factor: float, x: Any, y: Any) -> Any:
        return code.call("fma", _constant(factor), x, y)

    def times(factor: float, x: Any) -> Any:
        return b.fmul(_constant(factor), x)

    if len(d) == OUTPUT:
        begin, end = d[0], d[3]
        even = [fma(p * p, d[2], d[0]) for p in WINOGRAD]
        odd = [times(p, fma(p * p, d[3], d[1])) for p in WINOGRAD]
    else:
        begin, end = (fma(-2.5, d[2], b.fadd(d[0], d[4])), fma(-2.5, d[3], b.fadd(d[1], d[5])))
        even = [fma(-1 / (p * p), d[2], d[4]) for p in WINOGRAD]
        odd = [times(p, fma(-1 / (p * p), d[1], d[3])) for p in WINOGRAD]
    both = [sign(*pair) for pair in zip(even, odd, strict=True) for sign in (b.fadd, b.fsub)]
    return [begin, *both, end]


def _gather(code: _Code, m: Sequence[Any]) -> list[Any]:
    """A^T m: four outputs from six numbers."""
    b = code.builder
    even, odd = ([sign(m[n], m[n + 1]) for n in (1, 3)] for sign in (b.fadd, b.fsub))

    def sum_(power: int, of: Sequence[Any]) -> Any:
        one, other = (_constant(p**power) for p in WINOGRAD)
        return code.call("fma", one, of[0], b.fmul(other, of[1]))

    return [
        b.fadd(m[0], b.fadd(*even)),
        sum_(1, odd),
        sum_(2, even),
        b.fadd(sum_(3, odd), m[5]),
    ]


def _both_ways(code: _Code, grid: list[list[Any]], turn: Any) -> list[list[Any]]:
    """A transform of the columns and then of the rows."""
    columns = [turn(code, list(column)) for column in zip(*grid, strict=True)]
    return [turn(code, list(row)) for row in zip(*columns, strict=True)]


def _square(
    code: _Code, side: int, at: Any, i: Any, j: Any, height: Any, width: Any, channels: Any
) -> list[list[tuple[Any, Any]]]:
    """Whether each pixel of the square at row i and column j is on the map that begins at ``at``, and its place."""
    b = code.builder
    # compared as unsigned, what is negative is large
    rows = [b.icmp_unsigned("<", b.add(i, _number(n)), height) for n in range(side)]
    columns = [b.icmp_unsigned("<", b.add(j, _number(n)), width) for n in range(side)]
    along = b.mul(width, channels)
    corner = b.add(at, b.add(b.mul(i, along), b.mul(j, channels)))
    places = []
    for row in rows:
        line, place = [], corner
        for column in columns:
            line.append((b.and_(row, column), place))
            place = b.add(place, channels)
        places.append(line)
        corner = b.add(corner, along)
    return places


@intrinsic(prefer_literal=True)
def to_points(
    _typing: Any, maps: Any, at: Any, i: Any, j: Any, height: Any, width: Any, channels: Any, points: Any, to: Any,
    step: Any, side: Any,
) -> Any:  # fmt: skip
    """LANES channels of a square of ``side`` (PATCH or OUTPUT, a constant) to the 36 points of Winograd's F(4x4, 3x3).

    The square begins at row i and column j of the map [height, width, channels] that lies at maps[at]; what is outside
    of the map is 0. Point n is written to points[to + n * step].
    """
    size, signed = side.literal_value, maps.dtype == types.int8
    signature = types.void(maps, _long, _long, _long, _long, _long, _long, points, _long, _long, side)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = _Code(context, builder, signature, args)
        at_, i_, j_, height_, width_, channels_ = args[1:7]
        grid = [
            [code.load_where(inside, code.address(0, place, _BYTES if signed else _VECTOR)) for inside, place in line]
            for line in _square(code, size, at_, i_, j_, height_, width_, channels_)
        ]
        made = [value for row in _both_ways(code, grid, _spread) for value in row]
        for n, value in enumerate(made):
            code.store(value, code.address(7, builder.add(args[8], builder.mul(args[9], _number(n)))))
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def from_points(
    _typing: Any, points: Any, at: Any, step: Any, maps: Any, to: Any, i: Any, j: Any, height: Any, width: Any,
    channels: Any,
) -> Any:  # fmt: skip
    """LANES channels of 36 points to the square of side OUTPUT at row i and column j of a map, as far as it is inside.

    The way back of :func:`to_points`, with the same arguments.
    """
    signature = types.void(points, _long, _long, maps, _long, _long, _long, _long, _long, _long)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = _Code(context, builder, signature, args)
        places = [builder.add(args[1], builder.mul(args[2], _number(n))) for n in range(PATCH**2)]
        read = [code.load(code.address(0, place)) for place in places]
        values = _both_ways(code, [read[n : n + PATCH] for n in range(0, PATCH**2, PATCH)], _gather)
        for line, outputs in zip(_square(code, OUTPUT, *args[4:10]), values, strict=True):
            for (inside, to_), value in zip(line, outputs, strict=True):
                with builder.if_then(inside):
                    code.store(value, code.address(3, to_))
        return context.get_dummy_value()

    return signature, generate
