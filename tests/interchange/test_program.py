"""torch.export programs: what they compute, what is refused, and that no code of a file runs."""

import json
import pickle
import zipfile

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lava_casc.errors import CheckpointError, UnsupportedModelError
from lava_casc.frontend import load_model, save_model
from lava_casc.interchange import import_model
from lava_casc.interchange.program import read_program


def export(path, model, *examples, dynamic=False, training=False):
    """Write a program, and return its path."""
    shapes = ({0: torch.export.Dim("n", min=1, max=64)},) if dynamic else None
    model = model.train() if training else model.eval()
    torch.export.save(torch.export.export(model, examples, dynamic_shapes=shapes), path)
    return path


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


X = torch.linspace(-3, 3, 2 * 3 * 6 * 8).reshape(2, 3, 6, 8)


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_program_of_everything_computes_what_its_model_does(everything, dynamic, tmp_path):
    path = export(tmp_path / "all.pt2", everything, torch.randn(4, 3, 8, 8), dynamic=dynamic)
    model, spec = import_model(path, low=-8, high=7, scale=1 / 8)
    assert (spec.shape, spec.low, spec.high, spec.scale) == ((3, 8, 8), -8, 7, 1 / 8)
    assert {"first", "norm", "second", "middle", "flat_norm", "last"} <= {op.name for op in model.graph.operations}
    for n in (1, 5):
        x = torch.randn(n, 3, 8, 8)
        assert torch.allclose(model(x), everything(x), atol=1e-5)
    save_model(tmp_path / "all.pt", model, spec)
    assert torch.equal(load_model(tmp_path / "all.pt")(x), model(x))


def in_place(x):
    """Read a value only after it was changed in place, as older torch code does."""
    y = x * 1.5
    F.relu_(y)
    return y + x


