"""The neurocore model on a fake of Intel's extension: the calls that it makes, and what it does where something lacks.

The fake has what public code of custom neurons uses and nothing else. It shows that the calls are the ones meant, not
that the extension takes them: nothing of this was ever run on a chip.
"""

import importlib
import importlib.machinery
import os
import re
import subprocess
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from lava.magma.core.model.model import AbstractProcessModel
from lava.magma.core.process.variable import Var
from lava.magma.core.resources import Loihi2NeuroCore
from lava.magma.core.run_configs import Loihi2HwCfg, Loihi2SimCfg
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from random_networks import random_images, random_network

from lava_casc.errors import HardwareConfigError, MissingDependencyError, RangeError
from lava_casc.loihi import neurocore
from lava_casc.loihi.build import build
from lava_casc.loihi.cif import CIF
from lava_casc.loihi.cif.models import PyCIFFixed
from lava_casc.loihi.neurocore.allocation import allocate
from lava_casc.loihi.neurocore.interpreter import cif_program

ROOT = Path(__file__).resolve().parents[2]
MODEL = "lava_casc.loihi.neurocore.models"
EXTENSION = "lava.magma.core.model.nc"
LIMIT = (1 << 23) - 1


# The fake.


@dataclass(frozen=True)
class LavaNcType:
    """What a variable or port of a neurocore model is declared with."""

    cls: type
    d_type: type
    precision: int

    def __post_init__(self):
        if self.cls not in (NcInPort, NcOutPort, NcVar):
            raise TypeError(f"{self.cls} is neither a port nor a variable")


@dataclass(frozen=True)
class NcVar:
    """A variable on the chip; `var` is the process' own."""

    var: Var


@dataclass(frozen=True, eq=False)
class Nodes:
    """What an allocation returns."""

    kind: str
    shape: int
    calls: list = field(repr=False)

    def connect(self, other):
        ends = {("neurons", "neurons_cfg"), ("neurons", "ax_out"), ("ax_out", "port")}
        end = "port" if isinstance(other, NcOutPort) else other.kind
        if (self.kind, end) not in ends:
            raise TypeError(f"{self.kind} cannot be connected to {end}")
        self.calls.append((self.kind, "->", other.name if end == "port" else end))


@dataclass(frozen=True)
class NcInPort:
    """An in-port of a model."""

    name: str

    def connect(self, nodes):
        if nodes.kind != "neurons":
            raise TypeError(f"an in-port cannot be connected to {nodes.kind}")
        nodes.calls.append((self.name, "->", nodes.kind))


@dataclass(frozen=True)
class NcOutPort:
    """An out-port of a model."""

    name: str


class Group:
    """One of the groups of a net; `__slots__`, so that nothing can be added to it."""

    __slots__ = ("calls",)

    def __init__(self, calls):
        self.calls = calls

    def _made(self, kind, shape, given):
        self.calls.append((kind, shape, given))
        return Nodes(kind, shape, self.calls)


class Programs(Group):
    """`net.neurons_cfg`."""

    __slots__ = ()

    def allocate_ucode(self, *, shape, ucode, **constants):
        if shape != (1,) or not isinstance(ucode, str) or any(type(value) is not int for value in constants.values()):
            raise TypeError("a program has the shape (1,), a path and whole numbers")
        return self._made("neurons_cfg", shape, {"ucode": ucode, **constants})


class Neurons(Group):
    """`net.neurons`."""

    __slots__ = ()

    def allocate_ucode(self, *, shape, **words):
        for name, word in words.items():
            values = np.broadcast_to(word.var.init, word.var.shape) if isinstance(word, NcVar) else word
            if not isinstance(values, np.ndarray) or values.size != shape or values.dtype.kind != "i":
                raise TypeError(f"{name} is not one word for each of {shape} neurons")
        return self._made("neurons", shape, words)


class Axons(Group):
    """`net.ax_out`."""

    __slots__ = ()

    def allocate(self, *, shape, num_message_bits):
        return self._made("ax_out", shape, {"num_message_bits": num_message_bits})


class NetL2:
    """What a model allocates on."""

    __slots__ = ("ax_out", "calls", "neurons", "neurons_cfg")

    def __init__(self):
        self.calls = []
        self.neurons_cfg, self.neurons, self.ax_out = Programs(self.calls), Neurons(self.calls), Axons(self.calls)


class AbstractNcProcessModel(AbstractProcessModel):
    """The base of neurocore models."""


CONTENT = {
    "model": [AbstractNcProcessModel],
    "net": [NetL2],
    "ports": [NcInPort, NcOutPort],
    "type": [LavaNcType],
    "var": [NcVar],
}


