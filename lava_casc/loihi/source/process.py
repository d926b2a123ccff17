"""The process that injects images into a network."""

from __future__ import annotations

import numpy as np
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess, LogConfig
from numpy.typing import NDArray


class SampleSource(AbstractProcess):
    """Spreads every image over its wake: step t emits ``x * t // T - x * (t - 1) // T``, T the wake steps.

    With a `vocabulary` a sample is a word: one unit at its place, spread alike, and never kept for all samples at once.

    The images are constructor data, which reach the running model at no cost; setting a Lava `Var` takes 0.1
    ms a value.

    Parameters
    ----------
    images : (N, W, H, C) or (N, I) array of integers
        Or the words (N,), where a `vocabulary` is given.
    wake_steps : int
    period : int
        Steps of a sample, used where no controller is connected.
    vocabulary : int, optional
        How many words there are.
    name, log_config
        As in every Lava process.

    Attributes
    ----------
    gate : InPort
        The gate code, shape ``(1,)``.
    s_out : OutPort
        The shares of the present image, graded spikes.
    """

    def __init__(
        self,
        *,
        images: NDArray[np.int64],
        wake_steps: int,
        period: int,
        vocabulary: int | None = None,
        name: str | None = None,
        log_config: LogConfig | None = None,
    ) -> None:
        super().__init__(
            images=images,
            wake_steps=int(wake_steps),
            period=int(period),
            vocabulary=vocabulary,
            name=name,
            log_config=log_config,
        )
        self.gate = InPort(shape=(1,))
        self.s_out = OutPort(shape=images.shape[1:] if vocabulary is None else (vocabulary,))
