"""Lowering of what kernels are made of, in a tenth of the code: an element of an array, a field of a State.

Numba lowers `st.table[i, 3]` to some eighty lines of LLVM: it loads a whole descriptor, stores it, makes a tuple of the
index, takes both apart again. The optimiser removes that, but writing it down in Python, printing and parsing it is a
third of compile time. Here a field that is an array, and a tuple of integers, are put off until something asks for
their value; an element asks for an address only. Code that is not about these goes to Numba. Without reference counts
a variable needs neither its old value when it is set nor to be cleared when it dies.

Made for Numba 0.68; `tests/test_jit.py` says what is relied on.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from llvmlite.ir import IRBuilder
from numba.core import ir, types
from numba.core.lowering import Lower
from numba.np import arrayobj

from kmemexp.jit import arrays, calling, refs

DATA, SHAPE = 4, 5
"""Places in an array's descriptor (ArrayModel)."""


class Field(NamedTuple):
    """An array that lies in a State: where its descriptor is."""

    place: Any
    load: Callable[[], Any]

    def word(self, builder: Any, *path: int) -> Any:
        """Load one word of the descriptor."""
        return refs.load(builder, refs.within(builder, self.place, *path))


class Value(NamedTuple):
    """An array whose descriptor is at hand."""

    descriptor: Any

    def word(self, builder: Any, *path: int) -> Any:
        """Take one word of the descriptor."""
        return builder.extract_value(self.descriptor, path)


class Row(NamedTuple):
    """A tuple of integers that has not been put together."""

    items: Sequence[Any]
    load: Callable[[], Any]


