"""The neuron, exhaustively: every sequence of small inputs, then sleep."""

from __future__ import annotations

import pytest
import torch

from lava_casc.reference import cif_step

SMALL = [(levels, threshold) for levels in (1, 2, 3) for threshold in (1, 2, 3)]
BURSTS = ("1", "2", "L")


def _sequences(length, reach):
    """Return every sequence of `length` integers from -reach .. reach, one a row."""
    return torch.cartesian_prod(*[torch.arange(-reach, reach + 1)] * length).reshape(-1, length)


def _burst(which, levels):
    return levels if which == "L" else int(which)


class Population:
    """Neurons that follow all sequences at once, and the sum that each received."""

    def __init__(self, n, threshold, levels, burst, initial=0):
        self.u = torch.full((n,), initial)
        self.y = torch.zeros(n, dtype=torch.int64)
        self.received = self.u.clone()
        self.threshold, self.levels, self.burst = torch.tensor(threshold), levels, burst

    def step(self, current, released=True):
        """Advance by one step and check what must hold after every step."""
        before = self.y
        self.u, self.y, spikes = cif_step(self.u, self.y, current, self.threshold, self.levels, self.burst, released)
        self.received = self.received + current
        assert torch.equal(self.u + self.threshold * self.y, self.received)
        assert torch.equal(self.y - before, spikes)
        assert int(self.y.min()) >= 0
        assert int(self.y.max()) <= self.levels
        assert int(spikes.abs().max()) <= self.burst
        return spikes

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
def test_a_burst_of_one_is_the_papers_comparison(levels, threshold):
    u, y = torch.cartesian_prod(torch.arange(-9, 10 + 2 * threshold), torch.arange(levels + 1)).T
    for current in range(-4, 5):
        after, count, spikes = cif_step(u, y, torch.tensor(current), torch.tensor(threshold), levels, 1)
        v = u + current
        up, down = (v >= threshold) & (y < levels), (v < 0) & (y > 0)
        expected = up.long() - down.long()
        assert torch.equal(spikes, expected)
        assert torch.equal(after, v - threshold * expected)
        assert torch.equal(count, y + expected)


@pytest.mark.parametrize(("levels", "threshold"), SMALL)
@pytest.mark.parametrize("which", ["2", "L"])
def test_a_burst_is_that_many_single_steps_at_once(levels, threshold, which):
    u, y = torch.cartesian_prod(torch.arange(-9, 10 + 2 * threshold), torch.arange(levels + 1)).T
    burst = _burst(which, levels)
    after, count, spikes = cif_step(u, y, torch.tensor(0), torch.tensor(threshold), levels, burst)
    total = torch.zeros_like(u)
    for _ in range(burst):
        u, y, single = cif_step(u, y, torch.tensor(0), torch.tensor(threshold), levels, 1)
        assert (single * total >= 0).all(), "a burst never turns round"
        total = total + single
    assert torch.equal(total, spikes)
    assert torch.equal(u, after)
    assert torch.equal(y, count)


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
    zero = torch.tensor([0])
    found = cif_step(torch.tensor([u]), torch.tensor([y]), zero, torch.tensor([7]), levels=3)
    assert [int(value) for value in found] == [u - 7 * spike, y + spike, spike]


def test_a_saturated_neuron_keeps_what_is_left_and_gives_back_from_there():
    neurons = Population(1, threshold=2, levels=2, burst=1)
    sent = [int(neurons.step(torch.tensor([c]))) for c in (9, 0, 0, 0, -6, 0, 0)]
    assert sent == [1, 1, 0, 0, -1, 0, 0]
    assert neurons.u.tolist() == [1]


def test_one_step_changes_none_of_its_arguments():
    arguments = [torch.tensor([v]) for v in (5, 1, -9, 2)]
    before = [a.clone() for a in arguments]
    cif_step(*arguments, levels=4)
    assert all(torch.equal(a, b) for a, b in zip(arguments, before, strict=True))
