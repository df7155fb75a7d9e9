"""Expressions over configuration keys, for `when` and `exclude`: `design == 'freebsd4' and machine.cpus > 4`.

The text is parsed by Python's own parser and walked here; nothing is ever executed. Allowed: keys, numbers, texts,
lists, comparisons (also chained, `in`, `not in`), `and`, `or`, `not`, and + - * / // % on numbers. A key that ends in
`_bytes` may be compared with a size such as '128MiB'.
"""

import ast
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kmemexp.errors import ConfigError
from kmemexp.values import byte_count

Objects = NDArray[np.object_]
Mask = NDArray[np.bool_]

COMPARE: dict[type, Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip
ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
}  # fmt: skip
CONSTANTS = {"true": True, "false": False, "null": None}


class Predicate:
    """A parsed expression; `keys` are the configuration keys that it looks at."""

    def __init__(self, text: str, where: str) -> None:
        """`where` names the entry of the sweep file for messages. Raises ConfigError."""
        self.text, self.where = str(text), where
        try:
            self._tree = ast.parse(self.text.strip(), mode="eval").body
        except SyntaxError as error:
            raise self._wrong(f"not an expression ({error.msg})") from error
        self.keys: tuple[str, ...] = tuple(dict.fromkeys(self._collect(self._tree)))

    def __call__(self, values: Mapping[str, Any]) -> bool:
        """Whether it holds for these values of its keys."""
        try:
            return bool(self._value(self._tree, values))
        except (TypeError, ZeroDivisionError) as error:
            raise self._wrong(str(error)) from error

    def mask(self, columns: Sequence[Objects], count: int) -> Mask:
        """bool[count]: where it holds, given one column per key of `keys`; each distinct row is looked at once."""
        if not self.keys:
            return np.full(count, self({}))
        known: dict[tuple[Any, ...], bool] = {}
        rows = list(zip(*(column.tolist() for column in columns), strict=True))
        for row in set(rows):
            known[row] = self(dict(zip(self.keys, row, strict=True)))
        return np.fromiter((known[row] for row in rows), bool, count)

    def equated(self) -> Iterator[tuple[str, Any]]:
        """Yield the values that it asks a key to be, or not to be: (key, constant)."""
        for node in ast.walk(self._tree):
            if not isinstance(node, ast.Compare):
                continue
            for left, op, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
                if isinstance(op, ast.Eq | ast.NotEq | ast.In | ast.NotIn):
                    yield from ((key, value) for key in self._plain_key(left) for value in _constants(right))
                if isinstance(op, ast.Eq | ast.NotEq):
                    yield from ((key, value) for key in self._plain_key(right) for value in _constants(left))

    def _plain_key(self, node: ast.expr) -> list[str]:
        is_key = isinstance(node, ast.Name | ast.Attribute) and self._key(node) not in CONSTANTS
        return [self._key(node)] if is_key else []

    def _collect(self, node: ast.expr) -> list[str]:
        """Keys below a node; refuses what is not allowed."""
        if isinstance(node, ast.Name | ast.Attribute):
            key = self._key(node)
            return [] if key in CONSTANTS else [key]
        if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | None):
            return []
        return [key for child in self._children(node) for key in self._collect(child)]

    def _children(self, node: ast.expr) -> list[ast.expr]:
        match node:
            case ast.BoolOp(values=children) | ast.List(elts=children) | ast.Tuple(elts=children):
                return children
            case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=child):
                return [child]
            case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
                return [left, right]
            case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in COMPARE for op in ops):
                return [left, *others]
        raise self._wrong(f"{ast.unparse(node)!r} is not allowed here")

    def _key(self, node: ast.expr) -> str:
        words = []
        while isinstance(node, ast.Attribute):
            words.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            raise self._wrong(f"{ast.unparse(node)!r} is not a key")
        return ".".join([node.id, *reversed(words)])

    def _value(self, node: ast.expr, values: Mapping[str, Any]) -> Any:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name() | ast.Attribute():
                key = self._key(node)
                return CONSTANTS[key] if key in CONSTANTS else values[key]
            case ast.List(elts=items) | ast.Tuple(elts=items):
                return [self._value(item, values) for item in items]
            case ast.BoolOp(op=ast.And(), values=children):
                return all(self._value(child, values) for child in children)
            case ast.BoolOp(values=children):
                return any(self._value(child, values) for child in children)
            case ast.UnaryOp(op=ast.Not(), operand=child):
                return not self._value(child, values)
            case ast.UnaryOp(operand=child):
                return -self._value(child, values)
            case ast.BinOp(left=left, op=op, right=right):
                return ARITHMETIC[type(op)](self._value(left, values), self._value(right, values))
            case ast.Compare():
                return self._compare(node, values)
        raise AssertionError(node)

    def _compare(self, node: ast.Compare, values: Mapping[str, Any]) -> bool:
        sides = [node.left, *node.comparators]
        in_bytes = any(isinstance(n, ast.Name | ast.Attribute) and self._key(n).endswith("_bytes") for n in sides)
        found = [self._value(side, values) for side in sides]
        if in_bytes:
            found = [self._in_bytes(value) for value in found]
        pairs = zip(found, node.ops, found[1:], strict=False)
        return all(COMPARE[type(op)](left, right) for left, op, right in pairs)

    def _in_bytes(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._in_bytes(item) for item in value]
        return byte_count(f"{self.where}: {self.text}", value) if isinstance(value, str) else value

    def _wrong(self, why: str) -> ConfigError:
        return ConfigError(f"{self.where}: {self.text!r}: {why}")


def _constants(node: ast.expr) -> list[Any]:
    """Texts and numbers that a side of a comparison is, or lists."""
    if isinstance(node, ast.List | ast.Tuple):
        return [value for item in node.elts for value in _constants(item)]
    if isinstance(node, ast.Constant) and node.value is not None:
        return [node.value]
    return []
