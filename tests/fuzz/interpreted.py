"""The LETOR kernel as plain Python, so that branches can be seen and every read of the text is checked.

Compiled, the kernel reads without bounds; here the same source raises IndexError where it would read, or write,
outside of what it was given.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np

from pipeline.dataset import letor_kernel as compiled_kernel


class _Text(bytes):
    """A block, of which no byte before the first is read."""

    def __getitem__(self, place: Any) -> int:
        if place < 0:
            raise IndexError(f"a byte is read {-place} before the block")
        return super().__getitem__(int(place))


@cache
def module() -> ModuleType:
    """Return a second copy of the kernel's module, its functions not compiled."""
    return load(Path(compiled_kernel.__file__).read_text(encoding="utf-8"))


def load(source: str) -> ModuleType:
    """Return ``source``, that of the kernel or a changed one, as a module whose functions are not compiled."""
    copy = ModuleType("interpreted_letor_kernel")
    before = numba.config.DISABLE_JIT
    numba.config.DISABLE_JIT = True
    try:
        exec(compile(source, compiled_kernel.__file__, "exec"), vars(copy))  # noqa: S102 - the project's own
    finally:
        numba.config.DISABLE_JIT = before
    parse = copy.parse

    def parse_checked(text: np.ndarray, *rest: Any) -> Any:
        with np.errstate(over="ignore"):  # as compiled: large numbers become infinity
            return parse(_Text(text.tobytes()), *rest)

    parse_checked.__wrapped__ = parse
    copy.parse = parse_checked
    return copy


@contextmanager
def kernel(module: ModuleType) -> Iterator[None]:
    """Let the reader use an interpreted kernel meanwhile."""
    compiled = compiled_kernel.parse
    compiled_kernel.parse = module.parse
    try:
        yield
    finally:
        compiled_kernel.parse = compiled
