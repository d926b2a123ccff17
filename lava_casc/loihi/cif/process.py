"""The CIF neuron's process: its ports, its state and its parameters. What it computes stands in `models`."""

from __future__ import annotations

import numpy as np
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess, LogConfig
from lava.magma.core.process.variable import Var
from numpy.typing import ArrayLike, NDArray

from lava_casc.errors import RangeError, exceeds
from lava_casc.integer import signed_range, split_evenly
from lava_casc.loihi.registers import check_width


class CIF(AbstractProcess):
    """A population of consistent integrate-and-fire neurons with wake and sleep.

    In every step of a sample, with ``u`` the potential, ``y`` the spike count, ``g`` the burst limit and
    ``L`` the levels::

        u      <- u + current (+ bias, in the layer's wake)
        target  = clip(u // threshold + y, 0, L)
        s       = clip(target - y, -g, g)            (0 before the release)
        u      <- u - threshold * s
        y      <- y + s

    For ``g = 1`` this is ``s = +1 if u >= threshold and y < L, -1 if u < 0 and y > 0, else 0``, the neuron of
    CASC (arXiv 2406.05371) with negative spikes and with the cap ``y < L`` that its results need; graded
    bursts and the release are ours. Once a network is silent after its last injection,
    ``y = clip(X // threshold, 0, L)`` exactly, with ``X`` all that the neuron received.

    In local step 1 of a sample ``u`` and ``y`` are reset and what arrives is discarded (see
    `lava_casc.loihi.gate`). With ``levels = 0`` the neuron never spikes: an integrator, as a readout needs
    it.

    Nothing of this ever ran on a chip. `u`, the arriving current and every constant are signed registers of
    `state_bits`; `y` and the spikes lie in ``[-g, L]``, so that a spike is a graded one of
    ``1 + g.bit_length()`` bits.

    Parameters
    ----------
    shape : tuple of int
        ``(W, H, C)`` or ``(N,)``.
    threshold : int or array
        At least 1; one number, or one a channel ``(C,)``, or any array that broadcasts to `shape`.
    levels : int
        The greatest count; 0 makes an integrator.
    wake_steps, period : int
        Steps of the wake, and of the whole sample.
    bias : int or array
        What the neuron receives in total in its wake. It is split here: ``bias`` a step, and the remainder is
        part of the potential at the start.
    initial : int or array
        The potential at the start of a sample.
    bias_start : int
        The local step in which the wake of this layer begins (2 is the first one in which input can arrive).
    max_burst : int
        The most units that one spike can carry.
    release : int
        The first local step in which the layer may emit spikes.
    state_bits : int
        Signed bits of the registers of the fixed-point model.
    strict : bool
        Whether a value that does not fit raises `RangeError`; otherwise it wraps, as a register would.
    name, log_config
        As in every Lava process; `name` is what an error calls the layer.

    Attributes
    ----------
    a_in, gate : InPort
        The current; the gate code, shape ``(1,)``.
    s_out, activity : OutPort
        Signed spikes; how many neurons emitted one in this step, shape ``(1,)``.
    u, y, bias, u0, threshold : Var
        Potential and count after the last step; the bias of one wake step; what `u` is reset to; the
        threshold. The floating-point model holds `u`, `bias` and `u0` in units of the threshold and expects a
        current in them.
    """

    _runtime = None  # Lava's __del__ asks for it, also where __init__ raised

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        threshold: ArrayLike,
        levels: int,
        wake_steps: int,
        period: int,
        bias: ArrayLike = 0,
        initial: ArrayLike = 0,
        bias_start: int = 2,
        max_burst: int = 1,
        release: int = 1,
        state_bits: int = 24,
        strict: bool = True,
        name: str | None = None,
        log_config: LogConfig | None = None,
    ) -> None:
        path = name or "CIF"
        check_width(path, state_bits)
        least = {
            "levels": (levels, 0),
            "wake_steps": (wake_steps, 1),
            "period": (period, 1),
            "bias_start": (bias_start, 2),
            "max_burst": (max_burst, 1),
            "release": (release, 1),
        }
        for what, (value, limit) in least.items():
            if value < limit:
                raise RangeError(f"{path}: {what} ({value}) is below {limit}. Use at least {limit}.")
        per_step, remainder = split_evenly(bias, wake_steps)
        values = {
            "threshold": _fitting(path, "threshold", threshold, shape, state_bits),
            "bias": _fitting(path, "bias", per_step, shape, state_bits),
            "u0": _fitting(path, "initial", remainder + np.asarray(initial), shape, state_bits),
        }
        if values["threshold"].min() < 1:
            raise RangeError(f"{path}: a threshold ({values['threshold'].min()}) is below 1. Use at least 1.")
        super().__init__(
            shape=shape,
            levels=int(levels),
            wake_steps=int(wake_steps),
            period=int(period),
            bias_start=int(bias_start),
            max_burst=int(max_burst),
            release=int(release),
            state_bits=int(state_bits),
            strict=bool(strict),
            path=path,
            name=name,
            log_config=log_config,
        )
        self.a_in = InPort(shape=shape)
        self.gate = InPort(shape=(1,))
        self.s_out = OutPort(shape=shape)
        self.activity = OutPort(shape=(1,))
        self.u = Var(shape=shape, init=np.broadcast_to(values["u0"], shape))
        self.y = Var(shape=shape, init=0)
        for what, array in values.items():
            setattr(self, what, Var(shape=array.shape, init=array))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the population."""
        return self.proc_params["shape"]


def _fitting(path: str, what: str, values: ArrayLike, shape: tuple[int, ...], bits: int) -> NDArray[np.int64]:
    array = np.atleast_1d(np.asarray(values))
    if array.dtype.kind not in "iu":
        raise TypeError(f"{path}: {what} must hold integers, not {array.dtype}")
    if array.ndim > len(shape) or any(n not in (1, m) for n, m in zip(array.shape[::-1], shape[::-1], strict=False)):
        raise RangeError(f"{path}: {what} of shape {array.shape} does not fit the layer {tuple(shape)}.")
    (low, high), least, greatest = signed_range(bits), int(array.min()), int(array.max())
    if least < low or greatest > high:
        value, limit = (greatest, high) if greatest > high else (least, low)
        raise exceeds(path, what, value, f"the {bits} signed bits of the state", limit, "Use fewer weight bits")
    return array.astype(np.int64)
