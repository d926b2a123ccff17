"""How far an accuracy may be from what more samples of the same kind would give."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

#: Groups that a score is computed without, one after the other.
GROUPS = 20


def interval(right: int, samples: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's confidence interval of a share, ``right`` of ``samples`` (Wilson, 1927).

    It is sensible for shares of 0 and 1, too, where the normal approximation has no width.

    Parameters
    ----------
    right, samples : int
    confidence : float
        Within (0, 1).

    Returns
    -------
    (float, float)
        Within [0, 1].
    """
    if not samples:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, spread = right / samples, z * z / samples
    centre = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / samples + spread / (4 * samples)) / (1 + spread)
    return 0.0 if right == 0 else centre - half, 1.0 if right == samples else centre + half


def jackknife(
    score: Callable[[NDArray[np.int64]], float | None], samples: int, confidence: float = 0.95
) -> tuple[float, float] | None:
    """Return a confidence interval of a score that is no share, such as mean average precision.

    The samples are dealt out to G groups, and the score is computed without each of them: its variance is
    ``(G - 1) / G * sum((s_g - mean(s)) ** 2)`` (the delete-a-group jackknife). Cut to [0, 1].

    Parameters
    ----------
    score : callable
        From the indices of samples to the score of these; None where it has no meaning.
    samples : int
    confidence : float

    Returns
    -------
    (float, float) or None
        None for a score without meaning, or fewer than two samples.
    """
    groups, everything = min(GROUPS, samples), np.arange(samples)
    whole = score(everything)
    found = [score(everything[everything % groups != group]) for group in range(groups)] if groups > 1 else []
    known = np.array([value for value in found if value is not None])
    if whole is None or len(known) < 2:
        return None
    error = math.sqrt((len(known) - 1) / len(known) * float(((known - known.mean()) ** 2).sum()))
    half = NormalDist().inv_cdf((1 + confidence) / 2) * error
    return max(0.0, whole - half), min(1.0, whole + half)
