"""Whatever else lies at the path gives one clear line, and never a network that nobody wrote."""

from __future__ import annotations

import contextlib

import h5py
import netx_networks as made
import numpy as np
import pytest

from lava_casc import netx
from lava_casc.errors import NetworkFileError
from lava_casc.netx import storage


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return the bytes of a file of every kind."""
    folder = tmp_path_factory.mktemp("written")
    found = {}
    for make in made.KINDS:
        netx.write(folder / "a.net", make())
        found[make] = (folder / "a.net").read_bytes()
    return found


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.net"


def refuse(path, match):
    """See that `path` is refused in one line that names it."""
    with pytest.raises(NetworkFileError, match=match) as caught:
        netx.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_missing(path):
    refuse(path, "no such network file. Write one with lava-casc export")


def test_folder(tmp_path):
    refuse(tmp_path, "is a folder. Give the path of a network file")


def test_path_through_a_file(path):
    path.write_bytes(b"")
    refuse(path / "b.net", "cannot be read|no such")


def test_empty(path):
    path.write_bytes(b"")
    refuse(path, "the network file is empty")


def test_no_hdf5(path):
    path.write_text("a picture of a network")
    refuse(path, "is no network that lava_casc wrote")


def test_foreign_hdf5(path):
    with h5py.File(path, "w") as file:
        file["results"] = np.zeros(3)
    refuse(path, r"is an HDF5 file, but no network that lava_casc wrote.*; a NIR graph is read by lava-casc import\.")


def test_stock_netx_file(path):
    with h5py.File(path, "w") as file:
        layer = file.create_group("layer/0")
        layer.create_dataset("type", (1,), "S10", [b"input"])
        layer["neuron/type"] = "LOIHI"
    refuse(path, "is an HDF5 file, but no network that lava_casc wrote")


def test_seal_without_a_file(path):
    path.write_bytes(storage.seal(bytes(2000)))
    refuse(path, "cannot be read .HDF5 does not understand it")


def test_newer_version_whatever_else_it_holds(path, written):
    path.write_bytes(written[made.sequential])
    with altered(path) as file:
        file["casc"].attrs["version"] = netx.VERSION + 1
        file["novel"] = h5py.SoftLink("/layer")
        file["novelty"] = "text of a kind that no version has"
    refuse(path, f"has format version {netx.VERSION + 1}, .* reads up to {netx.VERSION}. Update lava_casc")


@pytest.mark.parametrize("make", [made.sequential, made.recurrent])
def test_cut_at_any_offset(path, written, make):
    data = written[make]
    for offset in sorted({*range(0, len(data), 31), *range(600), *range(len(data) - 600, len(data))}):
        path.write_bytes(data[:offset])
        refuse(path, "empty|is no network|damaged, cut short or altered")


@pytest.mark.parametrize("make", [made.sequential, made.recurrent])
def test_damage_anywhere(path, written, make):
    """Any byte that is not what it was, or follows, is noticed before HDF5, which may crash on it, is asked."""
    data = written[make]
    for offset in [*range(600), *np.random.default_rng(0).integers(0, len(data), 1000)]:
        path.write_bytes(data[:offset] + bytes([data[offset] ^ 1 << offset % 8]) + data[offset + 1 :])
        refuse(path, "no network|damaged, cut short or altered")
    for offset in range(0, len(data) - 1, 97):
        if any(data[offset:]):
            path.write_bytes(data[:offset] + bytes(len(data) - offset))
            refuse(path, "no network|damaged, cut short or altered")
    path.write_bytes(data + b"\0")
    refuse(path, "damaged, cut short or altered")


@contextlib.contextmanager
def altered(path):
    """Open a network file for a change that the seal will not tell."""
    with h5py.File(path, "r+") as file:
        yield file
    path.write_bytes(storage.seal(path.read_bytes()))


def replace(name, value):
    def alter(file):
        del file[name]
        if value is not None:
            file[name] = value

    return alter


def attribute(where, name, value):
    def alter(file):
        del file[where].attrs[name]
        if value is not None:
            file[where].attrs[name] = value

    return alter


def move(old, new):
    return lambda file: file.move(old, new)


def as_stock(file):
    file.move("graph/layer", "layer")
    del file["graph"]


def swap(file, one, other):
    file.move(one, "kept")
    file.move(other, one)
    file.move("kept", other)


def huge(file):
    del file["layer/1/weight"]
    file.create_dataset("layer/1/weight", (2**20, 2**20, 2**10, 2), "i1", chunks=(64, 64, 1, 1))


def huge_contiguous(file):
    del file["layer/1/weight"]
    file.create_dataset("layer/1/weight", (2**20, 2**20, 2**10, 2), "i1")


def compressed(file):
    value = file["layer/1/weight"][()]
    del file["layer/1/weight"]
    file.create_dataset("layer/1/weight", data=value, compression="gzip")


def external(file):
    del file["layer/1/weight"]
    file.create_dataset("layer/1/weight", (4, 1, 3, 2), "i1", external=[("/dev/zero", 0, 24)])


def cycle(file):
    file["layer/1/layer"] = file["layer"]


def twice(file):
    file["layer/1/copy"] = file["layer/1/weight"]


i8 = np.int64
SEQUENTIAL = [
    # missing
    (replace("layer/1/weight", None), "/layer/1/weight is missing"),
    (replace("layer/1/neuron/levels", None), "/layer/1/neuron/levels is missing"),
    (replace("layer/2/type", None), "/layer/2/type is missing"),
    (replace("casc/schedule", None), "/casc/schedule/wake_steps is missing"),
    (replace("casc/input/low", None), "/casc/input/low is missing"),
    (replace("layer", None), "/layer/. must be numbered .* there are: none"),
    (attribute("layer/1", "name", None), "/layer/1@name is missing"),
    (attribute("casc", "hardware", None), "/casc@hardware is missing"),
    (attribute("casc", "version", None), "/casc@version is missing"),
    # of a wrong type
    (replace("layer/1/weight", np.zeros((4, 1, 3, 2))), "/layer/1/weight has type float64, not int8 or int32"),
    (replace("layer/1/weight", np.zeros((4, 1, 3, 2), ">i4")), "/layer/1/weight has type >i4"),
    (replace("layer/1/weight", np.zeros((4, 1, 3, 2), i8)), "/layer/1/weight has type int64"),
    (replace("layer/1/bias", np.zeros(4)), "/layer/1/bias has type float64, not int32"),
    (replace("layer/1/neuron/vThMant", np.ones(4, np.float32)), "vThMant has type float32, not int32"),
    (replace("layer/1/neuron/scale", np.ones(4, np.float32)), "scale has type float32, not float64"),
    (replace("layer/1/neuron/levels", "four"), "/layer/1/neuron/levels has type object, which no network file"),
    (replace("layer/1/neuron/levels", np.bytes_(b"4")), "/layer/1/neuron/levels has type .S1, not int64"),
    (replace("layer/1/neuron/levels", h5py.Empty("i8")), "/layer/1/neuron/levels has type int64, which no"),
    (replace("layer/1/type", 3), "/layer/1/type is no type string"),
    (replace("casc/schedule/wake_steps", 3.0), "/casc/schedule/wake_steps has type float64"),
    (attribute("layer/1", "name", 3), "/layer/1@name is not text"),
    (attribute("layer/1", "name", 3.5), "/layer/1@name is neither text nor an integer"),
    (attribute("casc", "version", "1"), "/casc@version is not an integer"),
    (attribute("casc", "version", 0), "has format version 0, and the first one is 1"),
    (attribute("casc", "format", "other"), "/casc@format is not 'lava_casc network'"),
    (replace("layer/1/neuron", np.zeros(3)), "/layer/1/neuron/type is missing"),
    # out of range
    (replace("layer/1/neuron/levels", i8(-1)), "/layer/1/neuron/levels is -1, outside"),
    (replace("layer/1/neuron/vThMant", np.zeros(4, np.int32)), "a threshold .0. must be at least 1"),
    (replace("layer/1/neuron/scale", np.array([1, np.inf, 1, 1])), "scale holds a number that is not finite"),
    (replace("layer/1/neuron/scale", np.zeros(4)), "do not fit together: wide: .*scale .* must be positive"),
    (replace("layer/1/stride", np.array([0, 1])), "/layer/1/stride is .0, 1., outside"),
    (replace("layer/1/groups", i8(0)), "/layer/1/groups is 0, outside"),
    (replace("layer/1/padding", np.array([2**40, 1])), "/layer/1/padding is .*, outside"),
    (replace("layer/0/shape", np.array([2**20, 2**20, 2**20])), "/layer/0/shape is .*, more than"),
    (replace("casc/input/low", i8(1)), "/casc/input/low is 1, outside"),
    (replace("casc/input/shift", i8(99)), "/casc/input/shift is 99, outside"),
    (replace("casc/input/scale", -1.0), "scale -1.0 must be positive"),
    (replace("casc/schedule/wake_steps", i8(0)), "/casc/schedule/wake_steps is 0, outside"),
    (replace("casc/schedule/released", i8(2)), "/casc/schedule/released is 2, outside"),
    # contradictory
    (replace("layer/1/shape", np.array([4, 5, 9])), "bias has shape|claims shape"),
    (replace("layer/2/shape", np.array([3, 5, 4])), "/layer/3/shape is .48, 1, 1., but narrow has .3, 5, 4."),
    (replace("layer/2/shape", np.array([3, 2, 8])), "layer narrow claims shape .3, 2, 8., but its source gives"),
    (replace("layer/1/weight", np.zeros((4, 2, 3, 2), np.int8)), "inChannels must be 4 here"),
    (replace("layer/1/weight", np.zeros((4, 1, 2, 3), np.int8)), "kernelSize is .3, 2., but the weights have .2, 3."),
    (replace("layer/1/weight", np.zeros((4, 6), np.int8)), "/layer/1/weight has shape .4, 6., not"),
    (replace("layer/1/groups", i8(1)), "inChannels must be 1 here"),
    (replace("layer/0/shape", np.array([3, 9, 6])), "layers do not fit together: a convolution of image"),
    (replace("layer/0/shape", np.array([108])), "layers do not fit together: a convolution of image"),
    (replace("layer/0/shape", np.array([2, 9])), "/layer/0/shape has shape .2,., not"),
    (
        replace("layer/1/bias", np.zeros((4, 5, 8), np.int32)),
        "/layer/1/bias has shape .4, 5, 8., not .4,. or .8, 5, 4.",
    ),
    (replace("layer/1/neuron/vThMant", np.ones(3, np.int32)), "vThMant has shape .3,., not .4,."),
    (replace("layer/3/shape", np.array([48, 1, 2])), "/layer/3/shape is .48, 1, 2., but narrow has .3, 4, 4."),
    (replace("layer/4/inFeatures", i8(47)), "inFeatures must be 48 here"),
    (replace("layer/5/neuron/vThMant", np.array([1, 2, 1, 1], np.int32)), "/layer/5/neuron/vThMant must be 1 here"),
    (replace("layer/5/neuron/levels", i8(2)), "/layer/5/neuron/scale has shape .., not .4,.|ends with its Readout"),
    (replace("layer/2/neuron/levels", i8(0)), "must be 1 here"),
    (attribute("layer/2", "name", "wide"), "two layers are named 'wide'"),
    # in a wrong order
    (
        move("layer/2", "layer/9"),
        "/layer/. must be numbered 0, 1, 2, ... without a gap, but there are: 0, 1, 3, 4, 5, 9",
    ),
    (move("layer/5", "layer/05"), "/layer/. must be numbered"),
    (replace("layer/5", None), "ends with its Readout"),
    (replace("layer/0/type", np.array([b"flatten"])), "/layer/0/type is wrong: a network starts with its input"),
    (replace("layer/2/type", np.array([b"input"])), "/layer/2/type is wrong: a network starts with its input"),
    (
        replace("layer/3/type", np.array([b"dense"])),
        "/layer/3/type is dense after shape .3, 4, 4., which needs a flatten",
    ),
    (replace("layer/4/type", np.array([b"conv"])), "/layer/4/type is conv, but after a flatten comes a dense layer"),
    # unknown
    (replace("layer/1/type", np.array([b"dense_rec"])), "/layer/1/type is 'dense_rec', not input or conv or"),
    (replace("layer/1/type", np.array([b"\xff"])), "/layer/1/type is .*, not input or conv or"),
    (replace("layer/1/neuron/type", np.bytes_(b"CUBA")), "/layer/1/neuron/type is 'CUBA', not CIF"),
    (replace("layer/1/neuron/iDecay", i8(1)), "/layer/1/neuron/iDecay must be 4096 here"),
    (lambda f: f.create_dataset("layer/1/delay", data=[1]), "/layer/1/delay is unknown in this place"),
    (lambda f: f.create_dataset("layer/1/neuron/messageBits", data=8), "neuron/messageBits is unknown"),
    (lambda f: f.create_dataset("layer/0/neuron/vThMant", data=8), "/layer/0/neuron/vThMant is unknown"),
    (lambda f: f.create_dataset("simulation/Ts", data=8), "/simulation/Ts is unknown"),
    (lambda f: f.create_dataset("casc/gain", data=8), "/casc/gain is unknown"),
    (lambda f: f["layer/1"].attrs.create("note", 3), "/layer/1@note is unknown"),
    (lambda f: f["layer/1/weight"].attrs.create("note", 3), "/layer/1/weight@note is unknown"),
    (lambda f: f.attrs.create("note", 3), "/@note is unknown"),
    (lambda f: f.create_group("layer/1/more"), "/layer/1/more is an empty group"),
    (lambda f: f.copy("layer", "graph"), "/graph/layer/. must be numbered|unknown"),
    (lambda f: f.__setitem__("casc/kind", np.dtype("i4")), "/casc/kind is neither a group nor a dataset"),
    # what HDF5 can do and no network file does
    (huge, "/layer/1/weight claims shape .*, but holds other data, or compressed"),
    (huge_contiguous, "/layer/1/weight claims shape .*, but holds other data, or compressed"),
    (compressed, "/layer/1/weight claims shape .*, but holds other data, or compressed"),
    (external, "/layer/1/weight claims shape .*, but holds other data, or compressed"),
    (cycle, "stands in the file twice or too deep"),
    (twice, "stands in the file twice or too deep"),
    (lambda f: f.__setitem__("layer/1/x", h5py.SoftLink("/layer")), "/layer/1/x is a link to elsewhere"),
    (lambda f: f.__setitem__("x", h5py.ExternalLink("b.net", "/")), "/x is a link to elsewhere"),
]

POOLED = [
    (replace("layer/2/mode", None), "/layer/2/mode is missing"),
    (replace("layer/2/mode", np.array([b"sum"])), "/layer/2/mode is 'sum', not max"),
    (replace("layer/2/kernelSize", np.array([2, 0])), "/layer/2/kernelSize is .2, 0., outside"),
    (replace("layer/2/shape", np.array([2, 4, 2])), "layer pool claims shape"),
]

RESIDUAL = [
    (replace("graph/layer/2/synapse/1/source", i8(2)), "/graph/layer/2/synapse/1/source is 2, outside .0, 1."),
    (replace("graph/layer/2/synapse/1/source", i8(-1)), "/graph/layer/2/synapse/1/source is -1, outside"),
    (replace("graph/layer/2/synapse/1/exponent", i8(-1)), "/graph/layer/2/synapse/1/exponent is -1, outside"),
    (replace("graph/layer/2/synapse/1/exponent", None), "/graph/layer/2/synapse/1/exponent is missing"),
    (replace("graph/layer/2/synapse/1/type", np.array([b"pool"])), "synapse/1/type is 'pool', not conv or dense"),
    (replace("graph/layer/2/synapse/0", None), "/graph/layer/2/synapse/. must be numbered"),
    (replace("graph/layer/2/synapse", None), "/graph/layer/2/synapse/. must be numbered"),
    (replace("graph/layer/3/source", i8(3)), "/graph/layer/3/source is 3, outside"),
    (
        replace("graph/layer/2/type", np.array([b"conv"])),
        "/graph/layer/2/type is 'conv', not input or tokens or memory or cif or pool",
    ),
    (replace("graph/layer/0/type", np.array([b"cif"])), "/graph/layer/0/"),
    (replace("graph/layer/1/type", np.array([b"input"])), "missing|two layers|one Input"),
    (lambda f: f.copy("graph/layer", "layer"), "/layer/0.* is unknown in this place"),
    (attribute("casc", "version", 2), "/casc@version is 2, but its network is one of version 1"),
]

SEVERAL = [
    (attribute("casc", "version", 1), "/casc@version is 1, but its network is one of version 2"),
    (replace("graph/layer/5/synapse/0/source", i8(3)), "objects: its source boxes does not come before it"),
    (replace("graph/layer/5/synapse/0/source", i8(5)), "/graph/layer/5/synapse/0/source is 5, outside .0, 4."),
    (replace("graph/layer/3/shape", np.array([4, 3, 2])), "/graph/layer/3/bias has shape .3, 2, 4., not .4,. or .2, 3"),
    (replace("graph/layer/5/shape", np.array([1, 3, 2])), "layer objects claims shape .1, 3, 2., but its source gives"),
    (replace("graph/layer/4/neuron/levels", i8(3)), "/graph/layer/4/neuron/scale has shape .., not .5,."),
    (replace("graph/layer/4/neuron/vThMant", np.full(5, 2, np.int32)), "layer/4/neuron/vThMant must be 1 here"),
    (replace("graph/layer/4/neuron/scale", np.float64(0)), "logits: scale 0.0 must be positive"),
    (attribute("graph/layer/4", "name", "boxes"), "two layers are named 'boxes'"),
    (move("graph/layer/5", "graph/layer/6"), "/graph/layer/. must be numbered"),
    (as_stock, "/layer/1/type is 'cif', not input or conv"),
]

RECURRENT = [
    (attribute("casc", "version", 1), "/casc@version is 1, but its network is one of version 2"),
    (attribute("casc", "version", 3), "has format version 3, .* reads up to 2. Update lava_casc"),
    (replace("graph/layer/1/source", None), "/graph/layer/1/source is missing"),
    (replace("graph/layer/1/source", i8(0)), "/graph/layer/1/source is 0, outside .2, 5."),
    (replace("graph/layer/1/source", i8(1)), "/graph/layer/1/source is 1, outside .2, 5."),
    (replace("graph/layer/1/source", i8(6)), "/graph/layer/1/source is 6, outside .2, 5."),
    (replace("graph/layer/1/source", i8(2)), "late: there are no neurons early to remember"),
    (replace("graph/layer/1/source", i8(5)), "late: there are no neurons logits to remember"),
    (replace("graph/layer/1/source", i8(3)), "late: remembers 7 levels of shape .3,., but first has 4 of shape .4,."),
    (replace("graph/layer/1/source", np.int32(4)), "/graph/layer/1/source has type int32, not int64"),
    (replace("graph/layer/1/source", np.array([4])), "/graph/layer/1/source has shape .1,., not .."),
    (replace("graph/layer/1/levels", None), "/graph/layer/1/levels is missing"),
    (replace("graph/layer/1/levels", i8(0)), "/graph/layer/1/levels is 0, outside"),
    (replace("graph/layer/1/levels", i8(5)), "late: remembers 5 levels of shape .3,., but second has 7"),
    (replace("graph/layer/1/levels", 7.0), "/graph/layer/1/levels has type float64, not int64"),
    (replace("graph/layer/1/shape", None), "/graph/layer/1/shape is missing"),
    (replace("graph/layer/1/shape", np.array([2])), "dense weights .4, 3. do not fit late of shape .2,."),
    (replace("graph/layer/1/shape", np.array([3, 1, 1])), "late: remembers 7 levels of shape .3, 1, 1., but second"),
    (attribute("graph/layer/1", "name", None), "/graph/layer/1@name is missing"),
    (attribute("graph/layer/1", "name", "early"), "two layers are named 'early'"),
    (attribute("graph/layer/1", "name", "second"), "two layers are named 'second'"),
    (replace("graph/layer/1/type", np.array([b"tokens"])), "a network has one Input|unknown in this place"),
    (replace("graph/layer/3/type", np.array([b"memory"])), "/graph/layer/3/levels is missing"),
    (lambda f: f.create_dataset("graph/layer/1/bias", data=[1]), "/graph/layer/1/bias is unknown in this place"),
    (lambda f: f.create_dataset("graph/layer/1/neuron/levels", data=7), "/graph/layer/1/neuron/levels is unknown"),
    (replace("graph/layer/0/shape", np.array([8])), "dense weights .4, 9. do not fit words of shape .8,."),
    (replace("graph/layer/0/shape", np.array([0])), "/graph/layer/0/shape is .0,., outside"),
    (replace("graph/layer/0/shape", np.array([9, 1, 1])), "/graph/layer/0/shape has shape .3,., not .1,."),
    (replace("graph/layer/0/shape", i8(9)), "/graph/layer/0/shape has shape .., not .1,."),
    (replace("graph/layer/0/type", np.array([b"input"])), "/casc/input/low is missing"),
    (replace("graph/layer/0/type", np.array([b"memory"])), "/graph/layer/0/levels is missing"),
    (lambda f: f.create_dataset("casc/input/low", data=0), "/casc/input/low is unknown in this place"),
    (lambda f: f.create_dataset("graph/layer/0/source", data=0), "/graph/layer/0/source is unknown in this place"),
    (as_stock, "/layer/0/type is 'tokens', not input or conv"),
    (lambda f: swap(f, "graph/layer/2", "graph/layer/3"), "/graph/layer/2/synapse/2/source is 2, outside .0, 1."),
]

FILM = [
    (attribute("casc", "version", 1), "/casc@version is 1, but its network is one of version 2"),
    (replace("casc/input", None), "/casc/input/low is missing"),
    (replace("graph/layer/0/type", np.array([b"tokens"])), "/graph/layer/0/shape has shape .3,., not .1,."),
    (replace("graph/layer/1/shape", np.array([24])), "a convolution of before needs .C, H, W."),
    (replace("graph/layer/1/shape", np.array([2, 4, 3])), "do not fit together: now: its synapses have different"),
]


@pytest.mark.parametrize(
    ("make", "alter", "match"),
    [
        *((made.sequential, *case) for case in SEQUENTIAL),
        *((made.pooled, *case) for case in POOLED),
        *((made.residual, *case) for case in RESIDUAL),
        *((made.several, *case) for case in SEVERAL),
        *((made.recurrent, *case) for case in RECURRENT),
        *((made.film, *case) for case in FILM),
    ],
)
def test_altered(path, written, make, alter, match):
    path.write_bytes(written[make])
    with altered(path) as file:
        alter(file)
    refuse(path, match)
    path.rename(path.with_suffix(".closed"))  # and nothing holds it open


def test_no_more_is_read_than_the_file_can_hold(path, written):
    """A layout may claim to lie in the file and reach far beyond its end; HDF5 would allocate it."""
    path.write_bytes(written[made.sequential])
    with h5py.File(path) as file:
        weight = file["layer/1/weight"]
        assert storage._dataset("w", weight, weight.nbytes).shape == weight.shape
        with pytest.raises(NetworkFileError, match="/w claims shape .4, 1, 3, 2., but holds other data"):
            storage._dataset("w", weight, weight.nbytes - 1)


def test_an_altered_weight_is_noticed(path, written):
    path.write_bytes(written[made.sequential])
    with h5py.File(path, "r+") as file:
        file["layer/1/weight"][0, 0, 0, 0] += 1
    refuse(path, "was damaged, cut short or altered: it does not match its SHA-256")


def test_who_wrote_it_does_not_matter(path, written):
    path.write_bytes(written[made.sequential])
    with altered(path) as file:
        file["casc"].attrs["lava_casc"] = "9.9"
    assert netx.read(path) == made.sequential()


def test_reading_does_not_change_the_file(path, written):
    path.write_bytes(written[made.sequential])
    path.chmod(0o444)
    netx.read(path)
    assert path.read_bytes() == written[made.sequential]
