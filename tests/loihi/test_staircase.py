"""The staircase: every count and every logit of the integer network from stock processes, and what it refuses."""

import dataclasses
import math

import numpy as np
import pytest
from lava.proc.conv.process import Conv as LavaConv
from lava.proc.dense.process import Dense as LavaDense
from lava.proc.graded.models import PyGradedVecModelFixed
from lava.proc.graded.process import GradedVec
from lava.proc.lif.models import PyLifModelBitAcc
from lava.proc.lif.process import LIF
from loihi_models import started, step
from loihi_networks import heads, heads_images, loop, loop_words, small, small_images
from random_networks import random_images, random_network

from lava_casc import loihi
from lava_casc.errors import DataError, RangeError, UnsupportedModelError
from lava_casc.hardware import read_hardware
from lava_casc.loihi import runner, session
from lava_casc.loihi.layout import torch_images
from lava_casc.loihi.staircase import (
    check_staircase,
    comparators,
    settling_steps,
    staircase_cost,
    staircase_refusals,
)
from lava_casc.loihi.staircase import circuit as circuits
from lava_casc.loihi.staircase.circuit import build
from lava_casc.loihi.staircase.host import HeldSource, SettledProbe
from lava_casc.network import Conv, Dense, Input, IntegerNetwork, MaxPool, Neurons, Readout, Tokens
from lava_casc.reference import forward, parallel


def _differences(network, images, **how):
    """Return the names of the layers whose counts or logits differ from the integer network's."""
    found = loihi.run(network, images, engine="staircase", record=("counts",), **how)
    truth = forward(network, images)
    assert list(found.counts) == list(truth.counts)
    pairs = {name: (found.counts[name], truth.counts[name]) for name in truth.counts}
    pairs["logits"] = (found.logits, truth.logits)
    for ours, theirs in pairs.values():
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    return [name for name, (ours, theirs) in pairs.items() if (ours != theirs).any()]


def _fitting(seed):
    """Return a random network that fits, and images for it: weights from -127 to 127, but no sum too large."""
    rng = np.random.default_rng(seed)
    while staircase_refusals(network := random_network(rng)):
        pass
    return network, random_images(rng, network, 4)


@pytest.mark.parametrize("seed", range(4))
def test_every_count_and_every_logit_is_the_integer_networks(seed):
    network, images = _fitting(seed)
    assert _differences(network, images) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 160))
def test_every_count_and_every_logit_on_many_networks(seed):
    network, images = _fitting(seed)
    assert _differences(network, images) == []


@pytest.mark.parametrize("stock_synapses", [False, True])
@pytest.mark.parametrize(("network", "images"), [(small(), small_images()), (heads(), heads_images(3))])
def test_pools_residuals_and_several_readouts_also_with_lavas_own_synapses(network, images, stock_synapses):
    assert _differences(network, images, stock_synapses=stock_synapses) == []
    counts = forward(network, images).counts
    assert all(len(np.unique(counts[layer.name])) > 2 for layer in network.spiking), "a test of more than zeros"


def _dense(levels=3, threshold=(5, 7), initial=(0, 3), bias=(-2, 4), weight=((3, -1, 2), (1, 5, -4)), reach=(-9, 9)):
    """A dense layer with a threshold, an initial value and a bias for each of its units."""
    weight = np.array(weight, np.int32)
    units = len(weight)
    values = (np.array(values, np.int64) for values in (bias, threshold, initial))
    return IntegerNetwork(
        (
            Input("input", (weight.shape[1],), *reach),
            Neurons("dense", (Dense("input", weight),), *values, levels, np.ones(units)),
            Readout("fc", (Dense("dense", np.eye(units, dtype=np.int32), 1),), np.arange(units) - 1),
        )
    )


def test_each_unit_has_its_own_staircase_of_floor_or_round():
    images = np.random.default_rng(0).integers(-9, 10, (40, 3))
    network = _dense()
    assert _differences(network, images) == []
    floor = dataclasses.replace(network["dense"], initial=np.zeros(2, np.int64))
    other = IntegerNetwork((network.input, floor, network.readouts[0]))
    assert _differences(other, images) == []
    both = [forward(made, images).counts["dense"] for made in (network, other)]
    assert (both[0][:, 0] == both[1][:, 0]).all()
    assert (both[0][:, 1] != both[1][:, 1]).any()


