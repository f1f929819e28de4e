"""Vectors of 64 bytes for Numba: 16 lanes of float32 or 8 of float64, as LLVM values that live in registers.

Memory is addressed by typed pointers; every function takes a pointer and an element index. LLVM lowers a vector to
whatever the machine has (one AVX-512 register, two of AVX2, four of NEON), so nothing here names an instruction set.
The number of lanes follows from the pointer's type, so one kernel text serves both precisions.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model

BYTES = 64


class Vector(types.Type):
    """A register of ``BYTES / itemsize`` numbers of one type."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        self.lanes = BYTES * 8 // dtype.bitwidth
        super().__init__(name=f"Vector({dtype}, {self.lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, vector: Vector) -> None:
        element = ir.FloatType() if vector.dtype is types.float32 else ir.DoubleType()
        super().__init__(manager, vector, ir.VectorType(element, vector.lanes))


def _vector_of(pointer: Any) -> Vector:
    return Vector(pointer.dtype)


def _ir_vector(context: Any, vector: Vector) -> ir.VectorType:
    return context.get_value_type(vector)


def _address(builder: Any, pointer: ir.Value, index: ir.Value) -> ir.Value:
    return builder.gep(pointer, [index])


def _as_vector_pointer(context: Any, builder: Any, place: ir.Value, vector: Vector) -> ir.Value:
    return builder.bitcast(place, _ir_vector(context, vector).as_pointer())


def _align(vector: Vector) -> int:
    return int(vector.dtype.bitwidth) // 8


def _splat(builder: Any, value: ir.Value, kind: ir.VectorType) -> ir.Value:
    seed = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    return builder.shuffle_vector(seed, ir.Constant(kind, ir.Undefined), mask)


def _mask(builder: Any, count: ir.Value, lanes: int) -> ir.Value:
    """Lanes below ``count``."""
    kind = ir.VectorType(count.type, lanes)
    ramp = ir.Constant(kind, list(range(lanes)))
    return builder.icmp_signed("<", ramp, _splat(builder, count, kind))


def _intrinsic_name(base: str, kind: ir.VectorType) -> str:
    return f"llvm.{base}.v{kind.count}f{32 if isinstance(kind.element, ir.FloatType) else 64}"


def _call(builder: Any, name: str, result: ir.Type, arguments: list[ir.Value]) -> ir.Value:
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, arguments)


@intrinsic
def lanes(typing: Any, pointer: Any) -> Any:
    """How many numbers a vector of this pointer's type holds."""
    count = _vector_of(pointer).lanes

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        return context.get_constant(types.int64, count)

    return types.int64(pointer), generate


@intrinsic
def load(typing: Any, pointer: Any, index: Any) -> Any:
    """pointer[index : index + lanes]."""
    vector = _vector_of(pointer)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        place = _as_vector_pointer(context, builder, _address(builder, *arguments), vector)
        return builder.load(place, align=_align(vector))

    return vector(pointer, types.int64), generate


@intrinsic
def load_some(typing: Any, pointer: Any, index: Any, count: Any) -> Any:
    """pointer[index : index + count], zeros in the other lanes. Nothing beyond is read."""
    vector = _vector_of(pointer)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        base, at, number = arguments
        kind = _ir_vector(context, vector)
        place = _as_vector_pointer(context, builder, _address(builder, base, at), vector)
        name = _intrinsic_name("masked.load", kind) + ".p0"
        align = ir.Constant(ir.IntType(32), _align(vector))
        mask = _mask(builder, number, kind.count)
        return _call(builder, name, kind, [place, align, mask, ir.Constant(kind, [0.0] * kind.count)])

    return vector(pointer, types.int64, types.int64), generate


@intrinsic
def store(typing: Any, pointer: Any, index: Any, value: Any) -> Any:
    """pointer[index : index + lanes] = value."""
    vector = _vector_of(pointer)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        base, at, given = arguments
        place = _as_vector_pointer(context, builder, _address(builder, base, at), vector)
        builder.store(given, place, align=_align(vector))
        return context.get_dummy_value()

    return types.void(pointer, types.int64, vector), generate


@intrinsic
def store_some(typing: Any, pointer: Any, index: Any, value: Any, count: Any) -> Any:
    """pointer[index : index + count] = value's first lanes. Nothing beyond is written."""
    vector = _vector_of(pointer)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        base, at, given, number = arguments
        kind = _ir_vector(context, vector)
        place = _as_vector_pointer(context, builder, _address(builder, base, at), vector)
        name = _intrinsic_name("masked.store", kind) + ".p0"
        align = ir.Constant(ir.IntType(32), _align(vector))
        _call(builder, name, ir.VoidType(), [given, place, align, _mask(builder, number, kind.count)])
        return context.get_dummy_value()

    return types.void(pointer, types.int64, vector, types.int64), generate


@intrinsic
def everywhere(typing: Any, pointer: Any, index: Any) -> Any:
    """pointer[index] in every lane."""
    vector = _vector_of(pointer)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        return _splat(builder, builder.load(_address(builder, *arguments)), _ir_vector(context, vector))

    return vector(pointer, types.int64), generate


