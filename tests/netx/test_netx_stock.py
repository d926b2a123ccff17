"""The stock netx loader: it opens our sequential files exactly, and none of the others, with or without our help."""

from __future__ import annotations

import dataclasses
import importlib.util
import re

import h5py
import netx_networks as made
import numpy as np
import pytest
from random_networks import random_images, random_network

from lava_casc import netx
from lava_casc.errors import NetworkFileError, RangeError, UnsupportedModelError
from lava_casc.network import Conv, Dense, Input, IntegerNetwork, MaxPool, Neurons, Readout
from lava_casc.reference import forward

if importlib.util.find_spec("lava") is None:
    pytest.skip("needs Lava, hence Python 3.10", allow_module_level=True)
pytestmark = pytest.mark.lava

PATCHED = ("get_neuron_params", "create_dense", "_create")


@pytest.fixture(scope="module")
def loader():
    """Return lava-dl's module, taught the neuron; importing it takes ten seconds."""
    from lava_casc.loihi.netx import register_netx

    register_netx()
    from lava.lib.dl.netx import hdf5

    return hdf5


@pytest.fixture
def stock(loader, monkeypatch):
    """Return lava-dl's module as it was before."""
    for name in PATCHED:
        before = getattr(loader.Network, name).__wrapped__
        monkeypatch.setattr(loader.Network, name, before if name == "_create" else staticmethod(before))
    return loader


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "a.net")


