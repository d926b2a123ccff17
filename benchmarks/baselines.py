"""Accuracy over time of the literature's methods and of ours, from the same checkpoint.

    python benchmarks/baselines.py out/vgg9-L8.pt --data-dir DIR --samples 200 --page docs/baselines.md

All of them run in the reference simulator, and are scored from the input's arrival at the outputs on: by the labels,
and by the classes of the integer network. The page's part between its marks is written anew, one model at a time.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lava_casc import console

#: Training images for thresholds and biases.
CALIBRATED = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--method", default="all")
    parser.add_argument("--page", type=Path, help="Write the tables between the marks of this page for this model.")
    options = parser.parse_args()
    from lava_casc.frontend import load_checkpoint
    from lava_casc.training import load_dataset

    begin, end = (f"<!-- {options.model.stem}: {word} -->" for word in ("begin", "end"))
    if options.page is not None and not 0 <= _read(options.page).find(begin) < _read(options.page).find(end):
        parser.error(f"{options.page}: has no marks {begin} and {end}. Add them where the tables belong.")
    checkpoint = load_checkpoint(options.model)
    data = load_dataset(str(checkpoint.about["dataset"]), options.data_dir)
    images, labels = data.test_images[: options.samples], data.test_labels[: options.samples]
    with console.progress(options.model.stem, len(images)) as bar:
        found = measure(checkpoint, images, labels, data.train_images[:CALIBRATED], options.method, bar)
    text = page(options.model.stem, found)
    console.out.print(text, markup=False, highlight=False, soft_wrap=True)
    if options.page is not None:
        before, _, rest = _read(options.page).partition(begin)
        options.page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}", encoding="utf-8")


def measure(checkpoint: Any, images: Any, labels: Any, training: Any, methods: str, bar: Any) -> dict[str, Any]:
    """Return for each form the samples at every T that are right, and those with the integer network's class."""
    from lava_casc.baselines import Material, find, prepare
    from lava_casc.pipeline import Options, convert_checkpoint
    from lava_casc.reference import forward
    from lava_casc.study import measure as study

    network = convert_checkpoint(checkpoint, Options(verify=0)).network
    chosen = prepare(find(methods), Material(checkpoint, network, training.astype(np.int64)))
    scorer = Both(labels, forward(network, images).logits.argmax(1))
    last = 4 * network.levels
    done = study(
        checkpoint.model, network, network.schedule(), images, scorer,
        steps=last, variants=(), methods=chosen, progress=bar,
    )  # fmt: skip
    distance = max(network.distances[readout.name][0] for readout in network.readouts)
    times = [1 << k for k in range(last.bit_length())]
    rows = {}
    for name in [*chosen, "cif+wsc", "graded"]:
        points = done.runs[name].points
        places = [max(i for i, point in enumerate(points) if point <= distance + t or i == 0) for t in times]
        rows[name] = {kind: [done.scores[name][kind][place] for place in places] for kind in ("top1", "same")}
    return {
        "levels": network.levels, "samples": len(images), "times": times, "distance": distance, "rows": rows,
        "float": done.scores["float"]["top1"][0], "integer": done.scores["integer"]["top1"][0],
        "relu": relu_accuracy(checkpoint, images, labels), "certified": done.whole.certified,
    }  # fmt: skip


class Both:
    """A scorer by two lists of labels at once: ``top1`` by what is true, ``same`` by what the integer network says."""

    def __init__(self, labels: Any, classes: Any) -> None:
        from lava_casc.study import Ranks

        self.right, self.same = Ranks(labels), Ranks(classes)
        self.truth, self.state = [labels, classes], {}

    def add(self, name: str, outputs: Any, start: int) -> None:
        self.right.add(name, outputs, start)
        self.same.add(name, outputs, start)

    def scores(self, planned: dict[str, int]) -> dict[str, Any]:
        right, same = self.right.scores(planned), self.same.scores(planned)
        return {name: {"top1": right[name]["top1"], "same": same[name]["top1"]} for name in right}


def relu_accuracy(checkpoint: Any, images: Any, labels: Any) -> Any:
    """Return the accuracy of the checkpoint with plain ReLU, which methods with thresholds at a percentile approach."""
    from lava_casc.frontend.fold import INPUT, FloatNeurons, fold, received
    from lava_casc.linear import max_pool
    from lava_casc.network import MaxPool
    from lava_casc.study import interval

    network, right = fold(checkpoint.graph), 0
    for start in range(0, len(images), 16):
        x = torch.tensor(images[start : start + 16].astype(np.float64)) * checkpoint.input.scale
        values = {INPUT: x}
        for layer in network.layers:
            if isinstance(layer, MaxPool):
                values[layer.name] = max_pool(layer, values[layer.source])
            else:
                z = received(network, layer, values)
                values[layer.name] = z.relu() if isinstance(layer, FloatNeurons) else z
        right += int((values[network.layers[-1].name].argmax(1).numpy() == labels[start : start + 16]).sum())
    return (right / len(images), *interval(right, len(images)))


def page(name: str, found: dict[str, Any]) -> str:
    """Return the tables in Markdown."""
    times, n = found["times"], found["samples"]
    head = (
        f"### {name}, L = {found['levels']}, {n} test images\n\nFloat {shown(found['float'])}, integer network "
        f"{shown(found['integer'])}, the same weights with plain ReLU {shown(found['relu'])}; the input takes "
        f"{found['distance']} steps to the output.\n"
    )
    lines = [["right after T =", *map(str, times)], ["---"] * (len(times) + 1)]
    lines += [[row, *map(shown, scores["top1"])] for row, scores in found["rows"].items()]
    same = [["as the integer network after T =", *map(str, times), "certified"], ["---"] * (len(times) + 2)]
    for row, scores in found["rows"].items():
        ours = row in ("cif+wsc", "graded")
        same.append([row, *(f"{s[0]:.1%}" for s in scores["same"]), f"{found['certified']} of {n}" if ours else "none"])
    tables = ("\n".join(f"| {' | '.join(line)} |" for line in part) for part in (lines, same))
    return head + "\n" + "\n\n".join(tables)


def shown(score: Any) -> str:
    """Return a share with its interval of 95 %, in per cent."""
    value, low, high = score
    return f"{100 * value:.1f} ({100 * low:.1f}\N{EN DASH}{100 * high:.1f})"


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


if __name__ == "__main__":
    main()
