"""The measurement: a data set through the float network, the integers, and every way to run them as spikes."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lava_casc.dynamics import VARIANTS, batches
from lava_casc.errors import DataError, RangeError
from lava_casc.files import replacing
from lava_casc.frontend import real_outputs
from lava_casc.mapping.needs import weight_bits
from lava_casc.network import Entry, IntegerNetwork, Neurons, Readout
from lava_casc.record import SpikeRecord
from lava_casc.reference import forward, simulate
from lava_casc.schedule import WakeSleepSchedule
from lava_casc.study.cost import connections, multiply_accumulates
from lava_casc.study.files import VERSION, as_dict, from_dict, save_study
from lava_casc.study.scores import Scorer
from lava_casc.study.summary import planned_point
from lava_casc.study.sums import GRADED, KINDS, WHOLE, Run, Study

#: Samples between two savings, at most, and numbers that the outputs of all steps may be at a time.
CHUNK, OUTPUTS = 256, 1 << 25
PROGRESS = "progress.pt"


class Samples(Protocol):
    """Some samples at a time, such as an array has them."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitem__(self, part: slice) -> NDArray[np.int64]:
        """Return some of them."""


class Method(Protocol):
    """Another way to run the same model, of which nothing is certified; `lava_casc.baselines` has them.

    Attributes
    ----------
    parts : list
        All that its answers depend on, beside the model and the samples: arrays, or what has a `repr` of its own.
    layers : tuple of str
        The layers whose messages and synaptic operations it counts.
    """

    @property
    def parts(self) -> list[Any]:
        """All that its answers depend on."""

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers whose work is counted."""

    def points(self, steps: int) -> list[int]:
        """Return the steps after which it has outputs, up to `steps`.

        Parameters
        ----------
        steps : int

        Returns
        -------
        list of int
        """

    def run(self, samples: NDArray[np.int64], steps: int) -> tuple[list[list[NDArray]], SpikeRecord | None]:
        """Return the real outputs at every point, and what the layers did in `steps` steps, where that is counted.

        Parameters
        ----------
        samples : (N, ...) ndarray of int64
        steps : int

        Returns
        -------
        outputs : list of list of (N, ...) ndarray
            By point, and by output of the model.
        record : SpikeRecord or None
        """


def measure(
    model: nn.Module,
    network: IntegerNetwork,
    schedule: WakeSleepSchedule,
    samples: Samples,
    scorer: Scorer,
    *,
    steps: int,
    variants: Sequence[str] = tuple(VARIANTS),
    about: dict[str, Any] | None = None,
    quantization: dict[str, dict[str, Any]] | None = None,
    methods: Mapping[str, Method] | None = None,
    folder: Path | None = None,
    progress: Callable[[int], None] = lambda done: None,
    tell: Callable[[str], None] = lambda line: None,
) -> Study:
    """Measure a network in all its forms, after every step.

    Ctrl-C goes through to the caller where `folder` has what was measured, or nothing was; else it ends the study with
    the samples that are done, of which there are then fewer than there were to be.

    The whole runs under `schedule`, or for `steps` where that is longer; once more with graded spikes, unless
    `schedule` has them. The ablations have the wake of `schedule` and run for `steps` steps. A recurrent network's
    outputs need a run of their own for each number of steps a phase, so that they are taken after a few of them.

    Parameters
    ----------
    model : torch.nn.Module
        The float network.
    network : IntegerNetwork
    schedule : WakeSleepSchedule
    samples : Samples
        (N, ...) integers.
    scorer : Scorer
        New; it takes in the outputs.
    steps : int
        At least the wake.
    variants : sequence of str
        Of `VARIANTS`; the whole is always among them.
    about : dict, optional
        Kept as it is.
    quantization : dict, optional
        As `quantization_errors` returns it; kept with the layers.
    methods : mapping of str to Method, optional
        By name, other ways to run the model, until the outputs have heard `steps` steps. Not for recurrent networks.
    folder : Path, optional
        Where to save after every chunk of samples, and to go on from where it was saved.
    progress : callable
        Called with the number of samples done.
    tell : callable
        Called with a line before what takes long and is no running of samples.

    Returns
    -------
    Study

    Raises
    ------
    RangeError
        `steps` is smaller than the wake.
    DataError
        There are no samples, or `folder` holds a study of something else.
    """
    if steps < schedule.wake_steps:
        raise RangeError(f"steps ({steps}) is smaller than the wake ({schedule.wake_steps}). Use at least that many.")
    if not len(samples):
        raise DataError("there are no samples to study. Give at least one.")
    names = [name for name in VARIANTS if name in variants or name == WHOLE]
    methods = methods or {}
    phases = samples[:1].shape[1] if network.is_recurrent else 1
    data = _digest_of_samples(samples)
    study = Study(
        about=about or {},
        network=_described(network, multiply_accumulates(model, network, phases), quantization or {}),
        identity=_digest(
            plain(network),
            _weights(model),
            scorer.truth,
            asdict(schedule),
            steps,
            names,
            data,
            1,
            *([*methods, *(method.parts for method in methods.values()), VERSION] if methods else []),
        ),
        data=data,
        steps=steps,
        planned=schedule.period,
        bound=network.certified_by(schedule),
        phases=phases,
        runs={name: _begun(network, name, run) for name, run in _schedules(network, schedule, steps, names).items()}
        | {name: _begun_method(name, method, steps + _distance(network)) for name, method in methods.items()},
        expected={layer.name: 0.0 for layer in network if isinstance(layer, Neurons)},
    )
    if folder is not None and (folder / PROGRESS).exists():
        study = _resumed(folder / PROGRESS, study, scorer)
    longest = max(run.steps for run in study.runs.values())
    outputs = sum(math.prod(network.shapes[readout.name]) for readout in network.readouts)
    size = min(
        CHUNK, max(1, OUTPUTS // (longest * outputs * phases)), batches(network, len(samples), None, 256)[0].stop
    )
    progress(study.samples)
    before = study, scorer.state
    try:
        while study.samples < len(samples):
            if folder is None:
                before = copy.deepcopy((study, scorer.state))
            _add(study, model, network, samples[study.samples : study.samples + size], scorer, methods)
            if folder is not None:
                _save(study, scorer, folder)
            progress(study.samples)
    except KeyboardInterrupt:
        if folder is not None or not before[0].samples:
            raise
        study, scorer.state = before
    tell("scoring every step ...")
    study.scores = scorer.scores({name: planned_point(study, name) for name in ("float", "integer", *study.runs)})
    if folder is not None:
        save_study(study, folder / "study.json")
    return study


def _schedules(
    network: IntegerNetwork, schedule: WakeSleepSchedule, steps: int, names: Sequence[str]
) -> dict[str, WakeSleepSchedule]:
    found = {name: replace(schedule, sleep_steps=steps - schedule.wake_steps) for name in names}
    found[WHOLE] = replace(schedule, sleep_steps=max(steps, schedule.period) - schedule.wake_steps)
    return found if schedule.released else {**found, GRADED: network.schedule("graded")}


def _begun(network: IntegerNetwork, name: str, schedule: WakeSleepSchedule) -> Run:
    variant = WHOLE if name == GRADED else name
    points = list(range(1, schedule.period + 1))
    if network.is_recurrent:
        # 0, 1, 2, 4, 8, ... steps after the wake, and the last.
        later = {schedule.wake_steps, *(schedule.wake_steps + (1 << k) for k in range(schedule.period.bit_length()))}
        points = sorted({point for point in later if point < schedule.period} | {schedule.period})
    spiking = [layer for layer in network if not isinstance(layer, Readout)]
    return Run(
        variant,
        schedule.wake_steps,
        schedule.max_burst,
        schedule.released,
        schedule.period,
        points,
        [0.0] * len(points),
        {
            layer.name: {kind: [0] * schedule.period for kind in (KINDS if isinstance(layer, Neurons) else KINDS[:3])}
            for layer in spiking
        },
        [0] * schedule.period if variant == WHOLE else [],
    )


def _distance(network: IntegerNetwork) -> int:
    """Return the steps that the input takes to the farthest output."""
    return max(network.distances[readout.name][0] for readout in network.readouts)


def _begun_method(name: str, method: Method, steps: int) -> Run:
    points = method.points(steps)
    layers = {layer: {kind: [0.0] * steps for kind in KINDS[:3]} for layer in method.layers}
    return Run(name, 1, 1, False, steps, points, [0.0] * len(points), layers)


def _add(
    study: Study,
    model: nn.Module,
    network: IntegerNetwork,
    samples: NDArray[np.int64],
    scorer: Scorer,
    methods: Mapping[str, Method],
) -> None:
    """Run some samples in all forms, and add up what they say."""
    real = real_outputs(model, samples, network.input)
    truth = forward(network, samples)
    scorer.add("float", [real], study.samples)
    scorer.add("integer", [list(network.outputs(truth.logits, study.phases).values())], study.samples)
    flat = np.concatenate([output.reshape(len(samples), -1) for output in real], 1)
    study.logit_squares += float((flat**2).mean(1).sum())
    for name in study.expected:
        study.expected[name] += float(truth.counts[name].sum())
    for name, run in study.runs.items():
        record: SpikeRecord | None
        if name in methods:
            series, record = methods[name].run(samples, run.steps)
        else:
            series = []
            for record, step in _records(network, run, samples):
                logits = record.logits if record.logits_by_step is None else record.logits_by_step[:, step - 1]
                series.append(_outputs(network, run, logits, step, study.phases))
        for place, outputs in enumerate(series):
            difference = np.concatenate([output.reshape(len(samples), -1) for output in outputs], 1) - flat
            run.squares[place] += float((difference**2).mean(1).sum())
        if record is not None:
            # The last record is of all steps.
            _add_layers(run, record)
            if run.variant == WHOLE:
                _add_silence(study, name, run, record, network, truth.logits)
        scorer.add(name, series, study.samples)
    study.samples += len(samples)


def _outputs(
    network: IntegerNetwork, run: Run, logits: NDArray[np.int64], step: int, phases: int
) -> list[NDArray[np.float64]]:
    """Return what the outputs are after a step: where the injection goes on, by the rate since it arrived."""
    found = network.outputs(logits, phases)
    if VARIANTS[run.variant].sleeps:
        return list(found.values())
    heard = {name: max(1, step - network.distances[name][0]) for name in found}
    return [values * (run.wake_steps / heard[name]) for name, values in found.items()]


def _records(network: IntegerNetwork, run: Run, samples: NDArray[np.int64]):  # type: ignore[no-untyped-def]
    """Yield a record for every point of a run, and the point; the last one holds what is recorded by layer."""
    schedule = WakeSleepSchedule(run.wake_steps, run.steps - run.wake_steps, run.max_burst, run.released)
    kinds, variant = ("messages", "negatives", "synops", "errors"), VARIANTS[run.variant]
    if not network.is_recurrent:
        record = simulate(network, samples, schedule, record=(*kinds, "logits"), variant=variant)
        yield from ((record, point) for point in run.points)
        return
    for point in run.points[:-1]:
        cut = replace(schedule, sleep_steps=point - run.wake_steps)
        yield simulate(network, samples, cut, record=(), variant=variant), point
    yield simulate(network, samples, schedule, record=kinds, variant=variant), run.steps


def _add_layers(run: Run, record: SpikeRecord) -> None:
    for kind in KINDS:
        for layer, values in getattr(record, kind).items():
            # Over the samples, and over their phases.
            sums = values.reshape(-1, values.shape[-1]).sum(0).tolist()
            run.layers[layer][kind] = [a + b for a, b in zip(run.layers[layer][kind], sums, strict=True)]


def _add_silence(
    study: Study, name: str, run: Run, record: SpikeRecord, network: IntegerNetwork, truth: NDArray[np.int64]
) -> None:
    """Note when each sample was certified, if that was within the schedule that is studied."""
    schedule = record.schedule
    first = np.maximum(record.last_spike + 1, network.last_event(schedule))
    sure = record.certified & (first <= (study.planned if name == WHOLE else schedule.period))
    if (record.logits[sure] != truth[sure]).any():
        raise RuntimeError("a certified sample differs from the integer network")
    for step in first[sure]:
        run.silent[int(step) - 1] += 1
    run.last_spike += record.last_spike.tolist()


def _described(network: IntegerNetwork, macs: int, quantization: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the layers of a network as rows of a table."""
    leaving = connections(network)
    rows = []
    for layer in network:
        synapses = getattr(layer, "synapses", ())
        rows.append(
            {
                "name": layer.name,
                "type": type(layer).__name__,
                "shape": list(network.shapes[layer.name]),
                "entry": isinstance(layer, Entry),
                "neurons": math.prod(network.shapes[layer.name]),
                "distance": network.distances[layer.name][0],
                "levels": getattr(layer, "levels", None),
                "weights": sum(synapse.weight.size for synapse in synapses),
                "weight_bits": max(map(weight_bits, synapses), default=None),
                "connections_out": leaving[layer.name],
                "quantization": quantization.get(layer.name),
            }
        )
    return {
        "layers": rows,
        "levels": network.levels,
        "depth": max(longest for _, longest in network.distances.values()),
        "weight_bits": max(row["weight_bits"] or 0 for row in rows),
        "neurons": network.neurons,
        "computed_neurons": sum(row["neurons"] for row in rows if row["type"] == "Neurons"),
        "weights": sum(row["weights"] for row in rows),
        "macs": macs,
    }


