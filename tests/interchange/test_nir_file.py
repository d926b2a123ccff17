"""NIR: the round trip through the package nir, bit for bit, what its own nodes say, and what they cannot hold."""

import dataclasses

import h5py
import numpy as np
import pytest
from random_networks import random_graph, random_network, random_recurrent

from lava_casc import WakeSleepSchedule
from lava_casc.errors import NetworkFileError, UnsupportedModelError
from lava_casc.interchange import read_nir, write_nir
from lava_casc.network import Conv, Dense, Input, IntegerNetwork, MaxPool, Neurons, Readout

nir = pytest.importorskip("nir")


def small(**changes):
    """Return a network of one convolution, 3x3, and a readout."""
    rng = np.random.default_rng(0)
    conv = Conv("in", rng.integers(-9, 9, (2, 1, 3, 3)).astype(np.int32), padding=(1, 1), exponent=2)
    neurons = Neurons(
        "a/b c", (conv,), np.array([3, -4]), np.array([5, 7]), np.array([2, 3]), 8, np.array([0.1, 1 / 3])
    )
    dense = Dense("a/b c", rng.integers(-9, 9, (3, 50)).astype(np.int32))
    layers = (
        Input("in", (1, 5, 5), -8, 7, 1 / 3, 0),
        dataclasses.replace(neurons, **changes),
        Readout("out", (dense,), np.array([1, 2, 3]), 0.7),
    )
    return IntegerNetwork(layers)


def holds(network):
    """Whether NIR can hold a network."""
    return not (network.is_recurrent or any(isinstance(layer, MaxPool) for layer in network)) and not any(
        layer.bias.ndim > 1 for layer in network.computed
    )


def test_random_networks_come_back_bit_for_bit(tmp_path):
    path, kept, refused = tmp_path / "a.nir", 0, 0
    for seed in range(80):
        network = (random_network, random_graph, random_recurrent)[seed % 3](np.random.default_rng(seed))
        if not holds(network):
            refused += 1
            with pytest.raises(
                UnsupportedModelError, match=r"NIR has no node for a|a bias for every place of an image"
            ):
                write_nir(path, network)
            continue
        write_nir(path, network)
        assert read_nir(path) == network
        kept += 1
    assert min(kept, refused) > 15


def test_the_nodes_say_what_nir_can_say(tmp_path):
    network = small()
    schedule = WakeSleepSchedule(5, 20, 2)
    write_nir(tmp_path / "a.nir", network, schedule)
    graph = nir.read(tmp_path / "a.nir")  # with nir's own check of types
    neurons, conv = graph.nodes["a_b_c"], graph.nodes["a_b_c.0"]
    assert [type(node).__name__ for node in graph.nodes.values()].count("IF") == 1
    assert (neurons.v_threshold == np.array([5, 7])[:, None, None]).all()
    assert neurons.v_threshold.dtype == np.int64
    assert (conv.weight == network["a/b c"].synapses[0].weight * 4).all()
    assert (conv.bias == [3, -4]).all()
    notes = neurons.metadata
    assert (notes["levels"], notes["signed_spikes"], notes["reset"], notes["neuron"]) == (8, 1, "subtract", "CIF")
    assert (notes["initial"] == [2, 3]).all()
    timing = network.timing(schedule)["a/b c"]
    assert {key: notes[key] for key in dataclasses.asdict(timing)} == dataclasses.asdict(timing)
    about = graph.metadata
    assert {key: about[key] for key in ("wake_steps", "sleep_steps", "max_burst", "released")} == {
        "wake_steps": 5,
        "sleep_steps": 20,
        "max_burst": 2,
        "released": 0,
    }
    edges = set(graph.edges)
    assert {("in", "a_b_c.0"), ("a_b_c.0", "a_b_c"), ("a_b_c", "out.0.flatten"), ("out.0", "out")} <= edges


