"""The neuron alone, against a loop over Python ints."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.io.sink import RingBuffer as Sink
from lava.proc.io.source import RingBuffer as Source
from loihi_models import started, step

from lava_casc.errors import RangeError
from lava_casc.loihi.cif import CIF
from lava_casc.loihi.cif.models import PyCIFFixed, PyCIFFloat
from lava_casc.loihi.session import tidy

IDLE = -1


class ByHand:
    """One neuron in Python ints, with the rules written out."""

    def __init__(self, threshold, levels, bias, initial, wake_steps, period, bias_start, max_burst, release):
        self.threshold, self.levels, self.burst, self.release = threshold, levels, max_burst, release
        self.share = abs(bias) // wake_steps * (1 if bias > 0 else -1)
        self.first = initial + bias - self.share * wake_steps
        self.wake = (bias_start, bias_start + wake_steps)
        self.period, self.time, self.u, self.y = period, 0, self.first, 0

    def step(self, code, current):
        self.time += 1
        local = (self.time - 1) % self.period + 1 if code == 0 else code
        if local == IDLE:
            return 0
        if local == 1:
            self.u, self.y = self.first, 0
        else:
            self.u += current
            if self.wake[0] <= local < self.wake[1]:
                self.u += self.share
        if local < self.release:
            return 0
        spike = 0
        while spike < self.burst and self.u >= self.threshold and self.y < self.levels:
            self.u, self.y, spike = self.u - self.threshold, self.y + 1, spike + 1
        while spike == 0 or -self.burst < spike < 0:
            if not (self.u < 0 and self.y > 0):
                break
            self.u, self.y, spike = self.u + self.threshold, self.y - 1, spike - 1
        return spike


neurons = st.fixed_dictionaries(
    {
        "threshold": st.integers(1, 9),
        "levels": st.integers(0, 5),
        "bias": st.integers(-40, 40),
        "initial": st.integers(-9, 9),
        "wake_steps": st.integers(1, 5),
        "period": st.integers(1, 12),
        "bias_start": st.integers(2, 4),
        "max_burst": st.integers(1, 5),
        "release": st.integers(1, 5),
    }
)
currents = st.lists(st.integers(-30, 30), min_size=1, max_size=30)


@settings(max_examples=300, deadline=None)
@given(neuron=neurons, currents=currents, data=st.data())
def test_fixed_point_neuron_is_the_loop_in_python_ints(neuron, currents, data):
    codes = data.draw(st.lists(st.integers(IDLE, neuron["period"]), min_size=len(currents), max_size=len(currents)))
    model = started(CIF(shape=(1,), **neuron), PyCIFFixed)
    hand = ByHand(**neuron)
    for code, current in zip(codes, currents, strict=True):
        sent = step(model, gate=[code], a_in=[current])
        spike = hand.step(code, current)
        assert (sent["s_out"][0], sent["activity"][0]) == (spike, spike != 0)
        assert (model.u[0], model.y[0]) == (hand.u, hand.y)


@settings(max_examples=100, deadline=None)
@given(neuron=neurons, currents=currents, exponent=st.integers(0, 3))
def test_floating_point_neuron_agrees_where_thresholds_are_powers_of_two(neuron, currents, exponent):
    neuron["threshold"] = 1 << exponent
    fixed = started(CIF(shape=(1,), **neuron), PyCIFFixed)
    floating = started(CIF(shape=(1,), **neuron), PyCIFFloat)
    for current in currents:
        expected = step(fixed, gate=[0], a_in=[current])
        sent = step(floating, gate=[0], a_in=[current / neuron["threshold"]])
        assert sent == expected
        assert floating.u[0] * neuron["threshold"] == fixed.u[0]


@pytest.mark.parametrize("max_burst", [1, 3])
@pytest.mark.parametrize(("current", "spike"), [(6, 0), (7, 1), (8, 1), (-1, 0)])
def test_the_threshold_is_reached_at_the_threshold(max_burst, current, spike):
    model = started(CIF(shape=(1,), threshold=7, levels=3, wake_steps=1, period=9, max_burst=max_burst), PyCIFFixed)
    assert step(model, gate=[1], a_in=[0])["s_out"] == [0]
    assert step(model, gate=[2], a_in=[current])["s_out"] == [spike]


def test_a_spike_is_taken_back_below_zero_only_and_the_cap_holds():
    model = started(CIF(shape=(1,), threshold=2, levels=2, wake_steps=1, period=99), PyCIFFixed)
    currents = [0, 9, 0, 0, -6, 1, -2, -1, -5]
    sent = [step(model, gate=[t + 1], a_in=[c])["s_out"][0] for t, c in enumerate(currents)]
    # u before the spike is 0, 9, 7, 5 (capped), -1, 2, -2, -1, -4 (nothing left to take back)
    assert sent == [0, 1, 1, 0, -1, 1, -1, -1, 0]
    assert (model.u[0], model.y[0]) == (-4, 0)


def test_what_arrives_in_the_first_step_is_a_leftover_and_discarded():
    model = started(CIF(shape=(2,), threshold=[3, 5], levels=4, wake_steps=1, period=9), PyCIFFixed)
    step(model, gate=[5], a_in=[9, 9])
    sent = step(model, gate=[1], a_in=[100, 100])
    assert (sent["s_out"] == 0).all()
    assert (model.u == 0).all()
    assert (model.y == 0).all()


def test_values_per_channel_broadcast_along_the_last_axis():
    process = CIF(shape=(2, 3, 4), threshold=[1, 2, 3, 4], levels=4, wake_steps=1, period=9, max_burst=4)
    model = started(process, PyCIFFixed)
    step(model, gate=[1], a_in=np.zeros((2, 3, 4), int))
    sent = step(model, gate=[2], a_in=np.full((2, 3, 4), 4))
    assert (sent["s_out"] == [4, 2, 1, 1]).all()
    assert sent["activity"] == [24]


@pytest.mark.parametrize(("current", "fits"), [(127, True), (128, False), (-128, True), (-129, False)])
def test_strict_registers_raise_one_past_their_limit(current, fits):
    model = started(
        CIF(shape=(1,), threshold=100, levels=0, wake_steps=1, period=9, state_bits=8, name="conv1"), PyCIFFixed
    )
    step(model, gate=[1], a_in=[0])
    if fits:
        step(model, gate=[2], a_in=[current])
    else:
        with pytest.raises(RangeError, match=rf"conv1: current \({current}\) exceeds its 8 signed bits"):
            step(model, gate=[2], a_in=[current])
        assert len(model.s_out.messages) == 1, "it must have sent before it raised, or its neighbours wait for ever"


def test_strict_registers_raise_for_the_potential():
    model = started(CIF(shape=(1,), threshold=1, levels=0, wake_steps=1, period=9, state_bits=8), PyCIFFixed)
    for code, current in ((1, 0), (2, 100)):
        step(model, gate=[code], a_in=[current])
    with pytest.raises(RangeError, match=r"CIF: potential \(128\) exceeds its 8 signed bits \(127\)"):
        step(model, gate=[3], a_in=[28])


def test_lenient_registers_wrap():
    model = started(
        CIF(shape=(1,), threshold=1, levels=0, wake_steps=1, period=9, state_bits=8, strict=False), PyCIFFixed
    )
    for code, current in ((1, 0), (2, 100), (3, 100)):
        step(model, gate=[code], a_in=[current])
    assert model.u == [200 - 256]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"threshold": 0}, r"a threshold \(0\) is below 1"),
        ({"levels": -1}, r"levels \(-1\) is below 0"),
        ({"bias_start": 1}, r"bias_start \(1\) is below 2"),
        ({"state_bits": 32}, r"state_bits \(32\) lies outside \[2, 31\]"),
        ({"initial": 1 << 23}, r"initial \(8388608\) exceeds the 24 signed bits .* \(8388607\)"),
        ({"initial": -(1 << 23) - 1}, r"initial \(-8388609\) exceeds the 24 signed bits .* \(-8388608\)"),
        ({"threshold": [1, 2, 3]}, r"threshold of shape \(3,\) does not fit the layer \(2,\)"),
    ],
)
def test_parameters_out_of_range_are_refused(wrong, message):
    right = {"shape": (2,), "threshold": 1, "levels": 1, "wake_steps": 1, "period": 2}
    with pytest.raises(RangeError, match=message):
        CIF(**right | wrong)


def test_fractions_are_refused():
    with pytest.raises(TypeError, match="threshold must hold integers, not float64"):
        CIF(shape=(1,), threshold=0.5, levels=1, wake_steps=1, period=2)


def test_in_lava_without_a_controller_it_counts_by_itself():
    rng = np.random.default_rng(0)
    data = rng.integers(-6, 9, (5, 24))
    how = {"threshold": 4, "levels": 3, "bias": 7, "initial": 2, "wake_steps": 3, "period": 8, "bias_start": 2}
    how |= {"max_burst": 1, "release": 1}
    with tidy():
        source, neuron, sink = Source(data=data), CIF(shape=(5,), **how), Sink(shape=(5,), buffer=24)
        source.s_out.connect(neuron.a_in)
        neuron.s_out.connect(sink.a_in)
        try:
            neuron.run(RunSteps(24), Loihi2SimCfg(select_tag="fixed_pt"))
            found, potentials, counts = sink.data.get(), neuron.u.get(), neuron.y.get()
        finally:
            neuron.stop()
    hands = [ByHand(**how) for _ in range(5)]
    expected = [[hand.step(0, int(c)) for c in row] for hand, row in zip(hands, data, strict=True)]
    assert (found == expected).all()
    assert [(hand.u, hand.y) for hand in hands] == list(zip(potentials, counts, strict=True))
    assert np.count_nonzero(found) > 20


def test_lava_itself_reports_an_overflow_and_does_not_hang():
    with tidy():
        source = Source(data=np.array([[0, 0, 100, 100]]))
        neuron = CIF(shape=(1,), threshold=1, levels=0, wake_steps=1, period=9, state_bits=8)
        sink = Sink(shape=(1,), buffer=4)
        source.s_out.connect(neuron.a_in)
        neuron.s_out.connect(sink.a_in)
        with pytest.raises(RuntimeError, match="1 Exception"):
            neuron.run(RunSteps(4), Loihi2SimCfg(select_tag="fixed_pt"))
        neuron.runtime._is_started = False  # the service is gone: nobody is left to answer a stop
        neuron.stop()
