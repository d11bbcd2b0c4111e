"""Draws depend on seed, stream and id alone, and look uniform and independent."""

import numpy as np
import pytest

from pipeline.core import rng


def splitmix64(state):
    """Return one output of SplitMix64 in plain integers, from its published definition."""
    mask = 2**64 - 1
    x = (state + 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)


def test_reference_generator_gives_the_published_first_output():
    """The first number of SplitMix64 seeded with 0 is e220a8397b1dcdaf, as published."""
    assert splitmix64(0) == 0xE220A8397B1DCDAF


@pytest.mark.parametrize("row", [0, 1, 7, 2**40, 2**63 - 1, -1])
def test_agrees_with_plain_integers(row):
    """A draw is two rounds of SplitMix64 over the id and the stream's key, in the top 53 bits."""
    expected = (splitmix64(splitmix64(row % 2**64) ^ rng.stream_key(5, "draw")) >> 11) / 2**53
    assert rng.uniform(np.array([row]), seed=5, stream="draw")[0] == expected


def test_golden_values():
    """Values seen once: a change here changes the rows of every selection made so far."""
    values = rng.uniform(np.array([0, 1, 2]), seed=1, stream="draw")
    assert values.tolist() == [0.1562078775197403, 0.011701249826969629, 0.09979667565574257]


def test_uniform_in_bins():
    """A hundred thousand consecutive ids fill ten bins evenly: chi-squared below its 99.99 % point, 33.7."""
    values = rng.uniform(np.arange(100_000), seed=3, stream="draw")
    assert values.min() >= 0
    assert values.max() < 1
    counts = np.histogram(values, bins=10, range=(0, 1))[0]
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 33.7


def test_streams_seeds_and_neighbours_are_uncorrelated():
    """Draws of two streams, two seeds and neighbouring ids correlate within 4 / sqrt(n) of 0."""
    ids = np.arange(40_000)
    a = rng.uniform(ids, seed=3, stream="draw")
    others = (
        rng.uniform(ids, seed=3, stream="tie"),
        rng.uniform(ids, seed=4, stream="draw"),
        np.roll(a, 1),
    )
    for b in others:
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(len(ids))


def test_position_and_company_do_not_matter():
    """An id gets the same number alone, in a list, and in a list turned around."""
    ids = np.arange(100)
    values = rng.uniform(ids, seed=1, stream="x")
    np.testing.assert_array_equal(rng.uniform(ids[::-1], seed=1, stream="x"), values[::-1])
    assert rng.uniform(ids[42:43], seed=1, stream="x")[0] == values[42]
    assert len(rng.uniform(ids[:0], seed=1, stream="x")) == 0


def test_no_two_of_a_million_ids_collide():
    """A million draws of 53 bits are all different."""
    assert len(np.unique(rng.uniform(np.arange(1_000_000), seed=1, stream="draw"))) == 1_000_000


def test_stream_key_separates_seed_from_name():
    """Twenty seeds and four streams make eighty keys of 64 bits."""
    keys = {rng.stream_key(seed, stream) for seed in range(20) for stream in ("draw", "tie", "limit", "")}
    assert len(keys) == 80
    assert all(0 <= key < 2**64 for key in keys)
