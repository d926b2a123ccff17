"""The command line as a user meets it: real processes, their output, exit codes and files."""

from __future__ import annotations

import json
import os
import pickle
import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from torch import nn

import lava_casc
from lava_casc.cli import app
from lava_casc.cli.export import _print_conversion
from lava_casc.frontend import Checkpoint, CQReLU, InputSpec, load_checkpoint, save_model, trace
from lava_casc.netx import read_file
from lava_casc.pipeline import Options, convert_checkpoint, summary

ROOT = Path(__file__).parents[1]
#: Makes a Python process one in which Lava is not installed.
WITHOUT_LAVA = """
from importlib.machinery import PathFinder
found = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.split(".")[0] == "lava" else found(name, *rest)
"""
SHAPE = (2, 6, 5)


def casc(*arguments: object, cwd: Path, module: bool = True) -> subprocess.CompletedProcess:
    """Run the command line in `cwd`."""
    command = [sys.executable, "-m", "lava_casc.cli"] if module else [sys.executable, str(ROOT / "export/to_netx.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    return subprocess.run(
        [*command, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def model(levels: int = 4) -> nn.Module:
    """Return a small model with what the export has to fold."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        CQReLU(levels),
        nn.AvgPool2d((2, 1)),
        nn.Flatten(),
        nn.Linear(60, 3),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, its exported network and images."""
    made = tmp_path_factory.mktemp("cli")
    images = np.random.default_rng(0).integers(0, 256, (5, *SHAPE), dtype=np.uint8)
    save_model(made / "model.pt", model(), InputSpec(SHAPE), examples=images)
    np.save(made / "images.npy", images)
    found = casc("export", "model.pt", "--report", "report.json", cwd=made)
    assert found.returncode == 0, found.stderr
    (made / "export.txt").write_text(found.stdout + found.stderr)
    return made


def failed(found: subprocess.CompletedProcess, *words: str) -> None:
    """Check that a command ended with one clear line that holds `words`, and exit code 2."""
    assert found.returncode == 2, (found.returncode, found.stderr)
    lines = [line for line in found.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, found.stderr
    assert "Traceback" not in found.stderr
    for word in words:
        assert word in lines[0]


def test_export_prints_its_steps_its_table_and_where_the_file_went(folder: Path) -> None:
    text = (folder / "export.txt").read_text()
    for words in (
        "[1/5] trace",
        "[2/5] fold",
        "[3/5] quantize",
        "[4/5] verify",
        "[5/5] write",
        "worst |u| bits",
        "model.net",
    ):
        assert words in text


def test_export_report_says_what_the_network_is(folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    network = lava_casc.read(folder / "model.net")
    assert [layer["name"] for layer in report["layers"]] == [layer.name for layer in network]
    assert report["verification"]["samples"] == report["verification"]["certified"] == 5
    assert report["bytes"] == (folder / "model.net").stat().st_size


def test_the_table_says_what_it_costs_branches_to_meet(capsys: pytest.CaptureFixture[str]) -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.act, self.end = CQReLU(4), CQReLU(4, 8.0), nn.Linear(60, 3)
            self.a, self.b = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            return self.end(torch.flatten(self.act(self.a(x) + self.b(x)), 1))

    torch.manual_seed(0)
    residual = Residual()
    with torch.no_grad():
        residual.b.weight.copy_(torch.tensor([[1.0, 0.7], [0.013, 0.021]]).reshape(2, 2, 1, 1))
    checkpoint = Checkpoint(trace(residual, SHAPE), InputSpec(SHAPE))
    report = summary(convert_checkpoint(checkpoint, Options(verify=0)))
    _print_conversion({**report, "file": "model.net", "bytes": 0})
    shown = [line.split("│") for line in capsys.readouterr().out.splitlines() if line.startswith("│ ")]
    layer = next(layer for layer in report["layers"] if layer["name"] == "a")
    rows = [row for row in shown if row[1].strip() in ("a", "+ first")]
    assert [branch["source"] for branch in layer["branches"]] == ["first", "first"]
    assert len(rows) == 2
    for branch, row in zip(layer["branches"], rows, strict=True):
        error, alone = (f"{branch[key]:.2%}" for key in ("weight_error", "weight_error_alone"))
        assert error != alone
        assert f"{error} ({alone})" in [cell.strip() for cell in row]
    first = next(layer for layer in report["layers"] if layer["name"] == "first")
    (row,) = [row for row in shown if row[1].strip() == "first"]
    assert f"{first['branches'][0]['weight_error']:.2%}" in [cell.strip() for cell in row]


def test_the_exporters_door_writes_the_same_file(folder: Path, tmp_path: Path) -> None:
    found = casc(
        folder / "model.pt",
        "-o",
        "other.net",
        "--hw",
        ROOT / "hw_configs/loihi2_oheo_gulch.toml",
        cwd=tmp_path,
        module=False,
    )
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "other.net").read_bytes() == (folder / "model.net").read_bytes()


def test_export_options_reach_the_network(folder: Path, tmp_path: Path) -> None:
    found = casc(
        "export", folder / "model.pt", "-o", "x.net", "--levels", 2, "--weight-bits", 5, "--wake-steps", 3,
        "--sleep-steps", 7, "--verify", 2, "--per-layer", "--json", cwd=tmp_path,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    summary = json.loads(found.stdout)
    assert (summary["schedule"]["wake_steps"], summary["schedule"]["sleep_steps"]) == (3, 7)
    assert summary["verification"]["samples"] == 2
    network = lava_casc.read(tmp_path / "x.net")
    assert network.levels == 2
    assert np.abs(network.layers[1].synapses[0].weight).max() <= 15


def test_run_reference_certifies_and_writes_everything(folder: Path, tmp_path: Path) -> None:
    found = casc(
        "run", folder / "model.net", "--images", folder / "images.npy", "--engine", "reference", "-o", "run.json",
        "--picture", "spikes.png", cwd=tmp_path,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert "5 of 5" in found.stdout
    result = json.loads((tmp_path / "run.json").read_text())
    truth = lava_casc.forward(lava_casc.read(folder / "model.net"), np.load(folder / "images.npy"))
    assert result["logits"] == truth.logits.tolist()
    assert result["mismatched_logits"] == 0
    assert (tmp_path / "spikes.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_cut_short_is_not_certified(folder: Path, tmp_path: Path) -> None:
    found = casc(
        "run",
        folder / "model.net",
        "--images",
        folder / "images.npy",
        "--engine",
        "reference",
        "--sleep-steps",
        0,
        cwd=tmp_path,
    )
    assert found.returncode == 0, found.stderr
    assert "0 of 5" in found.stdout
    assert "NOT CERTIFIED" in found.stdout


def test_run_options_change_the_files_schedule_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    found = casc("export", folder / "model.pt", "-o", "x.net", "--mode", "graded", "--wake-steps", 3, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    run = ("run", "x.net", "--images", folder / "images.npy", "--engine", "reference", "--json")
    schedules = lava_casc.read(tmp_path / "x.net").schedule
    for options, expected in (
        ((), schedules("graded", 3)),
        (("--sleep-steps", 9), schedules("graded", 3, 9)),
        (("--wake-steps", 5), schedules("graded", 5)),
        (("--mode", "unary"), schedules("unary")),
        (("--mode", "burst"), schedules("burst")),
        (("--max-burst", 3), schedules("burst", max_burst=3)),
        (("--max-burst", 3, "--wake-steps", 2), schedules("burst", 2, max_burst=3)),
        (("--mode", "graded", "--max-burst", 2), schedules("graded", max_burst=2)),
        (("--preset", "energy"), schedules("graded")),
        (("--preset", "energy", "--max-burst", 1), schedules("graded", max_burst=1)),
        (("--preset", "latency"), schedules("graded")),
        (("--preset", "latency", "--max-burst", 2), schedules("burst", max_burst=2)),
        (("--preset", "latency", "--sleep-steps", 1), schedules("graded", 1, 1)),
    ):
        found = casc(*run, *options, cwd=tmp_path)
        assert found.returncode == 0, found.stderr
        assert json.loads(found.stdout)["schedule"] == {**asdict(expected), "mode": expected.mode}, options


@pytest.mark.parametrize(
    ("options", "called"),
    [
        pytest.param((), "lava fused fixed_pt", marks=pytest.mark.lava),
        pytest.param(("--engine", "fused"), "lava fused fixed_pt", marks=pytest.mark.lava),
        pytest.param(("--engine", "graph"), "lava fixed_pt", marks=pytest.mark.lava),
        (("--engine", "reference"), "reference"),
    ],
)
@pytest.mark.parametrize("mode", ["unary", "graded"])
def test_every_engine_gives_the_integer_networks_answer(
    folder: Path, tmp_path: Path, mode: str, options: tuple[str, ...], called: str
) -> None:
    images = ("--images", folder / "images.npy", "--mode", mode)
    found = casc("run", folder / "model.net", *images, *options, "--json", "-o", "run.json", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    result = json.loads(found.stdout)
    assert result["engine"] == called
    assert (result["certified_samples"], result["mismatched_logits"]) == (5, 0)
    truth = lava_casc.forward(lava_casc.read(folder / "model.net"), np.load(folder / "images.npy"))
    assert json.loads((tmp_path / "run.json").read_text())["logits"] == truth.logits.tolist()


@pytest.mark.lava
def test_an_engine_draws_and_keeps_to_the_period(folder: Path, tmp_path: Path) -> None:
    run = ("run", folder / "model.net", "--images", folder / "images.npy", "--fixed-period", "--json")
    steps = {}
    for engine in ("fused", "graph"):
        found = casc(*run, "--engine", engine, "--picture", f"{engine}.png", cwd=tmp_path)
        assert found.returncode == 0, found.stderr
        assert (tmp_path / f"{engine}.png").read_bytes().startswith(b"\x89PNG")
        result = json.loads(found.stdout)
        steps[engine] = result["steps"] / (result["schedule"]["wake_steps"] + result["schedule"]["sleep_steps"])
    assert steps == {"fused": 1, "graph": 5}, "a period for all in one batch; and for each sample"


@pytest.mark.lava
def test_floating_point_is_the_graphs(folder: Path, tmp_path: Path) -> None:
    run = ("run", folder / "model.net", "--images", folder / "images.npy", "--precision", "float")
    for options in ((), ("--engine", "fused")):
        failed(casc(*run, *options, cwd=tmp_path), "--precision float", "Use --engine graph.")
    found = casc(*run, "--engine", "graph", "--json", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["engine"] == "lava floating_pt"


def test_every_commands_help_has_an_example_that_it_takes(tmp_path: Path) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert {"train", "calibrate", "import", "export", "run", "evaluate"} < set(commands)
    for name, command in commands.items():
        example = command.epilog.removeprefix("Example: ")
        program, verb, *arguments = shlex.split(example)
        assert (program, verb) == ("lava-casc", name)
        assert command.make_context(name, arguments).params
    shown = casc("train", "--help", cwd=tmp_path)
    assert shown.returncode == 0
    assert "Example: lava-casc train" in " ".join(shown.stdout.split())


def test_the_shell_completes_commands_and_options(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("lava-casc")
    for words, expected in (
        ("lava-casc ev", "evaluate"),
        ("lava-casc run --pre", "--preset"),
        ("lava-casc run --engine st", "staircase"),
        ("lava-casc run --data fa", "fashion-mnist"),
        ("lava-casc estimate --hw loihi2_k", "loihi2_kapoho_point"),
        ("lava-casc report --energy lo", "loihi1"),
    ):
        environment = {"_LAVA_CASC_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        found = subprocess.run(
            [program], env={**os.environ, **environment}, cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert expected in found.stdout.split(), (found.stdout, found.stderr)


@pytest.mark.parametrize(("shell", "words"), [("zsh", "_arguments"), ("fish", "evaluate\t")])
def test_other_shells_complete_too(tmp_path, shell, words):
    environment = {
        "_LAVA_CASC_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": "lava-casc ev",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    program = Path(sys.executable).with_name("lava-casc")
    found = subprocess.run([program], env={**os.environ, **environment}, cwd=tmp_path, capture_output=True, text=True)
    assert words in found.stdout
    assert "evaluate" in found.stdout


def test_what_the_shell_completes_is_what_there_is() -> None:
    from lava_casc.baselines import METHODS
    from lava_casc.cli import options
    from lava_casc.training.architectures import ARCHITECTURES
    from lava_casc.training.data import DATASETS

    assert {*options.DATA_SETS} == {*DATASETS, "folder"}
    assert {*options.METHODS} == {*METHODS, "all"}
    assert {*options.ARCHITECTURES} == {*ARCHITECTURES}


def test_every_option_has_help_and_every_table_its_json() -> None:
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        options = {option: parameter.help for parameter in command.params for option in parameter.opts}
        assert all(options.values()), (name, options)
        assert ("--json" in options) == (name not in ("train", "cancel")), name  # which print no table


def test_help_is_a_verb_too(tmp_path: Path) -> None:
    for words, shown in ((("help",), "Usage: "), (("help", "run"), "A network file that export wrote.")):
        found = casc(*words, cwd=tmp_path)
        assert found.returncode == 0, found.stderr
        assert shown in " ".join(found.stdout.split())


def test_a_file_of_another_kind_is_named(folder: Path, tmp_path: Path) -> None:
    data = ("--data", "digits")
    failed(casc("export", folder / "model.net", "-o", "x.net", cwd=tmp_path), "a network file, and no checkpoint")
    failed(casc("evaluate", folder / "model.net", *data, cwd=tmp_path), "a network file, and no checkpoint")
    failed(casc("export", tmp_path, "-o", "x.net", cwd=tmp_path), "is a folder")
    failed(casc("estimate", folder / "model.pt", cwd=tmp_path), "as checkpoints are", "lava-casc export")
    failed(casc("estimate", tmp_path, cwd=tmp_path), "is a folder")
    failed(casc("import", folder / "model.pt", cwd=tmp_path), "A checkpoint needs no import")
    failed(casc("import", tmp_path, "-o", "x.pt", cwd=tmp_path), "is a folder")
    (tmp_path / "noise.pt").write_bytes(b"\x00\x01noise" * 50)
    failed(noise := casc("export", "noise.pt", cwd=tmp_path), "damaged, or not a checkpoint")
    assert "weights_only" not in noise.stderr


def test_doctor_speaks_json(tmp_path: Path) -> None:
    found = casc("doctor", "--json", cwd=tmp_path)
    checks = {check["name"]: check["status"] for check in json.loads(found.stdout)}
    assert checks["torch"] == "ok"


def test_wrong_options_are_usage_errors(folder: Path, tmp_path: Path) -> None:
    for arguments in (
        ("export",),
        ("export", "a.pt", "--weight-bits", "1"),
        ("run", "a.net", "--mode", "loud"),
        ("run", "a.net", "--engine", "lava"),
        ("nonsense",),
    ):
        assert casc(*arguments, cwd=tmp_path).returncode == 2


def test_bad_checkpoints_are_one_line_and_leave_nothing(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.pt").write_bytes((folder / "model.pt").read_bytes()[:2000])
    (tmp_path / "noise.pt").write_bytes(b"\x00\x01noise" * 50)
    torch.save(model().state_dict(), tmp_path / "state.pt")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps(object()))
    torch.save(model(), tmp_path / "module.pt")
    before = sorted(tmp_path.iterdir())
    for name, words in {
        "missing.pt": ("no such file",), "cut.pt": ("damaged",), "noise.pt": ("damaged",), "pickle.pt": (),
        "state.pt": ("bare state dict", "save_model"), "module.pt": ("--allow-pickle", "run code"),
    }.items():  # fmt: skip
        failed(casc("export", name, cwd=tmp_path), name, *words)
    assert sorted(tmp_path.iterdir()) == before


def test_unsupported_layers_nan_and_ranges_are_named(tmp_path: Path) -> None:
    with pytest.raises(lava_casc.CascError, match="1: Sigmoid is not supported"):
        save_model(tmp_path / "a.pt", nn.Sequential(nn.Conv2d(2, 2, 1), nn.Sigmoid()), InputSpec(SHAPE))
    broken = model()
    broken[0].weight.data[0] = float("nan")
    with pytest.raises(lava_casc.CascError, match="0: its weight holds NaN"):
        save_model(tmp_path / "a.pt", broken, InputSpec(SHAPE))
    wide = nn.Sequential(nn.Flatten(), nn.Linear(60000, 4), CQReLU(4), nn.Linear(4, 2))
    save_model(tmp_path / "wide.pt", wide, InputSpec((1, 200, 300), 0, 65535, 1 / 65535))
    failed(casc("export", "wide.pt", "-o", "wide.net", cwd=tmp_path), "1: worst-case potential", "24 signed bits")
    assert [path.name for path in tmp_path.iterdir()] == ["wide.pt"]


def test_unwritable_outputs_are_one_line(folder: Path, tmp_path: Path) -> None:
    failed(casc("export", folder / "model.pt", "-o", "no/such/folder.net", cwd=tmp_path), "cannot be written")
    failed(casc("train", "-o", "no/such/folder.pt", cwd=tmp_path), "folder does not exist")
    failed(casc("export", folder / "model.pt", "-o", folder / "model.pt", cwd=tmp_path), "would replace the checkpoint")
    assert not list(tmp_path.iterdir())
    assert load_checkpoint(folder / "model.pt").input.shape == SHAPE


def test_a_preset_leaves_no_choice_of_mode_and_wake(folder: Path, tmp_path: Path) -> None:
    line = "--preset energy: chooses the mode and the wake. Leave --mode and --wake-steps out."
    failed(casc("run", folder / "model.net", "--preset", "energy", "--mode", "graded", cwd=tmp_path), line)
    failed(casc("export", folder / "model.pt", "--preset", "energy", "--wake-steps", 2, cwd=tmp_path), line)
    assert not list(tmp_path.iterdir())
    done = casc("export", folder / "model.pt", "-o", "x.net", "--preset", "latency", "--max-burst", 2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    file = read_file(tmp_path / "x.net")
    assert file.schedule == file.network.schedule("burst", max_burst=2)


def test_bad_networks_and_images_are_one_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.net").write_bytes((folder / "model.net").read_bytes()[:-500])
    np.save(tmp_path / "float.npy", np.zeros((2, *SHAPE)))
    np.save(tmp_path / "wide.npy", np.full((2, *SHAPE), 300))
    np.save(tmp_path / "other.npy", np.zeros((2, 3, 3, 3), np.uint8))
    images = ("--engine", "reference", "--images")
    failed(casc("run", "missing.net", *images, folder / "images.npy", cwd=tmp_path), "missing.net")
    failed(casc("run", "cut.net", *images, folder / "images.npy", cwd=tmp_path), "cut.net")
    failed(casc("run", folder / "model.net", *images, "missing.npy", cwd=tmp_path), "missing.npy")
    failed(casc("run", folder / "model.net", *images, "float.npy", cwd=tmp_path), "must hold integers")
    failed(casc("run", folder / "model.net", *images, "wide.npy", cwd=tmp_path), "outside the network's input range")
    failed(casc("run", folder / "model.net", *images, "other.npy", cwd=tmp_path), "do not fit")
    failed(casc("run", folder / "model.net", cwd=tmp_path), "--data NAME or --images")
    failed(casc("export", folder / "model.pt", "-o", "x.net", "--hw", "nowhere", cwd=tmp_path), "nowhere", "loihi2")


def test_a_run_without_lava_says_what_to_do(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_LAVA)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [
        sys.executable,
        "-m",
        "lava_casc.cli",
        "run",
        str(folder / "model.net"),
        "--images",
        str(folder / "images.npy"),
    ]
    found = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    failed(found, "Python 3.10")