def test_exponents_and_the_lowest_bits_of_weights_are_kept():
    # A Dense of mixed sign loses the lowest bit of its weights in Lava, one of a single sign does not.
    for weight in (((127, -128, 1), (3, 5, 7)), ((127, 1, 3), (5, 7, 9)), ((-127, -1, -3), (-5, -7, -128))):
        network = _dense(weight=weight, threshold=(301, 77))
        layer = network["dense"]
        synapse = dataclasses.replace(layer.synapses[0], exponent=2)
        network = IntegerNetwork((network.input, dataclasses.replace(layer, synapses=(synapse,)), network.readouts[0]))
        assert _differences(network, np.random.default_rng(0).integers(-9, 10, (6, 3))) == []


def _branches():
    """A residual whose branches are one, three and seven synapses long, and whose input is a branch by itself."""
    rng = np.random.default_rng(3)

    def kernel(*shape):
        return rng.integers(-7, 10, shape).astype(np.int32)

    def neurons(name, scale, *synapses):
        return Neurons(
            name, synapses, rng.integers(0, 20, 2), np.array([4, 5]) * scale, np.array([2, 0]), 9, np.ones(2)
        )

    return IntegerNetwork(
        (
            Input("input", (1, 3, 4), 0, 15),
            neurons("a", 4, Conv("input", kernel(2, 1, 3, 3), padding=(1, 1))),
            neurons("b", 1, Conv("a", kernel(2, 2, 1, 1))),
            neurons(
                "sum",
                3,
                Conv("b", kernel(2, 2, 1, 1)),
                Conv("a", kernel(2, 2, 1, 1)),
                Conv("input", kernel(2, 1, 1, 1)),
            ),
            Readout("fc", (Dense("sum", kernel(3, 24)), Dense("input", kernel(3, 12))), np.array([100, -7, 0])),
        )
    )


@pytest.mark.parametrize(
    ("network", "images"),
    [(_branches(), np.random.default_rng(0).integers(0, 16, (2, 1, 3, 4))), (small(), small_images(2))],
)
def test_every_layer_settles_in_its_step_and_not_before(monkeypatch, network, images):
    steps = settling_steps(network)
    hold = max(steps.values())
    assert hold == steps[network.readouts[0].name]
    # A look at every step: one image for as long as it is held, then another one.
    monkeypatch.setattr(runner, "settling_steps", lambda network: {"": 1})
    found = loihi.run(network, images.repeat(hold, 0), engine="staircase", record=("counts",))
    truth = forward(network, images)
    for name in truth.counts:
        right = (found.counts[name] == truth.counts[name].repeat(hold, 0)).reshape(2, hold, -1).all(-1)
        assert not right[:, steps[name] - 2].any(), name
        assert right[:, steps[name] - 1 :].all(), name
    right = (found.logits == truth.logits.repeat(hold, 0)).reshape(2, hold, -1).all(-1)
    assert right[:, -2:].tolist() == [[False, True]] * 2


def test_a_layer_takes_three_steps_a_pool_one_and_a_readout_one():
    assert settling_steps(small()) == {"input": 1, "stem": 4, "block": 7, "pool": 8, "readout": 9}
    assert settling_steps(_branches()) == {"input": 1, "a": 4, "b": 7, "sum": 10, "fc": 11}


def test_the_record_certifies_nothing_and_says_how_long_samples_were_held():
    finished = []
    found = loihi.run(small(), small_images(5), engine="staircase", progress=finished.append)
    assert found.engine == "lava staircase fixed_pt"
    assert not found.certified.any()
    assert not found.all_certified
    assert (found.schedule.wake_steps, found.schedule.sleep_steps) == (9, 0)
    assert (found.last_spike == 9).all()
    assert found.steps == 45
    assert found.seconds > 0
    assert found.counts == found.messages == found.spikes == {}
    assert finished == [1, 2, 3, 4, 5]


def test_no_samples_give_an_empty_record():
    found = loihi.run(small(), small_images(0), engine="staircase", record=("counts",))
    assert found.logits.shape == (0, 4)
    assert (found.logits.dtype, found.last_spike.dtype, found.steps) == (np.int64, np.int64, 0)
    assert found.counts["pool"].shape == (0, *small().shapes["pool"])


def test_shifted_inputs_and_words_enter_as_everywhere():
    network = small()
    shifted = dataclasses.replace(network.input, low=-28, high=33, shift=2)
    images = np.random.default_rng(5).integers(-28, 34, (3, 2, 5, 6))
    assert _differences(IntegerNetwork((shifted, *network.layers[1:])), images) == []
    words = IntegerNetwork((Tokens("input", 3), *_dense().layers[1:]))
    assert _differences(words, np.array([2, 0, 1, 1])) == []


