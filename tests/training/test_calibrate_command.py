"""`lava-casc calibrate` and `train --activation relu` on the digits: from an ordinary network to certified spikes."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lava_casc import cli
from lava_casc.cli.calibrate import _dataset
from lava_casc.errors import CascError, DataError, UnsupportedModelError
from lava_casc.frontend import (
    Calibration,
    CQReLU,
    InputSpec,
    calibrate,
    load_checkpoint,
    load_model,
    replace_relu,
    save_model,
)
from lava_casc.frontend.calibrate import spread
from lava_casc.netx import read
from lava_casc.pipeline import Options, convert, export
from lava_casc.reference import forward, simulate
from lava_casc.training import build, evaluate, load_dataset, train_checkpoint

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def data():
    return load_dataset("digits")


@pytest.fixture(scope="module")
def relu(data, tmp_path_factory):
    """Return the path of an ordinary network, trained for a few seconds."""
    path = tmp_path_factory.mktemp("calibrate") / "relu.pt"
    result = train_checkpoint(path, data, activation="relu", epochs=12)
    assert result.accuracy > 0.9
    return path


@pytest.fixture(scope="module")
def found(relu):
    """Return what the command says of 2 and 8 levels, with an epoch of fine-tuning."""
    return casc("calibrate", relu, "--levels", "8,2", "--finetune-epochs", 2, "--samples", 300, "--json")


def casc(*arguments, code=0, said=None):
    """Run the command line here; return its JSON, or the line that it refuses with."""
    with cli.console.out.capture() as out, cli.console.err.capture() as err:
        try:
            cli.app([str(argument) for argument in arguments], standalone_mode=False)
            ended = 0
        except SystemExit as exit_:
            ended = exit_.code
    assert ended == code, err.get()
    return json.loads(out.get()) if "--json" in arguments and not code else (err if code else out).get()


def refused(*arguments):
    lines = [line for line in casc(*arguments, code=2).splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_a_relu_network_is_trained_and_refused_by_everything_else(relu, data, tmp_path):
    checkpoint = load_checkpoint(relu)
    assert {op.kind for op in checkpoint.graph.operations} >= {"ReLU"}
    assert "CQReLU" not in {op.kind for op in checkpoint.graph.operations}
    assert checkpoint.about["activation"] == "relu"
    assert "levels" not in checkpoint.about
    assert (
        evaluate(checkpoint.model, data.test_images, data.test_labels, data.scale) == checkpoint.about["test_accuracy"]
    )
    for command in (["export", relu, "-o", tmp_path / "x.net"], ["evaluate", relu], ["export", relu, "--levels", 4]):
        line = refused(*command)
        assert "activation1: ReLU has no levels for spikes to count. Calibrate the checkpoint with lava-casc" in line
    assert not (tmp_path / "x.net").exists()
    with pytest.raises(UnsupportedModelError, match="activation1: ReLU has no levels"):
        convert(load_model(relu), data.shape)


def test_the_command_recovers_what_the_network_could(found, relu, data):
    assert found["relu"] == load_checkpoint(relu).about["test_accuracy"]
    assert (found["samples"], found["test_samples"], found["data"]) == (300, 360, "digits")
    assert (found["method"], found["per_channel"], found["bias_correction"]) == ("distribution", True, True)
    two, eight = found["levels"]["2"], found["levels"]["8"]
    assert eight["float"] > found["relu"] - 0.03
    assert eight["integer"] > found["relu"] - 0.03
    assert two["finetuned_float"] > two["float"] + 0.005  # two levels lose something, and training brings it back
    assert two["verified"] == two["certified"] == eight["verified"] == eight["certified"] == 16


def test_its_checkpoint_is_what_was_scored_and_runs_as_spikes(found, relu, data, tmp_path):
    row = found["levels"]["8"]
    assert row["file"] == str(relu.with_name("relu-L8.pt"))
    checkpoint = load_checkpoint(row["file"])
    assert evaluate(checkpoint.model, data.test_images, data.test_labels, data.scale) == row["finetuned_float"]
    about = checkpoint.about
    assert about["test_accuracy"] == row["finetuned_float"]
    assert (about["levels"], about["calibration"], about["calibration_samples"]) == (8, "distribution", 300)
    assert (about["finetune_epochs"], about["dataset"], about["architecture"]) == (2, "digits", "digits")
    acts = [module for module in checkpoint.model.modules() if isinstance(module, CQReLU)]
    assert {(act.levels, act.rounding, act.learnable, act.threshold.dim()) for act in acts} == {(8, "round", True, 1)}
    conversion = export(row["file"], tmp_path / "relu.net", Options())
    assert conversion.verification.certified == conversion.verification.samples == 16
    network = read(tmp_path / "relu.net")
    record = simulate(network, data.test_images[:60])
    assert record.all_certified
    assert np.array_equal(record.logits, forward(network, data.test_images[:60]).logits)
    whole = forward(network, data.test_images).logits.argmax(1)
    assert (whole == data.test_labels).mean() == row["finetuned_integer"]
    evaluated = casc("evaluate", row["file"], "--samples", 40, "--json")
    assert evaluated["certified_samples"] == 40


def test_the_untrained_scores_are_those_of_the_library(found, relu, data):
    checkpoint = load_checkpoint(relu)
    images = data.train_images[spread(len(data.train_images), 300)]
    graph = calibrate(checkpoint, images, Calibration(2))
    from lava_casc.frontend import GraphModel

    accuracy = evaluate(GraphModel(graph).eval(), data.test_images, data.test_labels, data.scale)
    assert accuracy == found["levels"]["2"]["float"]


def test_its_table_and_the_name_of_a_single_file(relu, tmp_path, capsys):
    said = casc("calibrate", relu, "--levels", 4, "--method", "percentile", "--percentile", 99, "--per-layer",
                "--no-bias-correction", "--test-samples", 50, "-o", tmp_path / "mine.pt")  # fmt: skip
    table = capsys.readouterr().out
    assert all(part in table for part in ("as it is", "L = 4", "16 of 16", "8-bit weights"))
    assert "digits: percentile, a threshold a layer, 512 training samples; accuracy on 50 test samples" in said
    assert f"wrote {tmp_path / 'mine.pt'}" in said
    checkpoint = load_checkpoint(tmp_path / "mine.pt")
    assert (checkpoint.about["percentile"], checkpoint.about["per_channel"]) == (99, False)
    acts = [module for module in checkpoint.model.modules() if isinstance(module, CQReLU)]
    assert all(act.shift is None and act.threshold.dim() == 0 for act in acts)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.pt"]


def test_a_calibrated_checkpoint_can_be_calibrated_again(found, relu, tmp_path):
    again = casc("calibrate", relu.with_name("relu-L8.pt"), "--levels", "4,16", "-o", tmp_path / "x.pt", "--json")
    assert again["relu"] == found["levels"]["8"]["finetuned_float"]
    assert again["levels"]["16"]["float"] > again["relu"] - 0.03
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x-L16.pt", "x-L4.pt"]


def test_the_scale_is_the_checkpoints_own(data, tmp_path):
    """A user's model may take the integers themselves; scoring and training must feed it these."""
    model = build("digits", channels=1, activation="relu")
    with torch.no_grad():
        model.conv1.weight /= 16
    save_model(tmp_path / "a.pt", model.eval(), InputSpec(data.shape, 0, 16, 1.0), about={"dataset": "digits"})
    with torch.no_grad():
        model.conv1.weight *= 16
    save_model(tmp_path / "b.pt", model.eval(), data.spec, about={"dataset": "digits"})
    a, b = (
        casc("calibrate", tmp_path / name, "--samples", 64, "--test-samples", 99, "--json") for name in ("a.pt", "b.pt")
    )
    assert a["relu"] == b["relu"]
    assert a["levels"]["8"]["float"] == pytest.approx(b["levels"]["8"]["float"], abs=0.05)
    checkpoint = load_checkpoint(tmp_path / "a.pt")
    assert _dataset(tmp_path / "a.pt", checkpoint, None, load_dataset).scale == 1.0  # that of the fine-tuning


