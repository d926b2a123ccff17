"""The spine: both engines of Lava and the reference emit the same spikes, in the same steps."""

import dataclasses

import numpy as np
import pytest
from loihi_differences import ENGINES, KINDS, agree, differences
from loihi_networks import small, small_images
from random_networks import cut, random_images, random_network

from lava_casc import loihi
from lava_casc.errors import DataError, RangeError, UnsupportedModelError
from lava_casc.hardware import read_hardware
from lava_casc.loihi import build, runner
from lava_casc.loihi.network.models import PyFusedNetwork
from lava_casc.network import Conv, Dense, Input, IntegerNetwork, Neurons, Readout
from lava_casc.reference import forward, simulate
from lava_casc.schedule import WakeSleepSchedule


def _network(seed, **how):
    rng = np.random.default_rng(seed)
    network = random_network(rng, **how)
    return network, random_images(rng, network, 3)


def _graph(network, images, schedule, **how):
    """Return the record of the graph, and the reference's."""
    found = loihi.run(network, images, schedule, record=KINDS, engine="graph", **how)
    return found, simulate(network, images, schedule, record=KINDS)


def _agree_in_both_modes(seed):
    network, images = _network(seed)
    for mode in ("unary", "graded"):
        found = agree(network, images, network.schedule(mode))
        assert found.all_certified
        assert (found.logits == forward(network, images).logits).all()
        assert sum(int(messages.sum()) for messages in found.messages.values()) > 0


@pytest.mark.parametrize("seed", range(5))
def test_lava_agrees_with_the_reference_spike_by_spike(seed):
    _agree_in_both_modes(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 164))
def test_lava_agrees_with_the_reference_on_many_networks(seed):
    _agree_in_both_modes(seed)


@pytest.mark.parametrize("mode", ["unary", "graded"])
@pytest.mark.parametrize("precision", ["fixed", "float"])
def test_lavas_own_synapses_agree_too(mode, precision):
    network, images = small(), small_images()
    found, expected = _graph(network, images, network.schedule(mode), precision=precision, stock_synapses=True)
    found = dataclasses.replace(found, logits=found.logits.astype(np.int64))
    assert differences(found, expected) == []


@pytest.mark.parametrize("seed", [20, 21])
def test_the_floating_point_run_agrees_on_dyadic_networks(seed):
    network, images = _network(seed, dyadic=True)
    for mode in ("unary", "graded"):
        found, expected = _graph(network, images, network.schedule(mode), precision="float")
        assert found.engine == "lava floating_pt"
        assert found.logits.dtype == np.float64
        assert differences(dataclasses.replace(found, logits=found.logits.astype(np.int64)), expected) == []
        assert (found.logits == expected.logits).all()


@pytest.mark.parametrize("max_burst", [2, 3])
def test_bursts_without_release_agree(max_burst):
    network, images = small(), small_images()
    schedule = WakeSleepSchedule(2, 30, max_burst)
    found = agree(network, images, schedule)
    assert found.all_certified
    assert max(int(np.abs(s).max()) for name, s in found.spikes.items() if name != "input") == max_burst


@pytest.mark.parametrize("until_silent", [True, False])
@pytest.mark.parametrize("sleep_steps", [0, 2, 4])
def test_a_run_that_is_cut_off_says_so_and_leaves_the_next_sample_alone(sleep_steps, until_silent):
    network, images = small(), small_images(5)
    images[1] = 0
    schedule = cut(network.schedule(), sleep_steps)
    found = agree(network, images, schedule, until_silent=until_silent)
    assert not found.all_certified
    assert found.certified.any() == (sleep_steps == 4), "the last case is a mixed one"
    cut_off = found.last_spike == schedule.period
    assert cut_off[:-1].any(), "something must have travelled when a sample was cut off"
    exact = (found.logits == forward(network, images).logits).all(1)
    assert not exact.all()
    assert exact[found.certified].all()