def test_only_lavas_own_processes_compute():
    network = small()
    made = build(network, small_images(), 9, ["stem"])
    inside = [*made.synapses.values(), *made.potentials.values(), *made.comparators.values(), *made.values.values()]
    assert {type(process) for process in inside} == {LavaConv, GradedVec, LIF, LavaDense}
    assert {type(process) for process in (made.source, *made.probes.values())} == {HeldSource, SettledProbe}
    assert list(made.probes) == ["stem", "readout"]


# Its cost.


@pytest.mark.parametrize("network", [small(), heads(), _branches(), _dense()])
def test_the_cost_is_what_is_built(network):
    images = network.input.injected(np.zeros((1, *network.input.shape), np.int64))
    made, cost = build(network, images, 1), staircase_cost(network)
    for layer in network.computed:
        groups = (made.potentials, made.comparators, made.values)
        built = [math.prod(group[layer.name].s_out.shape) for group in groups if layer.name in group]
        assert cost[layer.name] == sum(built)
    assert list(cost) == [layer.name for layer in network.computed]


def test_a_unit_costs_its_levels_and_two_neurons():
    cost = staircase_cost(small())
    assert cost["block"] == 6 * math.prod(small().shapes["block"])
    assert cost["pool"] == 5 * math.prod(small().shapes["pool"])
    assert cost["readout"] == 4


# Lava's LIF as a comparator: each setting that it rests on.


def _single(low, high, levels=1, threshold=1, bias=0, weight=1):
    """A single unit, whose input is its potential."""
    return IntegerNetwork(
        (
            Input("input", (1,), low, high),
            Neurons(
                "unit",
                (Dense("input", np.array([[weight]], np.int32)),),
                np.array([bias]),
                np.array([threshold]),
                np.zeros(1, np.int64),
                levels,
                np.ones(1),
            ),
            Readout("fc", (Dense("unit", np.ones((1, 1), np.int32)),), np.zeros(1, np.int64)),
        )
    )


@pytest.mark.parametrize("threshold", [1, 2, 4095, 4097, 4098, 8193, 32767, 32768, 40000, (1 << 17) - 1])
@pytest.mark.parametrize("bias", [-4097, -1, 0, 4095])
def test_a_comparator_is_memoryless_and_exact_at_the_edge_of_every_register(threshold, bias):
    low, high = -(1 << 15), (1 << 15) - 1
    network = _single(low, high, threshold=threshold, bias=bias)
    assert staircase_refusals(network) == {}
    model = started(build(network, np.zeros((1, 1), np.int64), 1).comparators["unit"], PyLifModelBitAcc)
    edges = [low, low + 1, -1, 0, 1, high - 1, high]
    inputs = np.concatenate([edges, np.clip(threshold - bias + np.arange(-2, 3), low, high)])
    np.random.default_rng(0).shuffle(inputs)
    for z in (*inputs, *inputs[::-1]):
        spikes = step(model, a_in=np.array(z, np.int32).reshape(1, 1, 1))["s_out"]
        assert spikes.item() == (z + bias >= threshold), z


def test_a_graded_neuron_sends_a_one():
    model = started(GradedVec(shape=(4,), vth=0), PyGradedVecModelFixed)
    for values in ([1, -1, 0, (1 << 23) - 1], [0, 2, -3, -(1 << 23)]):
        assert step(model, a_in=np.array(values, np.int32))["s_out"].tolist() == values


# What does not fit.


@pytest.mark.parametrize(
    ("fits", "excess", "message"),
    [
        (
            {"low": 0, "high": (1 << 15) - 1},
            {"low": 0, "high": 1 << 15},
            r"unit: the worst-case input of a comparator \(32768\) exceeds the 16 signed bits of LIF's input \(32767\)",
        ),
        (
            {"low": -(1 << 15), "high": 9},
            {"low": -(1 << 15) - 1, "high": 9},
            r"unit: the worst-case input of a comparator \(-32769\) exceeds the 16 signed bits of LIF's input \(-32768",
        ),
        (
            {"low": -9000, "high": 9, "bias": 4095},
            {"low": -9000, "high": 9, "bias": 4096},
            r"unit: a comparator's bias at the threshold 0 \(4096\) exceeds the 13 signed bits of LIF's bias \(4095\)",
        ),
        (
            {"low": 0, "high": 20000, "levels": 2, "threshold": 8191},
            {"low": 0, "high": 20000, "levels": 2, "threshold": 8192},
            r"unit: a comparator's bias at the threshold 12287 \(4096\) exceeds the 13 signed bits of LIF's bias",
        ),
        (
            {"low": 0, "high": 20000, "threshold": (1 << 17) - 1 + 4097},
            {"low": 0, "high": 20000, "threshold": (1 << 17) + 4097},
            r"unit: the comparators' threshold \(131072\) exceeds the 17 bits of LIF's threshold \(131071\)\. Expo",
        ),
    ],
)
def test_a_network_at_a_limit_runs_and_one_past_it_is_refused(fits, excess, message):
    network = _single(**fits)
    layer, (low, high) = network["unit"], (fits["low"], fits["high"])
    around = [k * layer.threshold[0] - layer.bias[0] + i for k in (1, layer.levels) for i in (-1, 0)]
    images = np.clip([[low], [high], [0], *([z] for z in around)], low, high)
    assert _differences(network, images) == []
    with pytest.raises(RangeError, match=message):
        loihi.run(_single(**excess), [[0]], engine="staircase")


