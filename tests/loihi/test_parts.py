"""Controller, source, readout, pool and tap, each alone, step by step."""

import numpy as np
import pytest
import torch
from loihi_models import started, step

from lava_casc.errors import InvalidNetworkError, RangeError
from lava_casc.integer import spread
from lava_casc.linear import max_pool
from lava_casc.loihi.controller import WakeSleepController
from lava_casc.loihi.controller.models import PyWakeSleepController
from lava_casc.loihi.gate import IDLE, local_step
from lava_casc.loihi.max_pool import CIFMaxPool
from lava_casc.loihi.max_pool.models import PyCIFMaxPool
from lava_casc.loihi.memory import Memory
from lava_casc.loihi.memory.models import PyMemory
from lava_casc.loihi.readout import Readout
from lava_casc.loihi.readout.models import PyReadoutFixed, PyReadoutFloat
from lava_casc.loihi.source import SampleSource
from lava_casc.loihi.source.models import PySampleSource
from lava_casc.loihi.tap import Tap
from lava_casc.loihi.tap.models import PyTap
from lava_casc.network import MaxPool


def test_without_a_controller_a_process_counts_by_itself():
    assert [local_step(np.zeros(1), t, 3) for t in range(1, 8)] == [1, 2, 3, 1, 2, 3, 1]
    assert local_step(np.array([5]), 1, 3) == 5
    assert local_step(np.array([IDLE]), 1, 3) == IDLE


def test_the_controller_counts_periods_back_to_back_then_idles():
    model = started(WakeSleepController(period=3, samples=2), PyWakeSleepController)
    assert [step(model, silent=[0])["gate"][0] for _ in range(9)] == [1, 2, 3, 1, 2, 3, IDLE, IDLE, IDLE]


def test_the_controller_goes_on_for_ever_without_a_number_of_samples():
    model = started(WakeSleepController(period=2), PyWakeSleepController)
    assert [step(model, silent=[0])["gate"][0] for _ in range(7)] == [1, 2, 1, 2, 1, 2, 1]


def test_the_controller_begins_the_next_sample_when_the_readout_says_so():
    model = started(WakeSleepController(period=5, samples=3), PyWakeSleepController)
    flags = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 1]
    assert [step(model, silent=[f])["gate"][0] for f in flags] == [1, 2, 3, 1, 2, 3, 4, 5, 1, 2, IDLE, IDLE]


def test_the_controller_refuses_an_empty_period():
    with pytest.raises(RangeError, match=r"period \(0\) is below 1"):
        WakeSleepController(period=0)


def test_the_source_spreads_each_image_over_its_wake():
    images = np.array([[7, -5, 0, 255], [1, 2, 3, -4]])
    model = started(SampleSource(images=images, wake_steps=3, period=5), PySampleSource)
    codes = [1, 2, 3, 4, 1, 2, 3, 4, 5, IDLE]
    sent = [step(model, gate=[code])["s_out"] for code in codes]
    expected = [spread(images[0], 3, t) for t in range(1, 5)] + [spread(images[1], 3, t) for t in range(1, 7)]
    assert (np.array(sent) == expected).all()
    assert (np.sum(sent[:4], 0) == images[0]).all()
    assert (np.sum(sent[4:], 0) == images[1]).all()


def test_the_source_spreads_one_unit_at_the_place_of_each_word():
    source = SampleSource(images=np.array([2, 0]), vocabulary=4, wake_steps=2, period=3)
    assert source.s_out.shape == (4,)
    model = started(source, PySampleSource)
    sent = [step(model, gate=[code])["s_out"].tolist() for code in (1, 2, 3, 1, 2, 3, IDLE)]
    nothing = [0, 0, 0, 0]
    assert sent == [nothing, [0, 0, 1, 0], nothing, nothing, [1, 0, 0, 0], nothing, nothing]


def test_the_memory_spreads_what_was_counted_in_the_phase_before():
    model = started(Memory(shape=(2,), phases=3, wake_steps=2, period=4), PyMemory)
    phases = [
        # what arrives step by step, some of it in the first and in the last step
        ([1, 2, 3, 4], [[1, 0], [3, 0], [-1, 0], [2, 1]]),
        ([1, 2, 3], [[0, 0], [0, 7], [0, 0]]),
        ([1, 2, 3, 4], [[9, 9], [0, 0], [0, 0], [0, 0]]),
        ([1, 2, 3], [[0, 3], [0, 0], [0, 0]]),
        ([1, 2, IDLE], [[0, 0], [0, 0], [5, 5]]),
    ]
    sent = [[step(model, gate=[c], s_in=a)["s_out"].tolist() for c, a in zip(*p, strict=True)] for p in phases]
    assert sent[0] == [[0, 0]] * 4
    assert sent[1] == [[2, 0], [3, 1], [0, 0]]
    assert sent[2] == [[0, 3], [0, 4], [0, 0], [0, 0]]
    assert sent[3] == [[0, 0]] * 3, "a new sequence remembers nothing"
    assert sent[4] == [[0, 1], [0, 2], [0, 0]]


def test_the_memory_sends_before_it_listens():
    model = started(Memory(shape=(2,), phases=1, wake_steps=1, period=2), PyMemory)
    with pytest.raises(IndexError):
        step(model, gate=[1])  # nothing has arrived, as in a loop that waits for the memory
    assert len(model.s_out.messages) == 1


def test_the_memory_refuses_a_sequence_without_phases():
    with pytest.raises(RangeError, match=r"held: phases \(0\) is below 1. Use at least 1"):
        Memory(shape=(1,), phases=0, wake_steps=1, period=1, name="held")


READOUT = {"shape": (2,), "bias": np.array([7, -5]), "wake_steps": 3, "period": 6, "bias_start": 2, "last_event": 4}


