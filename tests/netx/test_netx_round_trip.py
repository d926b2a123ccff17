"""What is written is what is read: 500 random networks, and everything that a network can hold."""

from __future__ import annotations

import dataclasses

import h5py
import netx_networks as made
import numpy as np
import pytest
from random_networks import random_graph, random_network, random_recurrent

from lava_casc import netx
from lava_casc.hardware import read_hardware
from lava_casc.network import Dense, Input, IntegerNetwork, Readout, Tokens
from lava_casc.schedule import WakeSleepSchedule


@pytest.mark.parametrize("block", [*range(4), *(pytest.param(b, marks=pytest.mark.slow) for b in range(4, 10))])
def test_five_hundred_random_networks_are_read_as_they_were_written(tmp_path, block):
    forms = set()
    for seed in range(50 * block, 50 * block + 50):
        network = random_network(np.random.default_rng(seed), sequential=seed % 3 == 0)
        netx.write(tmp_path / "a.net", network)
        found = netx.read(tmp_path / "a.net")
        assert found == network
        assert [layer.name for layer in found] == [layer.name for layer in network]
        with h5py.File(tmp_path / "a.net") as file:
            forms.add(("layer" in file, "graph" in file))
    assert forms == {(True, False), (False, True)}


@pytest.mark.parametrize("make", [random_graph, random_recurrent])
@pytest.mark.parametrize("block", [0, *(pytest.param(b, marks=pytest.mark.slow) for b in range(1, 6))])
def test_random_graphs_and_sequences_are_read_as_they_were_written(tmp_path, make, block):
    versions = set()
    for seed in range(60 * block, 60 * block + 60):
        network = make(np.random.default_rng(seed))
        netx.write(tmp_path / "a.net", network)
        found = netx.read_file(tmp_path / "a.net")
        assert found.network == network
        assert found.network.readouts == network.readouts
        assert found.network.memories == network.memories
        versions.add(found.version)
    assert versions == ({2} if make is random_recurrent else {1, 2})


@pytest.mark.parametrize("make", made.KINDS)
@pytest.mark.parametrize("mode", ["unary", "burst", "graded"])
def test_file_keeps_schedule_version_and_hardware(tmp_path, make, mode):
    network = make()
    target = (
        read_hardware().with_registers(
            name="tiny", state_bits=20, weight_bits=8, weight_exponent_max=7, message_bits=24
        )
        if mode == "graded"
        else None
    )
    netx.write(tmp_path / "a.net", network, network.schedule(mode), hardware=target)
    found = netx.read_file(tmp_path / "a.net")
    assert found.network == network
    assert found.schedule == network.schedule(mode)
    assert (found.version, found.hardware) == (made.KINDS[make], "tiny" if target else "loihi2_oheo_gulch")


def test_tokens_make_a_graph_even_where_nothing_is_remembered(tmp_path):
    readout = Readout("y", (Dense("words", np.array([[5, -7, 1]], np.int32)),), np.zeros(1, np.int64))
    network = IntegerNetwork((Tokens("words", 3), readout))
    assert network.is_sequential
    netx.write(tmp_path / "a.net", network)
    with h5py.File(tmp_path / "a.net") as file:
        assert "layer" not in file
        assert file["casc"].attrs["version"] == 2
        assert "input" not in file["casc"]
    assert netx.read(tmp_path / "a.net") == network


def test_the_order_of_readouts_is_kept(tmp_path):
    network = made.several()
    netx.write(tmp_path / "a.net", network)
    assert [layer.name for layer in netx.read(tmp_path / "a.net").readouts] == ["boxes", "logits", "objects"]
    turned = IntegerNetwork((*network.layers[:3], *network.layers[:2:-1]))
    netx.write(tmp_path / "b.net", turned)
    assert netx.read(tmp_path / "b.net") == turned != network


def test_default_schedule_is_the_networks_own(tmp_path):
    netx.write(tmp_path / "a.net", made.sequential())
    assert netx.read_file(tmp_path / "a.net").schedule == made.sequential().schedule()


def test_any_schedule_is_kept(tmp_path):
    schedule = WakeSleepSchedule(5, 77, 3, True)
    netx.write(tmp_path / "a.net", made.sequential(), schedule)
    assert netx.read_file(tmp_path / "a.net").schedule == schedule


@pytest.mark.parametrize("value", [-128, 127])
def test_weights_of_eight_bits_lie_as_int8_under_layer(tmp_path, value):
    netx.write(tmp_path / "a.net", one_weight(value))
    with h5py.File(tmp_path / "a.net") as file:
        assert file["layer/1/weight"].dtype == "<i1"
    assert netx.read(tmp_path / "a.net") == one_weight(value)


@pytest.mark.parametrize("value", [-129, 128])
def test_wider_weights_lie_as_int32_where_stock_netx_does_not_find_them(tmp_path, value):
    wide = read_hardware().with_registers(
        name="wide", state_bits=32, weight_bits=16, weight_exponent_max=7, message_bits=24
    )
    netx.write(tmp_path / "a.net", one_weight(value), hardware=wide)
    with h5py.File(tmp_path / "a.net") as file:
        assert "layer" not in file
        assert file["graph/layer/1/synapse/0/weight"].dtype == "<i4"
    assert netx.read(tmp_path / "a.net") == one_weight(value)


def test_an_exponent_alone_makes_a_graph(tmp_path):
    network = one_weight(3, exponent=1)
    assert network.is_sequential
    netx.write(tmp_path / "a.net", network)
    with h5py.File(tmp_path / "a.net") as file:
        assert "layer" not in file
    assert netx.read(tmp_path / "a.net") == network


@pytest.mark.parametrize("name", ["features.0", "Größe λ 層", "a/b@c", " ", "", "x" * 3000])
def test_names_are_kept_whatever_they_are(tmp_path, name):
    layers = list(made.sequential().layers)
    layers[1] = dataclasses.replace(layers[1], name=name)
    synapse = dataclasses.replace(layers[2].synapses[0], source=name)
    layers[2] = dataclasses.replace(layers[2], synapses=(synapse,))
    network = IntegerNetwork(layers)
    netx.write(tmp_path / "a.net", network)
    assert netx.read(tmp_path / "a.net") == network


def test_real_scales_are_kept_to_the_last_bit(tmp_path):
    network = made.sequential()
    scale = np.array([np.pi, 1e-300, np.nextafter(1, 2), 5e-324])
    layers = [
        dataclasses.replace(network.input, scale=1 / 3),
        dataclasses.replace(network.layers[1], scale=scale),
        *network.layers[2:],
    ]
    network = IntegerNetwork(layers)
    netx.write(tmp_path / "a.net", network)
    assert netx.read(tmp_path / "a.net") == network


def test_equality_sees_every_array():
    """The tests above rest on it: a network that differs in one value, wherever, is another one."""
    network = made.sequential()
    for i, layer in enumerate(network.layers[1:4], 1):
        for name in ("bias", "threshold", "initial", "scale"):
            values = getattr(layer, name).copy()
            values.flat[-1] += 1
            layers = [*network.layers]
            layers[i] = dataclasses.replace(layer, **{name: values})
            assert IntegerNetwork(layers) != network


def one_weight(value, exponent=0):
    """Return the smallest network."""
    synapse = Dense("x", np.array([[value]], np.int32), exponent)
    return IntegerNetwork((Input("x", (1,), 0, 1), Readout("y", (synapse,), np.zeros(1, np.int64))))