def test_refusals_of_calibrate(relu, data, tmp_path):
    assert "--levels 'x': give integers and commas" in refused("calibrate", relu, "--levels", "x")
    assert "--levels '4,0': levels must be at least 1" in refused("calibrate", relu, "--levels", "4,0")
    assert "would replace the model. Give another -o" in refused("calibrate", relu, "--levels", 8, "-o", relu)
    assert "its folder does not exist" in refused("calibrate", relu, "-o", tmp_path / "no/x.pt")
    assert "no such file" in refused("calibrate", tmp_path / "no.pt")
    assert "data set 'mnist' is not known" in refused("calibrate", relu, "--data", "mnist")
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10)).eval()
    save_model(tmp_path / "unknown.pt", model, data.spec)
    assert "does not say what it was trained on. Give --data NAME" in refused("calibrate", tmp_path / "unknown.pt")
    assert casc("calibrate", tmp_path / "unknown.pt", "--data", "digits", "--json")["data"] == "digits"
    save_model(tmp_path / "wide.pt", model, InputSpec(data.shape, 0, 16, 0.1), about={"task": "detection"})
    assert "is for detection, and calibrate scores classifiers" in refused("calibrate", tmp_path / "wide.pt")
    model[3] = nn.Linear(72, 7)
    save_model(tmp_path / "seven.pt", model, data.spec)
    line = refused("calibrate", tmp_path / "seven.pt", "--data", "digits")
    assert "does not answer with the 10 classes of digits" in line
    other = nn.Sequential(nn.Flatten(), nn.Linear(36, 10), nn.ReLU()).eval()
    save_model(tmp_path / "small.pt", other, InputSpec((1, 6, 6)))
    line = refused("calibrate", tmp_path / "small.pt", "--data", "digits")
    assert "takes (1, 6, 6), but the images of digits are (1, 8, 8)" in line
    save_model(tmp_path / "linear.pt", nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval(), data.spec)
    assert "has no ReLU to calibrate" in refused("calibrate", tmp_path / "linear.pt", "--data", "digits")
    assert not list(tmp_path.glob("*-L8.pt")) or [p.name for p in tmp_path.glob("*-L8.pt")] == ["unknown-L8.pt"]


