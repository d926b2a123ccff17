"""The fused network process against dense convolutions, and against a process for every layer: ratios of this very run.

    python benchmarks/engines.py [--json FILE]

A VGG16 for 32x32 images, L = 8, 32 samples. The fused process takes all of them one step further in every Lava step;
the floor is the same network's convolutions alone, in dense float32, as fast as torch has them here. Each step is
timed in the Lava process itself, Lava's messages between two steps included, and once more without Lava. Activity is
the share of all neurons that spiked in the step before: what the step has to deliver.

Then the network of `make demo`, per sample, on both engines. Whatever comes out is compared with ==.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import numpy as np
from measuring import MS, Floor, Row, calibrated, images, left_out, parser, real, row, seconds, show, vgg16

#: Activity below which a step has to be faster than the floor, and how much slower any may be.
SPARSE, LIMIT = 0.25, 1.5


def main() -> None:
    arguments = parser(__doc__).parse_args()
    show("fused engine", measure(arguments.quick), arguments.json)


def measure(quick: bool = False, rounds: int = 3) -> list[Row]:
    """Return the rows of `against_floor` and `against_graph`."""
    rounds = 1 if quick else rounds
    return [*against_floor(quick, rounds), *against_graph(quick, rounds)]


def against_floor(quick: bool, rounds: int) -> list[Row]:
    """Return how long the steps of the fused process take, as parts of the floor."""
    import lava_casc
    from lava_casc.dynamics import Crew

    model, samples = vgg16(quick), images(4 if quick else 32)
    network = lava_casc.convert(model, (3, 32, 32))
    truth, schedule = lava_casc.forward(network, samples).logits, network.schedule()
    activity = _activity(lava_casc.simulate(network, samples, schedule, record=("messages",)), network)
    floor = Floor(model, real(samples))
    crew = Crew(network, schedule)
    kinds: dict[str, list[list[float]]] = {"without Lava": []}
    inside = find_spec("lava") is not None
    if inside:
        kinds = {"in Lava": [], **kinds}
    floors: list[float] = []
    equal = dict.fromkeys(kinds, True)
    floor.run()
    _crew_steps(crew, network.encode(samples))
    for _ in range(rounds):
        for kind in kinds:
            floors += [seconds(floor.run), seconds(floor.run)]
            times, logits = (
                _crew_steps(crew, network.encode(samples))
                if kind == "without Lava"
                else _lava_steps(network, samples, schedule)
            )
            equal[kind] &= bool(np.array_equal(logits, truth))
            kinds[kind].append(times)
    dense = statistics.median(floors)
    rows = []
    for kind, runs in kinds.items():
        steps = np.median(runs, 0)
        before = np.concatenate([[0.0], activity])[: len(steps)]  # spikes of the step before arrive
        sparse = before < SPARSE
        worst, worst_sparse = int(steps.argmax()), int(np.where(sparse, steps, 0).argmax())
        name = f"VGG16 step {kind}"
        common = {"equal": equal[kind]}
        rows += [
            row(
                f"{name}, the slowest of {len(steps)}", steps[worst] * MS, dense * MS, most=LIMIT,
                note=f"step {worst + 1}, activity {before[worst]:.0%}; floor: {floor.label}", **common,
            ),
            row(
                f"{name}, the slowest of {sparse.sum()} with activity below {SPARSE:.0%}",
                steps[worst_sparse] * MS, dense * MS, most=1.0,
                note=f"step {worst_sparse + 1}, activity {before[worst_sparse]:.0%}", **common,
            ),
            row(
                f"{name}, the mean", steps.mean() * MS, dense * MS, part=True,
                note=f"activity {before.mean():.0%} in the mean, {before.max():.0%} at most", **common,
            )
            | {"steps_ms": (steps * MS).tolist(), "activity": before.tolist(), "floors_ms": [f * MS for f in floors]},
        ]  # fmt: skip
    if not inside:
        rows.append(left_out("VGG16 step in Lava", "Lava is not installed", f"at most {LIMIT:g}"))
    return rows


def _activity(record, network) -> np.ndarray:
    """Return the share of all neurons of all samples that spiked in each step."""
    from lava_casc.network import Neurons

    neurons = [layer.name for layer in network.spiking if isinstance(layer, Neurons)]
    total = sum(int(np.prod(network.shapes[name])) for name in neurons)
    return np.sum([record.messages[name] for name in neurons], axis=(0, 1)) / (total * len(record))


def _crew_steps(crew, samples) -> tuple[list[float], np.ndarray]:
    """Return the seconds of every step until all samples are silent, and the logits."""
    crew.begin(samples)
    times = []
    while not crew.over:
        times.append(seconds(crew.step))
    return times, crew.result()["logits", ""][:, 0]


def _lava_steps(network, samples, schedule) -> tuple[list[float], np.ndarray]:
    """Return the same of a run on Lava: the time from one step's start to that of the next."""
    (times,), logits = lava_batches(network, samples, schedule)
    return times, logits


