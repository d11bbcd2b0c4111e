"""Randomness as data: one number per row or query, drawn from a seed and keyed by an id.

Because a draw depends on the seed, a stream name and the id alone, the thread count, the engine, the row
order and the row-group size can never change a choice made with it.
"""

import hashlib

import numpy as np
import numpy.typing as npt

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """One SplitMix64 output per element (Steele, Lea, Flood, OOPSLA 2014)."""
    x = x + _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * _MIX1
    x = (x ^ (x >> np.uint64(27))) * _MIX2
    return np.asarray(x ^ (x >> np.uint64(31)), dtype=np.uint64)


def stream_key(seed: int, stream: str) -> int:
    """Return the 64-bit key of a named stream of draws under ``seed``."""
    digest = hashlib.blake2b(f"{seed}/{stream}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def uniform(ids: npt.NDArray[np.int64], *, seed: int, stream: str) -> npt.NDArray[np.float64]:
    """Draw one float64 in [0, 1) per id; equal ids get equal draws.

    Args:
        ids: Integer keys, shape ``(n,)``.
        seed: The run's seed.
        stream: What the draw is for; streams are independent of one another.
    """
    return uniform_of(hashed(ids), key=stream_key(seed, stream))


def hashed(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """Return what :func:`uniform_of` takes, for many draws with the same ids: shape and order of ``ids``."""
    return _mix(ids.astype(np.int64).view(np.uint64))


def uniform_of(ids: npt.NDArray[np.uint64], *, key: int) -> npt.NDArray[np.float64]:
    """Draw as :func:`uniform` does, from ids already :func:`hashed` and a :func:`stream_key`."""
    return (_mix(ids ^ np.uint64(key)) >> np.uint64(11)).astype(np.float64) * 2.0**-53
