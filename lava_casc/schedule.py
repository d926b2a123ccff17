"""When a network is awake, how much a neuron may say in one step, and from when on it may speak."""

from __future__ import annotations

from dataclasses import dataclass

from lava_casc.errors import RangeError

MODES = ("unary", "burst", "graded")
#: What a schedule can be the best for, see docs/schedules.md.
PRESETS = ("latency", "energy")


@dataclass(frozen=True)
class LayerTiming:
    """The steps of one sample (1, 2, ..., period) that concern one layer.

    Attributes
    ----------
    bias_start, bias_stop : int
        The bias is injected in the steps ``bias_start <= t < bias_stop``, the layer's wake.
    release : int
        The first step in which the layer may emit spikes.
    """

    bias_start: int
    bias_stop: int
    release: int


@dataclass(frozen=True)
class WakeSleepSchedule:
    """The time course of one sample, the same for every sample.

    The input is injected in steps 1 .. `wake_steps`; then the network sleeps for `sleep_steps` and settles. A layer at
    distance d from the input has its wake shifted by d, because nothing can reach it earlier (one step of delay a
    synapse). Source of wake and sleep: CASC, arXiv 2406.05371; shifting, `max_burst` and `release` are ours.

    Attributes
    ----------
    wake_steps : int
        At least 1. The unary mode uses the number of levels, the graded mode 1.
    sleep_steps : int
        At least 0. A run that is not silent at the end of its sleep is reported as not certified.
    max_burst : int
        The most units that a neuron may emit (or take back) in one step, at least 1. 1 is the paper's neuron.
    released : bool
        Whether a layer holds its spikes until its inputs are complete, so that layers speak one after another and no
        neuron takes anything back. With a `max_burst` of all levels each neuron speaks once: the graded mode.
    """

    wake_steps: int
    sleep_steps: int
    max_burst: int = 1
    released: bool = False

    def __post_init__(self) -> None:
        for name, least in (("wake_steps", 1), ("sleep_steps", 0), ("max_burst", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be an int, not {type(value).__name__}")
            if value < least:
                raise RangeError(f"{name} ({value}) is below {least}. Use at least {least}.")

    @property
    def period(self) -> int:
        """Steps a sample: ``wake_steps + sleep_steps``."""
        return self.wake_steps + self.sleep_steps

    @property
    def mode(self) -> str:
        """`graded` when layers are released, `unary` when a neuron says at most one unit a step, else `burst`."""
        if self.released:
            return "graded"
        return "unary" if self.max_burst == 1 else "burst"

    def duration(self, levels: int) -> int:
        """Return in how many steps a neuron of so many levels says it all, at most `max_burst` in each.

        Parameters
        ----------
        levels : int

        Returns
        -------
        int
        """
        return -(-levels // self.max_burst)

    def timing(self, shortest: int, complete: int) -> LayerTiming:
        """Return the timing of a layer whose shortest path from the input crosses so many synapses.

        Its first spike can arrive in step ``1 + shortest``, its last one in step `complete`: then a released layer may
        speak.

        Parameters
        ----------
        shortest : int
        complete : int

        Returns
        -------
        LayerTiming
        """
        start = 1 + shortest
        return LayerTiming(start, start + self.wake_steps, complete if self.released else 1)