def installed(monkeypatch, content):
    """Put a fake of the extension where imports look first."""
    names = {EXTENSION: [], **{f"{EXTENSION}.{part}": classes for part, classes in content.items()}}
    for name, classes in names.items():
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=name == EXTENSION)
        module.__path__ = []
        vars(module).update({cls.__name__: cls for cls in classes})
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def extension(monkeypatch):
    """Install the fake, and forget afterwards what was made with it."""
    monkeypatch.delitem(sys.modules, MODEL, raising=False)
    installed(monkeypatch, CONTENT)
    yield
    sys.modules.pop(MODEL, None)


@pytest.fixture
def ucode(tmp_path, monkeypatch):
    """Return a microcode file that the environment names; its content is nobody's business here."""
    path = tmp_path / "the neuron's.bin"
    path.write_bytes(b"\0")
    monkeypatch.setenv("LAVA_CASC_UCODE", str(path))
    return path


def made(model, process):
    """Return a model whose ports and variables are what the model itself declares."""
    found = model(process.proc_params)
    for member in (*process.vars, *process.in_ports, *process.out_ports):
        declared = getattr(model, member.name)
        setattr(found, member.name, declared.cls(member if declared.cls is NcVar else member.name))
    return found


def calls(process, model=None):
    """Return what the model of a process calls, arrays as lists and variables by name."""
    net = NetL2()
    model = model or neurocore.neurocore_models()[CIF]
    assert made(model, process).allocate(net) is None
    return [tuple({k: _plain(v) for k, v in x.items()} if isinstance(x, dict) else x for x in c) for c in net.calls]


def _plain(value):
    if isinstance(value, NcVar):
        return value.var.name
    return value.tolist() if isinstance(value, np.ndarray) else value


NEURONS = {"threshold": 5, "levels": 4, "wake_steps": 3, "period": 11}


# The calls.


