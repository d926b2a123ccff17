"""NIR: the round trip through the package nir, bit for bit, what its own nodes say, and what they cannot hold."""

import dataclasses
import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from random_networks import random_graph, random_network, random_recurrent
from torch import nn

from lava_casc import CQReLU, InputSpec, Normalize, WakeSleepSchedule, save_model
from lava_casc.cli import main
from lava_casc.errors import CheckpointError, NetworkFileError, UnsupportedModelError
from lava_casc.interchange import import_model, read_nir, read_nir_file, write_nir
from lava_casc.network import Conv, Dense, Input, IntegerNetwork, MaxPool, Neurons, Readout

nir = pytest.importorskip("nir")

CHECKPOINT = Path(__file__).parents[1] / "data" / "digits.pt"


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
    assert about["hardware"] == "loihi2_oheo_gulch"
    file = read_nir_file(tmp_path / "a.nir")
    assert (file.network, file.schedule, file.hardware) == (network, schedule, "loihi2_oheo_gulch")
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


def test_a_file_is_written_in_whole_or_not_at_all(tmp_path, monkeypatch):
    def fails(path, graph):
        Path(path).write_bytes(b"half of it")
        raise OSError("no space left")

    write_nir(tmp_path / "a.nir", small())
    before = (tmp_path / "a.nir").read_bytes()
    monkeypatch.setattr(nir, "write", fails)
    with pytest.raises(NetworkFileError, match=r"a.nir: cannot be written \(no space left\)"):
        write_nir(tmp_path / "a.nir", small(levels=3))
    assert [path.name for path in tmp_path.iterdir()] == ["a.nir"]
    assert (tmp_path / "a.nir").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f["node/metadata"].pop("format"), "a NIR graph that lava_casc did not write"),
        (lambda f: f["node/metadata/version"].write_direct(np.array(99)), "version 99; this lava_casc reads 1"),
        (lambda f: f["node/nodes/a_b_c/metadata"].pop("levels"), "damaged, or no NIR graph of lava_casc"),
        (lambda f: f["node/nodes"].pop("a_b_c.0"), "damaged, or no NIR graph of lava_casc"),
        (lambda f: f["node/metadata"].pop("wake_steps"), "damaged, or no NIR graph of lava_casc"),
        (lambda f: f["node/metadata/wake_steps"].write_direct(np.array(0)), r"wake_steps \(0\) is below 1"),
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


# The command line --------------------------------------------------------------------------------------------------


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["lava-casc", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    return ended.value.code or 0, printed.out, printed.err


@pytest.fixture
def checkpoint(tmp_path):
    """A network without pools, at the path of a checkpoint."""
    torch.manual_seed(0)
    parts = (nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), CQReLU(4), nn.Conv2d(3, 4, 3, 2, groups=1), CQReLU(6, 0.5))
    model = nn.Sequential(Normalize(0.5, 0.5), *parts, nn.Flatten(), nn.Linear(16, 3)).eval()
    save_model(tmp_path / "a.pt", model, InputSpec((1, 8, 7), 0, 16, 1 / 16))
    return tmp_path / "a.pt"


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--mode", "graded"),
        ("--mode", "burst", "--max-burst", "3", "--wake-steps", "2", "--sleep-steps", "50"),
        ("--preset", "latency"),
        ("--weight-bits", "5", "--hw", "loihi2_kapoho_point"),
    ],
)
def test_what_is_exported_comes_back_as_the_same_network_file(options, checkpoint, tmp_path, monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, "export", checkpoint, "-o", tmp_path / "a.NIR", *options)
    assert code == 0
    words = " ".join(out.split())
    assert "other readers of NIR run plain IF neurons: no levels, no negative spikes, no sleep, no certificate" in words
    (tmp_path / "a.NIR").rename(tmp_path / "a.nir")
    graph = nir.read(tmp_path / "a.nir", type_check=False)
    assert sorted(type(node).__name__ for node in graph.nodes.values()) == sorted(
        ["Input", "Conv2d", "IF", "Conv2d", "IF", "Flatten", "Affine", "Output"]
    )
    code, out, _ = run(monkeypatch, capsys, "import", tmp_path / "a.nir", "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["file"], found["layers"]) == (str(tmp_path / "a.net"), 4)
    assert found["input"] == {"shape": [1, 8, 7], "low": 0, "high": 16, "scale": 1 / 16}
    run(monkeypatch, capsys, "export", checkpoint, "-o", tmp_path / "direct.net", *options)
    assert (tmp_path / "a.net").read_bytes() == (tmp_path / "direct.net").read_bytes()
    code, out, _ = run(monkeypatch, capsys, "import", tmp_path / "a.nir", "-o", tmp_path / "b.net")
    assert f"next: lava-casc run {tmp_path / 'b.net'}" in " ".join(out.split()).replace("/ ", "/")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "a.net: exists already. Give -o"),
        (("-o", "a.nir"), "what is read would be replaced. Give another -o"),
        (("-o", "b.net", "--input-range", "0,255"), "--input-range 0,255: a NIR graph says all of its input. Leave"),
        (("-o", "b.net", "--input-scale", "1/255"), "--input-scale 1/255: a NIR graph says all of its input. Leave"),
        (("-o", "b.net", "--input-shape", "1,8,7"), "--input-shape 1,8,7: a NIR graph says all of its input. Leave"),
        (("-o", "b.net", "--data", "digits"), "--data digits: a NIR graph says all of its input. Leave --data out"),
        (("-o", "b.net", "--hw", "nothing"), "nothing: no such hardware configuration"),
    ],
)
def test_wrong_usage_is_one_line_and_writes_nothing(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_nir("a.nir", small())
    Path("a.net").write_text("a network of somebody's")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    code, _, err = run(monkeypatch, capsys, "import", "a.nir", *arguments)
    (line,) = [line for line in err.splitlines() if line.startswith("error")]
    assert code == 2
    assert message in line
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_network_that_nir_cannot_hold_is_not_exported(tmp_path, monkeypatch, capsys):
    (tmp_path / "a.nir").write_text("what stood there")
    code, _, err = run(monkeypatch, capsys, "export", CHECKPOINT, "-o", tmp_path / "a.nir", "--verify", "0")
    (line,) = [line for line in err.splitlines() if line.startswith("error")]
    assert (code, "NIR has no" in line or "NIR has one" in line) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["a.nir"]
    assert (tmp_path / "a.nir").read_text() == "what stood there"


def test_without_nir_nothing_begins(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "nir", None)
    code, _, err = run(monkeypatch, capsys, "export", checkpoint, "-o", tmp_path / "a.nir")
    assert (code, "nir is not installed. Install it with" in err, "fold" in err) == (2, True, False)


def test_python_is_told_where_a_nir_graph_is_read(tmp_path):
    write_nir(tmp_path / "a.nir", small())
    with pytest.raises(CheckpointError, match=r"A NIR graph is read with lava_casc.interchange.read_nir"):
        import_model(tmp_path / "a.nir")