@intrinsic
def constant(typing: Any, pointer: Any, value: Any) -> Any:
    """The float64 ``value`` in every lane of a vector of the pointer's type."""
    vector = _vector_of(pointer)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        kind = _ir_vector(context, vector)
        scalar = context.cast(builder, arguments[1], types.float64, vector.dtype)
        return _splat(builder, scalar, kind)

    return vector(pointer, types.float64), generate


def _elementwise(operation: str) -> Any:
    """Two vectors -> one."""

    def typed(typing: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
            return getattr(builder, operation)(*arguments)

        return a(a, a), generate

    return intrinsic(typed)


add, subtract, multiply, divide = (_elementwise(name) for name in ("fadd", "fsub", "fmul", "fdiv"))


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        kind = arguments[0].type
        return _call(builder, _intrinsic_name("fma", kind), kind, list(arguments))

    return a(a, a, a), generate


@intrinsic
def root(typing: Any, a: Any) -> Any:
    """The square root."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        kind = arguments[0].type
        return _call(builder, _intrinsic_name("sqrt", kind), kind, list(arguments))

    return a(a), generate


@intrinsic
def where_positive(typing: Any, gate: Any, value: Any) -> Any:
    """value where gate > 0, else 0: with gate = value the ReLU, otherwise its derivative's action. NaN passes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        test, given = arguments
        zero = ir.Constant(test.type, [0.0] * test.type.count)
        return builder.select(builder.fcmp_unordered(">", test, zero), given, zero)

    return gate(gate, gate), generate


@intrinsic
def where_greater(typing: Any, a: Any, b: Any, yes: Any, no: Any) -> Any:
    """yes where a > b or a is NaN, else no; lane by lane: a running maximum by it never loses a NaN."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        left, right, chosen, other = arguments
        larger = builder.or_(builder.fcmp_ordered(">", left, right), builder.fcmp_unordered("uno", left, left))
        return builder.select(larger, chosen, other)

    return a(a, a, a, a), generate


@intrinsic
def where_equal(typing: Any, a: Any, b: Any, yes: Any, no: Any) -> Any:
    """yes where a == b, else no; lane by lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        left, right, chosen, other = arguments
        return builder.select(builder.fcmp_ordered("==", left, right), chosen, other)

    return a(a, a, a, a), generate


@intrinsic
def total(typing: Any, a: Any) -> Any:
    """The sum of the lanes, in halves: ((0 + 8) + (4 + 12)) and so on, the same order on every machine."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        value, width = arguments[0], arguments[0].type.count
        index = ir.IntType(32)
        while width > 1:
            width //= 2
            undefined = ir.Constant(value.type, ir.Undefined)
            kind = ir.VectorType(index, width)
            low = builder.shuffle_vector(value, undefined, ir.Constant(kind, list(range(width))))
            high = builder.shuffle_vector(value, undefined, ir.Constant(kind, list(range(width, 2 * width))))
            value = builder.fadd(low, high)
        return builder.extract_element(value, ir.Constant(index, 0))

    return a.dtype(a), generate


@intrinsic
def argument(typing: Any, block: Any, index: Any) -> Any:
    """The integer at ``index`` of a kernel's argument block."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        base = builder.bitcast(arguments[0], ir.IntType(64).as_pointer())
        return builder.load(_address(builder, base, arguments[1]))

    return types.int64(block, types.int64), generate


@intrinsic
def real_argument(typing: Any, block: Any, index: Any) -> Any:
    """The float64 number whose bits are at ``index`` of an argument block."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        base = builder.bitcast(arguments[0], ir.DoubleType().as_pointer())
        return builder.load(_address(builder, base, arguments[1]))

    return types.float64(block, types.int64), generate


@intrinsic
def pointer(typing: Any, block: Any, index: Any) -> Any:
    """The address at ``index`` of an argument block, as a pointer of the block's own type."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        base = builder.bitcast(arguments[0], ir.IntType(64).as_pointer())
        return builder.inttoptr(builder.load(_address(builder, base, arguments[1])), arguments[0].type)

    return block(block, types.int64), generate


@intrinsic
def put_number(typing: Any, pointer: Any, index: Any, value: Any) -> Any:
    """pointer[index] = value, one number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        base, at, given = arguments
        builder.store(given, _address(builder, base, at))
        return context.get_dummy_value()

    return types.void(pointer, types.int64, pointer.dtype), generate


@intrinsic
def number(typing: Any, pointer: Any, index: Any) -> Any:
    """pointer[index], one number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        return builder.load(_address(builder, *arguments))

    return pointer.dtype(pointer, types.int64), generate


@intrinsic
def shifted(typing: Any, pointer: Any, offset: Any) -> Any:
    """pointer + offset elements."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        return _address(builder, *arguments)

    return pointer(pointer, types.int64), generate


@intrinsic
def take_a_number(typing: Any, block: Any, index: Any) -> Any:
    """Atomically add 1 to the integer at ``index`` of an argument block; its value before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> ir.Value:
        base = builder.bitcast(arguments[0], ir.IntType(64).as_pointer())
        place = _address(builder, base, arguments[1])
        return builder.atomic_rmw("add", place, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(block, types.int64), generate
