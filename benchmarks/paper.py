"""The tables and claims of CASC (arXiv 2406.05371) for networks trained here, beside what others published.

    python benchmarks/paper.py out/vgg9-L8.pt out/vgg9-L16.pt --data-dir DIR --samples 1000 -o out/paper

Each checkpoint is studied by ``lava-casc evaluate --study`` (resumable: what is there already is not run again), and
benchmarks/paper.md is written from the studies alone.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_suffix(".md")
COMMAND = [sys.executable, "-c", "import sys; sys.argv[0] = 'lava-casc'; from lava_casc.cli import main; main()"]
POINTS = (2, 4, 8, 16, 32, 64)
ABLATIONS = ("if", "if+wsc", "cif", "cif+wsc")
#: Accuracies (%) that others published: method, network, the ANN's, then at T = 2, 4, 8, 16, 32, 64; None: not given.
PUBLISHED: tuple[tuple[str, str, float, tuple[float | None, ...], str], ...] = (
    ("QCFS", "CIFAR-10, VGG-16", 95.52, (91.18, 93.96, 94.95, 95.40, 95.54, 95.55), "QCFS"),
    ("QCFS", "CIFAR-10, ResNet-20", 91.77, (73.20, 83.75, 89.55, 91.62, 92.24, 92.35), "QCFS"),
    ("QCFS", "CIFAR-10, ResNet-18", 96.04, (75.44, 90.43, 94.82, 95.92, 96.08, 96.06), "QCFS"),
    ("SNNC-AP", "CIFAR-10, VGG-16", 95.72, (None, None, None, None, 93.71, 95.14), "QCFS"),
    ("RTS", "CIFAR-10, VGG-16", 95.72, (None, None, None, None, 76.24, 90.64), "QCFS"),
    ("RMP", "CIFAR-10, VGG-16", 93.63, (None, None, None, None, 60.30, 90.35), "QCFS"),
    ("TSC", "CIFAR-10, VGG-16", 93.63, (None, None, None, None, None, 92.79), "QCFS"),
    ("RNL", "CIFAR-10, VGG-16", 92.82, (None, None, None, 57.90, 85.40, 91.15), "QCFS"),
    ("QCFS", "CIFAR-100, VGG-16", 76.28, (63.79, 69.62, 73.96, 76.24, 77.01, 77.10), "QCFS"),
    ("SRP, 4 steps more", "CIFAR-100, VGG-16", 76.28, (74.31, 75.42, 76.25, None, None, None), "SRP"),
    ("COS, 4 steps more", "CIFAR-100, VGG-16", 76.28, (76.03, 76.26, 76.52, None, None, None), "COS"),
)
SOURCES = {
    "QCFS": "T. Bu et al., Optimal ANN-SNN conversion for high-accuracy and ultra-low-latency spiking neural networks, "
    "ICLR 2022 (arXiv 2303.04347), tables 1 and 2, which also hold the rows of the older methods",
    "SRP": "Z. Hao et al., Reducing ANN-SNN conversion error through residual membrane potential, AAAI 2023 (arXiv "
    "2302.02091), its code's README",
    "COS": "Z. Hao et al., Bridging the gap between ANNs and SNNs by calibrating offset spikes, ICLR 2023 (arXiv "
    "2302.10685), its code's README",
}
HEAD = """\
# The paper's evidence, for networks trained here

Written by `python benchmarks/paper.py`; every figure of ours is from the studies that it runs.