def test_silence_before_the_release_certifies_nothing():
    network, images = small(), small_images()
    schedule = cut(network.schedule("graded"), 1)
    assert schedule.period < network.last_event(schedule)
    found = agree(network, images, schedule)
    assert not found.certified.any()
    assert not found.spikes["block"].any(), "the layer is silent, but only because it was not released"


def test_many_samples_stream_through_one_run():
    network = small()
    images = small_images(40)
    images[3:6] = 0
    schedule = network.schedule()
    expected = simulate(network, images, schedule)
    finished = []
    fast = loihi.run(network, images, schedule, progress=finished.append, engine="graph")
    fixed = loihi.run(network, images, schedule, until_silent=False, engine="graph")
    for found in (fast, fixed):
        assert differences(found, expected, ()) == []
        assert found.counts == found.messages == found.spikes == {}
    assert finished == list(range(1, 41))
    assert fixed.steps == 40 * schedule.period
    # Each sample ends with its first silent step from the last event on.
    assert fast.steps == sum(max(network.last_event(schedule), last + 1) for last in expected.last_spike)
    assert fast.steps < fixed.steps
    assert fast.seconds > 0


def test_a_readout_behind_the_input_alone():
    network = IntegerNetwork(
        (
            Input("input", (1, 2, 3), 0, 9),
            Readout("fc", (Dense("input", np.arange(12, dtype=np.int32).reshape(2, 6)),), np.array([5, -7])),
        )
    )
    images = np.arange(12).reshape(2, 1, 2, 3) % 10
    for engine in ENGINES:
        found = loihi.run(network, images, record=KINDS, engine=engine)
        assert differences(found, simulate(network, images, record=KINDS), ("messages", "spikes")) == []


def test_a_readout_that_is_a_convolution():
    kernel = np.random.default_rng(0).integers(-9, 9, (3, 3, 2, 2)).astype(np.int32)
    network = IntegerNetwork((*small().layers[:2], Readout("map", (Conv("stem", kernel),), np.array([1, -2, 3]))))
    agree(network, small_images())


@pytest.mark.parametrize("engine", ENGINES)
def test_no_images_give_an_empty_record(engine):
    network = small()
    found = loihi.run(network, small_images(0), record=("counts",), engine=engine)
    assert found.logits.shape == (0, 4)
    assert (found.logits.dtype, found.last_spike.dtype, found.steps) == (np.int64, np.int64, 0)
    assert found.counts["pool"].shape == (0, *network.shapes["pool"])
    assert not found.all_certified


def test_shifted_inputs_are_encoded():
    network = small()
    network = dataclasses.replace(
        network, layers=(dataclasses.replace(network.input, low=-28, high=33, shift=2), *network.layers[1:])
    )
    images = np.random.default_rng(5).integers(-28, 34, (3, 2, 5, 6))
    agree(network, images)


# What is asked for is what runs.


@pytest.mark.parametrize(("asked", "given"), [("fixed", "float"), ("float", "fixed")])
def test_a_model_of_the_wrong_precision_is_refused(monkeypatch, asked, given):
    right = runner.run_config
    monkeypatch.setattr(runner, "run_config", lambda precision, stock, engine: right(given, stock, engine))
    with pytest.raises(RuntimeError, match=f"Lava chose the model .*, not one for precision '{asked}'"):
        loihi.run(small(), small_images(), precision=asked, engine="graph")


@pytest.mark.parametrize(("asked", "given"), [(True, False), (False, True)])
def test_a_synapse_model_that_was_not_asked_for_is_refused(monkeypatch, asked, given):
    right = runner.run_config
    monkeypatch.setattr(runner, "run_config", lambda precision, stock, engine: right(precision, given, engine))
    with pytest.raises(RuntimeError, match=r"synapses\[\d\]: Lava chose the model"):
        loihi.run(small(), small_images(), stock_synapses=asked, engine="graph")


