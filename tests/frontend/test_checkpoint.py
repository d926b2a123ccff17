"""Checkpoints: a round trip bit for bit, no code of the file is run, and every damage is one clear line."""

import copy
import enum
import io
import os
import pickle

import numpy as np
import pytest
import torch
from models import Model, randomize
from torch import nn

from lava_casc.errors import CascError, CheckpointError, UnsupportedModelError
from lava_casc.frontend import (
    Checkpoint,
    CQReLU,
    InputSpec,
    Normalize,
    load_checkpoint,
    load_model,
    save_model,
    trace,
)

SPEC = InputSpec((3, 6, 8), -128, 127, 1 / 128)


def model():
    torch.manual_seed(0)
    block = Model(
        lambda s, x: s.act(s.conv(x) + x),
        conv=nn.Conv2d(4, 4, 3, padding=1),
        act=CQReLU(8, 1.3, "round", True),
    )
    body = [
        Normalize([0.1, 0.2, 0.3], [1.0, 2.0, 3.0]),
        nn.Conv2d(3, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        CQReLU(4),
    ]
    tail = [
        block,
        nn.MaxPool2d(2),
        nn.AvgPool2d(2, 1, 1, count_include_pad=False),
        nn.AdaptiveAvgPool2d((None, 2)),
    ]
    return randomize(nn.Sequential(*body, *tail, nn.Flatten(), nn.Dropout(), nn.Linear(24, 5)))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.pt"
    save_model(path, model(), SPEC, examples=np.arange(288).reshape(2, 3, 6, 8) % 100, about={"accuracy": 0.9})
    return path


def refused(path, message, **options):
    """Loading raises one line of CheckpointError."""
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(path, **options)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_round_trip(path):
    found = load_checkpoint(path)
    x = torch.rand(4, 3, 6, 8)
    with torch.no_grad():
        assert torch.equal(found.model(x), model()(x))
        assert torch.equal(load_model(path)(x), model()(x))
    assert found.input == SPEC
    assert found.about == {"accuracy": 0.9}
    assert np.array_equal(found.examples, np.arange(288).reshape(2, 3, 6, 8) % 100)
    assert not found.model.training
    wanted = trace(model(), SPEC.shape)
    for one, other in zip(found.graph.operations, wanted.operations, strict=True):
        assert (one.name, one.kind, one.path, one.inputs, one.arguments) == (
            other.name, other.kind, other.path, other.inputs, other.arguments,
        )  # fmt: skip
        assert all(torch.equal(one.tensors[k], t) for k, t in other.tensors.items())


@pytest.mark.parametrize("named", [False, True])
def test_several_outputs_and_concatenation(tmp_path, named):
    def run(s, x):
        y, z = torch.cat([s.a(x), s.b(x)], 1), s.act(s.a(x))
        return {"second": z, "first": y} if named else (z, y, z)

    several = Model(run, a=nn.Conv2d(3, 2, 1), b=nn.Conv2d(3, 4, 1), act=CQReLU(4))
    save_model(tmp_path / "m.pt", several, SPEC)
    found = load_checkpoint(tmp_path / "m.pt")
    assert found.graph.outputs == trace(several, SPEC.shape).outputs
    assert found.graph.output_names == (("second", "first") if named else ())
    x = torch.rand(2, 3, 6, 8)
    with torch.no_grad():
        wanted = several(x).values() if named else several(x)
        assert all(torch.equal(a, b) for a, b in zip(found.model(x), wanted, strict=True))
    save_model(tmp_path / "again.pt", found.model, SPEC)
    again = load_checkpoint(tmp_path / "again.pt").graph
    assert (again.outputs, again.output_names) == (found.graph.outputs, found.graph.output_names)


def test_a_checkpoint_of_version_1_has_one_output(path):
    """Before version 2, no file said which values are the outputs."""
    before = load_checkpoint(path)
    rewrite(path, lambda content: (content.pop("outputs"), content.pop("output_names"), content.update(version=1)))
    found = load_checkpoint(path)
    assert found.graph.outputs == before.graph.outputs == (before.graph.operations[-1].name,)
    x = torch.rand(2, 3, 6, 8)
    with torch.no_grad():
        assert torch.equal(found.model(x), model()(x))


@pytest.mark.parametrize(
    ("act", "version"),
    [
        (CQReLU(4, 0.5, "round", True), 2),
        (CQReLU(4, [0.5, 1.0, 2.0], "round", True), 3),
        (CQReLU(4, [0.5, 1.0, 2.0], shift=[0.0, 1.0, -1.0]), 3),
        (CQReLU(4, shift=0.25), 3),
        (nn.ReLU(), 3),
        (nn.ReLU6(), 3),
        (nn.Hardtanh(0, 0.75), 3),
    ],
)
def test_a_file_has_the_oldest_version_that_can_say_it(tmp_path, act, version):
    path, model = tmp_path / "model.pt", nn.Sequential(nn.Conv2d(3, 3, 1), act, nn.Flatten(), nn.Linear(144, 2)).eval()
    save_model(path, model, SPEC)
    content = torch.load(path, weights_only=True)
    assert content["version"] == version
    assert set(op(content, content["operations"][2]["kind"])["tensors"]) == set(act.state_dict())
    x = torch.randn(4, *SPEC.shape)
    with torch.no_grad():
        assert torch.equal(load_model(path)(x), model(x))
    save_model(tmp_path / "again.pt", load_model(path), SPEC)
    assert torch.load(tmp_path / "again.pt", weights_only=True)["version"] == version


def test_saved_again_it_stays_the_same(path, tmp_path):
    found = load_checkpoint(path)
    save_model(tmp_path / "again.pt", found.model, found.input, examples=found.examples, about=found.about)
    again = load_checkpoint(tmp_path / "again.pt")
    x = torch.rand(2, 3, 6, 8)
    with torch.no_grad():
        assert torch.equal(found.model(x), again.model(x))
    assert (again.input, again.about) == (found.input, found.about)


@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", ">i4", "u2", "u4", "u8", "i8"])
def test_examples_of_any_integer_type(tmp_path, dtype):
    examples = np.arange(10).reshape(2, 5).astype(dtype)
    examples.setflags(write=False)
    save_model(tmp_path / "m.pt", nn.Linear(5, 2), InputSpec((5,)), examples=examples[:, ::-1])
    assert np.array_equal(load_checkpoint(tmp_path / "m.pt").examples, examples[:, ::-1])


def test_numpy_numbers_do_not_make_a_pickle_of_it(tmp_path):
    spec = InputSpec((np.int64(5),), np.int8(-3), np.int64(4), np.float64(0.5))
    linear = nn.Linear(np.int64(5), 2)
    norm = nn.BatchNorm1d(2, eps=np.float64(1e-3))
    about = {
        "a": np.float32(0.5),
        "b": np.bool_(True),
        "c": np.str_("x"),
        1: None,
        "e": enum.IntEnum("E", "x").x,
    }
    save_model(tmp_path / "m.pt", nn.Sequential(linear, norm), spec, about=about | {"path": tmp_path})
    found = load_checkpoint(tmp_path / "m.pt")
    assert found.input == spec
    assert found.about == {
        "a": 0.5,
        "b": True,
        "c": "x",
        "1": None,
        "e": str(about["e"]),
        "path": str(tmp_path),
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((),), "neither"),
        (((2, 3),), "neither"),
        (((0,),), "neither"),
        (((3, -1, 4),), "neither"),
        (((5,), 1, 9), "must hold 0"),
        (((5,), 0, 0), "one more integer"),
        (((5,), 0, 255, 0.0), "scale"),
        (((5,), 0, 255, float("nan")), "scale"),
        (((5,), 0, 255.5), "must be integers"),
        (((5.5,),), "must be integers"),
        ((5,), "must be integers"),
        (((5,), "a"), "must be integers"),
        (((5,), 0, 255, "a"), "a number"),
    ],
)
def test_input_spec_refuses(arguments, message):
    with pytest.raises(CheckpointError, match=message):
        InputSpec(*arguments)


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        (np.zeros((2, 4), int), "do not fit"),
        (np.zeros(5, int), "do not fit"),
        (np.zeros((2, 5)), "float64 do not fit"),
        (np.zeros((2, 5), bool), "bool do not fit"),
        (np.full((2, 5), 256), r"span \[256, 256\]"),
        (np.full((2, 5), -1), "span"),
    ],
)
def test_examples_must_fit(tmp_path, examples, message):
    with pytest.raises(CheckpointError, match=message):
        save_model(tmp_path / "m.pt", nn.Linear(5, 2), InputSpec((5,)), examples=examples)
    assert not list(tmp_path.iterdir())
    with pytest.raises(CheckpointError, match=message):
        Checkpoint(trace(nn.Linear(5, 2), (5,)), InputSpec((5,)), examples)


