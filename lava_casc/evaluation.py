"""The same samples through the float model, the integer network and its spikes, scored alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lava_casc.errors import DataError
from lava_casc.network import Input, IntegerNetwork, Tokens
from lava_casc.record import SpikeRecord
from lava_casc.reference import forward

#: The three forms of one network, in the order in which they are made.
FORMS = ("float", "integer", "spikes")
Scores = dict[str, float | None]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` found.

    Attributes
    ----------
    scores : dict of str to dict of str to float
        By form (`FORMS`) and name of the score; None where it has no meaning.
    certified : (N,) ndarray of bool
        Samples that ended in proven silence.
    last_spike : (N,) ndarray of int64
    mismatched : int
        Integers among the outputs of the spikes that are not the integer network's: 0 in certified samples.
    seconds : dict of str to float
        By form, for all samples together.
    """

    scores: dict[str, Scores]
    certified: NDArray[np.bool_]
    last_spike: NDArray[np.int64]
    mismatched: int
    seconds: dict[str, float]


def evaluate(
    model: nn.Module,
    network: IntegerNetwork,
    batches: Iterable[NDArray],
    predict: Callable[[Sequence[NDArray]], Sequence[Any]],
    score: Callable[[Sequence[Any]], Scores],
    run: Callable[[NDArray, Callable[[float], None]], SpikeRecord],
    *,
    progress: Callable[[float], None] = lambda done: None,
) -> Evaluation:
    """Score a network in its three forms on the same samples.

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
        From the predictions of all samples to scores.
    run : callable
        Runs samples as spikes; called with them and with a function to tell how many of them are done.
    progress : callable
        Called with the number of samples done.

    Raises
    ------
    DataError
        The network has other outputs than the model: it was made of another one.
    """
    predictions: dict[str, list[Any]] = {form: [] for form in FORMS}
    seconds = dict.fromkeys(FORMS, 0.0)
    certified, last_spike, mismatched, done = [], [], 0, 0
    for samples in batches:
        started = time.perf_counter()
        real = _outputs(model, samples, network.input)
        seconds["float"] += time.perf_counter() - started
        started = time.perf_counter()
        truth = forward(network, samples).logits
        seconds["integer"] += time.perf_counter() - started
        started = time.perf_counter()
        record = run(samples, partial(_shifted, progress, done))
        seconds["spikes"] += time.perf_counter() - started
        phases = samples.shape[1] if network.is_recurrent else 1
        integer = list(network.outputs(truth, phases).values())
        shapes = [[list(output.shape[1:]) for output in outputs] for outputs in (real, integer)]
        if shapes[0] != shapes[1]:
            raise DataError(
                f"the network's outputs {shapes[1]} are not the model's {shapes[0]}. Export the model again."
            )
        spiking = list(network.outputs(record.logits, phases).values())
        for form, outputs in zip(FORMS, (real, integer, spiking), strict=True):
            predictions[form].extend(predict(outputs))
        certified.append(record.certified)
        last_spike.append(record.last_spike)
        mismatched += int((record.logits != truth).sum())
        done += len(samples)
    return Evaluation(
        {form: score(found) for form, found in predictions.items()},
        np.concatenate(certified),
        np.concatenate(last_spike),
        mismatched,
        seconds,
    )


def _shifted(progress: Callable[[float], None], before: int, done: float) -> None:
    progress(before + done)


def _outputs(model: nn.Module, samples: NDArray, entry: Input | Tokens) -> list[NDArray]:
    x = torch.tensor(samples)
    with torch.no_grad():
        found = model(x if isinstance(entry, Tokens) else x * entry.scale)
    return [output.numpy() for output in (found if isinstance(found, tuple | list) else (found,))]
