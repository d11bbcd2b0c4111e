"""Compile a kernel: the one place that says how, and how a kernel reads memory.

Importing this module imports numba; import it, and the modules of kernels, inside a function.

Kernels that read text take the address of its first byte. An array handed from one kernel to another goes as
seven values and is counted as a reference, which for a token of ten bytes is more than there is to do. Who
calls with an address holds what is there, and sees to it that no more is read.
"""

import sys
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

F = TypeVar("F", bound=Callable[..., Any])


def part(function: F) -> F:
    """Compile as part of an entry, whose machine code is kept by :mod:`pipeline.dataset.machine_code`."""
    return cast(F, numba.njit(nogil=True, error_model="numpy")(function))


def compiled(function: F) -> F:
    """Compile at first call; keep the machine code on disk where there is a place for it.

    A kernel may call kernels of its own module only: numba's cache notices a change of that file alone.
    """
    try:
        return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))
    except RuntimeError:  # neither the package nor the user's cache directory can be written
        return part(function)


def inlined(function: F) -> F:
    """Compile into each kernel that calls it, where a call would cost more than what is done."""
    return cast(F, numba.njit(nogil=True, error_model="numpy", forceinline=True)(function))


def _load(bits: int) -> Callable[..., Any]:
    """Return what makes the code to load an unsigned number of so many bits, the first byte lowest."""

    def load(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        kind = ir.IntType(bits)
        loaded = builder.load(builder.inttoptr(arguments[0], kind.as_pointer()), align=1)
        if bits > 8 and sys.byteorder == "big":
            loaded = builder.bswap(loaded)
        return builder.zext(loaded, ir.IntType(64)) if bits < 64 else loaded

    return load


def _byte_at(_context: Any, address: Any) -> Any:  # noqa: ARG001 - the name is what a caller passes
    return types.int64(types.int64), _load(8)


def _word_at(_context: Any, address: Any) -> Any:  # noqa: ARG001
    return types.uint64(types.int64), _load(64)


def _zeros_below(_context: Any, word: Any) -> Any:  # noqa: ARG001
    def count(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), count


carray: Final[Any] = numba.carray  # type: ignore[attr-defined]
"""The array of a shape at an address."""
byte_at: Final = cast(Callable[[int], int], intrinsic(_byte_at))
"""The byte at an address."""
word_at: Final = cast(Callable[[int], np.uint64], intrinsic(_word_at))
"""The eight bytes at an address as one number, the first byte lowest."""
zeros_below: Final = cast(Callable[[np.uint64], np.uint64], intrinsic(_zeros_below))
"""How many zero bits are below the lowest that is set; 64 when none is."""