@pytest.mark.parametrize("name", ["", ".", "a.b", "a/b", "a_b", "layer"])
def test_names_of_any_kind_come_back(name, tmp_path):
    other = Neurons("a b", (Dense("in", np.ones((2, 25), np.int32)),), *(np.ones(2, np.int64),) * 3, 4, np.ones(2))
    network = small()
    named = dataclasses.replace(network["a/b c"], name=name)
    readout = Readout(
        "out", (Dense(name, np.ones((3, 50), np.int32)), Dense("a b", np.ones((3, 2), np.int32))), [1, 2, 3]
    )
    network = IntegerNetwork((network.input, named, other, readout))
    write_nir(tmp_path / "a.nir", network)
    assert read_nir(tmp_path / "a.nir") == network


def test_what_nir_has_no_node_for_is_refused_by_name_and_nothing_is_written(tmp_path):
    path = tmp_path / "a.nir"
    network = small()
    pool = MaxPool("pool", "a/b c", (2, 2), (2, 2))
    pooled = IntegerNetwork(
        (*network.layers[:-1], pool, Readout("out", (Dense("pool", np.ones((3, 8), np.int32)),), [0] * 3))
    )
    with pytest.raises(UnsupportedModelError, match="pool: NIR has no node for a MaxPool. Write a netx file"):
        write_nir(path, pooled)
    with pytest.raises(UnsupportedModelError, match="a/b c: a bias for every place of an image"):
        write_nir(path, small(bias=np.arange(50).reshape(2, 5, 5)))
    assert not list(tmp_path.iterdir())
    with pytest.raises(NetworkFileError, match="cannot be written"):
        write_nir(tmp_path / "none" / "a.nir", network)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f["node/metadata"].pop("format"), "a NIR graph that lava_casc did not write"),
        (lambda f: f["node/metadata/version"].write_direct(np.array(99)), "version 99; this lava_casc reads 1"),
        (lambda f: f["node/nodes/a_b_c/metadata"].pop("levels"), "damaged, or no NIR graph of lava_casc"),
        (lambda f: f["node/nodes"].pop("a_b_c.0"), "damaged, or no NIR graph of lava_casc"),
        (lambda f: f["node"].pop("edges"), "damaged, or no NIR graph of lava_casc"),
        (
            lambda f: f["node/nodes/a_b_c/v_threshold"].write_direct(np.arange(1, 51).reshape(2, 5, 5)),
            "within a channel",
        ),
        (lambda f: f["node/nodes/a_b_c/v_threshold"].write_direct(np.zeros((2, 5, 5), np.int64)), "must be at least 1"),
        (lambda f: f["node/nodes/a_b_c/r"].write_direct(np.full((2, 5, 5), 2.0)), "a resistance"),
        (lambda f: f["node/nodes/a_b_c.0/weight"].write_direct(np.full((2, 1, 3, 3), 3)), "no multiples of 2"),
        (lambda f: f["node/nodes/a_b_c.0/weight"].write_direct(np.full((2, 1, 3, 3), 1 << 40)), "outside int32"),
        (
            lambda f: f["node/nodes/out.0/bias"].write_direct(np.zeros(3, np.int64)) or f["node/nodes"].pop("in"),
            "damaged",
        ),
    ],
)
def test_files_that_say_something_else_are_refused(change, message, tmp_path):
    path = tmp_path / "a.nir"
    write_nir(path, small())
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(NetworkFileError, match=message) as caught:
        read_nir(path)
    assert "\n" not in str(caught.value)


def test_damaged_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "a.nir"
    with pytest.raises(NetworkFileError, match="no such file"):
        read_nir(path)
    write_nir(path, small())
    whole = path.read_bytes()
    for content in (b"", b"no graph", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(NetworkFileError, match="damaged, or no NIR graph"):
            read_nir(path)
    nir.write(path, nir.NIRGraph.from_list(nir.Affine(np.ones((2, 2)), np.ones(2)), nir.IF(np.ones(2), np.ones(2))))
    with pytest.raises(NetworkFileError, match="a NIR graph that lava_casc did not write"):
        read_nir(path)