@pytest.mark.usefixtures("extension")
def test_the_allocation_makes_these_calls_in_this_order(ucode):
    per_neuron = np.arange(12).reshape(3, 2, 2)
    process = CIF(
        shape=(3, 2, 2), bias=3 * per_neuron - 7, initial=[1, -2], bias_start=4, max_burst=2, release=6, name="layer",
        **NEURONS | {"threshold": [5, 9]},
    )  # fmt: skip
    bias = [b // 3 if b > 0 else -(-b // 3) for b in range(-7, 29, 3)]
    u0 = [first + b - 3 * share for first, b, share in zip([1, -2] * 6, range(-7, 29, 3), bias, strict=True)]
    constants = {"levels": 4, "period": 11, "wake": 4, "sleep": 7, "free": 6, "most": 2, "least": -2}
    words = {"u": "u", "y": "y", "bias": bias, "u0": u0, "theta": [5, 9] * 6, "t": [0] * 12}
    assert calls(process) == [
        ("neurons_cfg", (1,), {"ucode": str(ucode), **constants}),
        ("neurons", 12, words),
        ("ax_out", 12, {"num_message_bits": 8}),
        ("a_in", "->", "neurons"),
        ("neurons", "->", "neurons_cfg"),
        ("neurons", "->", "ax_out"),
        ("ax_out", "->", "s_out"),
    ]
    assert np.array_equal(process.u.init.ravel(), u0)
    assert process.y.init == 0


@pytest.mark.usefixtures("extension", "ucode")
def test_one_number_for_a_whole_layer_becomes_a_word_of_each_neuron():
    (_, _, constants), (_, size, words), *_ = calls(CIF(shape=(4,), bias=-8, initial=1, **NEURONS))
    assert (constants["most"], constants["least"], constants["wake"], constants["free"]) == (1, -1, 2, 1)
    assert size == 4
    assert (words["bias"], words["u0"], words["theta"]) == ([-2] * 4, [-1] * 4, [5] * 4)


@pytest.mark.usefixtures("extension", "ucode")
def test_the_program_has_the_names_that_are_allocated():
    program = cif_program()
    (_, _, constants), (_, _, words), *_ = calls(CIF(shape=(2,), **NEURONS))
    assert set(constants) - {"ucode"} == set(program.names("const"))
    assert set(words) == set(program.names("word"))


@pytest.mark.usefixtures("extension", "ucode")
@pytest.mark.parametrize("seed", range(5))
def test_every_layer_of_a_network_is_allocated(seed):
    rng = np.random.default_rng(seed)
    network = random_network(rng)
    schedule = network.schedule("graded" if seed % 2 else "unary")
    circuit = build(network, network.encode(random_images(rng, network, 1)), schedule)
    for name, process in circuit.layers.items():
        if not isinstance(process, CIF):
            continue
        (_, _, constants), (_, size, words), *_ = calls(process)
        layer, timing = network[name], network.timing(schedule)[name]
        assert size == np.prod(network.shapes[name])
        assert (constants["wake"], constants["sleep"]) == (timing.bias_start, timing.bias_stop)
        assert (constants["levels"], constants["free"]) == (layer.levels, timing.release)
        assert constants["most"] == min(schedule.max_burst, layer.levels)
        # The channel is the last axis of Lava's shape: the words go round through the channels.
        assert words["theta"] == layer.threshold.tolist() * (size // len(layer.threshold))


@pytest.mark.usefixtures("extension", "ucode")
def test_the_model_is_of_the_process_and_declares_all_that_it_has():
    model = neurocore.neurocore_models()[CIF]
    assert (model.implements_process, model.implements_protocol) == (CIF, LoihiProtocol)
    assert (model.required_resources, model.tags) == ([Loihi2NeuroCore], ["ucoded"])
    assert issubclass(model, AbstractNcProcessModel)
    process = CIF(shape=(2,), **NEURONS)
    declared = {name: kind for name, kind in vars(model.__mro__[1]).items() if isinstance(kind, LavaNcType)}
    assert set(declared) == {m.name for m in (*process.vars, *process.in_ports, *process.out_ports)}
    assert {kind.precision for kind in declared.values()} == {24}


@pytest.mark.usefixtures("extension", "ucode")
@pytest.mark.parametrize("config", [Loihi2HwCfg, Loihi2SimCfg])
def test_a_run_configuration_of_lava_selects_the_model(config):
    models = neurocore.neurocore_models()
    process = CIF(shape=(2,), **NEURONS)
    chosen = config(exception_proc_model_map=models).select(process, [PyCIFFixed])
    assert chosen is models[CIF]


@pytest.mark.usefixtures("extension")
def test_the_path_is_an_argument_or_in_the_environment(ucode, tmp_path, monkeypatch):
    other = tmp_path / "other.bin"
    other.write_bytes(b"1")
    process = CIF(shape=(2,), **NEURONS)
    assert calls(process, neurocore.neurocore_models(other)[CIF])[0][2]["ucode"] == str(other)
    assert calls(process)[0][2]["ucode"] == str(ucode)
    # The class itself, as Lava's own search might find it, asks the environment when it allocates.
    plain = importlib.import_module(MODEL).NcCIF
    assert calls(process, plain)[0][2]["ucode"] == str(ucode)
    monkeypatch.delenv("LAVA_CASC_UCODE")
    with pytest.raises(HardwareConfigError, match="LAVA_CASC_UCODE: no microcode file is named"):
        calls(process, plain)
    monkeypatch.chdir(tmp_path)
    assert neurocore.microcode("other.bin") == other


# What does not fit, or is missing.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_burst": 200, "levels": 128}, r"layer: most \(128\) exceeds its 8 signed bits \(127\)\. Use fewer"),
        ({"period": LIMIT + 1}, rf"layer: period \({LIMIT + 1}\) exceeds its 23 unsigned bits"),
        ({"levels": LIMIT + 1}, rf"layer: levels \({LIMIT + 1}\) exceeds"),
        ({"bias_start": LIMIT - 2}, rf"layer: sleep \({LIMIT + 1}\) exceeds"),
        ({"release": LIMIT + 1}, rf"layer: free \({LIMIT + 1}\) exceeds"),
        ({"state_bits": 25}, r"layer: state_bits \(25\) exceeds the bits of a neurocore's state words \(24\)\. Build"),
    ],
)
def test_what_does_not_fit_the_program_is_refused(changes, message):
    process = CIF(shape=(2,), name="layer", **NEURONS | changes)
    variables = {name: getattr(process, name).init for name in ("bias", "u0", "threshold")}
    with pytest.raises(RangeError, match=message):
        allocate(process.proc_params, variables)


@pytest.mark.parametrize(
    "changes",
    [
        {"max_burst": 200, "levels": 127},
        {"period": LIMIT},
        {"levels": LIMIT},
        {"bias_start": LIMIT - 3},
        {"release": LIMIT},
    ],
)
def test_what_just_fits_is_taken(changes):
    process = CIF(shape=(2,), name="layer", **NEURONS | changes)
    variables = {name: getattr(process, name).init for name in ("bias", "u0", "threshold")}
    assert allocate(process.proc_params, variables).neurons == 2


@pytest.mark.parametrize("name", ["bias", "u0", "threshold"])
def test_words_that_do_not_fit_are_refused(name):
    process = CIF(shape=(2,), name="layer", **NEURONS)
    variables = {name: getattr(process, name).init for name in ("bias", "u0", "threshold")}
    with pytest.raises(RangeError, match=rf"layer: {name.replace('threshold', 'theta')} \({LIMIT + 1}\) exceeds"):
        allocate(process.proc_params, variables | {name: np.array([1, LIMIT + 1])})
    with pytest.raises(RangeError, match=rf"layer: {name.replace('threshold', 'theta')} \({-LIMIT - 2}\) exceeds"):
        allocate(process.proc_params, variables | {name: np.array([-LIMIT - 2, 1])})


