"""`lava-casc import`, from a file to spikes, and modules that are saved in Python."""

import json
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lava_casc
from lava_casc.cli import main
from lava_casc.errors import CheckpointError, MissingDependencyError
from lava_casc.frontend import Calibration, GraphModel, load_checkpoint, load_model, save_model
from lava_casc.frontend.calibrate import calibrate
from lava_casc.interchange import import_model, read_nir, write_nir
from lava_casc.pipeline import convert


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["lava-casc", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    return ended.value.code or 0, printed.out, printed.err


class Small(nn.Module):
    """No nn.Sequential, of which torch 2.3 writes programs that it cannot read."""

    def __init__(self):
        super().__init__()
        self.conv, self.last = nn.Conv2d(1, 4, 3, bias=False), nn.Linear(4 * 36, 3)

    def forward(self, x):
        return self.last(F.relu(self.conv(x)).flatten(1))


@pytest.fixture
def program(tmp_path):
    model = Small().eval()
    torch.export.save(torch.export.export(model, (torch.zeros(2, 1, 8, 8),)), tmp_path / "net.pt2")
    return tmp_path / "net.pt2", model


def test_a_program_becomes_an_ordinary_checkpoint(program, tmp_path, monkeypatch, capsys):
    path, model = program
    code, out, err = run(monkeypatch, capsys, "import", path, "--input-range", "-8,7", "--input-scale", "1/8",
                         "--data", "digits", "--json")  # fmt: skip
    assert (code, "write" in err) == (0, True)
    found = json.loads(out)
    assert found["operations"] == {"Conv2d": 1, "ReLU": 1, "Flatten": 1, "Linear": 1}
    assert found["to_calibrate"] == 1
    checkpoint = load_checkpoint(tmp_path / "net.pt")
    assert (checkpoint.input.low, checkpoint.input.high, checkpoint.input.scale) == (-8, 7, 0.125)
    assert checkpoint.about == {"dataset": "digits"}
    x = torch.randn(3, 1, 8, 8)
    assert torch.allclose(checkpoint.model(x), model(x), atol=1e-6)
    images = torch.randint(-8, 8, (64, 1, 8, 8)).numpy()
    calibrated = GraphModel(calibrate(checkpoint, images, Calibration(8)))
    network = convert(calibrated, (1, 8, 8), input_range=(-8, 7), input_scale=1 / 8)
    record = lava_casc.simulate(network, images[:4])
    assert record.certified.all()
    code, out, _ = run(monkeypatch, capsys, "import", path, "-o", tmp_path / "again.pt")
    assert "net.pt2" in out
    assert f"wrote {tmp_path / 'again.pt'}; next: lava-casc calibrate" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--input-range", "0"), "give two integers, as in 0,255"),
        (("--input-range", "a,b"), "give integers and commas"),
        (("--input-range", "3,255"), "must hold 0"),
        (("--input-scale", "1/0"), "give a number or a fraction"),
        (("--input-scale", "-1"), "must be greater than 0"),
        (("--hw", "loihi2_oheo_gulch"), "--hw loihi2_oheo_gulch: a checkpoint is for any target. Leave --hw out"),
        (("--input-shape", "3;8"), "give integers and commas"),
        (("--input-shape", "1,9,9"), "takes inputs of shape 1,8,8, not 1,9,9"),
        (("-o", "net.pt2"), "what is read would be replaced"),
        (("-o", "none/net.pt"), "its folder does not exist"),
    ],
)
def test_wrong_usage_is_one_line_and_writes_nothing(arguments, message, program, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = (tmp_path / "net.pt2").read_bytes()
    code, _, err = run(monkeypatch, capsys, "import", "net.pt2", *arguments)
    (line,) = [line for line in err.splitlines() if line.startswith("error")]
    assert code == 2
    assert message in line
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt2"]
    assert (tmp_path / "net.pt2").read_bytes() == before


def test_a_checkpoint_of_that_name_is_kept_unless_it_is_named(program, tmp_path, monkeypatch, capsys):
    (tmp_path / "net.pt").write_text("years of training")
    code, _, err = run(monkeypatch, capsys, "import", program[0])
    assert (code, "exists already. Give -o" in err) == (2, True)
    assert (tmp_path / "net.pt").read_text() == "years of training"
    code, _, _ = run(monkeypatch, capsys, "import", program[0], "-o", tmp_path / "net.pt")
    assert code == 0
    assert load_checkpoint(tmp_path / "net.pt").input.shape == (1, 8, 8)


def test_other_files_are_refused(tmp_path, monkeypatch, capsys):
    path = tmp_path / "net.h5"
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="neither an ONNX file .* nor a torch.export program"):
        import_model(path)
    code, _, err = run(monkeypatch, capsys, "import", tmp_path / "none.onnx")
    assert code == 2
    assert "no such file" in err