def test_biases_that_are_all_far_off_share_the_threshold():
    bias, threshold = comparators(_single(0, 20000, 2, 8191), _single(0, 20000, 2, 8191)["unit"])
    assert bias.tolist() == [[4095, -4096]]
    assert threshold == 2 * 8191 - 4096 - 1
    assert comparators(_single(0, 9, 2, 100), _single(0, 9, 2, 100)["unit"]).threshold == 0


def test_a_window_of_more_spikes_than_a_comparator_can_receive_is_refused():
    def pooled(side):
        one = np.ones(1, np.int64)
        unit = Neurons("unit", (Conv("input", np.ones((1, 1, 1, 1), np.int32)),), 0 * one, one, 0 * one, 2, np.ones(1))
        pool = MaxPool("pool", "unit", (side, side), (1, 1))
        fc = Readout("fc", (Dense("pool", np.ones((1, 1), np.int32)),), 0 * one)
        return IntegerNetwork((Input("input", (1, side, side), 0, 3), unit, pool, fc))

    assert staircase_refusals(pooled(181)) == {}
    match = r"pool: a window's spikes \(33124\) exceeds the 16 signed bits of LIF's input \(32767\)\. Pool in several"
    with pytest.raises(RangeError, match=match):
        check_staircase(pooled(182), read_hardware())


def test_every_layer_that_does_not_fit_is_named():
    network = _branches()
    layers = [
        dataclasses.replace(layer, threshold=500 * layer.threshold) if layer.name in "ab" else layer
        for layer in network
    ]
    wide = IntegerNetwork(tuple(layers))
    assert list(staircase_refusals(wide)) == ["a", "b"]
    with pytest.raises(RangeError, match=r"^a: a comparator's bias .* b: a comparator's bias .*\. Export with fewer"):
        check_staircase(wide, read_hardware())
    assert staircase_refusals(network) == {}


@pytest.mark.parametrize("engine", ["staircase", "graph"])
def test_weights_that_lavas_dense_would_clip_are_refused_whatever_the_hardware_says(engine):
    wide = read_hardware().with_registers(weight_bits=16, name="wide")
    for weight in (127, -128):
        found = loihi.run(_single(-9, 9, weight=weight), [[7], [-7]], engine=engine, hardware=wide)
        assert (found.logits == forward(_single(-9, 9, weight=weight), [[7], [-7]]).logits).all()
    with pytest.raises(RangeError, match=r"unit: a weight \(128\) exceeds the 8 weight bits of wide \(127\)"):
        loihi.run(_single(-9, 9, weight=128), [[0]], engine=engine, hardware=wide)


def test_registers_wider_than_lavas_are_not_believed():
    wide = read_hardware().with_registers(state_bits=30, message_bits=32, name="wide")
    network = _single(0, 9)
    much = Readout("fc", (Dense("unit", np.ones((1, 1), np.int32)),), np.array([1 << 23]))
    with pytest.raises(RangeError, match=r"fc: worst-case potential .* exceeds the 24 signed bits of wide"):
        check_staircase(IntegerNetwork((*network.layers[:-1], much)), wide)
    with pytest.raises(RangeError, match=r"input: a spike's payload .* exceeds the 24 message bits of wide"):
        check_staircase(_single(0, 1 << 23), wide)


def test_a_recurrent_network_is_refused_by_name():
    match = "first before: the staircase has no memory, and cannot hold a recurrent network. Use the engine fused or gr"
    with pytest.raises(UnsupportedModelError, match=match):
        loihi.run(loop(), loop_words(2), engine="staircase")
    for offered in (staircase_cost, settling_steps, staircase_refusals):
        with pytest.raises(UnsupportedModelError, match=match):
            offered(loop())