@pytest.mark.parametrize("model", [PyReadoutFixed, PyReadoutFloat])
@pytest.mark.parametrize(
    ("activity", "certified", "last_spike"),
    [
        ([0, 1, 1, 1, 0, 0], True, 4),
        ([0, 0, 0, 1, 1, 1], False, 6),  # silence before the last event proves nothing
        ([0, 0, 0, 0, 0, 0], True, 0),
        ([3, 0, 0, 9, 9, 0], True, 5),
        ([1, 1, 1, 0, 1, 1], True, 6),  # at the last event it does prove
    ],
)
def test_the_readout_integrates_and_certifies(model, activity, certified, last_spike):
    made = started(Readout(**READOUT), model)
    for repetition in range(2):
        for t, active in enumerate(activity):
            sent = step(made, gate=[t + 1], a_in=[10, 100], activity=[active])
            assert sent["silent"] == [0]
            assert ("result" in sent) == (t == 5)
        # the current of the first of six steps is a leftover
        assert list(sent["result"]) == [57, 495, certified, last_spike, 6 * (repetition + 1)]


def test_the_readout_ends_a_sample_when_it_is_certified():
    made = started(Readout(**READOUT, until_silent=True), PyReadoutFixed)
    sent = [step(made, gate=[c], a_in=[0, 0], activity=[a]) for c, a in ((1, 0), (2, 0), (3, 0), (4, 1), (5, 0))]
    assert ["result" in s for s in sent] == [False, False, False, False, True]
    assert list(sent[-1]["result"]) == [7, -5, 1, 4, 5]
    following = [step(made, gate=[c], a_in=[9, 9], activity=[1]) for c in (1, 2, 3)]
    assert [s["silent"][0] for s in following] == [1, 0, 0]


def test_the_readout_sends_its_flag_before_it_receives():
    made = started(Readout(**READOUT), PyReadoutFixed)
    with pytest.raises(IndexError):
        step(made)  # nothing has arrived, as when everything waits for the controller
    assert len(made.silent.messages) == 1


def test_the_readout_raises_when_its_register_is_left():
    made = started(Readout(**READOUT, state_bits=8, name="fc"), PyReadoutFixed)
    step(made, gate=[1], a_in=[0, 0], activity=[0])
    with pytest.raises(RangeError, match=r"fc: logit \(128\) exceeds its 8 signed bits \(127\)"):
        step(made, gate=[2], a_in=[125, 0], activity=[0])


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [
        ((2, 2), (2, 2), (0, 0), (1, 1)),
        ((3, 2), (1, 2), (1, 1), (1, 1)),
        ((2, 3), (2, 1), (0, 1), (2, 1)),
        ((1, 1), (2, 3), (0, 0), (1, 1)),
    ],
)
def test_the_pool_emits_the_change_of_the_maxima_one_step_later(kernel, stride, padding, dilation):
    rng = np.random.default_rng(0)
    layer = MaxPool("pool", "source", kernel, stride, padding, dilation)
    counts = rng.integers(0, 5, (12, 2, 7, 8))  # (T, C, H, W)
    spikes = np.diff(counts, axis=0, prepend=0)
    expected = max_pool(layer, torch.tensor(counts, dtype=torch.float32)).to(torch.int64).numpy()
    flipped = {
        k: v[::-1]
        for k, v in zip(("kernel", "stride", "padding", "dilation"), (kernel, stride, padding, dilation), strict=True)
    }
    model = started(CIFMaxPool(shape=(8, 7, 2), period=99, **flipped), PyCIFMaxPool)
    total = 0
    for t in range(12):
        sent = step(model, gate=[t + 1], s_in=spikes[t].transpose(2, 1, 0))
        assert sent["activity"] == [np.count_nonzero(sent["s_out"])]
        total = total + sent["s_out"]
        assert (total.transpose(2, 1, 0) == (expected[t - 1] if t else 0)).all()
    assert expected[-2].max() > 1
    sent = step(model, gate=[1], s_in=np.zeros((8, 7, 2), int))
    assert not sent["s_out"].any()
    assert not model.counts.any()


def test_the_pool_discards_what_a_sample_left_over():
    model = started(CIFMaxPool(shape=(2, 2, 1), period=9, kernel=(2, 2), stride=(2, 2)), PyCIFMaxPool)
    ones = np.ones((2, 2, 1), int)
    sent = [step(model, gate=[c], s_in=ones * s)["s_out"].item() for c, s in ((1, 1), (2, 1), (1, 0), (2, 1), (3, 0))]
    assert sent == [0, 1, 0, 0, 1]


def test_the_pool_refuses_windows_that_do_not_fit():
    with pytest.raises(InvalidNetworkError, match="does not fit into"):
        CIFMaxPool(shape=(2, 2, 1), period=9, kernel=(3, 3), stride=(1, 1))


@pytest.mark.parametrize("spikes", [True, False])
def test_a_tap_sends_the_record_of_a_sample_in_the_step_after(spikes):
    model = started(Tap(shape=(2,), period=3, spikes=spikes), PyTap)
    steps = [(1, [5, 0]), (2, [1, -1]), (3, [0, 0]), (1, [0, 1]), (2, [0, 1]), (IDLE, [7, 7]), (IDLE, [0, 0])]
    sent = [step(model, gate=[code], s_in=arrived) for code, arrived in steps]
    assert ["result" in s for s in sent] == [False, False, False, True, False, True, False]
    first, second = sent[3]["result"], sent[5]["result"]
    assert list(first[:5]) == [1, 2, 0, 6, -1]
    assert list(second[:5]) == [1, 1, 0, 0, 2]
    assert list(first[5:]) == ([5, 0, 1, -1, 0, 0] if spikes else [])
