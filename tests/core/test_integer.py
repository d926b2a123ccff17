"""Integer arithmetic against Python ints, at the limits and one past them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lava_casc.integer import (
    Interval,
    signed_bits,
    signed_range,
    split_evenly,
    spread,
    wrap_signed,
)

int64 = st.integers(-(2**63), 2**63 - 1)
totals = st.integers(-(2**40), 2**40)
widths = st.integers(1, 64)
FUNCTIONS = (
    lambda x: wrap_signed(x, 8),
    lambda x: split_evenly(x, 3),
    lambda x: spread(x, 3, 1),
)


@pytest.mark.parametrize(("bits", "low", "high"), [(1, -1, 0), (2, -2, 1), (8, -128, 127), (24, -8388608, 8388607)])
def test_signed_range_of_known_widths(bits, low, high):
    assert signed_range(bits) == (low, high)


@pytest.mark.parametrize("bits", [0, -1])
def test_no_bits_hold_nothing(bits):
    for function in (signed_range, lambda b: wrap_signed(0, b)):
        with pytest.raises(ValueError, match=rf"needs at least 1 bit, not {bits}"):
            function(bits)


@given(low=st.integers(), high=st.integers())
def test_signed_bits_are_enough_and_one_fewer_is_not(low, high):
    bits = signed_bits(low, high)
    least, greatest = signed_range(bits)
    assert least <= min(low, high)
    assert max(low, high) <= greatest
    if bits > 1:
        least, greatest = signed_range(bits - 1)
        assert min(low, high) < least or greatest < max(low, high)


@given(bits=st.integers(2, 70))
def test_signed_bits_at_the_limit_and_one_past(bits):
    low, high = signed_range(bits)
    assert signed_bits(low, high) == signed_bits(low, 0) == signed_bits(0, high) == bits
    assert signed_bits(low - 1, 0) == signed_bits(0, high + 1) == bits + 1


@given(x=int64, bits=widths)
def test_wrap_is_the_residue_in_the_signed_range(x, bits):
    low, high = signed_range(bits)
    found = int(wrap_signed(x, bits))
    assert low <= found <= high
    assert (found - x) % (1 << bits) == 0


@given(x=int64, bits=widths)
def test_saturate_is_the_nearest_value_of_the_signed_range(x, bits):
    low, high = signed_range(bits)


@pytest.mark.parametrize("function", [wrap_signed])
@pytest.mark.parametrize("bits", [1, 8, 24, 63, 64, 65, 200])
def test_wrap_and_saturate_leave_what_fits(function, bits):
    low, high = signed_range(min(bits, 64))
    assert function([low, 0, high], bits).tolist() == [low, 0, high]


def test_one_past_the_limit_wraps_and_saturates():
    assert wrap_signed([127, 128, -128, -129, 255, 256], 8).tolist() == [127, -128, -128, 127, -1, 0]


@given(total=int64, steps=st.integers(1, 1000))
def test_split_evenly_adds_up_without_changing_sign(total, steps):
    per_step, remainder = (int(part) for part in split_evenly(total, steps))
    assert steps * per_step + remainder == total
    assert abs(remainder) < steps
    assert per_step * total >= 0
    assert remainder * total >= 0


@given(total=totals, steps=st.integers(1, 60))
def test_split_evenly_delivers_monotonically(total, steps):
    per_step, remainder = (int(part) for part in split_evenly(total, steps))
    partial = [remainder + t * per_step for t in range(steps + 1)]
    assert partial == sorted(partial, reverse=total < 0)
    assert all(0 <= p <= total or total <= p <= 0 for p in partial)


@given(total=totals, steps=st.integers(1, 60))
def test_spread_adds_up_evenly_and_keeps_the_sign(total, steps):
    shares = [int(spread(total, steps, t)) for t in range(1, steps + 1)]
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1
    assert all(share * total >= 0 for share in shares)
    assert shares == [total * t // steps - total * (t - 1) // steps for t in range(1, steps + 1)]


@given(total=totals, steps=st.integers(1, 9), step=st.integers(-3, 30))
def test_spread_gives_nothing_outside_of_its_steps(total, steps, step):
    if not 1 <= step <= steps:
        assert spread(total, steps, step) == 0


@given(values=st.lists(totals, max_size=5), steps=st.integers(1, 9))
def test_arrays_are_split_and_spread_element_by_element(values, steps):
    array = np.array(values, np.int64).reshape(1, -1)
    per_step, remainder = split_evenly(array, steps)
    assert per_step.shape == remainder.shape == array.shape
    assert [split_evenly(v, steps) for v in values] == list(zip(per_step[0], remainder[0], strict=True))
    assert [spread(v, steps, 1) for v in values] == spread(array, steps, 1)[0].tolist()


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint32, np.int64])
def test_small_types_do_not_overflow(dtype):
    x = np.full(3, np.iinfo(dtype).max, dtype)
    if dtype is not np.int64:
        assert (spread(x, 100, 1) + spread(x, 100, 100) >= 0).all()
        assert (sum(spread(x, 100, t) for t in range(1, 101)) == x).all()
    assert wrap_signed(x, 64).dtype == np.int64
    assert (wrap_signed(x, 64) == x).all()


@pytest.mark.parametrize("x", [0.5, np.float32(1), True, "1", [1.0], np.array([None]), 1j])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_anything_but_integers_is_refused(function, x):
    with pytest.raises(TypeError, match="integers are needed, not"):
        function(x)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_uint64_is_refused(function):
    with pytest.raises(TypeError, match="uint64 does not fit int64"):
        function(np.array([1], np.uint64))


@pytest.mark.parametrize("steps", [0, -1])
def test_at_least_one_step_is_needed(steps):
    for function in (lambda: split_evenly(1, steps), lambda: spread(1, steps, 1)):
        with pytest.raises(ValueError, match=f"at least 1 step is needed, not {steps}"):
            function()


def test_steps_are_whole():
    with pytest.raises(TypeError, match="float"):
        split_evenly(1, 2.0)


bounds = st.lists(st.tuples(totals, totals, st.floats(0, 1)), min_size=1, max_size=4)


def _interval(drawn):
    low, high = (np.array([f(a, b) for a, b, _ in drawn]) for f in (min, max))
    member = np.array([min(a, b) + int(abs(a - b) * f) for a, b, f in drawn])
    return Interval(low, high), member


@given(drawn=bounds)
def test_sums_and_hulls_of_intervals_hold_their_members(drawn):
    (first, a), (second, b) = _interval(drawn), _interval(drawn[::-1])
    total, hull = first + second, first.hull(second)
    assert ((total.low <= a + b) & (a + b <= total.high)).all()
    assert ((hull.low <= np.minimum(a, b)) & (np.maximum(a, b) <= hull.high)).all()
    assert ((hull.low == first.low) | (hull.low == second.low)).all()
    assert ((hull.high == first.high) | (hull.high == second.high)).all()


@given(drawn=bounds)
def test_bits_of_an_interval_hold_every_element_and_are_the_fewest(drawn):
    interval, _ = _interval(drawn)
    ends = [*interval.low.tolist(), *interval.high.tolist(), 0]
    assert interval.bits == signed_bits(min(ends), max(ends))


def test_an_interval_is_added_to_intervals_alone():
    with pytest.raises(TypeError):
        Interval(np.zeros(1), np.zeros(1)) + (1, 2)