@pytest.mark.parametrize(("asked", "given"), [("fused", "graph"), ("graph", "fused")])
def test_an_engine_that_was_not_asked_for_is_refused(monkeypatch, asked, given):
    right = runner.run_config
    monkeypatch.setattr(runner, "run_config", lambda precision, stock, engine: right(precision, stock, given))
    with pytest.raises(RuntimeError, match=f"Lava did not choose the {asked} engine"):
        loihi.run(small(), small_images(), engine=asked)


def test_a_fused_model_that_computes_in_floating_point_is_refused(monkeypatch):
    monkeypatch.setattr(PyFusedNetwork, "tags", ["floating_pt"])
    with pytest.raises(RuntimeError, match="network: Lava chose the model PyFusedNetwork, not one for precision 'fix"):
        loihi.run(small(), small_images())


@pytest.mark.parametrize("how", [{"precision": "float"}, {"stock_synapses": True}, {"strict": False}])
def test_what_the_graph_alone_has_is_refused_elsewhere(how):
    with pytest.raises(ValueError, match="the fused engine computes integers that were proven to fit. Use engine='gr"):
        loihi.run(small(), small_images(), **how)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="engine is fused, graph or staircase, not 'reference'"):
        loihi.run(small(), small_images(), engine="reference")
    with pytest.raises(ValueError, match="batch_size must be at least 1, not 0"):
        loihi.run(small(), small_images(), batch_size=0)
    with pytest.raises(ValueError, match="precision is fixed or float, not 'double'"):
        loihi.run(small(), small_images(), precision="double")
    with pytest.raises(ValueError, match="not 'potentials'"):
        loihi.run(small(), small_images(), record=("potentials",))
    with pytest.raises(DataError, match="do not fit the network's input"):
        loihi.run(small(), np.zeros((1, 2, 6, 5), int))
    with pytest.raises(RangeError, match="outside the network's input range"):
        loihi.run(small(), np.full((1, 2, 5, 6), 9))


# Registers.


def test_a_network_that_is_not_proven_to_fit_is_refused():
    tight = read_hardware().with_registers(state_bits=7, name="tight")
    with pytest.raises(RangeError, match="exceeds the 7 signed bits of tight"):
        loihi.run(small(), small_images(), hardware=tight)


def test_an_overflow_in_a_process_is_raised_here_and_nothing_hangs(monkeypatch):
    monkeypatch.setattr(runner, "check_ranges", lambda network, hardware: None)
    tight = read_hardware().with_registers(state_bits=6, name="tight")
    with pytest.raises(RangeError, match=r"(stem|block|readout): .* exceeds its 6 signed bits \((31|-32)\)"):
        loihi.run(small(), small_images(), hardware=tight, engine="graph")
    lenient = loihi.run(small(), small_images(), hardware=tight, strict=False, engine="graph")
    assert len(lenient) == 3
    assert (lenient.logits != simulate(small(), small_images()).logits).any()


def test_wider_registers_than_those_of_lavas_convolution_are_not_believed():
    wide = read_hardware().with_registers(state_bits=30, weight_bits=16, name="wide")
    network = small(weight=30000, levels=40)
    with pytest.raises(RangeError, match="exceeds the 24 signed bits of wide"):
        loihi.run(network, small_images(), hardware=wide)


# Sabotage: the comparison must turn red.


def _replaced(network, name, **changes):
    layers = [dataclasses.replace(layer, **changes) if layer.name == name else layer for layer in network]
    return dataclasses.replace(network, layers=tuple(layers))


def _sabotaged_kernel(network):
    synapse = network["stem"].synapses[0]
    return _replaced(network, "stem", synapses=(dataclasses.replace(synapse, weight=synapse.weight[:, :, ::-1]),))


def _sabotaged_threshold(network):
    return _replaced(network, "block", threshold=network["block"].threshold + 1)


