"""What noise for residual errors while training is worth, where a network is read after fewer steps than its levels.

    python benchmarks/residual.py out/vgg9-L8.pt --data-dir DIR --epochs 1 --page docs/few-steps.md

The same checkpoint is trained further several times, with everything the same but the noise, and read after T steps.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from lava_casc import console
from lava_casc.frontend import load_checkpoint
from lava_casc.study.intervals import interval
from lava_casc.training import ResidualError, load_dataset, spiking, train_checkpoint

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
BATCH = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=0.02)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--page", type=Path, help="Write the tables between the marks of this page.")
    options = parser.parse_args()
    text = "\n".join(measured(path, options) for path in options.models)
    print(text)
    if options.page is not None:
        before, _, rest = options.page.read_text(encoding="utf-8").partition(BEGIN)
        options.page.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def measured(path: Path, options: argparse.Namespace) -> str:
    """Return a table of one checkpoint: a row for each way to train it further, a column for each T."""
    about = load_checkpoint(path).about
    dataset = load_dataset(str(about["dataset"]), options.data_dir)
    images, labels = dataset.test_images[: options.samples], dataset.test_labels[: options.samples]
    points = [*options.steps, int(about["levels"]), 2 * int(about["levels"])]
    lines = [
        ["trained further", *(f"T = {t}" for t in points), "CQReLU"],
        ["---"] * (len(points) + 2),
    ]
    with tempfile.TemporaryDirectory() as folder:
        for steps in (None, *options.steps):
            made = Path(folder) / f"{steps}.pt"
            name = "without noise" if steps is None else f"for T = {steps}"
            with console.progress(f"{path.stem} {name}", 1) as bar:
                train_checkpoint(
                    made,
                    dataset,
                    architecture=str(about["architecture"]),
                    levels=int(about["levels"]),
                    rounding=str(about["rounding"]),
                    width=float(about["width"]),
                    pool=str(about["pool"]),
                    epochs=options.epochs,
                    learning_rate=options.learning_rate,
                    init=path,
                    residual=None if steps is None else ResidualError(steps),
                    bfloat16=options.bfloat16,
                    progress=bar,
                )
            model = load_checkpoint(made).model.eval()
            right, exact = torch.zeros(max(points), dtype=torch.int64), 0
            for start in range(0, len(images), BATCH):
                x = torch.tensor(images[start : start + BATCH]) * dataset.scale
                wanted = torch.tensor(labels[start : start + BATCH])
                with torch.no_grad():
                    exact += int((model(x).argmax(1) == wanted).sum())
                right += (spiking(model, x, max(points))[0].argmax(2) == wanted).sum(1)
            found = [int(right[t - 1]) for t in points]
            lines.append([name, *(_shown(k, len(images)) for k in (*found, exact))])
    title = f"### {path.stem}, L = {about['levels']}, {len(images)} test images, {options.epochs} epochs more"
    return f"{title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _shown(right: int, samples: int) -> str:
    low, high = interval(right, samples)
    return f"{right / samples:.1%} ({low:.1%} to {high:.1%})"


if __name__ == "__main__":
    main()
