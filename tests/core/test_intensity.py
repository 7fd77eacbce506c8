from __future__ import annotations

import numpy as np
import pytest

from ralis_backend.core.intensity import kind_of, range_of, some_values, to_8_bits


def _spread(low, high, dtype=np.uint16):
    return np.linspace(low, high, 500).astype(dtype)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([_spread(0, 4095)], (0, 4095)),
        ([_spread(0, 4000)], (0, 4095)),
        ([_spread(3, 900), _spread(10, 3000)], (0, 4095)),  # one rule for all of them
        ([_spread(0, 65535)], (0, 65535)),
        ([_spread(0, 200)], (0, 255)),
        ([_spread(30_000, 33_000)], (30_000, 33_000)),  # an offset would leave them grey
        ([_spread(-1000, 3000, np.int16)], (-1000, 3000)),
        ([_spread(0, 1, np.float32)], (0, 1)),
        ([_spread(-0.9, 0.8, np.float32)], (-1, 1)),
        ([_spread(0, 254.5, np.float32)], (0, 255)),
        ([_spread(0, 9000.0, np.float32)], (0, 16383)),
        ([_spread(280, 310, np.float32)], (280, 310)),
        ([np.zeros(9, np.uint16), _spread(0, 4095)], (0, 4095)),  # a black one says nothing
        ([np.full(9, 3000, np.uint16)], (0, 4095)),
    ],
)
def test_the_range_is_the_fewest_bits_that_hold_the_values(samples, expected):
    assert range_of(samples) == pytest.approx(expected, abs=0.5)


def test_a_few_hot_pixels_do_not_darken_the_rest():
    values = _spread(0, 4000).repeat(100)
    values[:10] = 65535
    assert range_of([values]) == (0, 4095)


def test_without_any_value_there_is_no_range():
    with pytest.raises(ValueError, match="no finite value"):
        range_of([np.zeros(0, np.float32)])


def test_whole_numbers_keep_their_highest_bits():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    np.testing.assert_array_equal(to_8_bits(values, (0, 65535)), values >> 8)
    twelve = np.arange(4096, dtype=np.uint16)
    np.testing.assert_array_equal(to_8_bits(twelve, (0, 4095)), twelve >> 4)


def test_values_beyond_the_range_are_clipped():
    assert to_8_bits(np.array([-5, 0, 99, 100, 1000], np.int32), (0, 99)).tolist() == [
        *(0, 0, 253, 255, 255)
    ]
    floats = to_8_bits(np.array([-1, 0, 0.5, 1, 9], np.float64), (0.0, 1.0))
    assert floats.tolist() == [0, 0, 128, 255, 255]
    assert to_8_bits(np.array([7.0]), (7.0, 7.0)).tolist() == [0]


def test_few_values_are_looked_at_and_only_numbers():
    values = np.full((3000, 2000), np.nan, np.float32)
    values[:, 0] = 7
    some = some_values(values)
    assert 0 < some.size <= 1_000_000
    assert (some == 7).all()
    assert kind_of(values.dtype) == "floats"