CASC: "Spiking Neural Networks with Consistent Mapping Relations Allow High-Accuracy Inference",
[arXiv 2406.05371](https://arxiv.org/abs/2406.05371).

## What can be compared, and what cannot

* **CASC's own tables (1, 2, 5 and 6) were not at hand**: the copies that we could reach end before them, and its
  research code comes without results. There is no number of theirs on this page, and we do not quote any from memory.
  What the paper claims can be checked without them, and is, below.
* The published rows are of other methods, by their authors, with weights that nobody here has: VGG-16 and ResNets
  trained for hundreds of epochs. Ours were trained for minutes, so that **accuracies cannot be compared between the
  tables**, only how fast each comes near its own ANN.
* **Steps are not the same steps.** In the published codes a spike crosses all layers within one step. Here, as in Lava
  and on a chip, each synapse takes a step: a network of N layers is N steps later everywhere. Take the
  depth off our T to set it beside theirs.
* **Theirs chooses, ours does not**: the research code of CASC reports the best step on the test set. Here stands the
  step in the head of the column.
* The research code also holds an IF neuron in the sleep to as many spikes as there were wake steps. Here the cap is
  part of CIF, and IF has none.
* Ours are integers: weights of 8 bits, and all sums exact. Published conversions run in float32.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("-o", "--output", type=Path, default=Path("out/paper"))
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    from lava_casc.frontend import load_checkpoint
    from lava_casc.study import read_study

    studies = []
    for model in options.models:
        folder = options.output / model.stem
        folder.parent.mkdir(parents=True, exist_ok=True)
        where = [] if options.data_dir is None else ["--data-dir", str(options.data_dir)]
        # Four times the levels, and long enough for what wake and sleep alone leave to be seen.
        steps = max(4 * load_checkpoint(model).about["levels"], 32)
        arguments = ["evaluate", str(model), "--study", str(folder), "--samples", str(options.samples), *where]
        arguments += ["--steps", str(steps)]
        subprocess.run([*COMMAND, *arguments], check=True)
        studies.append(read_study(folder))
    options.page.write_text(page(studies), encoding="utf-8")


def page(studies: list[dict[str, Any]]) -> str:
    """Return the page in Markdown."""
    parts = [HEAD, "## Published by others\n", _published(), "## Ours: accuracy after T steps (as tables 1 and 2)\n"]
    parts += [
        _accuracies(studies),
        "## Ours: what each part is for (as table 5, figures 4 and 5)\n",
        _ablations(studies),
    ]
    parts += ["## What must come out as in the paper\n", _claims(studies), "## Settings\n", _settings(studies)]
    return "\n".join(parts)


def _published() -> str:
    rows = [[m, n, f"{ann:.2f}", *(_given(v) for v in values), s] for m, n, ann, values, s in PUBLISHED]
    notes = "\n".join(f"* {name}: {source}." for name, source in SOURCES.items())
    return f"{_table(['method', 'network', 'ANN', *(f'T = {t}' for t in POINTS), 'from'], rows)}\n{notes}\n"


def _accuracies(studies: list[dict[str, Any]]) -> str:
    rows = []
    for study in studies:
        scores = study["scores"]
        for name in (*ABLATIONS, "graded"):
            run = study["runs"][name]
            values = []
            for t in POINTS:
                settled = name == "graded" and t > run["points"][-1]
                known = t in run["points"] or settled
                values.append(f"{100 * scores[name]['top1'][-1 if settled else t - 1][0]:.2f}" if known else "")
            rows.append(
                [_name(study), f"{study['network']['levels']}", _percent(scores["float"]["top1"][0][0]),
                 _percent(scores["integer"]["top1"][0][0]), name, *values]
            )  # fmt: skip
    head = ["network", "L", "float", "integers", "spikes", *(f"T = {t}" for t in POINTS)]
    samples = sorted({study["samples"] for study in studies})
    width = max((high - low) / 2 for study in studies for _, low, high in [study["scores"]["integer"]["top1"][0]])
    return (
        f"{_table(head, rows)}\nTop-1 in % of {' or '.join(f'{n:,}' for n in samples)} test images; intervals of 95 % "
        f"are at most {100 * width:.1f} points to either side. `graded` is silent and certified after a step a layer.\n"
    )


def _ablations(studies: list[dict[str, Any]]) -> str:
    rows = []
    for study in studies:
        for name in ABLATIONS:
            run = study["runs"][name]
            last = min(study["steps"], run["steps"]) - 1
            more, fewer = (_share(study, run, kind, last) for kind in ("excess", "deficit"))
            rows.append(
                [_name(study), f"{study['network']['levels']}", name, f"{last + 1}", _percent(more), _percent(fewer),
                 _percent(_deviation(study, name, last)), f"{run['squares'][last] / study['logit_squares']:.2g}",
                 f"{study['summary']['certified']:,} of {study['samples']:,}" if name == "cif+wsc" else "cannot"]
            )  # fmt: skip
    head = [
        "network",
        "L",
        "spikes",
        "T",
        "neurons with more",
        "with fewer",
        "deviation",
        "squared error of the outputs",
    ]
    return (
        f"{_table([*head, 'certified'], rows)}\nNeurons whose count is off by one or more from the integer network's, "
        "in %; without a sleep off from what its rate makes of the time. Deviation: sum over all neurons, relative to "
        "the sum of all counts. Squared error: against the float network, relative; what stays with cif+wsc is the "
        "quantization's.\n"
    )


def _claims(studies: list[dict[str, Any]]) -> str:
    rows = []
    for study in studies:
        levels = study["network"]["levels"]
        depth = study["network"]["depth"]
        integer = study["scores"]["integer"]["top1"][0][0]
        whole = [value[0] for value in study["scores"]["cif+wsc"]["top1"]]
        near = _from_when(whole, lambda value, integer=integer: abs(value - integer) <= 0.005)
        equal = _from_when(whole, lambda value, integer=integer: value == integer)
        run = study["runs"]["cif"]
        open_end = _share(study, run, "excess", run["steps"] - 1) + _share(study, run, "deficit", run["steps"] - 1)
        alone = study["runs"]["if+wsc"]
        wrong = [_share(study, alone, "excess", t) + _share(study, alone, "deficit", t) for t in (-4, -1)]
        rows.append(
            [_name(study), f"{levels}", f"{2 * levels} ({2 * levels + depth})", f"{near}", f"{equal}",
             f"{study['summary']['silence']['certificate_max']:g}", _percent(open_end),
             " to ".join(_percent(value) for value in wrong)]
        )  # fmt: skip
    head = [
        "network",
        "L",
        "2 L (and the depth)",
        "within half a point from T =",
        "equal from T =",
        "last certificate",
    ]
    head += ["CIF without sleep: wrong at the end", "WSC without CIF: wrong three steps before the end, and at it"]
    return (
        "1. CIF with wake and sleep reaches the ANN's accuracy within 2 L steps, and stays there: the columns of `from "
        "T =`, against the integer network.\n2. Without the sleep it does not settle: a share of all neurons is wrong "
        "at the end, and of no sample is anything proven.\n3. Wake and sleep alone leave an error that stays: the "
        f"share of wrong neurons is great, and hardly changes any more.\n\n{_table(head, rows)}"
    )


def _settings(studies: list[dict[str, Any]]) -> str:
    lines = []
    for study in studies:
        about = study["about"]
        notes = ", ".join(
            f"{key.removeprefix('trained: ')} {value}" for key, value in about.items() if "trained" in key
        )
        versions = ", ".join(f"{key} {value}" for key, value in about["versions"].items())
        lines.append(f"* **{_name(study)}** ({about['data']}): trained with {notes}. Run with {versions}.")
    return "\n".join(lines) + "\n"


def _from_when(values: list[float], good: Any) -> int:
    """Return the first step from which on all values are good; 0 if the last one is not."""
    step = len(values)
    while step and good(values[step - 1]):
        step -= 1
    return step + 1 if step < len(values) else 0


def _share(study: dict[str, Any], run: dict[str, Any], kind: str, step: int) -> float:
    neurons = sum(layer["neurons"] for layer in study["network"]["layers"] if layer["type"] == "Neurons")
    return float(sum(sums[kind][step] for sums in run["layers"].values() if kind in sums) / neurons / study["samples"])


def _deviation(study: dict[str, Any], name: str, step: int) -> float:
    run = study["runs"][name]
    distances = {layer["name"]: layer["distance"] for layer in study["network"]["layers"]}
    off = sum(sums["deviation"][step] for sums in run["layers"].values() if "deviation" in sums)
    expected = study["expected"]
    if not name.endswith("wsc"):
        expected = {layer: n * (step + 1 - distances[layer]) / run["wake_steps"] for layer, n in expected.items()}
    return float(off / sum(expected.values()))


def _name(study: dict[str, Any]) -> str:
    return str(study["about"]["name"])


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _given(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


if __name__ == "__main__":
    main()