def test_without_the_extension_a_clear_error(ucode):
    assert not neurocore.is_installed()
    with pytest.raises(
        MissingDependencyError, match=r"Intel's extension of Lava \(lava-loihi\), which is not installed"
    ):
        neurocore.neurocore_models(ucode)
    assert MODEL not in sys.modules


@pytest.mark.parametrize("part", CONTENT)
def test_half_an_extension_is_none(part, monkeypatch, ucode):
    installed(monkeypatch, {name: classes for name, classes in CONTENT.items() if name != part})
    with pytest.raises(MissingDependencyError, match="which is not installed"):
        neurocore.neurocore_models(ucode)


@pytest.mark.usefixtures("extension")
def test_the_fake_is_an_extension():
    assert neurocore.is_installed()


@pytest.mark.usefixtures("extension")
def test_an_error_within_the_extension_is_not_swallowed(monkeypatch, ucode):
    monkeypatch.delattr(sys.modules[f"{EXTENSION}.ports"], "NcInPort")
    with pytest.raises(ImportError, match="NcInPort"):
        neurocore.neurocore_models(ucode)


@pytest.mark.usefixtures("extension")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.bin", r"missing\.bin: {} cannot be read \(No such file or directory\)\. Assemble it from docs"),
        ("empty.bin", r"empty\.bin: {} is empty\."),
        (".", r"{} cannot be read \(Is a directory\)"),
        ("empty.bin/inside", r"{} cannot be read \(Not a directory\)"),
        ("locked.bin", r"{} cannot be read \(Permission denied\)"),
    ],
)
def test_microcode_that_cannot_be_read(tmp_path, monkeypatch, name, message):
    (tmp_path / "empty.bin").touch()
    (tmp_path / "locked.bin").write_bytes(b"1")
    (tmp_path / "locked.bin").chmod(0)
    if name == "locked.bin" and os.access(tmp_path / name, os.R_OK):
        pytest.skip("root may read everything")
    with pytest.raises(HardwareConfigError, match=message.format("the microcode file")):
        neurocore.neurocore_models(tmp_path / name)
    monkeypatch.setenv("LAVA_CASC_UCODE", str(tmp_path / name))
    with pytest.raises(HardwareConfigError, match=message.format("LAVA_CASC_UCODE")):
        neurocore.neurocore_models()


@pytest.mark.usefixtures("extension")
@pytest.mark.parametrize("value", [None, ""])
def test_microcode_that_is_not_named(monkeypatch, value):
    monkeypatch.delenv("LAVA_CASC_UCODE", raising=False)
    if value is not None:
        monkeypatch.setenv("LAVA_CASC_UCODE", value)
    with pytest.raises(HardwareConfigError, match=r"LAVA_CASC_UCODE: no microcode file is named\. Set it"):
        neurocore.neurocore_models()


def test_importing_loads_neither_lava_nor_the_model():
    code = f"""
import sys
import lava_casc.loihi.neurocore as nc
print(any(name.startswith("lava.") for name in sys.modules), {MODEL!r} in sys.modules, nc.UCODE)
sys.modules["lava"] = None
nc.microcode(__import__("os").devnull)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.stdout == "False False LAVA_CASC_UCODE\n"
    assert re.search(r"HardwareConfigError: /dev/null: the microcode file is empty", done.stderr)


# The fake itself.


def test_the_fake_refuses_what_public_code_never_uses():
    net = NetL2()
    for group, method in (("neurons", "allocate"), ("neurons_cfg", "allocate"), ("ax_out", "allocate_ucode")):
        with pytest.raises(AttributeError):
            getattr(getattr(net, group), method)
    with pytest.raises(AttributeError):
        net.synapses.allocate()
    with pytest.raises(AttributeError):
        net.ax_in = None
    program = net.neurons_cfg.allocate_ucode(shape=(1,), ucode="x")
    neurons = net.neurons.allocate_ucode(shape=2, u=np.zeros(2, int))
    axons = net.ax_out.allocate(shape=2, num_message_bits=8)
    for wrong in (
        lambda: NcInPort("a_in").connect(axons),
        lambda: axons.connect(neurons),
        lambda: neurons.connect(NcOutPort("s_out")),
        lambda: program.connect(neurons),
        lambda: net.neurons.allocate_ucode(shape=3, u=np.zeros(2, int)),
        lambda: net.neurons.allocate_ucode(shape=2, u=np.zeros(2)),
        lambda: net.neurons_cfg.allocate_ucode(shape=(1,), ucode="x", levels=1.0),
        lambda: net.neurons_cfg.allocate_ucode(shape=(2,), ucode="x"),
        lambda: net.ax_out.allocate(shape=2, num_message_bits=8, more=1),
    ):
        with pytest.raises(TypeError):
            wrong()