OPERATIONS = {
    "in place, read later": in_place,
    "relu": F.relu,
    "in place": lambda x: (x * 1.5).relu_(),
    "clamp": lambda x: x.clamp(0, 0.5),
    "clamp below": lambda x: x.clamp(min=0),
    "clamp_min": lambda x: torch.clamp_min(x, 0),
    "relu6": F.relu6,
    "max pool": lambda x: F.max_pool2d(x.relu(), (2, 3), (1, 2), (1, 0)),
    "average pool": lambda x: F.avg_pool2d(x, (3, 2), 2, (1, 0), count_include_pad=False),
    "adaptive pool": lambda x: F.adaptive_avg_pool2d(x, (3, 4)),
    "mean": lambda x: x.mean((-1, -2)),
    "sum of two": lambda x: x + x.relu(),
    "concatenation": lambda x: torch.cat([x, x.relu()], 1),
    "reshape": lambda x: x.reshape(x.size(0), -1),
    "normalized": lambda x: (x - torch.tensor([0.1, 0.2, 0.3]).reshape(3, 1, 1)) / 0.25,
    "two outputs": lambda x: (x.relu(), x.flatten(1)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_computes_what_torch_does(name, tmp_path):
    model = Function(OPERATIONS[name])
    found, _ = read_program(export(tmp_path / "one.pt2", model, X))
    ours, theirs = (y if isinstance(y, tuple) else (y,) for y in (found(X), model(X)))
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (torch.sigmoid, r"aten.sigmoid.default is not supported. Supported are conv2d"),
        (lambda x: x.clamp(-1, 1), r"clamp.default to \[-1, 1\] is not supported"),
        (lambda x: x * x, "of two values is not supported"),
        (lambda x: x * -2, "with a constant is not supported but"),
        (lambda x: 1 - x, "with a constant is not supported but|aten.rsub"),
        (lambda x: torch.add(x, x, alpha=2), "with a factor"),
        (lambda x: torch.cat([x, x], 2), "along dimension 2"),
        (lambda x: x.mean(1), r"over dimensions \[1\]"),
        (lambda x: x.reshape(2, 3, 48), "from .* is not supported. Only making vectors of images"),
        (lambda x: F.dropout(x, 0.5, True), "in training is not supported|aten.* is not supported"),
        (lambda x: F.max_pool2d(x, 2, return_indices=True)[1].float(), "is not supported"),
    ],
)
def test_what_does_not_map_is_refused_by_name(function, message, tmp_path):
    path = export(tmp_path / "bad.pt2", Function(function), X)
    with pytest.raises(UnsupportedModelError, match=message) as caught:
        read_program(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_program_in_training_is_refused(tmp_path):
    path = export(tmp_path / "bad.pt2", nn.BatchNorm2d(3), X, training=True)
    with pytest.raises(
        UnsupportedModelError, match=r"it changes what it holds \(BUFFER_MUTATION\)|in training|in evaluation"
    ):
        read_program(path)


def test_inputs_that_are_no_images_or_vectors_are_refused(tmp_path):
    path = export(tmp_path / "a.pt2", nn.Bilinear(8, 8, 2), X, X)
    with pytest.raises(UnsupportedModelError, match="takes 2 inputs"):
        read_program(path)
    path = export(tmp_path / "b.pt2", Function(F.relu), X.double())
    with pytest.raises(UnsupportedModelError, match="its input is torch.float64. Export one of float32"):
        read_program(path)
    path = export(tmp_path / "d.pt2", Function(F.relu), X)
    with pytest.raises(CheckpointError, match="takes inputs of shape 3,6,8, not 3,8,8"):
        read_program(path, (3, 8, 8))


def test_a_translation_that_computes_something_else_is_noticed(tmp_path, monkeypatch):
    from lava_casc.interchange import program

    path = export(tmp_path / "a.pt2", Function(F.relu6), X)
    monkeypatch.setitem(program._REWRITES, "hardtanh", program._Translator._relu)
    monkeypatch.setitem(program._REWRITES, "relu6", program._Translator._relu)
    read_program(path)  # of images 0 .. 1 nothing is above 6
    with pytest.raises(UnsupportedModelError, match="what was read differs from the file by .* on 8 of 8"):
        read_program(path, scale=1.0)


def test_damaged_files_are_refused(tmp_path):
    path = export(tmp_path / "a.pt2", Function(F.relu), X)
    whole = path.read_bytes()
    for content in (b"", b"nothing of the kind", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="damaged, or not a torch.export program"):
            read_program(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("something", "else")
    with pytest.raises(CheckpointError, match="damaged, or not a torch.export program"):
        read_program(path)
    with pytest.raises(CheckpointError, match="no such file"):
        read_program(tmp_path / "none.pt2")


def changed(path, change):
    """Rewrite each member of an archive by `change(name, content)`."""
    with zipfile.ZipFile(path) as archive:
        members = [(info, change(info.filename, archive.read(info))) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for info, content in members:
            archive.writestr(info.filename, content)


class Payload:
    """Unpickled, it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_no_pickle_of_a_program_runs(tmp_path):
    model = nn.Conv2d(3, 2, 3)
    path, trap = export(tmp_path / "a.pt2", model, X), tmp_path / "trap"
    torch.save({"weight": Payload(trap)}, tmp_path / "payload.pt")
    content = (tmp_path / "payload.pt").read_bytes()
    seen = []

    def change(name, old):
        if name.endswith("weights_config.json"):  # newer torch: weights that say that they are pickled
            config = json.loads(old)
            for entry in config["config"].values():
                entry["use_pickle"] = True
            return json.dumps(config)
        if name.endswith(".pt") or "/weight_" in name:
            seen.append(name)
            return content
        return old

    changed(path, change)
    assert seen
    with pytest.raises(CheckpointError, match="damaged, or not a torch.export program"):
        read_program(path)
    assert not trap.exists()
    # The trap is one: without the limits it goes off.
    pickle.loads(pickle.dumps(Payload(trap))).close()
    assert trap.exists()


@pytest.mark.parametrize(
    "text", ["__import__('os').getcwd()", "eval(chr(49))", "s0.__class__", "9**9**9", "Symbol('x'+'y')", 7]
)
def test_no_size_of_a_program_is_evaluated_that_is_more_than_one(text, tmp_path):
    path = export(tmp_path / "a.pt2", Function(F.relu), X, dynamic=True)
    found = []

    def swap(part):
        for value in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
            swap(value)
        if isinstance(part, dict) and "expr_str" in part:
            found.append(part["expr_str"])
            part["expr_str"] = text

    def change(name, old):
        if not name.endswith(".json"):
            return old
        document = json.loads(old)
        swap(document)
        return json.dumps(document)

    changed(path, change)
    assert found
    with pytest.raises(CheckpointError, match="a size that is an expression"):
        read_program(path)


def test_a_limit_on_torch_load_is_taken_back(tmp_path, monkeypatch):
    import os

    path = export(tmp_path / "a.pt2", Function(F.relu), X)
    for before in (None, "0"):
        if before is not None:
            monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", before)
        read_program(path)
        assert os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD") == before