def test_refusals_of_train(tmp_path):
    train = ("train", "--activation", "relu", "-o", tmp_path / "x.pt")
    assert "--levels is no option of --activation relu. Leave it out." in refused(*train, "--levels", 4)
    assert "--rounding is no option of --activation relu" in refused(*train, "--rounding", "floor")
    assert "--residual-steps is no option of --activation relu" in refused(*train, "--residual-steps", 2)
    for task in ("detection", "text"):
        assert f"--activation is no option of --task {task}" in refused(*train, "--task", task)
    with pytest.raises(DataError, match="activation 'tanh' is not known. Choose one of cqrelu, relu"):
        build("digits", channels=1, activation="tanh")
    assert issubclass(DataError, CascError)


def test_relu_and_cqrelu_networks_have_the_same_weights():
    plain, quantized = build("digits", channels=1, activation="relu"), build("digits", channels=1)
    wanted = quantized.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in plain.state_dict().items())
    assert set(wanted) - set(plain.state_dict()) == {
        f"{n}.threshold" for n, m in quantized.named_modules() if isinstance(m, CQReLU)
    }
    assert {type(m) for m in replace_relu(plain, 8).modules()} == {type(m) for m in quantized.modules()}


def test_the_benchmark_measures_each_row_once_and_makes_a_table(relu, tmp_path, monkeypatch, capsys):
    where = Path(__file__).parents[2] / "benchmarks/calibration.py"
    spec = importlib.util.spec_from_file_location("calibration_benchmark", where)
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    monkeypatch.setattr(bench, "WAYS", [{"method": "mse", "per_channel": False, "bias_correction": True}])
    page, results = tmp_path / "page.md", tmp_path / "results.json"
    page.write_text(f"before\n{bench.BEGIN}\noutdated\n{bench.END}\nafter\n")
    given = ["bench", str(relu), "--levels", "4", "--test-samples", "60", "--json", str(results), "--page", str(page)]
    monkeypatch.setattr(sys, "argv", given)
    bench.main()
    first = json.loads(results.read_text())
    (row,) = first["relu"]["rows"].values()
    text = page.read_text()
    shown = f"{row['float']:.1%} ({row['integer']:.1%})"
    assert f"| mse | layer | yes | 0 | {shown} |" in text
    assert text.startswith(f"before\n{bench.BEGIN}\n")
    assert text.endswith(f"{bench.END}\nafter\n")
    assert "outdated" not in text
    bench.main()
    assert json.loads(results.read_text()) == first
    capsys.readouterr()


@pytest.mark.parametrize(
    ("at", "kept"),
    [
        (("_calibrated", 2), {"2": False}),
        (("finetuned", 1), {"2": False}),
        (("finetuned", 2), {"2": True, "4": False}),
    ],
)
def test_ctrl_c_keeps_the_levels_that_are_finished(relu, data, tmp_path, monkeypatch, capsys, at, kept):
    """Of a network that is calibrated and not yet fine-tuned, what is calibrated is kept."""
    name, turn = at
    right, calls = getattr(cli.calibrate, name), []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == turn:
            raise KeyboardInterrupt
        return right(*arguments)

    monkeypatch.setattr(cli.calibrate, name, interrupted)
    tuning = 1 if name == "finetuned" else 0
    how = ("--levels", "2,4,8", "--samples", "64", "--test-samples", "40", "--finetune-epochs", str(tuning))
    with pytest.raises(SystemExit) as ended:
        cli.app(["calibrate", str(relu), *how, "-o", str(tmp_path / "x.pt"), "--json"], standalone_mode=False)
    assert ended.value.code == 130
    shown = capsys.readouterr()
    result = json.loads(shown.out)
    assert result["interrupted"]
    assert {levels: "finetuned_float" in row for levels, row in result["levels"].items()} == kept
    assert f"interrupted: {len(kept)} of 3 levels are kept" in shown.err
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"x-L{levels}.pt" for levels in kept]
    for levels, row in result["levels"].items():
        checkpoint = load_checkpoint(tmp_path / f"x-L{levels}.pt")
        score = row["finetuned_float" if kept[levels] else "float"]
        assert checkpoint.about["test_accuracy"] == score
        assert ("finetune_epochs" in checkpoint.about) == kept[levels]
        assert evaluate(checkpoint.model, data.test_images[:40], data.test_labels[:40], data.scale) == score


def test_ctrl_c_before_the_first_level_keeps_nothing(relu, tmp_path, monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.calibrate, "_calibrated", interrupted)
    with pytest.raises(SystemExit) as ended:
        cli.app(["calibrate", str(relu), "-o", str(tmp_path / "x.pt")], standalone_mode=False)
    assert ended.value.code == 130
    assert capsys.readouterr().err.endswith("interrupted\n")
    assert not list(tmp_path.iterdir())