def test_without_its_libraries_it_says_how_to_install_them(tmp_path, monkeypatch):
    for name in ("onnx", "nir"):  # as if they were not installed
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "net.onnx").write_bytes(b"")
    with pytest.raises(
        MissingDependencyError, match=r"onnx is not installed. Install it with pip install 'lava-casc\["
    ):
        import_model(tmp_path / "net.onnx")
    with pytest.raises(MissingDependencyError, match="nir is not installed"):
        read_nir(tmp_path / "a.nir")
    network = convert(nn.Sequential(nn.Linear(4, 2), lava_casc.CQReLU(4), nn.Linear(2, 2)), (4,))
    with pytest.raises(MissingDependencyError, match="nir is not installed"):
        write_nir(tmp_path / "a.nir", network)


# Modules in Python --------------------------------------------------------------------------------------------------


class DropPath(nn.Module):
    """Stochastic depth as timm has it: the identity in evaluation."""

    def forward(self, x):
        if not self.training:
            return x
        return x * (torch.rand(len(x), 1, 1, 1) < 0.9) / 0.9


class NormAct(nn.BatchNorm2d):
    """A batch norm with its activation inside, as timm has it."""

    def __init__(self, channels):
        super().__init__(channels)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        torch._assert(x.ndim == 4, "expected 4 dimensions")
        x = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training, 0.1, self.eps)
        return self.act(x)


class Block(nn.Module):
    """A residual block in timm's manner: functional ReLU, stochastic depth on the branch."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.drop_path = DropPath()

    def forward(self, x):
        return F.relu(x + self.drop_path(self.norm(self.conv(x))), inplace=True)


class Timm(nn.Module):
    """A network in timm's manner: features, global pooling by a mean, dropout by a function, a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), NormAct(8))
        self.blocks = nn.Sequential(Block(8), Block(8))
        self.pool = nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)
        self.head = nn.Linear(8, 5)

    def forward(self, x, features=False):
        x = self.pool(self.blocks(self.stem(x)))
        if features or x.shape[-1] < 2:
            return x
        x = x.mean((2, 3))
        return self.head(F.dropout(x, 0.1, training=self.training))


def _whole_way(model, shape, path):
    """Save, load, calibrate, convert and run a module with ReLU."""
    save_model(path, model, lava_casc.InputSpec(shape))
    x = torch.rand(2, *shape)
    assert torch.allclose(load_model(path)(x), model(x), atol=1e-5)
    images = np.random.default_rng(0).integers(0, 256, (16, *shape))
    network = convert(GraphModel(calibrate(load_checkpoint(path), images, Calibration(4))), shape)
    record = lava_casc.simulate(network, images[:1])
    assert record.certified.all()
    assert (record.logits == lava_casc.forward(network, images[:1]).logits).all()


def test_a_network_in_timms_manner_goes_the_whole_way(tmp_path):
    _whole_way(Timm().eval(), (3, 12, 12), tmp_path / "timm.pt")


def test_a_network_of_torchvision_goes_the_whole_way(tmp_path):
    models = pytest.importorskip("torchvision.models")
    model = models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=4).eval()
    _whole_way(model, (3, 24, 24), tmp_path / "resnet.pt")


def test_a_network_of_torchvision_is_read_from_onnx_and_from_a_program(tmp_path):
    models = pytest.importorskip("torchvision.models")
    model = models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=4).eval()
    x = torch.rand(2, 3, 24, 24)
    torch.export.save(torch.export.export(model, (x,)), tmp_path / "net.pt2")
    pytest.importorskip("onnx2torch")
    torch.onnx.export(model, (x,), tmp_path / "net.onnx", opset_version=17)
    for name in ("net.pt2", "net.onnx"):
        assert torch.allclose(import_model(tmp_path / name)[0](x), model(x), atol=1e-4)
