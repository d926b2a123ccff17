"""The neuron, exhaustively: every sequence of small inputs, then sleep; and its quotients near every limit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lava_casc.dynamics import aim, cif_step

SMALL = [(levels, threshold) for levels in (1, 2, 3) for threshold in (1, 2, 3)]
BURSTS = ("1", "2", "L")


def _sequences(length, reach):
    """Return every sequence of `length` integers from -reach .. reach, one a row."""
    return torch.cartesian_prod(*[torch.arange(-reach, reach + 1)] * length).reshape(-1, length)


def _burst(which, levels):
    return levels if which == "L" else int(which)


def _target(received, threshold, levels):
    """Return where neurons aim, the same in both types that they compute in."""
    found = [aim(received.to(real), torch.tensor([threshold], dtype=real), levels, torch.int64) for real in REALS]
    assert torch.equal(*found)
    return found[0]


def _compared(u, y, threshold, levels):
    """Return the signed spikes of the paper's comparison, one unit at most."""
    up, down = (u >= threshold) & (y < levels), (u < 0) & (y > 0)
    return up.long() - down.long()


REALS = (torch.float32, torch.float64)


class Population:
    """Neurons that follow all sequences at once, beside the paper's: those compare, fire and reset unit by unit."""

    def __init__(self, n, threshold, levels, burst, initial=0):
        self.received = torch.full((n,), initial)
        self.u = self.received.clone()
        self.y = torch.zeros(n, dtype=torch.int64)
        self.threshold, self.levels, self.burst = threshold, levels, burst

    def step(self, current, released=True):
        """Advance by one step and check what must hold after every step."""
        self.received = self.received + current
        self.u = self.u + current
        spikes = torch.zeros_like(self.y)
        if released:
            spikes = cif_step(_target(self.received, self.threshold, self.levels), self.y, self.burst)
            self._compare(spikes)
        self.y = self.y + spikes
        assert torch.equal(self.u + self.threshold * self.y, self.received)
        assert int(self.y.min()) >= 0
        assert int(self.y.max()) <= self.levels
        assert int(spikes.abs().max()) <= self.burst
        return spikes

    def _compare(self, spikes):
        """Check that a burst is that many single steps at once, and reset softly by what they say."""
        total = torch.zeros_like(self.y)
        for _ in range(self.burst):
            single = _compared(self.u, self.y + total, self.threshold, self.levels)
            assert (single * total >= 0).all(), "a burst never turns round"
            self.u, total = self.u - self.threshold * single, total + single
        assert torch.equal(spikes, total)

    @property
    def activation(self):
        """What the neurons must come to rest at."""
        return (self.received // self.threshold).clamp(0, self.levels)


@pytest.mark.parametrize(("levels", "threshold"), SMALL)
@pytest.mark.parametrize("which", BURSTS)
@pytest.mark.parametrize("length", [1, 2, 3, 4])
@pytest.mark.parametrize("release", [1, 3, 5])
def test_every_sequence_ends_in_silence_and_silence_is_exact(levels, threshold, which, length, release):
    burst = _burst(which, levels)
    reach = {1: levels * threshold, 2: 2 * threshold + 1, 3: 2 * threshold, 4: threshold + 1}[length] + 1
    sequences = _sequences(length, reach)
    assert len(sequences) == (2 * reach + 1) ** length
    for initial in (0, threshold // 2):
        neurons = Population(len(sequences), threshold, levels, burst, initial)
        step = 0
        for current in sequences.T:
            step += 1
            spikes = neurons.step(current, step >= release)
            silent = spikes == 0
            if step >= release:
                assert torch.equal(neurons.y[silent], neurons.activation[silent])
            else:
                assert silent.all()
        while step < release - 1:
            step += 1
            assert not neurons.step(torch.tensor(0), released=False).any()
        for _ in range(-(-levels // burst)):
            neurons.step(torch.tensor(0))
        assert torch.equal(neurons.y, neurons.activation)
        assert not neurons.step(torch.tensor(0)).any()
        assert len(set(neurons.y.tolist())) == levels + 1


@pytest.mark.parametrize(("levels", "threshold"), SMALL)
def test_some_sequence_needs_every_step_of_the_bound(levels, threshold):
    for burst in range(1, levels + 1):
        neurons = Population(1, threshold, levels, burst)
        current, steps = torch.tensor([levels * threshold]), 0
        while neurons.step(current).any():
            current, steps = torch.tensor([0]), steps + 1
        assert steps == -(-levels // burst)


@pytest.mark.parametrize(("levels", "threshold"), SMALL)
def test_a_burst_of_one_is_the_papers_comparison_from_any_state(levels, threshold):
    u, y = torch.cartesian_prod(torch.arange(-13, 14 + 2 * threshold), torch.arange(levels + 1)).T
    found = cif_step(_target(u + threshold * y, threshold, levels), y, 1)
    assert torch.equal(found, _compared(u, y, threshold, levels))


@pytest.mark.parametrize("which", BURSTS)
@pytest.mark.parametrize("threshold", [1, 2, 7, 1000])
@pytest.mark.parametrize("k", range(-2, 6))
@pytest.mark.parametrize("offset", [-1, 0, 1])
def test_probes_around_every_multiple_of_the_threshold(which, threshold, k, offset):
    levels, x = 3, k * threshold + offset
    neurons = Population(1, threshold, levels, _burst(which, levels))
    neurons.step(torch.tensor([x]))
    for _ in range(levels):
        neurons.step(torch.tensor([0]))
    assert neurons.y.tolist() == [min(max(x // threshold, 0), levels)]


@pytest.mark.parametrize(
    ("u", "y", "spike"), [(6, 0, 0), (7, 0, 1), (8, 0, 1), (7, 3, 0), (-1, 1, -1), (0, 1, 0), (-1, 0, 0)]
)
def test_probes_by_hand(u, y, spike):
    target = _target(torch.tensor([u + 7 * y]), threshold=7, levels=3)
    assert cif_step(target, torch.tensor([y]), max_burst=1).tolist() == [spike]


def test_a_saturated_neuron_keeps_what_is_left_and_gives_back_from_there():
    neurons = Population(1, threshold=2, levels=2, burst=1)
    sent = [int(neurons.step(torch.tensor([c]))) for c in (9, 0, 0, 0, -6, 0, 0)]
    assert sent == [1, 1, 0, 0, -1, 0, 0]
    assert neurons.u.tolist() == [1]


def test_only_what_was_received_is_overwritten():
    received, threshold = torch.tensor([5.0, -3.0]), torch.tensor([2.0, 1.0])
    target = aim(received, threshold, 4, torch.int8)
    assert (target.tolist(), target.dtype, threshold.tolist()) == ([2, 0], torch.int8, [2.0, 1.0])
    count = torch.tensor([0, 4], dtype=torch.int8)
    spikes = cif_step(target, count, 3)
    assert (spikes.tolist(), spikes.dtype) == ([2, -3], torch.int8)
    assert (target.tolist(), count.tolist()) == ([2, 0], [0, 4])


@pytest.mark.parametrize(("real", "bits"), [(torch.bfloat16, 8), (torch.float16, 11)])
def test_a_rounded_quotient_has_the_floor_of_the_quotient_for_every_pair_of_integers(real, bits):
    # The proof holds for any precision, and these are small enough to try all that they hold.
    top = 1 << bits
    received, threshold = torch.arange(1 - top, top)[:, None], torch.arange(1, top)
    found = aim(received.to(real).repeat(1, top - 1), threshold.to(real), top - 1, torch.int32)
    assert torch.equal(found, (received // threshold).clamp(min=0).to(torch.int32))


THRESHOLDS = [255, 256, 257, 1000, 4093, 4095, 4096, 4097, 65793, (1 << 23) - 1, 1 << 23, (1 << 23) + 1, (1 << 24) - 1]


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_every_multiple_of_a_threshold_below_the_limit_of_float32_is_floored(threshold):
    top = 1 << 24
    multiples = torch.arange(0, top + threshold, threshold)
    received = torch.cat([multiples - 1, multiples, multiples + 1, torch.tensor([1 - top, top - 1])])
    received = received[received.abs() < top]
    assert len(received) >= 3 * (top // threshold)
    found = aim(received.float(), torch.tensor([float(threshold)]), top - 1, torch.int32)
    assert torch.equal(found, (received // threshold).clamp(min=0).to(torch.int32))


@pytest.mark.parametrize(("real", "bits"), [(torch.float32, 24), (torch.float64, 53)])
@settings(deadline=None)
@given(data=st.data())
def test_targets_are_floors_up_to_the_limit_of_each_type(real, bits, data):
    top = 1 << bits
    thresholds = st.one_of(
        st.integers(1, 1000), st.integers(1, top - 1), st.integers(0, bits - 1).map(lambda b: 1 << b)
    )
    threshold = data.draw(thresholds)
    k = data.draw(st.one_of(st.integers(0, 8), st.integers(0, top // threshold)))
    near = {k * threshold + offset for offset in (-1, 0, 1)} | {
        top - 1,
        1 - top,
        data.draw(st.integers(1 - top, top - 1)),
    }
    received = [value for value in sorted(near) if abs(value) < top]
    levels = data.draw(st.one_of(st.just((top - 1) // threshold), st.integers(1, 300)))
    found = aim(torch.tensor(received, dtype=real), torch.tensor([threshold], dtype=real), levels, torch.int64)
    assert found.tolist() == [min(max(value // threshold, 0), levels) for value in received]


def test_thresholds_go_by_channel():
    received = torch.arange(-20, 40).reshape(2, 2, 3, 5).float()
    threshold = torch.tensor([1.0, 2.0, 3.0, 5.0, 7.0])
    expected = np.clip(received.numpy() // threshold.numpy(), 0, 6)
    assert aim(received, threshold, 6, torch.int8).tolist() == expected.astype(int).tolist()
