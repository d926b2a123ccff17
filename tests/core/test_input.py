"""Where images enter: the range, the types, the shapes and the rounding of `Input.encode`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lava_casc.errors import DataError, RangeError
from lava_casc.network import Input


@given(x=st.integers(-(2**40), 2**40), shift=st.integers(0, 20))
def test_encode_rounds_to_units_with_halves_upwards(x, shift):
    entry = Input("x", (1,), -(2**40), 2**40, shift=shift)
    unit = 2**shift
    found = int(entry.encode([[x]])[0, 0])
    assert abs(found * unit - x) <= unit // 2
    assert found == (x + unit // 2) // unit
    assert entry.reach[0] <= found <= entry.reach[1]


@pytest.mark.parametrize(
    ("shift", "expected"), [(0, [-3, 0, 1, 2, 255]), (1, [-1, 0, 1, 1, 128]), (3, [0, 0, 0, 0, 32])]
)
def test_encode_by_hand(shift, expected):
    entry = Input("x", (5,), -3, 255, shift=shift)
    assert entry.encode([[-3, 0, 1, 2, 255]]).tolist() == [expected]


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int32, np.uint32, np.int64, np.uint64])
def test_every_integer_type_enters_alike(dtype):
    entry = Input("x", (2,), 0, 127, shift=2)
    found = entry.encode(np.array([[127, 126]], dtype))
    assert found.dtype == np.int64
    assert found.tolist() == [[32, 32]]


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.bool_, np.complex64, object])
def test_other_types_are_refused(dtype):
    with pytest.raises(DataError, match=r"x: images must hold integers, not \w+. Scale them to \[-4, 7\] and round"):
        Input("x", (1,), -4, 7).encode(np.ones((1, 1), dtype))


@pytest.mark.parametrize("shape", [(), (1,), (2, 3, 4), (1, 3, 2, 4), (1, 2, 3, 4, 1), (1, 24)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(DataError, match=r"x: images of shape .* do not fit the network's input \(2, 3, 4\)"):
        Input("x", (2, 3, 4), 0, 1).encode(np.zeros(shape, int))


@pytest.mark.parametrize(
    ("image", "fits"),
    [([-8, 7], True), ([-9, 0], False), ([0, 8], False), ([0, 2**63], False), ([0, 2**63 - 1], False)],
)
def test_the_range_at_its_limits_and_one_past(image, fits):
    entry = Input("x", (2,), -8, 7)
    images = np.array([image])
    if fits:
        assert entry.encode(images).tolist() == [image]
    else:
        with pytest.raises((RangeError, DataError), match=r"x: images"):
            entry.encode(images)


def test_the_range_is_named():
    with pytest.raises(RangeError, match=r"x: images span \[-9, 8\], outside the network's input range \[-8, 7\]"):
        Input("x", (2,), -8, 7).encode([[-9, 8]])


def test_the_images_stay_as_they_are():
    images = np.array([[5]])
    for shift in (0, 1):
        Input("x", (1,), 0, 9, shift=shift).encode(images)[:] = 7
        assert images.tolist() == [[5]]


def test_no_images_are_encoded_to_none():
    assert Input("x", (3, 1, 2), 0, 9).encode(np.zeros((0, 3, 1, 2), np.uint8)).shape == (0, 3, 1, 2)
