"""What each method's paper claims in the limit, on networks that are small enough to be computed by hand."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lava_casc.baselines import Rates, at_rates, calibrated, percentile_network, percentile_thresholds
from lava_casc.baselines.registry import HALFWAY, IF, WITH_MEMORY
from lava_casc.dynamics import VARIANTS, Variant
from lava_casc.frontend import Checkpoint, CQReLU, InputSpec, fold, trace
from lava_casc.network import Dense, Input, IntegerNetwork, Neurons, Readout
from lava_casc.pipeline import Options, convert_checkpoint
from lava_casc.reference import forward, simulate
from lava_casc.schedule import WakeSleepSchedule


def _layer(name, weights, threshold, levels=1, bias=0, initial=0):
    """Neurons that read single units by name, each with its weight."""
    synapses = tuple(Dense(source, np.array([[weight]], np.int32)) for source, weight in weights.items())
    values = (np.array([value]) for value in (bias, threshold, initial))
    return Neurons(name, synapses, *values, levels, np.ones(1))


def _network(*layers, low=0, high=1):
    read = {source for layer in layers for source in layer.sources}
    ends = tuple(
        Dense(layer.name, np.ones((1, 1), np.int32)) for layer in layers if layer.name not in read
    )  # fmt: skip
    entry = Input("input", (1,), low, high)
    return IntegerNetwork((entry, *layers, Readout("readout", ends, np.zeros(1, np.int64))))


def _counts(variant, z, steps, threshold, levels, bias=0):
    """What a single neuron that receives z in every step counts in so many of them; its rate is 1 at theta * L."""
    z = np.atleast_1d(z)
    network = _network(_layer("n", {"input": 1}, threshold, levels, bias), low=min(0, z.min()), high=max(0, z.max()))
    return Rates(at_rates(network), variant).counts(z[:, None], "n", steps)[:, 0]


def test_integrate_and_fire_is_a_clipped_relu_but_for_less_than_a_spike():
    # theta = 2 and L = 4: a rate of 1 is lambda = 8. In T = 5 steps floor(5 z / 8) spikes, one a step at most: for
    # z = 0 .. 8 that is 0, 0.6, 1.2, 1.9, 2.5, 3.1, 3.8, 4.4, 5.
    z = np.arange(-3, 13)
    assert _counts(IF, z, 5, 2, 4).tolist() == [0, 0, 0, 0, 0, 1, 1, 2, 3, 3, 4, 5, 5, 5, 5, 5]
    for steps in (1, 2, 3, 7, 8, 20, 50):
        missing = np.clip(z, 0, 8) * steps - 8 * _counts(IF, z, steps, 2, 4)  # times T: lambda is 8
        assert (missing >= 0).all()
        assert (missing < 8).all()
    # The bias is a part of z, and is injected in every step like the input.
    assert _counts(IF, z, 5, 2, 4, bias=-2).tolist() == _counts(IF, z - 2, 5, 2, 4).tolist()


def test_qcfs_counts_the_rounded_level_at_t_of_l():
    # theta = 2, L = 4: floor(z / 2 + 1/2) for z = -3 .. 10.
    z = np.arange(-3, 11)
    assert _counts(HALFWAY, z, 4, 2, 4).tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4, 4]
    assert _counts(IF, z, 4, 2, 4).tolist() == [0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4]


@given(
    threshold=st.integers(1, 99), levels=st.integers(1, 17), bias=st.integers(-50, 50),
    z=st.lists(st.integers(-400, 2000), min_size=1, max_size=6),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_qcfs_at_t_of_l_is_the_integer_network_with_rounding(threshold, levels, bias, z):
    rounding = _layer("n", {"input": 1}, threshold, levels, bias, initial=threshold // 2)
    network = _network(rounding, low=min(0, *z), high=max(0, *z))
    truth = forward(network, np.array(z)[:, None]).counts["n"][:, 0]
    assert (_counts(HALFWAY, np.array(z), levels, threshold, levels, bias) == truth).all()


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 8, 13, 32])
def test_the_error_of_qcfs_over_evenly_distributed_z_is_0_for_every_t(steps):
    # lambda = 256 * 4 = 1024, and z the odd numbers 1 .. 1023, which lie evenly in it and never on a step, as
    # T z = 512 + 1024 k has no odd solution for these T. Pairs z and lambda - z have opposite errors.
    z = np.arange(1, 1024, 2)
    error = 1024 * _counts(HALFWAY, z, steps, 256, 4) - steps * z
    assert error.sum() == 0
    assert error.any()
    # From 0 it is half a spike: -lambda / 2 on average, times T of a rate.
    assert (1024 * _counts(IF, z, steps, 256, 4) - steps * z).mean() == pytest.approx(-512, abs=steps)


@pytest.mark.parametrize("steps", [1, 3, 4, 7])
def test_half_a_threshold_has_the_least_squared_error_of_all_initial_potentials(steps):
    # lambda = 64, and 64 initial potentials 0 .. 63; z at 256 places that lie evenly in lambda. By hand: for u0 the
    # error lies evenly between u0 - lambda and u0 (times T), whose mean square u0**2 - u0 lambda + lambda**2 / 3 is
    # least at lambda / 2.
    z = np.arange(1, 1024, 2)  # of lambda = 1024 = 64 * 16
    squares = []
    for share in range(64):
        variant = dataclasses.replace(HALFWAY, initial=Fraction(share, 64))
        error = 1024 * _counts(variant, z, steps, 256, 4) - steps * z
        squares.append(int((error.astype(object) ** 2).sum()))
    assert min(range(64), key=squares.__getitem__) == 32
    assert squares.count(min(squares)) == 1
    assert sorted(squares[:33], reverse=True) == squares[:33]


def _said(layers, variant, steps=8, name="n"):
    """Return the spikes of a neuron behind relays that fire in every step: r1 from step 2 on, r2 from 3, r3 from 4."""
    relays = [_layer("r1", {"input": 1}, 1), _layer("r2", {"r1": 1}, 1), _layer("r3", {"r2": 1}, 1)]
    network = _network(*relays, *layers)
    found = simulate(network, [[1]], WakeSleepSchedule(1, steps - 1), record=("spikes",), variant=variant)
    return found.spikes[name][0, :, 0].tolist()


def test_the_signed_neuron_takes_back_the_spike_that_integrate_and_fire_keeps():
    # theta = 8. Step 3 brings 8: a spike, and u = 0. Step 4 and all that follow bring 8 - 16 = -8: u = -8 = -theta, and
    # the spike is taken back. From then on the count is 0, and u falls on without a word.
    layers = (_layer("n", {"r1": 8, "r2": -16, "r3": 0}, 8),)
    assert _said(layers, IF) == [0, 0, 1, 0, 0, 0, 0, 0]
    assert _said(layers, WITH_MEMORY) == [0, 0, 1, -1, 0, 0, 0, 0]
    assert _said(layers, VARIANTS["cif"]) == [0, 0, 1, -1, 0, 0, 0, 0]


def test_the_signed_neuron_keeps_where_less_than_a_threshold_is_missing():
    # Step 3 brings 8: a spike, u = 0. Step 4 brings 8 - 12 = -4: u = -4, between -theta and 0. From step 5 on
    # 8 - 12 + 4 = 0 comes. CIF takes back below 0, and has u = 4; the signed neuron keeps what it said.
    layers = (_layer("n", {"r1": 8, "r2": -12, "r3": 4}, 8),)
    assert _said(layers, WITH_MEMORY) == [0, 0, 1, 0, 0, 0, 0, 0]
    assert _said(layers, VARIANTS["cif"]) == [0, 0, 1, -1, 0, 0, 0, 0]
    # At exactly -theta it takes back, one above it does not: step 4 brings 8 - 16 = -8, or 8 - 15 = -7, then nothing.
    for weight, rest, spikes in ((-16, 8, [0, 0, 1, -1, 0, 0]), (-15, 7, [0, 0, 1, 0, 0, 0])):
        layers = (_layer("n", {"r1": 8, "r2": weight, "r3": rest}, 8),)
        assert _said(layers, WITH_MEMORY, 6) == spikes


def _two_stages(weights, tau, steps=8):
    """Return whether a neuron with threshold 8 behind relays is silenced, and its counts without and with the mask."""
    # A relay needs half a threshold that is more than 0: its u stays where it began.
    relays = [_layer("r1", {"input": 2}, 2), _layer("r2", {"r1": 2}, 2)]
    network = _network(*relays, _layer("n", weights, 8), _layer("m", {"r1": 8}, 8))
    rates = Rates(network, HALFWAY, silencing=tau)  # levels of 1: it is at rates as it is
    mask = rates.silenced(np.array([[1]]))
    how = {"record": ("counts",), "variant": HALFWAY}
    schedule = WakeSleepSchedule(1, steps - 1)
    free = simulate(network, [[1]], schedule, **how).counts
    bound = simulate(network, [[1]], schedule, silenced=mask, **how).counts
    assert not mask["m"].any()
    assert free["m"] == bound["m"] > 0
    return bool(mask["n"]), int(free["n"].item()), int(bound["n"].item())


def test_a_neuron_whose_drive_is_negative_is_silent_in_the_second_stage():
    # u0 = 4. Step 3 brings 8: u = 12, a spike, u = 4. Then 8 - 16 = -8 a step: -4, -12 after its three steps.
    assert _two_stages({"r1": 8, "r2": -16}, 3) == (True, 1, 0)
    # 8 - 10 = -2 a step: 4, 2, 0 after three steps, which is not above 0; 2 after two of them is.
    assert _two_stages({"r1": 8, "r2": -10}, 3) == (True, 1, 0)
    assert _two_stages({"r1": 8, "r2": -10}, 2) == (False, 1, 1)
    # 8 - 8 = 0 a step: u stays at 4.
    assert _two_stages({"r1": 8, "r2": -8}, 3) == (False, 1, 1)


def test_the_second_stage_begins_anew_and_its_steps_are_those_that_count():
    network = _network(_layer("r1", {"input": 2}, 2), _layer("n", {"r1": 3}, 8), high=1)
    one, two = (Rates(network, HALFWAY, silencing) for silencing in (None, 5))
    for steps in (3, 9):
        outputs, record = two.run(np.array([[1]]), steps)
        plain, _ = one.run(np.array([[1]]), steps)
        assert [float(o.item()) for (o,) in outputs] == [float(o.item()) for (o,) in plain]
        assert not record.certified.any()
    # The readout hears n from step 4 on (distance 3). u0 = 4, 3 a step from step 3 on: 7, 10 - 8, 5, 8 - 8, 3, 6, 9 - 8
    # in steps 3 to 9, so that n fires in 4, 6 and 9, and the readout has 1 of 2 in step 5, and 2 of 5 in step 8.
    assert [float(o.item()) for (o,) in outputs] == [0, 0, 0, 0, 1 / 2, 1 / 3, 2 / 4, 2 / 5, 2 / 6]


class _One(nn.Module):
    """A CQReLU of its input, threshold 8 and rounding."""

    def __init__(self, levels=4):
        super().__init__()
        self.into, self.act, self.out = nn.Linear(1, 1), CQReLU(levels, 8.0, "round"), nn.Linear(1, 1)
        with torch.no_grad():
            for layer in (self.into, self.out):
                layer.weight.fill_(1)
                layer.bias.zero_()

    def forward(self, x):
        return self.out(self.act(self.into(x)))


def test_a_calibrated_bias_makes_up_for_what_is_missing_on_average():
    # T = L = 4, lambda = 8. z = 1, 3, 5, 7: rounding to levels of 2 gives 1, 2, 3, 4 of 4; integrate and fire from 0
    # counts floor(z / 2) = 0, 1, 2, 3. Each misses a level, a rate of 1/4 or z = 2: with it, counts are 1, 2, 3, 4.
    checkpoint = Checkpoint(trace(_One().eval(), (1,)), InputSpec((1,), 0, 9, 1.0))
    network = at_rates(convert_checkpoint(checkpoint, Options(verify=0)).network)
    name = next(layer.name for layer in network if isinstance(layer, Neurons))
    before, x = Rates(network, IF), np.array([[1], [3], [5], [7]])
    after = calibrated(before, fold(checkpoint.graph), x, 1.0, 4)
    assert before.counts(x, name, 4)[:, 0].tolist() == [0, 1, 2, 3]
    assert after.counts(x, name, 4)[:, 0].tolist() == [1, 2, 3, 4]
    unit = network[name].threshold // 8  # of z
    assert (after.network[name].bias - network[name].bias == 2 * unit).all()
    again = calibrated(after, fold(checkpoint.graph), x, 1.0, 4)
    assert (again.network[name].bias == after.network[name].bias).all()
    # Two samples of which one has a level too many: z = 1 counts 0 of 1, z = 8 + 3 both 4. A mean of 1/8 is missing,
    # z = 1, and z = 2 counts 1: what is missing of one neuron is found in all of its channel.
    x = np.array([[1], [8]])
    half = calibrated(before, fold(checkpoint.graph), x, 1.0, 4)
    assert (half.network[name].bias - network[name].bias == unit).all()
    assert half.counts(x, name, 4)[:, 0].tolist() == [1, 4]


def test_percentiles_are_of_the_relu_network():
    checkpoint = Checkpoint(trace(_One().eval(), (1,)), InputSpec((1,), -100, 1000, 1.0))
    folded = fold(checkpoint.graph)
    x = torch.arange(1000, dtype=torch.float64)[:, None]
    # 0 .. 999 without the clip at 8: the 99.9th percentile of 1000 numbers lies at place 999 * 0.999 = 998.001.
    (found,) = percentile_thresholds(folded, x).values()
    assert found == pytest.approx(998.001)
    assert list(percentile_thresholds(folded, x, 50.0).values()) == [499.5]
    # Most are 0: then the greatest; all are: then the threshold that the layer had.
    mostly = torch.cat([x[:5], torch.zeros(9999, 1).double()])
    assert list(percentile_thresholds(folded, mostly).values()) == [4]
    assert list(percentile_thresholds(folded, -x).values()) == [8]
    samples = np.arange(1000)[:, None]
    network = at_rates(percentile_network(checkpoint, samples))
    (layer,) = (layer for layer in network if isinstance(layer, Neurons))
    (scale,) = layer.scale * layer.levels
    assert scale == pytest.approx(998.001)
    # A rate of 1 is 998: z = 499 fires in every other step, and 1000 in every one.
    assert Rates(network, IF).counts(np.array([[500], [1000], [-100]]), layer.name, 10)[:, 0].tolist() == [5, 10, 0]


@pytest.mark.parametrize("levels", [(4, 4), (3, 8), (5, 6), (12, 1)])
def test_rates_mean_what_counts_did(levels):
    """For T steps of a two-layer network with constant rates: (w L) (y / L) = w y, whatever the layers' levels."""
    first = _layer("a", {"input": 3}, 7, levels[0], bias=2)
    second = _layer("b", {"a": 5}, 9, levels[1], bias=-4)
    network = _network(first, second, high=30)
    rates = at_rates(network)
    steps, images = 900, np.arange(0, 31, 6)
    for name in ("a", "b"):
        counts = Rates(rates, IF).counts(images[:, None], name, steps)[:, 0]
        for image, count in zip(images.tolist(), counts.tolist(), strict=True):
            level = min(max(Fraction(3 * image + 2, 7), 0), levels[0])  # of a, unquantized
            share = level / levels[0]
            if name == "b":
                share = min(max((5 * level - 4) / 9, 0), levels[1]) / levels[1]
            assert abs(Fraction(count, steps) - share) < Fraction(1, 100), (image, name)


def test_the_variants_of_the_registry_are_what_they_are_called():
    assert Variant(signed=False, sleeps=False, initial=Fraction(0)) == IF
    assert dataclasses.replace(IF, initial=Fraction(1, 2)) == HALFWAY
    assert dataclasses.replace(IF, signed=True, negative_threshold=Fraction(1)) == WITH_MEMORY