def test_graph_and_input_must_fit():
    with pytest.raises(CheckpointError, match=r"traced for \(5,\) does not fit an input of shape \(6,\)"):
        Checkpoint(trace(nn.Linear(5, 2), (5,)), InputSpec((6,)))


# Writing


def test_what_cannot_be_traced_leaves_nothing(tmp_path):
    with pytest.raises(UnsupportedModelError):
        save_model(tmp_path / "m.pt", nn.Sigmoid(), InputSpec((5,)))
    assert not list(tmp_path.iterdir())


def test_a_failure_while_writing_keeps_the_old_file(path, monkeypatch):
    before = path.read_bytes()

    def full(content, file):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match="cannot be written .No space left on device."):
        save_model(path, nn.Linear(5, 2), InputSpec((5,)))
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("where", ["missing/m.pt", "file/m.pt", "folder"])
def test_unwritable_places(tmp_path, where):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_model(tmp_path / where, nn.Linear(5, 2), InputSpec((5,)))
    assert sorted(tmp_path.rglob("*")) == before


# No code of the file is run


class Touch:
    """Unpickling it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def evil_files(tmp_path):
    evil = Touch(tmp_path / "touched")
    torch.save({"format": "lava_casc.checkpoint", "version": 1, "about": evil}, tmp_path / "zip.pt")
    torch.save(evil, tmp_path / "bare.pt")
    torch.save(evil, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(evil))


@pytest.mark.parametrize("name", ["zip", "bare", "legacy", "raw"])
def test_a_malicious_pickle_is_not_executed(tmp_path, name):
    evil_files(tmp_path)
    refused(
        tmp_path / f"{name}.pt",
        "damaged" if name == "raw" else "would run code from the file.*--allow-pickle",
    )
    assert not (tmp_path / "touched").exists()


def test_the_trap_is_real(tmp_path):
    """Sabotage: with the flag, the very same file does run."""
    evil_files(tmp_path)
    refused(tmp_path / "bare.pt", "holds a NoneType, not a torch.nn.Module", allow_pickle=True)
    assert (tmp_path / "touched").exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.filterwarnings("ignore::torch.serialization.SourceChangeWarning")
def test_a_pickled_module(tmp_path, zipped):
    path = tmp_path / "m.pt"
    pickled = nn.Sequential(nn.Linear(5, 3), CQReLU(4), nn.Linear(3, 2))
    torch.save(pickled, path, _use_new_zipfile_serialization=zipped)
    refused(path, "would run code from the file")
    refused(path, "does not know its input. Give --input-shape", allow_pickle=True)
    found = load_checkpoint(path, allow_pickle=True, spec=InputSpec((5,)))
    x = torch.rand(3, 5)
    with torch.no_grad():
        assert torch.equal(found.model(x), pickled(x))
    with pytest.raises(UnsupportedModelError, match="does not run on an input"):
        load_checkpoint(path, allow_pickle=True, spec=InputSpec((6,)))


def test_a_pickle_of_unknown_classes(tmp_path):
    buffer = io.BytesIO()
    torch.save(Touch("x"), buffer)
    data = buffer.getvalue().replace(b"posix", b"nosix")
    assert data != buffer.getvalue()
    (tmp_path / "m.pt").write_bytes(data)
    refused(tmp_path / "m.pt", "damaged|cannot be loaded", allow_pickle=True)


# Foreign and damaged files


@pytest.mark.parametrize("zipped", [True, False])
def test_a_bare_state_dict(tmp_path, zipped):
    torch.save(nn.Linear(5, 2).state_dict(), tmp_path / "m.pt", _use_new_zipfile_serialization=zipped)
    refused(tmp_path / "m.pt", "a bare state dict")


@pytest.mark.parametrize("content", [{}, {"model": 1}, [1, 2], 7, "x", None, torch.ones(3), {"format": "other"}])
def test_foreign_content(tmp_path, content):
    torch.save(content, tmp_path / "m.pt")
    refused(tmp_path / "m.pt", "not a lava_casc checkpoint")


@pytest.mark.parametrize("version", [4, 0, None, "1", 1e9])
def test_other_versions(path, version):
    rewrite(path, lambda content: content.update(version=version))
    refused(path, f"checkpoint version {version}; this lava_casc reads 1 to 3")


@pytest.mark.parametrize("allow_pickle", [False, True])
@pytest.mark.parametrize("size", [0, 1, 2, 100, 5000])
def test_random_bytes(tmp_path, size, allow_pickle):
    (tmp_path / "m.pt").write_bytes(np.random.default_rng(size).bytes(size))
    refused(tmp_path / "m.pt", "damaged, or not a checkpoint", allow_pickle=allow_pickle, spec=SPEC)


@pytest.mark.parametrize(
    "start", [b"PK\x03\x04", b"\x80\x02", b"\x89HDF\r\n\x1a\n", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."]
)
def test_right_start_and_rubbish(tmp_path, start):
    (tmp_path / "m.pt").write_bytes(start + np.random.default_rng(0).bytes(300))
    refused(tmp_path / "m.pt", "damaged|would run code")


def test_truncation(path):
    data = path.read_bytes()
    for end in np.linspace(0, len(data) - 1, 60).astype(int):
        path.write_bytes(data[:end])
        refused(path, "damaged, or not a checkpoint")


def test_flipped_bytes_are_refused_or_harmless(path):
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(data), 80):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        try:
            load_checkpoint(path)
        except CheckpointError as error:
            assert "\n" not in str(error)  # noqa: PT017


def test_missing_file_and_folder(tmp_path):
    refused(tmp_path / "none.pt", "no such file")
    refused(tmp_path, "is a folder")
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    refused(tmp_path / "dangling", "no such file")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript(tmp_path):
    with torch.no_grad():
        program = torch.jit.trace(nn.Linear(5, 2), torch.zeros(1, 5))
    program.save(str(tmp_path / "m.pt"))
    refused(tmp_path / "m.pt", "a TorchScript program")


# Content that was made up


def rewrite(path, change):
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


def op(content, kind):
    return next(o for o in content["operations"] if o["kind"] == kind)


MADE_UP = {
    "clip below 0": lambda c: op(c, "CQReLU").update(
        kind="Hardtanh", arguments={"min_val": 0.0, "max_val": -1.0}, tensors={}
    ),
    "clip nan": lambda c: op(c, "CQReLU").update(
        kind="Hardtanh", arguments={"min_val": 0.0, "max_val": float("nan")}, tensors={}
    ),
    "clip of two sides": lambda c: op(c, "CQReLU").update(
        kind="Hardtanh", arguments={"min_val": -1.0, "max_val": 1.0}, tensors={}
    ),
    "a ReLU with tensors": lambda c: op(c, "CQReLU").update(kind="ReLU", arguments={}),
    "no operations": lambda c: c.update(operations=[]),
    "operations missing": lambda c: c.pop("operations"),
    "operations of another type": lambda c: c.update(operations=5),
    "input missing": lambda c: c.pop("input"),
    "examples missing": lambda c: c.pop("examples"),
    "about of another type": lambda c: c.update(about=[1]),
    "input of another shape": lambda c: c["input"].update(shape=(3, 9, 9)),
    "input flat": lambda c: c["input"].update(shape=(5,)),
    "input range": lambda c: c["input"].update(low="a"),
    "input extra": lambda c: c["input"].update(more=1),
    "outputs missing": lambda c: c.pop("outputs"),
    "output names missing": lambda c: c.pop("output_names"),
    "no outputs": lambda c: c.update(outputs=[]),
    "outputs None": lambda c: c.update(outputs=None),
    "outputs of another type": lambda c: c.update(outputs=[1]),
    "outputs no list": lambda c: c.update(outputs="x"),
    "unknown output": lambda c: c.update(outputs=["nowhere"]),
    "names for other outputs": lambda c: c.update(output_names=["a", "b"]),
    "names of another type": lambda c: c.update(output_names=[1]),
    "names no list": lambda c: c.update(output_names="a"),
    "unknown kind": lambda c: op(c, "Conv2d").update(kind="Sigmoid"),
    "kind of another type": lambda c: op(c, "Conv2d").update(kind=["Conv2d"]),
    "kind None": lambda c: op(c, "Conv2d").update(kind=None),
    "second input": lambda c: op(c, "Flatten").update(kind="input", inputs=()),
    "name twice": lambda c: op(c, "Flatten").update(name=op(c, "Conv2d")["name"]),
    "name of another type": lambda c: op(c, "Flatten").update(name=3),
    "cycle": lambda c: op(c, "Conv2d").update(inputs=(op(c, "Conv2d")["name"],)),
    "forward": lambda c: op(c, "Conv2d").update(inputs=(op(c, "Linear")["name"],)),
    "unknown source": lambda c: op(c, "add").update(inputs=("nowhere", "else")),
    "no source": lambda c: op(c, "Conv2d").update(inputs=()),
    "three terms": lambda c: op(c, "add").update(inputs=op(c, "add")["inputs"] * 2),
    "inputs of another type": lambda c: op(c, "Conv2d").update(inputs=7),
    "weight shape": lambda c: op(c, "Conv2d")["tensors"].update(weight=torch.zeros(4, 3, 2, 2)),
    "weight dtype": lambda c: op(c, "Linear")["tensors"].update(weight=torch.zeros(5, 24, dtype=torch.int64)),
    "weight missing": lambda c: op(c, "Linear")["tensors"].pop("weight"),
    "weight no tensor": lambda c: op(c, "Linear")["tensors"].update(weight=[1.0]),
    "tensor too many": lambda c: op(c, "Linear")["tensors"].update(more=torch.zeros(2)),
    "tensors of another type": lambda c: op(c, "Linear").update(tensors=None),
    "statistics missing": lambda c: op(c, "BatchNorm2d")["tensors"].pop("running_var"),
    "bn bias missing": lambda c: op(c, "BatchNorm2d")["tensors"].pop("bias"),
    "argument missing": lambda c: op(c, "Conv2d")["arguments"].pop("stride"),
    "argument too many": lambda c: op(c, "Conv2d")["arguments"].update(padding_mode="reflect"),
    "arguments of another type": lambda c: op(c, "Conv2d").update(arguments=3),
    "padding same": lambda c: op(c, "Conv2d")["arguments"].update(padding="same"),
    "stride 0": lambda c: op(c, "Conv2d")["arguments"].update(stride=(0, 0)),
    "groups 0": lambda c: op(c, "Conv2d")["arguments"].update(groups=0),
    "half a kernel": lambda c: op(c, "MaxPool2d")["arguments"].update(kernel_size=1.5),
    "huge": lambda c: op(c, "Linear")["arguments"].update(in_features=10**9, out_features=10**9),
    "huge statistics": lambda c: op(c, "BatchNorm2d")["arguments"].update(num_features=10**15),
    "negative": lambda c: op(c, "Linear")["arguments"].update(out_features=-5),
    "levels 0": lambda c: op(c, "CQReLU")["arguments"].update(levels=0),
    "levels 2.5": lambda c: op(c, "CQReLU")["arguments"].update(levels=2.5),
    "rounding": lambda c: op(c, "CQReLU")["arguments"].update(rounding="up"),
    "threshold 0": lambda c: op(c, "CQReLU")["tensors"].update(threshold=torch.tensor(0.0)),
    "threshold nan": lambda c: op(c, "CQReLU")["tensors"].update(threshold=torch.tensor(float("nan"))),
    "thresholds of other channels": lambda c: op(c, "CQReLU")["tensors"].update(threshold=torch.ones(9)),
    "threshold matrix": lambda c: op(c, "CQReLU")["tensors"].update(threshold=torch.ones(4, 1)),
    "a shift that is no number": lambda c: op(c, "CQReLU")["tensors"].update(shift=torch.tensor(float("nan"))),
    "shifts of other channels": lambda c: op(c, "CQReLU")["tensors"].update(shift=torch.ones(9)),
    "std 0": lambda c: op(c, "Normalize")["tensors"].update(std=torch.zeros(3)),
    "examples float": lambda c: c.update(examples=torch.zeros(2, 3, 6, 8)),
    "examples shape": lambda c: c.update(examples=torch.zeros(2, 5, dtype=torch.int64)),
    "examples range": lambda c: c.update(examples=torch.full((2, 3, 6, 8), 999)),
    "examples no tensor": lambda c: c.update(examples=[1, 2]),
    "operation without name": lambda c: op(c, "Conv2d").pop("name"),
    "operation with more": lambda c: op(c, "Conv2d").update(more=1),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("case", MADE_UP)
def test_made_up_content(path, case):
    rewrite(path, MADE_UP[case])
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_nothing_changed_still_loads(path):
    """The counter-check of the test above."""
    rewrite(path, lambda content: None)
    assert len(load_checkpoint(path).graph.operations) == len(trace(model(), SPEC.shape).operations)


def test_values_of_the_wrong_type_anywhere(path):
    """Put what does not belong there in every place of the first operations: a CascError or no difference."""
    original = torch.load(path, weights_only=True)
    for i, operation in enumerate(original["operations"][:6]):
        for key in operation:
            for wrong in (None, -1, "x", (), {}, torch.ones(1), 1.5):
                content = copy.deepcopy(original)
                content["operations"][i][key] = wrong
                torch.save(content, path)
                try:
                    load_checkpoint(path)
                except CascError as error:
                    assert "\n" not in str(error)  # noqa: PT017
