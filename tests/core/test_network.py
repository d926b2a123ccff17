"""The integer network: it refuses to contradict itself, never changes, and equals by content."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
from random_networks import random_network
from spine import dense_network, neuron, replaced

from lava_casc.errors import InvalidNetworkError, RangeError
from lava_casc.network import Conv, Dense, Input, IntegerNetwork, MaxPool, Neurons, Readout, window_shape
from lava_casc.schedule import LayerTiming, WakeSleepSchedule

ENTRY = Input("image", (2, 5, 4), 0, 9)


def _weights(*shape):
    return np.ones(shape, np.int32)


def _conv(name="conv", source="image", weight=None, **changes):
    synapse = Conv(source, _weights(3, 2, 2, 2) if weight is None else weight, **changes)
    return _neurons(name, synapse)


def _neurons(name, *synapses, n=None, **changes):
    n = len(synapses[0].weight) if n is None else n
    values = {"bias": np.zeros(n, int), "threshold": np.ones(n, int), "initial": np.zeros(n, int)}
    return Neurons(name, synapses, **values | {"levels": 2, "scale": np.ones(n)} | changes)


def _read(source, features, **changes):
    values = {"name": "logits", "bias": np.zeros(2, int)} | changes
    return Readout(synapses=(Dense(source, _weights(2, features)),), **values)


def _network(*between, read=None):
    return IntegerNetwork((ENTRY, *between, read or _read("conv", 36)))


def _two(second):
    return IntegerNetwork((ENTRY, _conv(), _read("conv", 36), second))


def _good(seed=0):
    return _network(_conv(), MaxPool("pool", "conv", (2, 1), (2, 1)), read=_read("pool", 3 * 2 * 3))


REFUSED = [
    (lambda: IntegerNetwork(()), "a network starts with its Input and ends with its Readout"),
    (lambda: IntegerNetwork((ENTRY,)), "starts with its Input and ends with its Readout"),
    (lambda: IntegerNetwork((ENTRY, _conv())), "ends with its Readout"),
    (lambda: IntegerNetwork((_conv(), _read("conv", 36))), "starts with its Input"),
    (lambda: _network(Input("again", (1,), 0, 1)), "again: a network has one Input, and Memories"),
    (lambda: IntegerNetwork((ENTRY, _read("image", 40), _conv(), _read("conv", 36))), "logits: Readouts come last"),
    (lambda: _two(_read("logits", 2, name="more")), "more: its source logits does not come before it"),
    (lambda: _two(_read("image", 40)), "logits: the name stands twice"),
    (lambda: _network(_conv(), _conv()), "conv: the name stands twice"),
    (lambda: _network(_conv("image")), "image: the name stands twice"),
    (lambda: _network(_conv(source="nowhere")), "conv: its source nowhere does not come before it"),
    (lambda: _network(_conv("a", "conv"), _conv()), "a: its source conv does not come before it"),
    (lambda: _network(_conv("conv", "conv")), "conv: its source conv does not come before it"),
    (lambda: _network(_conv(), _conv("lost")), "lost: nothing reads this layer"),
    (lambda: _network(_conv("lost"), read=_read("image", 40)), "lost: nothing reads this layer"),
    (lambda: _network(MaxPool("pool", "image", (2, 2), (2, 2))), "pool: image cannot be max-pooled"),
    (lambda: _network(_conv(weight=_weights(3, 1, 2, 2))), "needs 1 input channels and 1 to divide 3, not 2 channels"),
    (lambda: _network(_conv(weight=_weights(3, 1, 2, 2), groups=2)), "2 to divide 3, not 2 channels"),
    (lambda: _network(_conv(groups=0)), "0 groups"),
    (lambda: _network(_conv(weight=_weights(3, 2, 2))), "needs .C, H, W. and 4-d weights"),
    (lambda: _network(_conv(weight=_weights(3, 2, 6, 2))), r"image: a window of \(6, 2\) does not fit into \(5, 4\)"),
    (lambda: _network(_conv(weight=_weights(3, 2, 2, 3), dilation=(1, 2))), r"does not fit into \(5, 4\)"),
    (lambda: _network(_conv(weight=_weights(3, 2, 0, 2))), "make no windows"),
    (lambda: _network(_conv(weight=_weights(0, 2, 2, 2))), r"conv: a shape is .*, not \(0, 4, 3\)"),
    (lambda: _network(_conv(stride=(0, 1))), r"stride \(0, 1\).* make no windows"),
    (lambda: _network(_conv(dilation=(1, 0))), r"dilation \(1, 0\) make no windows"),
    (lambda: _network(_conv(padding=(-1, 0))), r"padding \(-1, 0\).* make no windows"),
    (lambda: _network(_conv(weight=np.ones((3, 2, 2, 2)))), "conv: weights must be int32, not float64"),
    (lambda: _network(_conv(weight=np.ones((3, 2, 2, 2), int))), "conv: weights must be int32, not int64"),
    (lambda: _network(_conv(exponent=-1)), r"conv: a weight exponent \(-1\) must not be negative"),
    (lambda: _network(_conv(exponent=0.5)), r"conv: a weight exponent \(0.5\) must be a whole number"),
    (
        lambda: _network(_conv(), read=_read("conv", 35)),
        r"dense weights \(2, 35\) do not fit conv of shape \(3, 4, 3\)",
    ),
    (lambda: Neurons("empty", (), *[np.ones(1, int)] * 3, 1, np.ones(1)), "empty: a layer needs at least one synapse"),
    (lambda: Readout("empty", (), np.ones(1, int)), "empty: a layer needs at least one synapse"),
    (
        lambda: _network(_neurons("conv", Conv("image", _weights(3, 2, 2, 2)), Conv("image", _weights(3, 2, 1, 1)))),
        r"conv: its synapses have different shapes: \[\(3, 4, 3\), \(3, 5, 4\)\]",
    ),
    (lambda: _network(_conv(), MaxPool("p", "conv", (2, 2), (1, 1), (2, 0))), r"p: padding \(2, 0\) is more than half"),
    (lambda: _network(_conv(), MaxPool("p", "conv", (5, 1), (1, 1))), r"p: a window of \(5, 1\) does not fit"),
    (lambda: _network(_conv(), MaxPool("p", "conv", (2, 2), (0, 1))), "p: kernel .* make no windows"),
    (lambda: dense_network(*_flat_pool()), r"pool: max pooling needs a \(C, H, W\) source, not \(1,\)"),
    (lambda: dense_network(neuron("a", "input", [[1]], threshold=0)), r"a: a threshold \(0\) must be at least 1"),
    (lambda: dense_network(neuron("a", "input", [[1]], threshold=-3)), r"a: a threshold \(-3\) must be at least 1"),
    (lambda: dense_network(neuron("a", "input", [[1]], levels=0)), r"a: levels \(0\) must be at least 1"),
    (lambda: dense_network(neuron("a", "input", [[1]], levels=1.5)), r"a: levels \(1.5\) must be a whole number"),
    (lambda: dense_network(neuron("a", "input", [[1]], levels=True)), r"a: levels \(True\) must be a whole number"),
    (lambda: replaced(_good(), "conv", bias=np.zeros(2, int)), r"conv: bias has shape \(2,\), the layer \(3, 4, 3\)"),
    (lambda: replaced(_good(), "conv", bias=np.zeros((3, 1, 1), int)), r"conv: bias has shape \(3, 1, 1\)"),
    (lambda: replaced(_good(), "conv", threshold=np.ones((3, 4, 3), int)), r"conv: threshold has shape \(3, 4, 3\)"),
    (lambda: replaced(_good(), "conv", initial=np.zeros((), int)), r"conv: initial has shape \(\)"),
    (lambda: replaced(_good(), "conv", scale=np.ones(1)), r"conv: scale has shape \(1,\)"),
    (lambda: replaced(_good(), "logits", bias=np.zeros(3, int)), r"logits: bias has shape \(3,\)"),
    (lambda: replaced(_good(), "conv", bias=np.full(3, 0.5)), "bias must hold integers, not float64"),
    (lambda: replaced(_good(), "conv", bias=np.full(3, True)), "bias must hold integers, not bool"),
    (
        lambda: replaced(_good(), "conv", threshold=np.full(3, 2**63, np.uint64)),
        "threshold holds a value outside int64",
    ),
    (lambda: replaced(_good(), "conv", scale=np.array([1, 0, 1])), "conv: scale .* must be positive and finite"),
    (lambda: replaced(_good(), "conv", scale=np.array([1, np.nan, 1])), "conv: scale .* must be positive and finite"),
    (lambda: replaced(_good(), "logits", scale=-1.0), "logits: scale -1.0 must be positive and finite"),
    (lambda: replaced(_good(), "logits", scale=np.inf), "logits: scale inf must be positive and finite"),
    (lambda: Input("x", (2, 3), 0, 1), r"x: a shape is \(C, H, W\) or \(N,\), not \(2, 3\)"),
    (lambda: Input("x", (), 0, 1), r"x: a shape is .*, not \(\)"),
    (lambda: Input("x", (0,), 0, 1), r"x: a shape is .*, not \(0,\)"),
    (lambda: Input("x", (1,), 1, 2), r"x: the input range \[1, 2\] must hold 0"),
    (lambda: Input("x", (1,), -2, -1), r"x: the input range \[-2, -1\] must hold 0"),
    (lambda: Input("x", (1,), 0.0, 1), r"x: low \(0.0\) must be a whole number"),
    (lambda: Input("x", (1,), 0, 1.5), r"x: high \(1.5\) must be a whole number"),
    (lambda: Input("x", (1,), 0, 1, shift=0.5), r"x: shift \(0.5\) must be a whole number"),
    (lambda: Input("x", (1,), 0, 1, shift=-1), r"x: shift \(-1\) must not be negative"),
    (lambda: Input("x", (1,), 0, 1, 0.0), "x: scale 0.0 must be positive"),
    (lambda: Input("x", (1,), 0, 1, float("nan")), "x: scale nan must be positive and finite"),
    (lambda: _good().schedule("spiky"), "mode 'spiky' is not known. Use one of unary, burst, graded, latency, energy"),
]


def _flat_pool():
    return neuron("a", "input", [[1]]), MaxPool("pool", "a", (1, 1), (1, 1))


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_a_network_that_contradicts_itself_is_refused(make, message):
    with pytest.raises(InvalidNetworkError, match=message):
        make()


HALF = 2**52 // (2**31 - 1)


@pytest.mark.parametrize(
    ("fits", "too_much"),
    [
        ({"bias": 2**53 - 2}, {"bias": 2**53 - 1}),
        ({"bias": 2 - 2**53}, {"bias": 1 - 2**53}),
        ({"initial": 2**53 - 2}, {"initial": 2**53 - 1}),
        ({"threshold": 2**53 - 1}, {"threshold": 2**53}),
        ({"threshold": 2**52 - 1, "levels": 2}, {"threshold": 2**52, "levels": 2}),
        ({"bias": -(2**52), "initial": 2**52 - 2}, {"bias": -(2**52), "initial": 2**52 - 1}),
        ({"threshold": 1}, {"threshold": 2**62, "levels": 8}),
    ],
)
def test_sums_that_float64_would_round_are_refused(fits, too_much):
    dense_network(neuron("a", "input", [[1]], **fits), readout=[[0]])
    with pytest.raises(
        InvalidNetworkError, match=r"a: its sums may reach \d+, but only integers below 2\*\*53 are exact"
    ):
        dense_network(neuron("a", "input", [[1]], **too_much), readout=[[0]])


@pytest.mark.parametrize(("exponent", "high", "fits"), [(52, 1, True), (53, 1, False), (60, 1, False), (50, 8, False)])
def test_weights_that_float64_would_round_are_refused(exponent, high, fits):
    network = dense_network(high=high)
    synapse = Dense("input", np.array([[1]], np.int32), exponent)
    if fits:
        replaced(network, "readout", synapses=(synapse,))
    else:
        with pytest.raises(InvalidNetworkError, match="readout: its sums may reach"):
            replaced(network, "readout", synapses=(synapse,))


def test_the_least_weight_counts_by_its_size():
    weight = np.full((1, 1), -(2**31), np.int32)
    with pytest.raises(InvalidNetworkError, match=f"its sums may reach {2**53}"):
        replaced(dense_network(high=2**22), "readout", synapses=(Dense("input", weight),))


ARRAYS = ("weight", "bias", "threshold", "initial", "scale")


def test_arrays_are_copied_and_read_only():
    weight, bias = _weights(3, 2, 2, 2), np.zeros(3, int)
    network = replaced(_network(_conv(weight=weight)), "conv", bias=bias)
    weight[:], bias[:] = 9, 9
    assert (network["conv"].synapses[0].weight == 1).all()
    assert (network["conv"].bias == 0).all()
    for holder in (network["conv"], network["conv"].synapses[0], network["logits"]):
        for name in set(ARRAYS) & {f.name for f in dataclasses.fields(holder)}:
            if isinstance(getattr(holder, name), np.ndarray):
                with pytest.raises(ValueError, match="read-only"):
                    getattr(holder, name)[...] = 1


def test_attributes_are_frozen():
    network = _good()
    for holder, name in ((network, "layers"), (network["conv"], "levels"), (network["pool"], "kernel"), (ENTRY, "low")):
        with pytest.raises(dataclasses.FrozenInstanceError, match=name):
            setattr(holder, name, 1)


def test_equality_is_by_content():
    for seed in range(30):
        first, second = (random_network(np.random.default_rng(seed)) for _ in range(2))
        assert first is not second
        assert first == second
        assert copy.deepcopy(first) == first
        assert first != random_network(np.random.default_rng(seed + 1000))


CHANGES = [
    ("conv", {"bias": np.array([0, 0, 1])}),
    ("conv", {"threshold": np.array([1, 1, 2])}),
    ("conv", {"initial": np.array([0, 1, 0])}),
    ("conv", {"levels": 3}),
    ("conv", {"scale": np.array([1, 1, 0.5])}),
    (
        "conv",
        {
            "synapses": (
                Conv("image", np.eye(2, dtype=np.int32)[None].repeat(3, 0).reshape(3, 2, 2, 1)[:, :, :, [0, 0]]),
            )
        },
    ),
    ("conv", {"synapses": (Conv("image", _weights(3, 2, 2, 2), exponent=1),)}),
    ("conv", {"bias": np.zeros((3, 4, 3), int)}),
    ("logits", {"scale": 0.5}),
    ("logits", {"bias": np.array([0, 1])}),
    ("image", {"high": 8}),
    ("image", {"scale": 0.5}),
    ("image", {"shift": 1}),
    ("pool", {"kernel": (2, 1), "stride": (2, 1), "dilation": (1, 2)}),
]


@pytest.mark.parametrize(("name", "changes"), CHANGES)
def test_every_change_makes_another_network(name, changes):
    assert replaced(_good(), name) == _good()
    assert replaced(_good(), name, **changes) != _good()


def test_networks_equal_nothing_else_and_have_no_hash():
    assert _good() != "network"
    assert _good()["conv"] != _good()["logits"]
    for thing in (_good(), _good()["conv"], ENTRY):
        with pytest.raises(TypeError, match="unhashable"):
            hash(thing)


def _diamond():
    """Return a network with paths of length 1 to 4 between its input and its readout."""
    layers = (
        ENTRY,
        _conv("a"),
        MaxPool("b", "a", (1, 1), (1, 1)),
        _neurons("c", Conv("b", _weights(3, 3, 1, 1)), Conv("image", _weights(3, 2, 2, 2))),
        Readout("end", (Dense("c", _weights(2, 36)), Dense("image", _weights(2, 40))), np.zeros(2, int)),
    )
    return IntegerNetwork(layers)


def test_distances_are_the_shortest_and_the_longest_path():
    assert _diamond().distances == {"image": (0, 0), "a": (1, 1), "b": (2, 2), "c": (1, 3), "end": (1, 4)}


def test_timing_follows_the_distances():
    schedule = WakeSleepSchedule(4, 9)
    assert _diamond().timing(schedule) == {
        "a": LayerTiming(2, 6, 1),
        "b": LayerTiming(3, 7, 1),
        "c": LayerTiming(2, 6, 1),
        "end": LayerTiming(2, 6, 1),
    }
    released = _diamond().timing(dataclasses.replace(schedule, released=True, max_burst=99))
    assert {name: timing.release for name, timing in released.items()} == {"a": 5, "b": 6, "c": 7, "end": 8}


def test_last_event_is_the_last_injection_or_release():
    network = _diamond()
    assert network.last_event(WakeSleepSchedule(4, 9)) == 6
    assert network.last_event(WakeSleepSchedule(4, 9, 99, released=True)) == 8
    assert dense_network().last_event(WakeSleepSchedule(4, 0)) == 5


def test_the_bound_of_a_graph():
    network = _diamond()
    assert network.silence_bound(WakeSleepSchedule(2, 0)) == 2 + 2 + 1 + 2
    assert network.silence_bound(WakeSleepSchedule(2, 0, max_burst=2)) == 2 + 1 + 1 + 1
    assert network.silence_bound(network.schedule("graded")) == 1 + 3
    assert dense_network().silence_bound(WakeSleepSchedule(3, 0)) == 3


@pytest.mark.parametrize("mode", ["unary", "graded"])
def test_schedules_of_a_mode(mode):
    for seed in range(20):
        network = random_network(np.random.default_rng(seed))
        schedule = network.schedule(mode)
        assert schedule.mode == mode
        assert schedule.wake_steps == (network.levels if mode == "unary" else 1)
        assert schedule.max_burst == (1 if mode == "unary" else network.levels)
        assert schedule.period == max(network.silence_bound(schedule) + 1, network.last_event(schedule))
        assert network.schedule(mode, 3, 5) == dataclasses.replace(schedule, wake_steps=3, sleep_steps=5)
        assert network.schedule(mode, sleep_steps=0).sleep_steps == 0


def test_is_sequential():
    assert _good().is_sequential
    assert not _diamond().is_sequential
    assert not _network(
        _conv(),
        read=Readout("logits", (Dense("image", _weights(1, 40)), Dense("conv", _weights(1, 36))), np.zeros(1, int)),
    ).is_sequential
    assert all(random_network(np.random.default_rng(seed), sequential=True).is_sequential for seed in range(30))


def test_what_a_network_says_about_itself():
    network = _diamond()
    assert [layer.name for layer in network] == ["image", "a", "b", "c", "end"]
    assert (network.input, network.readouts[0]) == (ENTRY, network["end"])
    assert [layer.name for layer in network.spiking] == ["a", "b", "c"]
    assert [layer.name for layer in network.computed] == ["a", "b", "c", "end"]
    assert network.levels == 2
    assert dense_network().levels == 1
    assert network.peaks == {"a": 2, "b": 2, "c": 2}
    assert network.shapes == {"image": (2, 5, 4), "a": (3, 4, 3), "b": (3, 4, 3), "c": (3, 4, 3), "end": (2,)}
    assert network["c"].sources == ("b", "image")
    with pytest.raises(KeyError, match="nowhere"):
        network["nowhere"]


@pytest.mark.parametrize("seed", range(30))
def test_windows_are_counted_one_by_one(seed):
    rng = np.random.default_rng(seed)
    size, kernel, stride, dilation = (tuple(int(v) for v in rng.integers(1, high, 2)) for high in (9, 4, 4, 3))
    padding = tuple(int(v) for v in rng.integers(0, 3, 2))
    counted = tuple(
        len(range(0, n + 2 * p - d * (k - 1), s))
        for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    )
    if min(counted) < 1:
        with pytest.raises(InvalidNetworkError, match="does not fit"):
            window_shape("w", size, kernel, stride, padding, dilation)
    else:
        assert window_shape("w", size, kernel, stride, padding, dilation) == counted


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"wake_steps": 0}, RangeError, r"wake_steps \(0\) is below 1. Use at least 1"),
        ({"sleep_steps": -1}, RangeError, r"sleep_steps \(-1\) is below 0"),
        ({"max_burst": 0}, RangeError, r"max_burst \(0\) is below 1"),
        ({"wake_steps": 1.0}, TypeError, "wake_steps must be an int, not float"),
        ({"max_burst": True}, TypeError, "max_burst must be an int, not bool"),
    ],
)
def test_schedules_out_of_range_are_refused(changes, error, message):
    with pytest.raises(error, match=message):
        WakeSleepSchedule(**{"wake_steps": 1, "sleep_steps": 0} | changes)


@pytest.mark.parametrize(("burst", "released", "mode"), [(1, False, "unary"), (2, False, "burst"), (2, True, "graded")])
def test_modes_and_periods(burst, released, mode):
    schedule = WakeSleepSchedule(3, 4, burst, released)
    assert (schedule.mode, schedule.period) == (mode, 7)


def test_an_array_is_copied_unless_nobody_can_write_to_it():
    kept = np.ones((2, 3), np.int32)
    kept.setflags(write=False)
    assert Dense("input", kept).weight is kept
    assert dataclasses.replace(Dense("input", kept), source="other").weight is kept

    owner = np.ones((2, 3), np.int32)
    view = owner[:]
    view.setflags(write=False)
    found = [Dense("input", owner).weight, Dense("input", view).weight]
    owner[0, 0] = 7
    assert all((weight == 1).all() and not weight.flags.writeable for weight in found)

    turned = np.asfortranarray(np.ones((2, 3), np.int32))
    turned.setflags(write=False)
    assert Dense("input", turned).weight.flags.c_contiguous
