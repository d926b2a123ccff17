"""The command line, a module for each command or group of commands."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import lava_casc
from lava_casc import console
from lava_casc.cli import calibrate, cluster, doctor, estimate, evaluate, export, import_, report, run, train

app = typer.Typer(
    name="lava-casc",
    help="From PyTorch networks with CQReLU to exact spikes on Lava and Loihi 2. Silence is a certificate.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] == ["help"]:  # of the command that is named, if any
        sys.argv[1:] = [*sys.argv[2:3], "--help"]
    app()


def _version(show: bool) -> None:
    if show:
        console.out.print(f"lava_casc {lava_casc.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


# In the order in which a newcomer needs them.
for command, example in (
    (train.train, "lava-casc train --data cifar10 --data-dir data --levels 8 --epochs 20 -o out/resnet20.pt"),
    (import_.import_, "lava-casc import network.onnx -o out/network.pt --input-range 0,255 --input-scale 1/255"),
    (calibrate.calibrate, "lava-casc calibrate relu.pt --data cifar10 --data-dir data --levels 4,8,16"),
    (export.export, "lava-casc export out/digits.pt -o out/digits.net --verify 64 --report out/export.json"),
    (run.run, "lava-casc run out/digits.net --data digits --mode graded --samples 100"),
    (evaluate.evaluate, "lava-casc evaluate out/detector.pt --data-dir VOC2007 --samples 100 -o out/detector.json"),
    (report.report, "lava-casc report out/vgg9-L8 out/vgg9-L16 -o out/levels.html --step-us 10"),
    (estimate.estimate, "lava-casc estimate out/digits.net --hw loihi2_kapoho_point --picture out/cores.png"),
    (
        cluster.submit,
        "lava-casc submit out/digits.net --data digits --launcher sbatch --partition oheogulch",
    ),
    (cluster.jobs, "lava-casc jobs out/jobs/digits --lines 5"),
    (cluster.collect, "lava-casc collect out/jobs/digits -o out/digits.npz"),
    (cluster.cancel, "lava-casc cancel out/jobs/digits"),
    (doctor.doctor, "lava-casc doctor --json"),
):
    app.command(command.__name__.removesuffix("_"), epilog=f"Example: {example}")(command)
