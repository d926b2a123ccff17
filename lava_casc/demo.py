"""The whole way in one go: train, export, run as spikes on the Lava simulator, compare (``make demo``).

Everything that it shows was measured in that very run. It fails if a sample is not certified, or if one single logit
differs from the integer network's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

import lava_casc
from lava_casc import console
from lava_casc.doctor import versions
from lava_casc.errors import CascError, DataError

ROOT = Path(lava_casc.__file__).resolve().parents[1]


@console.reports_errors
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the files; made if need be.")] = Path(
        "out/demo"
    ),
    samples: Annotated[int | None, typer.Option("--samples", min=1, help="Only the first so many test images.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Train a network on handwritten digits, export it, run it as spikes on Lava, and compare every logit."""
    from lava_casc import netx, pipeline
    from lava_casc.frontend import load_model
    from lava_casc.loihi import require_lava
    from lava_casc.reference import forward
    from lava_casc.report import plot_spikes, save_figure
    from lava_casc.training import evaluate, load_dataset, train_checkpoint

    began = time.perf_counter()
    require_lava()  # before any work
    dataset = load_dataset("digits")
    images, labels = dataset.test_images[:samples], dataset.test_labels[:samples]
    checkpoint, file, picture, summary_file = (
        output / name for name in ("digits.pt", "digits.net", "spikes.png", "summary.json")
    )
    _prepare(output, summary_file)

    torch.set_num_threads(1)  # a network this small gains nothing from more
    with console.progress(f"training on {len(dataset.train_images)} handwritten digits", 1) as bar:
        train_checkpoint(checkpoint, dataset, resume=True, progress=bar)  # where a demo was interrupted
    _export(checkpoint)
    network, schedule = (found := netx.read_file(file)).network, found.schedule
    truth = forward(network, images).logits

    with console.progress(f"Lava, {len(images)} test images", len(images)) as bar:
        record = lava_casc.loihi.run(network, images, schedule, progress=bar)
    drawn = lava_casc.loihi.run(network, images[:1], schedule, record=("spikes",))
    title = f"A handwritten {dataset.classes[labels[0]]} on the Lava simulator"
    save_figure(plot_spikes(network, drawn, image=images[0], title=title), picture)

    summary = {
        "float_accuracy": evaluate(load_model(checkpoint), images, labels, dataset.scale),
        "integer_accuracy": float(np.mean(truth.argmax(axis=1) == labels)),
        "lava_accuracy": float(np.mean(record.predictions == labels)),
        "samples": len(record),
        "certified_samples": int(record.certified.sum()),
        "mismatched_logits": int(np.count_nonzero(record.logits != truth)),
        "logits": truth.size,
        "mode": record.schedule.mode,
        "levels": network.levels,
        "last_spike_median": float(np.median(record.last_spike)),
        "last_spike_max": int(record.last_spike.max()),
        "silence_bound": network.silence_bound(record.schedule),
        "lava_steps": record.steps,
        "lava_ms_per_sample": 1000 * record.seconds / len(record),
        "seconds": time.perf_counter() - began,
        "versions": versions("torch", "numpy", "h5py", "lava-nc", "lava-dl"),
    }
    pipeline.write_json(summary_file, summary)
    _show(summary)
    console.out.print(f"files: {checkpoint}, {file}, {picture}, {summary_file}")
    exact = record.all_certified and bool(np.array_equal(record.logits, truth))
    if not (exact and drawn.all_certified and np.array_equal(drawn.logits, truth[:1])):
        console.err.print(
            "error: the spikes did not give the integer network's answer for every sample, see the table."
        )
        sys.exit(1)


def main() -> None:
    """Run the demo's command line."""
    app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None, add_completion=False)
    app.command()(demo)
    app(prog_name="python -m lava_casc.demo")


def _prepare(output: Path, summary: Path) -> None:
    """Make the folder, and take away a summary of the past: there is none until this run has made its own."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        summary.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{output}: cannot be written ({error.strerror}). Choose another --output.") from error


def _export(checkpoint: Path) -> None:
    """Run ``python export/to_netx.py digits.pt``, as a user would; what it says appears, and its failure is ours."""
    script = ROOT / "export" / "to_netx.py"
    if not script.is_file():
        raise CascError(f"{script}: no such file. Run the demo in the repository of lava_casc, with make demo.")
    shown = os.path.relpath(script)
    console.err.print(f"$ python {shown} {checkpoint}")
    # The script shall import this very lava_casc, installed or not.
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    console.rest()
    done = subprocess.run([sys.executable, shown, str(checkpoint)], env={**os.environ, "PYTHONPATH": path})
    if done.returncode:
        sys.exit(done.returncode)


def _show(summary: dict[str, Any]) -> None:
    samples = summary["samples"]
    accuracies = [
        [name, f"{summary[key]:.2%}", f"{round(summary[key] * samples)} of {samples} right"]
        for name, key in (
            ("float network with CQReLU", "float_accuracy"),
            ("integer network", "integer_accuracy"),
            ("spikes on Lava, fixed point", "lava_accuracy"),
        )
    ]
    proof = [
        ["certified silent", f"{summary['certified_samples']} of {samples}", "samples whose answer is proven"],
        ["logits that differ", f"{summary['mismatched_logits']} of {summary['logits']}", "Lava from integer network"],
        [
            "last spike in step",
            f"{summary['last_spike_median']:g}",
            f"the latest in {summary['last_spike_max']}; proven bound {summary['silence_bound']}",
        ],
        ["time a sample", f"{summary['lava_ms_per_sample']:.1f} ms", f"{summary['seconds']:.0f} s for everything"],
    ]
    console.table("handwritten digits", ["", "measured", ""], [*accuracies, *proof])


if __name__ == "__main__":
    main()