def test_a_pool_that_lavas_own_convolution_cannot_count_is_refused_for_it_alone():
    rng, ones = np.random.default_rng(0), np.ones(32, np.int64)
    kernel = rng.integers(-9, 10, (32, 1, 1, 1)).astype(np.int32)
    network = IntegerNetwork(
        (
            Input("input", (1, 4, 2), 0, 9),
            Neurons("stem", (Conv("input", kernel),), ones, 9 * ones, 0 * ones, 4, np.ones(32)),
            MaxPool("pool", "stem", (2, 2), (2, 2)),
            Readout("fc", (Dense("pool", rng.integers(-9, 10, (3, 64)).astype(np.int32)),), np.zeros(3, np.int64)),
        )
    )
    images = rng.integers(0, 10, (3, 1, 4, 2))
    assert _differences(network, images) == []
    with pytest.raises(
        UnsupportedModelError, match=r"pool: a convolution's groups \(128\) exceeds what Lava's own Conv"
    ):
        loihi.run(network, images, engine="staircase", stock_synapses=True)


@pytest.mark.parametrize(
    "how", [{"precision": "float"}, {"strict": False}, {"until_silent": False}, {"batch_size": 2}, {"schedule": 1}]
)
def test_what_the_staircase_has_not_is_refused(how):
    how = {"schedule": small().schedule()} if "schedule" in how else how
    with pytest.raises(ValueError, match="the staircase computes integers one by one, with no schedule"):
        loihi.run(small(), small_images(), engine="staircase", **how)


def test_wrong_samples_and_records_are_refused():
    with pytest.raises(ValueError, match="the staircase records counts alone, not 'messages'"):
        loihi.run(small(), small_images(), engine="staircase", record=("counts", "messages"))
    with pytest.raises(DataError, match="do not fit the network's input"):
        loihi.run(small(), np.zeros((1, 2, 6, 5), int), engine="staircase")
    with pytest.raises(RangeError, match="outside the network's input range"):
        loihi.run(small(), np.full((1, 2, 5, 6), 9), engine="staircase")


# Sabotage: the comparison must turn red.


def test_a_bias_that_is_one_too_large_is_noticed(monkeypatch):
    monkeypatch.setattr(circuits, "LIF", lambda bias_mant, **how: LIF(bias_mant=bias_mant + 1, **how))
    assert "block" in _differences(small(), small_images(6))


def test_graded_neurons_with_their_default_threshold_lose_ones(monkeypatch):
    monkeypatch.setattr(circuits, "GradedVec", lambda shape, vth: GradedVec(shape=shape))
    assert "stem" in _differences(small(), small_images())


# The same comparison in time.


@pytest.mark.parametrize("seed", [1, 2])
def test_the_parallel_neuron_is_the_staircase_in_time_spike_by_spike(seed):
    network, images = _fitting(seed)
    said = parallel(network, images[:2]).spikes
    for i, image in enumerate(images[:2]):
        # Of the running circuit: what each comparator last said, when all values have settled.
        compared = _comparators_of(network, image)
        for name, spikes in said.items():
            steps = network.peaks[name]
            for x in range(1, steps + 1):
                assert (compared[name][..., steps - x] == spikes[i, x - 1]).all(), (name, x)
    assert any(spikes.any() for spikes in said.values())
    assert not all(spikes.all() for spikes in said.values())


def _comparators_of(network, image):
    """Return the spikes (C, H, W, L) or (N, L) of every comparator in Lava, when all values have settled."""
    hold = max(settling_steps(network).values())
    with session.tidy():
        made = build(network, network.input.injected(network.encode(image[None])), hold)
        for name, process in made.comparators.items():
            probe = made.probes[name] = SettledProbe(shape=process.s_out.shape, hold=hold, name=f"{name}.probe")
            probe.result.flag_external_pipe(buffer_size=2)
            process.s_out.connect(probe.s_in)
        settled = runner._Settled(made, 1, None)
        with session.Session(made.source, runner.run_config("fixed", False, "staircase")) as running:
            running.run(hold, settled.exchange)
            settled.finish(running)
    found = {}
    for name in made.comparators:
        shape, levels = network.shapes[name], network.peaks[name]
        by_level = settled.results[name][0].reshape(math.prod(shape), levels).T
        found[name] = np.moveaxis(torch_images(by_level, shape), 0, -1)
    return found
