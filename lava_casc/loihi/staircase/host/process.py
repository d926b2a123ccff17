"""The processes through which samples go in and settled values come out. They compute nothing."""

from __future__ import annotations

import numpy as np
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess, LogConfig
from numpy.typing import NDArray


class HeldSource(AbstractProcess):
    """Emits every sample, as it is, in each of `hold` steps; after the last sample nothing.

    Parameters
    ----------
    images : (N, W, H, C) or (N, I) array of integers
    hold : int
    name, log_config
        As in every Lava process.

    Attributes
    ----------
    s_out : OutPort
        The present sample, graded spikes.
    """

    def __init__(
        self,
        *,
        images: NDArray[np.int64],
        hold: int,
        name: str | None = None,
        log_config: LogConfig | None = None,
    ) -> None:
        super().__init__(images=images, hold=int(hold), name=name, log_config=log_config)
        self.s_out = OutPort(shape=images.shape[1:])


class SettledProbe(AbstractProcess):
    """Sends what arrives in the last of every `hold` steps through an external pipe, flat int32.

    Parameters
    ----------
    shape : tuple of int
    hold : int
    name, log_config
        As in every Lava process.

    Attributes
    ----------
    s_in : InPort
    result : OutPort
    """

    def __init__(
        self, *, shape: tuple[int, ...], hold: int, name: str | None = None, log_config: LogConfig | None = None
    ) -> None:
        super().__init__(shape=shape, hold=int(hold), name=name, log_config=log_config)
        self.s_in = InPort(shape=shape)
        self.result = OutPort(shape=(int(np.prod(shape)),))