def _save(study: Study, scorer: Scorer, folder: Path) -> None:
    """Keep how far it has come, so that it can go on from there."""
    with replacing(folder / PROGRESS, DataError) as temporary:
        torch.save({"study": json.dumps(as_dict(study)), "scores": scorer.state}, temporary)


def _resumed(path: Path, begun: Study, scorer: Scorer) -> Study:
    """Return the study that was saved, if it is the one that is to be made, and give the scorer what it had."""
    try:
        found = torch.load(path, weights_only=True)
        study = from_dict(json.loads(found["study"]))
    except Exception as error:  # torch and pickle raise what they like about a broken file
        reason = str(error).split("\n")[0]
        raise DataError(f"{path}: cannot be read ({reason}). Remove it, and begin anew.") from error
    if study.identity != begun.identity:
        raise DataError(f"{path}: is of another network, schedule or data. Choose another folder.")
    scorer.state = found["scores"]
    return replace(study, about=begun.about, network=begun.network)


def plain(network: IntegerNetwork) -> list[Any]:
    """Return all that a network computes with.

    Parameters
    ----------
    network : IntegerNetwork

    Returns
    -------
    list
    """
    found: list[Any] = []
    for layer in network:
        found += [layer.name, type(layer).__name__, getattr(layer, "levels", 0)]
        for synapse in getattr(layer, "synapses", ()):
            found += [synapse.source, synapse.exponent, synapse.weight]
        found += [getattr(layer, name) for name in ("bias", "threshold", "initial", "scale") if hasattr(layer, name)]
    return found


def _weights(model: nn.Module) -> list[Any]:
    return [item for name, tensor in model.state_dict().items() for item in (name, tensor.cpu().float().numpy())]


def _digest(*parts: Any) -> str:
    found = hashlib.sha256()
    for part in parts:
        for item in part if isinstance(part, list) else [part]:
            array = np.ascontiguousarray(item) if isinstance(item, np.ndarray) else None
            found.update(repr(item if array is None else (array.shape, str(array.dtype))).encode())
            found.update(b"" if array is None else array.tobytes())
    return found.hexdigest()


def _digest_of_samples(samples: Samples) -> str:
    """Return a digest that does not depend on how many samples are read at a time."""
    found = hashlib.sha256(repr((len(samples), samples[:1].shape[1:])).encode())
    for start in range(0, len(samples), CHUNK):
        found.update(np.ascontiguousarray(samples[start : start + CHUNK], np.int64).tobytes())
    return found.hexdigest()
