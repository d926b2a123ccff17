"""Which schedule is silent soonest, and which costs least: bursts, wakes, releases and mixtures on the same networks.

    python benchmarks/schedules.py out/vgg9-L8.pt --data-dir DIR --samples 100 --page docs/schedules.md

Every schedule is run to silence on the same samples by the reference simulator, and every sample is held to the integer
network: a schedule may cost, but it may not change a single logit.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lava_casc import console
from lava_casc.dynamics import Plan
from lava_casc.network import Entry, Neurons
from lava_casc.reference import forward
from lava_casc.reference.simulate import _Runner

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
        title = f"### {path.stem}, L = {network.levels}, {len(images)} test images"
        parts.append(f"{title}\n\n{table(rows)}\n{silent_levels(network, images)}\n")
    text = "\n".join(parts)
    print(text)
    if options.page is not None:
        before, _, rest = options.page.read_text(encoding="utf-8").partition(BEGIN)
        options.page.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def schedules(network: Any) -> dict[str, Any]:
    """Return the schedules by name, each with the sleep that its proven bound needs."""
    levels = network.levels
    bursts = sorted({1, 2, 4, levels})
    found = {}
    for burst in bursts:
        shortest = -(-levels // burst)
        for wake in sorted({1, max(1, shortest // 2), shortest, 2 * shortest, levels}):
            found[f"at most {burst} a step, wake {wake}"] = network.schedule("burst", wake, max_burst=burst)
    for burst in bursts[:-1]:
        name = f"at most {burst} a step, one layer after another"
        found[name] = network.schedule("graded", max_burst=burst)
    return {**found, "graded: all at once, one layer after another": network.schedule("graded")}


def mixtures(network: Any) -> dict[str, tuple[Any, dict[str, int], bool]]:
    """Return what no schedule can say, to see whether it would be worth it: some layers graded and the others unary.

    By name the schedule, the greatest spike of each layer, and whether layers are released.
    """
    names, levels = [layer.name for layer in network if isinstance(layer, Neurons)], network.levels
    found = {}
    for first in (1, 2, len(names) // 2):
        for released in (False, True):
            bursts = {name: levels if i < first else 1 for i, name in enumerate(names)}
            schedule = network.schedule("graded" if released else "burst", 1, max_burst=1)  # long enough for both
            how = "one layer after another" if released else "all awake"
            found[f"the first {first} graded, the others unary, {how}"] = schedule, bursts, released
    return found


def measure(network: Any, images: Any, macs: int, bar: Any) -> list[dict[str, Any]]:
    """Return a row for each schedule."""
    from lava_casc.reference import simulate

    kinds = ("messages", "negatives", "synops")
    chosen, mixed = schedules(network), mixtures(network)
    truth, rows = forward(network, images).logits, []
    for name, schedule in chosen.items():
        record = simulate(network, images, schedule, record=kinds)
        ends = network.certified_by(schedule), network.last_event(schedule)
        rows.append(_row(network, name, record, truth, *ends, macs))
        bar(len(rows) / (len(chosen) + len(mixed)))
    for name, (schedule, bursts, released) in mixed.items():
        record, last_event = _mixed(network, images, schedule, bursts, released, kinds)
        rows.append(_row(network, name, record, truth, None, last_event, macs))
        bar(len(rows) / (len(chosen) + len(mixed)))
    return rows


def _mixed(
    network: Any, images: Any, schedule: Any, bursts: dict[str, int], released: bool, kinds: tuple[str, ...]
) -> tuple[Any, int]:
    """Run a network whose layers differ in their greatest spikes, and return the step of the last event, too."""
    plan = Plan(network, schedule)
    if released:
        spoken = {layer.name: schedule.wake_steps for layer in network.entries}
        for layer in network.computed:
            complete = spoken[layer.name] = max(1 + spoken[source] for source in layer.sources)
            if layer.name in bursts:
                spoken[layer.name] += -(-layer.levels // bursts[layer.name]) - 1
                timing = plan.populations[layer.name].timing
                plan.populations[layer.name].timing = replace(timing, release=complete)
        releases = (plan.populations[name].timing.release for name in bursts)
        plan.last_event = max(schedule.wake_steps + 1, *releases)
    for name, burst in bursts.items():
        plan.populations[name].max_burst = min(burst, network[name].levels)
    return _Runner(plan, frozenset(kinds)).run(network.encode(images)), plan.last_event


def _row(
    network: Any, name: str, record: Any, truth: Any, proven: int | None, last_event: int, macs: int
) -> dict[str, Any]:
    if not record.certified.all() or (record.logits != truth).any():
        raise AssertionError(f"{name}: a sample is not certified or not exact; this is a bug in lava_casc")
    hidden = [layer.name for layer in network if not isinstance(layer, Entry) and layer.name in record.messages]
    steps = np.maximum(record.last_spike + 1, last_event)
    sums = {kind: sum(getattr(record, kind)[layer].sum() for layer in hidden) for kind in ("messages", "negatives")}
    samples = len(truth)
    return {
        "schedule": name,
        "certified in step, median": float(np.median(steps)),
        "greatest": int(steps.max()),
        "proven": proven,
        "spikes": sums["messages"] / samples,
        "taking back": sums["negatives"] / max(1, sums["messages"]),
        "synaptic operations / MACs": sum(record.synops[layer].sum() for layer in hidden) / samples / macs,
        "of the input": record.synops[network.input.name].sum() / samples / macs,
    }


def silent_levels(network: Any, images: Any) -> str:
    """Return what it would save if each channel's commonest level were what a silent neuron means, not 0."""
    counts = forward(network, images).counts
    active = other = neurons = 0
    for layer in network:
        if isinstance(layer, Neurons):
            count = counts[layer.name].reshape(len(images), len(layer.threshold), -1)
            commonest = np.max([(count == level).sum((0, 2)) for level in range(layer.levels + 1)], 0).sum()
            neurons += count.size
            active += int((count != 0).sum())
            other += int(count.size - commonest)
    return (
        f"{active / neurons:.2%} of the neurons are not at level 0, and {other / neurons:.2%} not at the level that is "
        "the commonest of their channel."
    )


def table(rows: list[dict[str, Any]]) -> str:
    """Return rows in Markdown; the least number of a column is bold."""
    lines = [list(rows[0]), ["---"] * len(rows[0])]
    least = {
        key: min(row[key] for row in rows if row[key] is not None)
        for key in rows[0]
        if not isinstance(rows[0][key], str)
    }
    for row in rows:
        cells = []
        for key, value in row.items():
            text = value or "" if isinstance(value, str | None) else _number(key, value)
            cells.append(f"**{text}**" if key in least and value == least[key] else text)
        lines.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _number(key: str, value: float) -> str:
    if key == "taking back":
        return f"{value:.1%}"
    return f"{value:,.0f}" if value >= 100 or isinstance(value, int) else f"{value:.2f}".rstrip("0").rstrip(".")


if __name__ == "__main__":
    main()
