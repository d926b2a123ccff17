"""How the outputs of a network are scored: by the rank of the label, or by whatever a task predicts from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lava_casc.study.intervals import interval, jackknife

#: A score with its interval of 95 %; None where it has no meaning, or was not computed.
Score = tuple[float | None, float | None, float | None]
#: Under the name of the score one value for every point.
Series = dict[str, list[Score]]
#: The ranks that are counted as right.
RANKS = {"top1": 1, "top5": 5}


class Scorer(Protocol):
    """Takes in outputs, a few samples at a time, and says what they are worth.

    Attributes
    ----------
    state : dict
        All that was taken in, of what torch saves and loads with ``weights_only=True``.
    truth : list
        What outputs are scored by; arrays, or what has a `repr` of its own.
    """

    state: dict[str, Any]
    truth: list[Any]

    def add(self, name: str, outputs: Sequence[Sequence[NDArray]], start: int) -> None:
        """Take in the real outputs of some samples, at one point after the other, of one form.

        Parameters
        ----------
        name : str
            Of the form.
        outputs : sequence of sequence of (n, ...) ndarray
            By point, and by output of the model.
        start : int
            Index of the first sample.
        """

    def scores(self, planned: dict[str, int]) -> dict[str, Series]:
        """Return the scores of every form; at least at the point `planned` of each with their intervals.

        Parameters
        ----------
        planned : dict of str to int
            By form, the point that is reported.

        Returns
        -------
        dict of str to Series
            By form.
        """


class Ranks:
    """Classification: the share of samples whose label is the best class, and among the best five.

    Parameters
    ----------
    labels : (N,) ndarray of int64
    """

    def __init__(self, labels: NDArray[np.int64]) -> None:
        self.labels = labels
        self.truth: list[Any] = [labels]
        self.state: dict[str, Any] = {}

    def add(self, name: str, outputs: Sequence[Sequence[NDArray]], start: int) -> None:
        """Take in logits.

        Parameters
        ----------
        name : str
            Of the run.
        outputs : sequence of sequence of (n, ...) ndarray
            By point, and by output of the model.
        start : int
            Index of the first sample.
        """
        by_point = np.stack([logits for (logits,) in outputs], 1)
        labels = self.labels[start : start + len(by_point)]
        sums = self.state.setdefault(name, {rank: [0] * len(outputs) for rank in RANKS})
        for rank, found in right(by_point, labels).items():
            sums[rank] = [a + b for a, b in zip(sums[rank], found, strict=True)]
        sums["samples"] = start + len(by_point)

    def scores(self, planned: dict[str, int]) -> dict[str, Series]:
        """Return shares, with Wilson's intervals at all points.

        Parameters
        ----------
        planned : dict of str to int
            By run, the point that is reported.

        Returns
        -------
        dict of str to Series
            By run.
        """
        return {
            name: {rank: [(n / sums["samples"], *interval(n, sums["samples"])) for n in sums[rank]] for rank in RANKS}
            for name, sums in self.state.items()
        }


class Predictions:
    """Any task that scores all of its predictions together, such as detection.

    Parameters
    ----------
    predict : callable
        From the real outputs of some samples to one prediction each, of what torch can save.
    score : callable
        From predictions, and the indices of the samples that they are for, to scores.
    truth : list
        What `score` compares with, as in `Scorer`.
    """

    def __init__(
        self,
        predict: Callable[[Sequence[NDArray]], Sequence[Any]],
        score: Callable[[Sequence[Any], NDArray[np.int64]], dict[str, float | None]],
        truth: list[Any],
    ) -> None:
        self.predict, self.score, self.truth = predict, score, truth
        self.state: dict[str, Any] = {}

    def add(self, name: str, outputs: Sequence[Sequence[NDArray]], start: int) -> None:
        """Take in outputs; a point at which they are as they were before has the very predictions of then.

        Parameters
        ----------
        name : str
            Of the run.
        outputs : sequence of sequence of (n, ...) ndarray
            By point, and by output of the model.
        start : int
            Index of the first sample.
        """
        before: tuple[Sequence[NDArray], Sequence[Any]] = (), ()
        for predictions, values in zip(self.state.setdefault(name, [[] for _ in outputs]), outputs, strict=True):
            if not _same(values, before[0]):
                before = values, self.predict(values)
            predictions.extend(before[1])

    def scores(self, planned: dict[str, int]) -> dict[str, Series]:
        """Return scores; with intervals, by the delete-a-group jackknife, at the planned points alone.

        Parameters
        ----------
        planned : dict of str to int
            By run, the point that is reported.

        Returns
        -------
        dict of str to Series
            By run.
        """
        return {name: _transposed(self._points(points, planned.get(name, 0))) for name, points in self.state.items()}

    def _points(self, points: list[list[Any]], planned: int) -> list[dict[str, Score]]:
        found: list[dict[str, Score]] = []
        for i, predictions in enumerate(points):
            settled = i > 0 and all(a is b for a, b in zip(predictions, points[i - 1], strict=True))
            if i == planned or not settled or i - 1 == planned:
                found.append(self._score(predictions, i == planned))
            else:
                found.append(found[-1])
        return found

    def _score(self, predictions: list[Any], with_interval: bool) -> dict[str, Score]:
        everything = np.arange(len(predictions))
        whole = self.score(predictions, everything)
        if not with_interval:
            return {name: (value, None, None) for name, value in whole.items()}
        parts: dict[bytes, dict[str, float | None]] = {everything.tobytes(): whole}

        def of(chosen: NDArray[np.int64], name: str) -> float | None:
            key = chosen.tobytes()
            if key not in parts:  # all scores of a part come at once
                parts[key] = self.score([predictions[i] for i in chosen], chosen)
            return parts[key][name]

        ranges = {name: jackknife(partial(of, name=name), len(predictions)) for name in whole}
        return {name: (value, *(ranges[name] or (None, None))) for name, value in whole.items()}


def right(logits: NDArray, labels: NDArray[np.int64]) -> dict[str, list[int]]:
    """Return how many of (N, T, K) logits have the label among the best, after every step, by rank.

    Where logits tie, the first class wins, as `argmax` has it.
    """
    own = np.take_along_axis(logits, labels[:, None, None], 2)
    earlier = np.arange(logits.shape[2]) < labels[:, None, None]
    ahead = ((logits > own) | ((logits == own) & earlier)).sum(2)
    return {rank: [int(n) for n in (ahead < k).sum(0)] for rank, k in RANKS.items()}


def _same(these: Sequence[NDArray], those: Sequence[NDArray]) -> bool:
    return len(these) == len(those) and all(np.array_equal(a, b) for a, b in zip(these, those, strict=True))


def _transposed(points: list[dict[str, Score]]) -> Series:
    return {name: [point[name] for point in points] for name in points[0]}
