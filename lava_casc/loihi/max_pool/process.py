"""The process of max pooling: its ports, its state and its parameters."""

from __future__ import annotations

from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess, LogConfig
from lava.magma.core.process.variable import Var

from lava_casc.network import window_shape

Pair = tuple[int, int]


class CIFMaxPool(AbstractProcess):
    """Max pooling of spiking layers: emits ``max_i Y_i(t - 1) - max_i Y_i(t - 2)`` in step ``t``.

    ``Y_i(t)`` is what source neuron i has emitted in this sample up to step t, negative spikes included. The
    spikes of the pool add up to the maximum of the final counts, exactly, and those of unary sources are -1,
    0 or 1. It delays by one step, as a synapse does. Padding never wins, because counts are never negative.

    In local step 1 its counts are reset and what arrived is discarded (see `lava_casc.loihi.gate`).
    Nothing of this ever ran on a chip.

    Parameters
    ----------
    shape : (int, int, int)
        ``(W, H, C)`` of the source.
    kernel, stride : (int, int)
        Along width and height.
    period : int
        Steps of a sample, used where no controller is connected.
    padding, dilation : (int, int)
        Along width and height.
    name, log_config
        As in every Lava process.

    Attributes
    ----------
    s_in, gate : InPort
        Signed spikes; the gate code, shape ``(1,)``.
    s_out, activity : OutPort
        Signed spikes; how many of them are not 0 in this step, shape ``(1,)``.
    counts, peak : Var
        What the sources have emitted; the maxima that were emitted so far.
    """

    _runtime = None  # Lava's __del__ asks for it, also where __init__ raised

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        kernel: Pair,
        stride: Pair,
        period: int,
        padding: Pair = (0, 0),
        dilation: Pair = (1, 1),
        name: str | None = None,
        log_config: LogConfig | None = None,
    ) -> None:
        windows = window_shape(name or "CIFMaxPool", shape[:2], kernel, stride, padding, dilation)
        output_shape = (*windows, shape[2])
        super().__init__(
            shape=shape,
            output_shape=output_shape,
            kernel=kernel,
            stride=stride,
            padding=padding,
            dilation=dilation,
            period=int(period),
            name=name,
            log_config=log_config,
        )
        self.s_in = InPort(shape=shape)
        self.gate = InPort(shape=(1,))
        self.s_out = OutPort(shape=output_shape)
        self.activity = OutPort(shape=(1,))
        self.counts = Var(shape=shape, init=0)
        self.peak = Var(shape=output_shape, init=0)