def run(loader, path, network, images, schedule, **options):
    """Return the logits of every sample, back to back, through the stock Network class."""
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc.io.source import RingBuffer

    from lava_casc.loihi.netx import input_steps

    net = loader.Network(net_config=path, **options)
    source = RingBuffer(data=input_steps(network, images, schedule))
    source.s_out.connect(net.inp)
    neuron = net.out_layer.neuron
    found = []
    try:
        for _ in images:
            net.run(condition=RunSteps(schedule.period), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
            found.append(neuron.u.get().astype(np.int64).transpose().reshape(-1))
    finally:
        net.stop()
    return np.array(found)


@pytest.mark.parametrize("mode", ["unary", "graded"])
def test_logits_through_stock_netx_equal_the_reference(loader, path, mode):
    network = made.sequential()
    images = made.images(network, 5)
    schedule = network.schedule(mode)
    netx.write(path, network, schedule)
    logits = forward(network, images).logits
    assert len(np.unique(logits, axis=0)) > 2
    assert (run(loader, path, network, images, schedule) == logits).all()


@pytest.mark.parametrize(("mode", "max_burst"), [("unary", None), ("graded", None), ("graded", 2)])
def test_each_neuron_has_the_timing_of_its_layer(loader, path, mode, max_burst):
    """A release that is off changes no logit, only who speaks when."""
    network = made.sequential()
    schedule = network.schedule(mode, max_burst=max_burst)
    netx.write(path, network, schedule)
    net = loader.Network(net_config=path)
    assert len(net.layers) == 4
    for block, layer in zip(net.layers, network.layers[1:], strict=True):
        timing, found = network.timing(schedule)[layer.name], block.neuron.proc_params
        assert (found["bias_start"], found["release"]) == (timing.bias_start, timing.release)
        assert (found["wake_steps"], found["period"]) == (schedule.wake_steps, schedule.period)
        assert (found["levels"], found["max_burst"]) == (getattr(layer, "levels", 0), schedule.max_burst)
        assert found["path"] == layer.name  # what an error calls it
        assert 0 < block.input_message_bits < 32


@pytest.mark.parametrize("seed", range(8))
def test_random_networks_through_stock_netx(loader, path, seed):
    rng = np.random.default_rng(seed)
    network = unpooled(rng)
    images = random_images(rng, network, 3)
    schedule = network.schedule(("unary", "graded")[seed % 2])
    netx.write(path, network, schedule)
    assert (run(loader, path, network, images, schedule) == forward(network, images).logits).all()


def unpooled(rng):
    while True:
        network = random_network(rng, sequential=True)
        if not any(isinstance(layer, MaxPool) for layer in network):
            return network


def test_the_golden_file_through_stock_netx(loader):
    from test_netx_golden import GOLDEN

    file = GOLDEN / "v1" / "sequential.net"
    golden, found = np.load(file.with_suffix(".npz")), netx.read_file(file)
    logits = run(loader, str(file), found.network, golden["images"][:2], found.schedule)
    assert (logits == golden["logits"][:2]).all()


def test_a_readout_by_convolution_and_a_shifted_input(loader, path):
    rng = np.random.default_rng(3)
    conv = made.neurons("conv", Conv("x", made.weights(rng, 2, 3, 2, 1), (1, 2)), 2, rng)
    readout = Readout("y", (Conv("conv", made.weights(rng, 3, 2, 1, 2)),), rng.integers(-99, 99, (3, 3, 2)))
    network = IntegerNetwork((Input("x", (3, 4, 5), -128, 255, shift=3), conv, readout))
    images = made.images(network, 3)
    netx.write(path, network)
    assert (run(loader, path, network, images, network.schedule()) == forward(network, images).logits).all()


EXTREMES = {
    "zero": [[0, 0], [0, 0]],
    "positive": [[127, 0], [1, 126]],
    "negative": [[-128, -127], [-1, 0]],
    "a power of two": [[-4, -4], [-4, -4]],
    "small and negative": [[-1, -2], [-2, -1]],
    "both": [[-128, 127], [-127, 126]],
    "odd": [[1, -1], [3, -3]],
}


@pytest.mark.parametrize("name", EXTREMES)
@pytest.mark.parametrize("sparse", [False, True])
def test_dense_weights_whatever_their_signs(loader, path, name, sparse):
    network = dense(EXTREMES[name])
    images = np.array([[9, -7], [-3, 8], [1, 2]]).reshape(3, 1, 2, 1)
    netx.write(path, network)
    block = loader.Network(net_config=path, sparse_fc_layer=sparse).out_layer
    assert type(block.synapse).__name__ == ("Sparse" if sparse else "Dense")
    logits = run(loader, path, network, images, network.schedule(), sparse_fc_layer=sparse)
    assert (logits == forward(network, images).logits).all()


def dense(weight):
    """Return a readout on a (C, H, W) input, in whose logits every weight is seen to the last bit."""
    readout = Readout("y", (Dense("x", np.array(weight, np.int32)),), np.array([5, -7]))
    return IntegerNetwork((Input("x", (1, 2, 1), -7, 9), readout))


def test_stock_weights_would_be_wrong(loader):
    """What `create_dense` works around is still there; otherwise it could go."""
    with pytest.raises(OverflowError), np.errstate(divide="ignore"):
        loader.optimize_weight_bits(np.zeros((2, 2), int))
    from lava.utils.weightutils import SignMode, clip_weights

    weight, *_ = loader.optimize_weight_bits(np.full((2, 2), -4))
    assert (weight == -256).all()
    assert (clip_weights(weight, SignMode.INHIBITORY, num_bits=8) == -255).all()  # as the synapse's model does


def test_every_dataset_is_readable_through_netdict(loader, path):
    network = made.sequential()
    netx.write(path, network)
    found = loader.NetDict(path)["layer"]
    wide, narrow, flat, logits = network.layers[1:]
    kinds = ["input", "conv", "conv", "flatten", "dense", "dense"]
    assert len(found) == len(kinds)
    assert [found[i]["type"] for i in range(len(kinds))] == kinds
    shapes = [network.input.shape, (4, 5, 8), (3, 4, 4), (48, 1, 1), (5,), (4,)]
    assert [tuple(found[i]["shape"]) for i in range(len(kinds))] == shapes
    assert "neuron" not in found[0].f
    for i, layer in ((1, wide), (2, narrow), (4, flat), (5, logits)):
        synapse, neuron = layer.synapses[0], found[i]["neuron"]
        assert (found[i]["weight"] == synapse.weight).all()
        bias = found[i]["bias"]
        assert (bias.transpose() == layer.bias).all()
        assert bias.shape == (8, 5, 4) if i == 1 else bias.ndim == 1
        assert neuron["type"] == "CIF"
        assert [neuron[key][()] for key in ("iDecay", "vDecay", "refDelay")] == [4096, 0, 1]
        assert int(neuron["levels"].f[()]) == getattr(layer, "levels", 0)
        assert (neuron["vThMant"] == getattr(layer, "threshold", 1)).all()
        assert (neuron["initial"].f[()] == getattr(layer, "initial", 0)).all()
        assert (neuron["scale"].f[()] == layer.scale).all()
        if isinstance(synapse, Conv):
            pairs = {key: tuple(found[i][key]) for key in ("stride", "padding", "dilation")}
            assert pairs == {key: getattr(synapse, key) for key in pairs}
            assert found[i]["groups"] == synapse.groups
            extra = [found[i][key].f[()].tolist() for key in ("inChannels", "outChannels", "kernelSize")]
            assert extra == [network.shapes[synapse.source][0], len(layer.bias), list(synapse.weight.shape[2:])]
        else:
            assert [found[i][key].f[()] for key in ("inFeatures", "outFeatures")] == [*synapse.weight.shape[::-1]]
        assert found[i].f.attrs["name"] == layer.name


GRAPHS = (made.residual, made.concatenated, made.several, made.recurrent, made.film)


@pytest.mark.parametrize("make", made.KINDS)
def test_without_our_help_every_file_fails_loudly(stock, path, make):
    netx.write(path, make())
    error, match = (KeyError, "layer") if make in GRAPHS else (AttributeError, "'NoneType' object has no attribute")
    with pytest.raises(error, match=match):
        stock.Network(net_config=path)


@pytest.mark.parametrize("make", GRAPHS)
def test_a_graph_fails_even_where_its_neurons_are_known(stock, path, monkeypatch, make):
    netx.write(path, make())
    monkeypatch.setattr(stock.Network, "get_neuron_params", staticmethod(lambda *_, **__: {}))
    with pytest.raises(KeyError, match="layer"):
        stock.Network(net_config=path)


def test_stock_netx_has_no_pooling(stock, path, monkeypatch):
    """Even where the neurons before it are known."""
    network = made.pooled()
    netx.write(path, network)
    from lava_casc.loihi.netx import _neuron_params

    known = staticmethod(lambda config, **options: _neuron_params(config, **options))
    monkeypatch.setattr(stock.Network, "get_neuron_params", known)
    with pytest.raises(NotImplementedError, match="pool is not implemented"):
        stock.Network(net_config=path)


def test_with_our_help_the_others_are_refused_in_one_line(loader, path):
    netx.write(path, made.pooled())
    with pytest.raises(UnsupportedModelError, match="has max pooling, .* Use lava_casc.loihi.run"):
        loader.Network(net_config=path)
    for make in GRAPHS:
        netx.write(path, make())
        with pytest.raises(UnsupportedModelError, match="has branches, several readouts, .* Use lava_casc") as caught:
            loader.Network(net_config=path)
        assert "\n" not in str(caught.value)


def test_more_groups_than_lava_can_count_are_refused(loader, path):
    weight = np.ones((128, 1, 1, 1), np.int32)
    read = Readout("read", (Dense("conv", np.ones((2, 256), np.int32)),), np.zeros(2, np.int64))
    one = np.ones(128, np.int64)
    conv = Neurons("conv", (Conv("input", weight, groups=128),), 0 * one, one, 0 * one, 2, one.astype(float))
    netx.write(path, IntegerNetwork((Input("input", (128, 1, 2), 0, 1), conv, read)))
    with pytest.raises(UnsupportedModelError, match=r"layer 1: its groups \(128\) exceeds"):
        loader.Network(net_config=path)


def test_an_altered_file_is_refused(loader, path):
    netx.write(path, made.sequential())
    with h5py.File(path, "r+") as file:
        file["layer/1/weight"][0, 0, 0, 0] += 1
    with pytest.raises(NetworkFileError, match="damaged or altered: it does not match its SHA-256"):
        loader.Network(net_config=path)


def test_a_newer_version_is_refused(loader, path):
    netx.write(path, made.sequential())
    with h5py.File(path, "r+") as file:
        file["casc"].attrs["version"] = 3
    seal(path)
    with pytest.raises(NetworkFileError, match="has format version 3, known is 2. Update lava_casc"):
        loader.Network(net_config=path)


def test_cif_neurons_of_another_origin_are_refused(loader, path):
    netx.write(path, made.sequential())
    with h5py.File(path, "r+") as file:
        del file["casc"]
    with pytest.raises(NetworkFileError, match=re.escape("has CIF neurons, but no /casc/schedule")):
        loader.Network(net_config=path)


def seal(path):
    from pathlib import Path

    Path(path).write_bytes(netx.storage.seal(Path(path).read_bytes()))


def test_the_two_sides_agree_on_the_format():
    from lava_casc.loihi import netx as ours

    assert ours.VERSION == netx.VERSION
    assert (ours.SEAL, ours.SEAL_SIZE) == (netx.storage.SEAL, netx.storage.SEAL_SIZE)


def test_a_foreign_reset_is_refused_and_the_same_one_is_not(loader, path):
    network = made.sequential()
    schedule = network.schedule()
    netx.write(path, network, schedule)
    with pytest.raises(RangeError, match="reset_interval .3. is not the period .* Leave reset_interval out"):
        loader.Network(net_config=path, reset_interval=3)
    loader.Network(net_config=path, reset_interval=schedule.period)


def test_registering_twice_changes_nothing(loader):
    from lava_casc.loihi.netx import register_netx

    before = [getattr(loader.Network, name) for name in PATCHED]
    register_netx()
    assert [getattr(loader.Network, name) for name in PATCHED] == before


@pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")  # of netx itself
def test_a_stock_file_loads_and_runs_as_before(loader, path, monkeypatch):
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        neuron = {"type": "CUBA", "iDecay": 4096, "vDecay": 128, "vThMant": 40, "refDelay": 1}
        layers = [
            {"type": "input", "shape": [2, 6, 5], "weight": [20.0], "bias": [50.0], **under(neuron)},
            {
                **{"type": "conv", "shape": [3, 5, 3], "weight": rng.integers(-99, 99, (3, 2, 2, 3)) * 1.0},
                **{"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 1, **under(neuron)},
            },
            {"type": "flatten", "shape": [45, 1, 1]},
            {"type": "dense", "shape": [4], "weight": rng.integers(-99, 99, (4, 45)), "bias": [1, 2, 3, 4]},
            {"type": "dense", "shape": [2], "weight": -np.ones((2, 4)), **under(neuron)},
        ]
        for i, layer in enumerate(layers):
            for key, value in layer.items():
                kind = key == "type"
                file.create_dataset(f"layer/{i}/{key}", data=np.array([value], "S10") if kind else value)

    def observe():
        from lava.magma.core.run_conditions import RunSteps
        from lava.magma.core.run_configs import Loihi2SimCfg

        net = loader.Network(net_config=path, reset_interval=8)
        synapses = [dict(layer.synapse.proc_params._parameters) for layer in net.layers[1:]]
        neurons = [dict(layer.neuron.proc_params._parameters) for layer in net.layers]
        potentials = []
        try:
            for _ in range(6):
                net.run(condition=RunSteps(3), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
                potentials += [layer.neuron.v.get().copy() for layer in net.layers]
        finally:
            net.stop()
        bits = [(layer.input_message_bits, layer.output_message_bits) for layer in net.layers]
        return str(net), net.input_message_bits, bits, synapses, neurons, potentials

    after = observe()
    for name in PATCHED:
        before = getattr(loader.Network, name).__wrapped__
        monkeypatch.setattr(loader.Network, name, before if name == "_create" else staticmethod(before))
    before = observe()
    assert any(np.any(potential) for potential in after[-1][-3:])
    np.testing.assert_equal(comparable(after), comparable(before))


def under(neuron):
    return {f"neuron/{key}": value for key, value in neuron.items()}


def comparable(found):
    """Return the same without what differs from object to object."""
    *rest, synapses, neurons, potentials = found
    names = {
        "weight",
        "weights",
        "bias_mant",
        "vth",
        "du",
        "dv",
        "shape",
        "weight_exp",
        "num_message_bits",
        "reset_offset",
    }
    kept = [{k: v for k, v in p.items() if k in names} for p in (*synapses, *neurons)]
    assert all(len(part) > 2 for part in kept)
    return *rest, kept, potentials


def test_input_steps_add_up_to_the_images():
    from lava_casc.loihi.netx import input_steps

    network = made.sequential()
    schedule = dataclasses.replace(network.schedule(), wake_steps=5)
    images = made.images(network, 3)
    steps = input_steps(network, images, schedule)
    assert steps.dtype == np.int32
    assert steps.shape == (6, 9, 2, 3 * schedule.period)
    played = steps.reshape(6, 9, 2, 3, schedule.period)
    assert (played.sum(-1).transpose(3, 2, 1, 0) == images).all()
    assert not played[..., 5:].any()
    assert (np.abs(played) <= 4).all()


def test_input_steps_are_flat_where_the_first_layer_is_dense():
    from lava_casc.loihi.netx import input_steps

    rng = np.random.default_rng(0)
    readout = Readout("y", (Dense("x", made.weights(rng, 2, 24)),), np.zeros(2, np.int64))
    network = IntegerNetwork((Input("x", (2, 3, 4), 0, 9), readout))
    images = made.images(network, 2)
    schedule = network.schedule()
    steps = input_steps(network, images).reshape(24, 2, schedule.period)
    assert (steps.sum(-1).transpose() == images.reshape(2, 24)).all()


def test_input_steps_refuse_foreign_images():
    from lava_casc.loihi.netx import input_steps

    with pytest.raises(RangeError, match="outside the network's input range"):
        input_steps(made.sequential(), np.full((1, 2, 9, 6), 99))