class KernelLower(Lower):
    """Lowers a kernel or a driver."""

    def storevar(self, value: Any, name: str, argidx: int | None = None) -> None:
        """Set a variable; what has been put off is put off further if only its block uses it."""
        if self.context.enable_nrt:
            super().storevar(value, name, argidx)
            return
        self._alloca_var(name, self.typeof(name))
        if name in self._singly_assigned_vars:
            self._blk_local_varmap[name] = value
        else:
            self.builder.store(value.load() if isinstance(value, Field | Row) else value, self.getvar(name))

    def loadvar(self, name: str) -> Any:
        """Value of a variable."""
        value = self._blk_local_varmap.get(name)
        if isinstance(value, Field | Row):
            value = self._blk_local_varmap[name] = value.load()
        return super().loadvar(name) if value is None else value

    def delvar(self, name: str) -> None:
        """End a variable."""
        if self.context.enable_nrt:
            super().delvar(name)
        elif name not in self._blk_local_varmap:
            self._singly_assigned_vars.discard(name)

    def lower_expr(self, resty: types.Type, expr: Any) -> Any:
        """Lower an expression."""
        if expr.op == "static_getitem" and expr.index_var is not None and self._is_plain(expr.value):
            return self.lower_getitem(resty, expr, expr.value, expr.index_var, self.fndesc.calltypes[expr])
        if not self.context.enable_nrt:
            if expr.op == "getattr" and isinstance(resty, types.Array):
                of = self.typeof(expr.value.name)
                if isinstance(of, refs.Ref):
                    return self._field(of, self.loadvar(expr.value.name), expr.attr)
            elif expr.op == "build_tuple" and all(isinstance(t, types.Integer) for t in resty):
                return self._row(resty, expr.items)
        return super().lower_expr(resty, expr)

    def _field(self, of: refs.Ref, pointer: Any, attr: str) -> Field:
        builder, place = self.builder, refs.field(self.context, self.builder, of, pointer, attr)
        return Field(place, lambda: refs.load(builder, place))

    def _row(self, resty: Any, items: Sequence[Any]) -> Row:
        builder, context = self.builder, self.context
        values = [
            context.cast(builder, self.loadvar(i.name), self.typeof(i.name), to)
            for i, to in zip(items, resty, strict=True)
        ]
        return Row(values, lambda: context.make_tuple(builder, resty, values))

    def lower_inst(self, inst: Any) -> None:
        """Lower a statement."""
        if isinstance(inst, ir.StaticSetItem) and self._is_plain(inst.target):
            self.lower_setitem(inst.target, inst.index_var, inst.value, self.fndesc.calltypes[inst])
        else:
            super().lower_inst(inst)

    def lower_getitem(self, resty: types.Type, expr: Any, value: Any, index: Any, signature: Any) -> Any:
        """Lower reading an element."""
        array, place = self._element(value, index)
        if place is None:
            return super().lower_getitem(resty, expr, value, index, signature)
        read = arrayobj.load_item(self.context, self.builder, array, place)
        return self.context.cast(self.builder, read, array.dtype, resty)

    def lower_setitem(self, target: Any, index: Any, value: Any, signature: Any) -> Any:
        """Lower writing an element."""
        array, place = self._element(target, index)
        if place is None:
            return super().lower_setitem(target, index, value, signature)
        given, taken = self.loadvar(value.name), signature.args[2]
        given = self.context.cast(self.builder, given, self.typeof(value.name), taken)
        given = self.context.cast(self.builder, given, taken, array.dtype)
        return arrayobj.store_item(self.context, self.builder, array, given, place)

    def _is_plain(self, var: Any) -> bool:
        """Whether a variable is an array of numbers whose rows follow each other."""
        of = self.typeof(var.name)
        return (
            type(of) in (types.Array, arrays.Plain)
            and of.layout == "C"
            and isinstance(of.dtype, types.Integer | types.Float | types.Boolean)
            and not self.context.enable_boundscheck
        )

    def _element(self, base: Any, index: Any) -> tuple[Any, Any]:
        """Type of an array and address of its element; None for what is no element of a plain array."""
        of, by = self.typeof(base.name), self.typeof(index.name)
        kinds = tuple(by) if isinstance(by, types.BaseTuple) else (by,)
        if not self._is_plain(base) or of.ndim != len(kinds) or not all(isinstance(k, types.Integer) for k in kinds):
            return of, None
        row = self._blk_local_varmap.get(index.name)
        if isinstance(row, Row):
            items = row.items
        else:
            whole = self.loadvar(index.name)
            items = [self.builder.extract_value(whole, i) for i in range(of.ndim)] if kinds != (by,) else [whole]
        found = self._blk_local_varmap.get(base.name)
        array = found if isinstance(found, Field) else Value(self.loadvar(base.name))
        return of, self._address(array, kinds, items)

    def _address(self, array: Field | Value, kinds: Sequence[types.Integer], items: Sequence[Any]) -> Any:
        """Address of an element."""
        builder = self.builder
        at = None
        for axis, (kind, item) in enumerate(zip(kinds, items, strict=True)):
            step = self._index(array, axis, kind, item)
            at = step if at is None else builder.add(builder.mul(at, array.word(builder, SHAPE, axis)), step)
        return builder.gep(array.word(builder, DATA), [at])

    def _index(self, array: Field | Value, axis: int, kind: types.Integer, item: Any) -> Any:
        """Take an index as it is: kernels never count from the end, and to ask costs a quarter of their speed."""
        _ = array, axis
        return self.context.cast(self.builder, item, kind, types.intp if kind.signed else types.uintp)


class DirectLower(KernelLower):
    """The same, for kernels: what is called by their own convention."""

    def __init__(self, *args: Any, **kws: Any) -> None:
        super().__init__(*args, **kws)
        self.context.__class__ = calling.KernelContext  # a copy for this function

    @property
    def call_conv(self) -> calling.Direct:
        """How it is called."""
        return calling.Direct(self.context)

    def setup_function(self, fndesc: Any) -> None:
        """Declare the function, and begin it."""
        self.function = calling.declare(self.context, self.module, fndesc)
        self.entry_block = self.function.append_basic_block("entry")
        self.builder = IRBuilder(self.entry_block)
        self.call_helper = self.call_conv.init_call_helper(self.builder)


class EntryLower(KernelLower):
    """The same, for what is ordinary code besides: an index may count from the end."""

    def _index(self, array: Field | Value, axis: int, kind: types.Integer, item: Any) -> Any:
        size = array.word(self.builder, SHAPE, axis)
        return arrayobj.fix_integer_index(self.context, self.builder, kind, item, size)
