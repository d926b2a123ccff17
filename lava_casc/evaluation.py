"""The same samples through the float model, the integer network and its spikes, scored alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lava_casc.errors import DataError
from lava_casc.frontend import real_outputs
from lava_casc.network import IntegerNetwork
from lava_casc.record import SpikeRecord, kept
from lava_casc.reference import logits

#: The three forms of one network, in the order in which they are made.
FORMS = ("float", "integer", "spikes")
Scores = dict[str, float | None]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` found.

    Attributes
    ----------
    scores : dict of str to dict of str to float
        By form (`FORMS`) and name of the score; None where it has no meaning. Float and integers: of all samples.
    simulated : (M,) ndarray of int64
        The samples that ran as spikes, in rising order: all of them unless others were chosen. The scores of the spikes
        are theirs, as is all that follows.
    certified : (M,) ndarray of bool
        Samples that ended in proven silence.
    last_spike : (M,) ndarray of int64
    mismatched : int
        Integers among the outputs of the spikes that are not the integer network's: 0 in certified samples.
    seconds : dict of str to float
        By form, for all samples that it was computed for.
    samples : int
        How many there were.
    interrupted : bool
        Whether there were to be more: all of this is of the samples that were finished by then.
    """

    scores: dict[str, Scores]
    simulated: NDArray[np.int64]
    certified: NDArray[np.bool_]
    last_spike: NDArray[np.int64]
    mismatched: int
    seconds: dict[str, float]
    samples: int
    interrupted: bool = False


@dataclass
class _Batch:
    """What one batch of samples gave."""

    samples: int
    predictions: dict[str, Sequence[Any]]
    record: SpikeRecord | None
    mismatched: int
    seconds: dict[str, float]
    interrupted: bool


def evaluate(
    model: nn.Module,
    network: IntegerNetwork,
    batches: Iterable[NDArray],
    predict: Callable[[Sequence[NDArray]], Sequence[Any]],
    score: Callable[[Sequence[Any], NDArray[np.int64]], Scores],
    run: Callable[[NDArray, Callable[[float], None]], SpikeRecord],
    *,
    simulated: NDArray[np.int64] | None = None,
    progress: Callable[[float], None] = lambda done: None,
) -> Evaluation:
    """Score a network in its three forms on the same samples.

    A certified sample has the integer network's outputs, bit for bit. Where a schedule is proven to end in silence, the
    score of the spikes is thus that of the integers, at the price of one pass through the network; `simulated` then
    chooses samples on which it is tried. An interruption (Ctrl-C) ends it with the samples that are finished; before
    the first of them with spikes it goes through to the caller.

    Parameters
    ----------
    model : torch.nn.Module
        The float network, in evaluation.
    network : IntegerNetwork
        What it was converted to.
    batches : iterable of (n, ...) ndarrays of integers
        At least one sample in all.
    predict : callable
        From the real outputs of a batch, in the model's order, to one prediction a sample.
    score : callable
        From predictions, and the indices of the samples that they are for, to scores.
    run : callable
        Runs samples as spikes; called with them and with a function to tell how many of them are done.
    simulated : array of int, optional
        The samples that run as spikes; by default all.
    progress : callable
        Called with the number of samples done.

    Returns
    -------
    Evaluation

    Raises
    ------
    DataError
        The network has other outputs than the model: it was made of another one.
    """
    found: list[_Batch] = []
    done, interrupted = 0, False
    try:
        for samples in batches:
            chosen = _chosen(simulated, done, len(samples))
            found.append(
                _batch(model, network, samples, chosen, predict, _running(run, partial(_shifted, progress, done)))
            )
            interrupted = found[-1].interrupted
            if interrupted:
                break
            done += len(samples)
            progress(done)
    except KeyboardInterrupt:
        if not any(batch.record is not None for batch in found):
            raise
        interrupted = True
    done = sum(batch.samples for batch in found)
    records = [batch.record for batch in found if batch.record is not None]
    indices = {form: np.arange(done) for form in FORMS} | {"spikes": _chosen(simulated, 0, done)}
    return Evaluation(
        {form: score([p for batch in found for p in batch.predictions[form]], indices[form]) for form in FORMS},
        indices["spikes"],
        np.concatenate([record.certified for record in records]),
        np.concatenate([record.last_spike for record in records]),
        sum(batch.mismatched for batch in found),
        {form: sum(batch.seconds[form] for batch in found) for form in FORMS},
        done,
        interrupted,
    )


def _batch(
    model: nn.Module,
    network: IntegerNetwork,
    samples: NDArray,
    chosen: NDArray[np.int64],
    predict: Callable[[Sequence[NDArray]], Sequence[Any]],
    run: Callable[[NDArray], SpikeRecord],
) -> _Batch:
    """Take a batch through all forms; the `chosen` of its samples as spikes."""
    started = time.perf_counter()
    real = real_outputs(model, samples, network.input)
    after_float = time.perf_counter()
    truth = logits(network, samples)
    after_integer = time.perf_counter()
    computed, interrupted = len(samples), False
    record: SpikeRecord | None = None
    try:
        if len(chosen):
            record = run(samples[chosen])
    except KeyboardInterrupt as stop:
        record, interrupted = kept(stop), True
        if record is None:
            raise
        if len(record) < len(chosen):  # all three forms are of the same samples
            whole = chosen[len(record)]
            samples, truth, real = samples[:whole], truth[:whole], [output[:whole] for output in real]
            chosen = chosen[: len(record)]
    after_spikes = time.perf_counter()
    phases = samples.shape[1] if network.is_recurrent else 1
    integer = list(network.outputs(truth, phases).values())
    shapes = [[list(output.shape[1:]) for output in outputs] for outputs in (real, integer)]
    if shapes[0] != shapes[1]:
        raise DataError(f"the network's outputs {shapes[1]} are not the model's {shapes[0]}. Export the model again.")
    spikes = [] if record is None else predict(list(network.outputs(record.logits, phases).values()))
    return _Batch(
        len(samples),
        {"float": predict(real), "integer": predict(integer), "spikes": spikes},
        record,
        0 if record is None else int((record.logits != truth[chosen]).sum()),
        {
            "float": (after_float - started) * len(samples) / computed,
            "integer": (after_integer - after_float) * len(samples) / computed,
            "spikes": after_spikes - after_integer,
        },
        interrupted,
    )


def _chosen(simulated: NDArray[np.int64] | None, start: int, n: int) -> NDArray[np.int64]:
    """Return the places, within the `n` samples from `start`, of those that run as spikes."""
    if simulated is None:
        return np.arange(n)
    ordered = np.sort(simulated)
    return ordered[(ordered >= start) & (ordered < start + n)] - start


def _shifted(progress: Callable[[float], None], before: int, done: float) -> None:
    progress(before + done)


def _running(
    run: Callable[[NDArray, Callable[[float], None]], SpikeRecord], progress: Callable[[float], None]
) -> Callable[[NDArray], SpikeRecord]:
    return lambda samples: run(samples, progress)
