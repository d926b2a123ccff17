"""Which schedule is silent soonest, and which costs least: bursts, wakes and graded spikes on the same networks.

    python benchmarks/schedules.py out/vgg9-L8.pt --data-dir DIR --samples 100 --page docs/schedules.md

Every schedule is run to silence on the same samples by the reference simulator, and every sample is held to the integer
network: a schedule may cost, but it may not change a single logit.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from lava_casc import console
from lava_casc.network import Entry

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--page", type=Path, help="Write the tables between the marks of this page.")
    options = parser.parse_args()
    from lava_casc.frontend import load_checkpoint
    from lava_casc.pipeline import Options, convert_checkpoint
    from lava_casc.study import multiply_accumulates
    from lava_casc.training import load_dataset

    parts = []
    for path in options.models:
        checkpoint = load_checkpoint(path)
        network = convert_checkpoint(checkpoint, Options(verify=0)).network
        images = load_dataset(str(checkpoint.about["dataset"]), options.data_dir).test_images[: options.samples]
        macs = multiply_accumulates(checkpoint.model, network)
        with console.progress(path.stem, 1) as bar:
            rows = measure(network, images, macs, bar)
        parts.append(f"### {path.stem}, L = {network.levels}, {len(images)} test images\n\n{table(rows)}")
    text = "\n".join(parts)
    print(text)
    if options.page is not None:
        before, _, rest = options.page.read_text(encoding="utf-8").partition(BEGIN)
        options.page.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def schedules(network: Any) -> dict[str, Any]:
    """Return the schedules by name, each with the sleep that its proven bound needs."""
    levels = network.levels
    bursts = sorted({1, 2, 4, levels})
    found = {
        f"at most {burst} a step, wake {wake}": network.schedule("burst", wake, max_burst=burst)
        for burst in bursts
        for wake in sorted({1, -(-levels // burst), levels})
    }
    return {**found, "graded, released by depth": network.schedule("graded")}


def measure(network: Any, images: Any, macs: int, bar: Any) -> list[dict[str, Any]]:
    """Return a row for each schedule."""
    from lava_casc.reference import forward, simulate

    truth, rows = forward(network, images).logits, []
    chosen = schedules(network)
    for i, (name, schedule) in enumerate(chosen.items()):
        record = simulate(network, images, schedule, record=("messages", "negatives", "synops"))
        if not record.certified.all() or (record.logits != truth).any():
            raise AssertionError(f"{name}: a sample is not certified or not exact; this is a bug in lava_casc")
        hidden = [layer.name for layer in network if not isinstance(layer, Entry) and layer.name in record.messages]
        steps = np.maximum(record.last_spike + 1, network.last_event(schedule))
        sums = {kind: sum(getattr(record, kind)[layer].sum() for layer in hidden) for kind in ("messages", "negatives")}
        entry = record.synops[network.input.name].sum()
        rows.append(
            {
                "schedule": name,
                "certified in step, median": float(np.median(steps)),
                "greatest": int(steps.max()),
                "proven": network.certified_by(schedule),
                "spikes": sums["messages"] / len(images),
                "taking back": sums["negatives"] / max(1, sums["messages"]),
                "synaptic operations / MACs": sum(record.synops[layer].sum() for layer in hidden) / len(images) / macs,
                "of the input": entry / len(images) / macs,
            }
        )
        bar((i + 1) / len(chosen))
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Return rows in Markdown; the least number of a column is bold."""
    lines = [list(rows[0]), ["---"] * len(rows[0])]
    least = {key: min(row[key] for row in rows) for key in rows[0] if not isinstance(rows[0][key], str)}
    for row in rows:
        cells = []
        for key, value in row.items():
            text = value if isinstance(value, str) else _number(key, value)
            cells.append(f"**{text}**" if key in least and value == least[key] else text)
        lines.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _number(key: str, value: float) -> str:
    if key == "taking back":
        return f"{value:.1%}"
    return f"{value:,.0f}" if value >= 100 or isinstance(value, int) else f"{value:.2f}".rstrip("0").rstrip(".")


if __name__ == "__main__":
    main()