def _sabotaged_residual(network):
    return _replaced(network, "block", synapses=network["block"].synapses[:1])


def _sabotaged_bias(network):
    return _replaced(network, "readout", bias=network["readout"].bias + [0, 1, 0, 0])


@pytest.mark.parametrize("sabotage", [_sabotaged_kernel, _sabotaged_threshold, _sabotaged_residual, _sabotaged_bias])
def test_a_changed_network_is_noticed(sabotage):
    network, images = small(), small_images()
    expected = simulate(network, images, record=KINDS)
    for engine in ENGINES:
        found = loihi.run(sabotage(network), images, record=KINDS, engine=engine)
        assert differences(found, expected) != []
        assert (found.logits != expected.logits).any()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_missing_sleep_is_noticed(engine):
    network, images = small(), small_images()
    found = loihi.run(network, images, cut(network.schedule(), 0), engine=engine)
    assert not found.certified.any()
    assert (found.logits != simulate(network, images).logits).any()


@pytest.mark.parametrize("stock_synapses", [True, False])
def test_signs_that_lava_drops_are_noticed(monkeypatch, stock_synapses):
    monkeypatch.setattr(build, "message_bits", lambda network, name, schedule: 0)
    network, images = small(), small_images()
    found, expected = _graph(network, images, network.schedule(), stock_synapses=stock_synapses)
    assert "logits" in differences(found, expected)


def test_floating_point_certifies_only_where_it_is_exact():
    network = random_network(np.random.default_rng(5), dyadic=True)
    images = random_images(np.random.default_rng(6), network, 3)
    in_float = {"precision": "float", "engine": "graph"}
    assert loihi.run(network, images, network.schedule("graded"), **in_float).certified.all()
    layers = [
        dataclasses.replace(layer, threshold=3 * layer.threshold) if isinstance(layer, Neurons) else layer
        for layer in network
    ]
    other = IntegerNetwork(tuple(layers))
    assert not loihi.run(other, images, other.schedule("graded"), **in_float).certified.any()
    assert loihi.run(other, images, other.schedule("graded")).certified.all()


def _depthwise(channels, stride=1):
    rng = np.random.default_rng(0)
    first = Conv("input", rng.integers(-127, 128, (channels, 2, 1, 1)).astype(np.int32))
    second = Conv("a", rng.integers(1, 128, (channels, 1, 1, 1)).astype(np.int32), (stride, 1), groups=channels)
    zeros, ones = np.zeros(channels, np.int64), np.ones(channels, np.int64)
    layers = [Input("input", (2, 3, 2), 0, 9)]
    for name, synapse in (("a", first), ("b", second)):
        layers.append(Neurons(name, (synapse,), zeros, 60 * ones, zeros, 4, ones.astype(float)))
    size = channels * 2 * (3 if stride == 1 else 1)
    read = Dense("b", rng.integers(-127, 128, (3, size)).astype(np.int32))
    return IntegerNetwork((*layers, Readout("read", (read,), np.zeros(3, np.int64)))), rng.integers(0, 10, (2, 2, 3, 2))


@pytest.mark.parametrize("channels", [127, 128, 256])
def test_as_many_groups_as_one_likes(channels):
    network, images = _depthwise(channels)
    found = agree(network, images, network.schedule("graded"))
    assert found.counts["b"].any()
    if channels > 127:
        with pytest.raises(UnsupportedModelError, match=rf"b: a convolution's groups \({channels}\) exceeds"):
            loihi.run(network, images, stock_synapses=True, engine="graph")


def test_geometry_that_lavas_own_convolution_cannot_hold_is_refused_for_it_alone():
    network, images = _depthwise(4, stride=128)
    agree(network, images, network.schedule("graded"))
    with pytest.raises(UnsupportedModelError, match=r"b: a convolution's stride \(128\) exceeds"):
        loihi.run(network, images, stock_synapses=True, engine="graph")
