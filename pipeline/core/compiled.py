"""How a kernel is compiled.

Importing this module imports numba; import it, and the modules of kernels, inside a function.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compile at first call; keep the machine code in numba's cache, or nowhere where that cannot be written.

    A kernel may call kernels of its own module only: numba's cache notices a change of that file alone.
    """
    try:
        return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))
    except RuntimeError:  # neither the package nor the user's cache directory can be written
        return cast(F, numba.njit(nogil=True, error_model="numpy")(function))
