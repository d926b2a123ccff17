"""What calibration keeps of an ordinary ReLU network: methods, thresholds of layers and channels, bias correction.

    python benchmarks/calibration.py out/fashion-relu.pt --data-dir DIR --json out/calibration.json --page docs/relu.md

Every row is measured on the same test samples. What is in the JSON file already is not measured again, so that a run
that was cut short goes on. The accuracies are those of the integer network with 8-bit weights: what certified spikes
have, to the last bit.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from lava_casc import console
from lava_casc.errors import CascError
from lava_casc.files import write_json

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
WAYS = [
    {"method": method, "per_channel": per_channel, "bias_correction": corrected}
    for method in ("percentile", "mse", "distribution")
    for per_channel in (False, True)
    for corrected in (False, True)
]
#: What the command does unless it is told otherwise: the way that is fine-tuned.
DEFAULT = {"method": "distribution", "per_channel": True, "bias_correction": True}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, help="Checkpoints of ReLU networks.")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--levels", type=int, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--samples", type=int, default=512, help="Training samples to calibrate on.")
    parser.add_argument("--test-samples", type=int, default=1000)
    parser.add_argument("--finetune-epochs", type=int, default=0, help="Also fine-tune the command's default.")
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--json", type=Path, required=True, help="Results so far, and those of this run.")
    parser.add_argument("--page", type=Path, help="Write the tables between the marks of this page.")
    options = parser.parse_args()
    results = json.loads(options.json.read_text(encoding="utf-8")) if options.json.is_file() else {}
    for path in options.models:
        measure(path, options, results)
    text = "\n\n".join(table(name, found) for name, found in results.items())
    print(text)
    if options.page is not None:
        before, _, rest = options.page.read_text(encoding="utf-8").partition(BEGIN)
        options.page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def measure(path: Path, options: argparse.Namespace, results: dict[str, Any]) -> None:
    """Add to `results` what they lack of a model, and keep them after every row."""
    from lava_casc.cli.calibrate import finetuned, scored
    from lava_casc.frontend import Calibration, load_checkpoint
    from lava_casc.frontend.calibrate import calibrate, spread
    from lava_casc.training import evaluate, load_dataset

    checkpoint = load_checkpoint(path)
    dataset = load_dataset(str(checkpoint.about["dataset"]), options.data_dir)
    images = dataset.train_images[spread(len(dataset.train_images), options.samples)]
    tested = dataset.test_images[: options.test_samples], dataset.test_labels[: options.test_samples]
    found = results.setdefault(path.stem, {"rows": {}})
    found |= {"data": dataset.name, "samples": len(images), "test_samples": len(tested[0])}
    found["relu"] = evaluate(checkpoint.model, *tested, checkpoint.input.scale)

    def rows(way: dict[str, Any], epochs: int) -> None:
        for levels in options.levels:
            key = f"{name_of(way)}, {epochs} epochs, L = {levels}"
            if key in found["rows"]:
                continue
            started = time.perf_counter()
            made = replace(checkpoint, graph=calibrate(checkpoint, images, Calibration(levels, **way)))
            seconds = time.perf_counter() - started
            if epochs:
                made = replace(made, about={**made.about, "levels": levels})
                made = finetuned(made, dataset, epochs, options.learning_rate, 0, "auto")
            try:
                row = scored(made, *tested)
            except CascError as error:
                row = {"error": str(error)}
            found["rows"][key] = {**way, "levels": levels, "epochs": epochs, "calibration_s": seconds, **row}
            write_json(options.json, results, CascError)
            console.err.print(f"{path.stem}: {key}: {row}, {seconds:.1f} s")

    for way in WAYS:
        rows(way, 0)
    if options.finetune_epochs:
        rows(DEFAULT, options.finetune_epochs)


def name_of(way: dict[str, Any]) -> str:
    """Return a way to calibrate in words."""
    where = "channels" if way["per_channel"] else "layers"
    return f"{way['method']}, {where}, {'corrected' if way['bias_correction'] else 'not corrected'}"


def table(name: str, found: dict[str, Any]) -> str:
    """Return the tables of a model: a way a row, the levels as columns."""
    every = list(found["rows"].values())
    levels = sorted({row["levels"] for row in every})
    head = ["method", "a threshold for each", "bias correction", "epochs", *(f"L = {n}" for n in levels)]
    lines = [f"### {name}: {found['data']}, {found['relu']:.1%} with ReLU", "", _line(head), _line(["---"] * len(head))]
    ways = dict.fromkeys((name_of(row), row["epochs"]) for row in every)
    for way, epochs in ways:
        of_way = {row["levels"]: row for row in every if (name_of(row), row["epochs"]) == (way, epochs)}
        method, where, corrected = way.split(", ")
        shown = [_shown(of_way[n]) if n in of_way else "" for n in levels]
        lines.append(
            _line([method, where.removesuffix("s"), "yes" if corrected == "corrected" else "no", epochs, *shown])
        )
    slowest = max(row["calibration_s"] for row in every)
    lines += [
        "",
        f"Accuracy on {found['test_samples']} test samples, in float and (in brackets) of the integer network with "
        f"8-bit weights; calibrated on {found['samples']} training samples, in {slowest:.0f} s at most.",
    ]
    return "\n".join(lines)


def _shown(row: dict[str, Any]) -> str:
    return "refused" if "error" in row else f"{row['float']:.1%} ({row['integer']:.1%})"


def _line(cells: list[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
