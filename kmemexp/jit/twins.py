"""What a kernel's twin is, by the number of its arguments: with `*args` Numba would type a tuple at each call."""

from collections.abc import Callable
from typing import Any


def kernel(*args: Any) -> Any:
    """Stands for the kernel that a twin calls."""
    raise NotImplementedError


def _1(a: Any) -> Any:
    return kernel(a)


def _2(a: Any, b: Any) -> Any:
    return kernel(a, b)


def _3(a: Any, b: Any, c: Any) -> Any:
    return kernel(a, b, c)


def _4(a: Any, b: Any, c: Any, d: Any) -> Any:
    return kernel(a, b, c, d)


def _5(a: Any, b: Any, c: Any, d: Any, e: Any) -> Any:
    return kernel(a, b, c, d, e)


def _6(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any) -> Any:
    return kernel(a, b, c, d, e, f)


def _7(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any) -> Any:
    return kernel(a, b, c, d, e, f, g)


def _8(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any) -> Any:
    return kernel(a, b, c, d, e, f, g, h)


def _any(*args: Any) -> Any:
    return kernel(*args)


BY_COUNT: tuple[Callable[..., Any], ...] = (_any, _1, _2, _3, _4, _5, _6, _7, _8)


def call(count: int) -> Callable[..., Any]:
    """Function that calls a kernel of `count` parameters."""
    return BY_COUNT[count] if count < len(BY_COUNT) else _any