def lava_batches(network, samples, schedule, batches: int = 1, until_silent: bool = True):
    """Run the same samples on Lava, batch after batch, and return the seconds of every step of every batch.

    Parameters
    ----------
    network : IntegerNetwork
    samples : (N, ...) array
        All of them are a batch.
    schedule : WakeSleepSchedule
    batches : int
        One more runs first, whose first step also prepares the network.
    until_silent : bool
        As for `lava_casc.loihi.run`.

    Returns
    -------
    list of list of float, (N, K) ndarray
        From one step's start to that of the next; and the logits of the last batch.
    """
    from lava_casc.loihi import runner
    from lava_casc.loihi.network.models import PyFusedNetwork

    with tempfile.TemporaryDirectory() as folder:

        class TimedNetwork(PyFusedNetwork):
            """Writes down when each step began and, when a batch is over, also when that was."""

            file = Path(folder) / "batches.json"

            def run_spk(self) -> None:
                batches = self.__dict__.setdefault("clock", [[]])
                batches[-1].append(time.perf_counter())
                super().run_spk()
                if self.crew.over:
                    batches[-1].append(time.perf_counter())
                    self.file.write_text(json.dumps(batches))
                    batches.append([])

        # The very run that users get, with this model in place of the other.
        with (
            mock.patch.dict(runner.ENGINES, fused=TimedNetwork),
            mock.patch.object(runner, "PyFusedNetwork", TimedNetwork),
        ):
            again = np.concatenate([samples] * (1 + batches))
            record = runner.run(network, again, schedule, batch_size=len(samples), until_silent=until_silent)
        clocks = json.loads(TimedNetwork.file.read_text())
    return [np.diff(clock).tolist() for clock in clocks[1 : 1 + batches]], record.logits[-len(samples) :]


def against_graph(quick: bool, rounds: int) -> list[Row]:
    """Return how long a sample of the demo's network takes on both engines, the start of Lava excluded."""
    name, bar = "demo network, a sample, fused against graph", 20
    if find_spec("lava") is None:
        return [left_out(name, "Lava is not installed", f"at least {bar}")]
    from lava_casc.loihi import run

    network, samples = _demo(quick)
    few, batch, batches = (2, 2, 3) if quick else (4, 32, 10)  # ten batches are nearly all that there is to test with

    def spent(engine: str, n: int) -> tuple[float, object]:
        clock = [(0, time.perf_counter())]
        record = run(
            network,
            samples[:n],
            engine=engine,
            batch_size=batch,
            record=("counts",),
            progress=lambda done: clock.append((done, time.perf_counter())),
        )
        # From the first result on: Lava has started by then. Tiny runs may give all results at once.
        (first, begin), (last, end) = clock[1 if len(clock) > 2 else 0], clock[-1]
        return (end - begin) / (last - first), record

    found: dict[str, list[float]] = {"graph": [], "fused": []}
    equal = True
    for _ in range(rounds):
        once, graph = spent("graph", few)
        found["graph"].append(once)
        once, fused = spent("fused", batch * batches)
        found["fused"].append(once)
        n = len(graph)
        equal &= graph.all_certified and fused.all_certified
        for kind in ("logits", "last_spike"):
            equal &= bool(np.array_equal(getattr(graph, kind), getattr(fused, kind)[:n]))
        equal &= all(np.array_equal(graph.counts[key], fused.counts[key][:n]) for key in graph.counts)
    ours, theirs = (statistics.median(found[engine]) * MS for engine in ("fused", "graph"))
    return [row(name, ours, theirs, least=bar, equal=equal, note=f"batch {batch}; theirs: a process for every layer")]


def _demo(quick: bool):
    """Return the network of `make demo`, after a tenth of its training, and the images that it is tested with."""
    import lava_casc
    from lava_casc.frontend import load_checkpoint
    from lava_casc.training import build, load_dataset, train_checkpoint

    if quick:
        samples = images(6, channels=1, size=8) // 16
        model = calibrated(build("digits", channels=1), samples)
        return lava_casc.convert(model, (1, 8, 8), input_range=(0, 16), input_scale=1 / 16), samples
    dataset = load_dataset("digits")
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "digits.pt"
        train_checkpoint(checkpoint, dataset, epochs=3)
        return lava_casc.convert(load_checkpoint(checkpoint)), dataset.test_images


if __name__ == "__main__":
    main()
