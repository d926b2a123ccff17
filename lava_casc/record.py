"""`SpikeRecord`: what every run returns, whichever engine it ran on, also at Ctrl-C."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lava_casc.integer import IntArray
from lava_casc.schedule import WakeSleepSchedule


@dataclass(frozen=True, eq=False)
class SpikeRecord:
    """The result of running a network over samples, and whether it is proven.

    Attributes
    ----------
    engine : str
        What ran: ``reference``, ``lava fused fixed_pt``, or a graph, ``lava fixed_pt`` or ``lava floating_pt``;
        ``lava staircase fixed_pt`` certifies nothing.
    schedule : WakeSleepSchedule
    logits : (N, K) ndarray
        What the readout had integrated when the sample ended; int64 (float64 from the floating-point models).
    certified : (N,) ndarray of bool
        Whether the sample ended silent after its last injection and release. Only then are `logits` and counts proven
        equal to the integer network's, bit for bit.
    last_spike : (N,) ndarray of int64
        The last step (1, 2, ...) in which any neuron emitted a spike; 0 where none ever did.
    messages : dict of str to (N, T) ndarray of int64, optional
        Spikes that each layer emitted in each step (a graded spike is one message). T is at most the period.
    negatives : dict of str to (N, T) ndarray of int64, optional
        Those of the messages that take something back.
    spikes : dict of str to (N, T, ...) ndarray, optional
        Every spike of the recorded layers.
    counts : dict of str to (N, ...) ndarray, optional
        The sum of spikes of each recorded layer at the end.
    potentials : dict of str to (N, T, ...) ndarray, optional
        The potential of each recorded neuron after each step.
    synops : dict of str to (N, T) ndarray of int64, optional
        Synaptic operations that each layer's messages caused, by the step of the message: messages times real fan-out.
    logits_by_step : (N, T, K) ndarray of int64, optional
        What the readouts had integrated after each step.
    excess, deficit : dict of str to (N, T) ndarray, optional
        Neurons that have counted too much, or too little, after each step, by a whole spike or more: against the
        integer network, or against ``count * (step - distance) / wake_steps`` of it where the injection goes on; what
        is injected takes `distance` steps to the layer.
    deviation : dict of str to (N, T) ndarray, optional
        The sum over all neurons of how far they are from that.
    phases_certified : (N, P) ndarray of bool, optional
        The same for every phase of a sequence, by a recurrent network; a sequence is certified if all of them are. Its
        logits are the sums over the phases, its last spike is the latest within any phase, and everything that is kept
        by layer has an axis of P phases behind that of the samples.
    steps : int
        Steps that the engine ran for all samples together, 0 where it does not say.
    seconds : float
        Wall-clock time that it took, compilation included, 0 where it does not say.
    """

    engine: str
    schedule: WakeSleepSchedule
    logits: NDArray
    certified: NDArray[np.bool_]
    last_spike: IntArray
    messages: dict[str, IntArray] = field(default_factory=dict)
    negatives: dict[str, IntArray] = field(default_factory=dict)
    spikes: dict[str, NDArray] = field(default_factory=dict)
    counts: dict[str, NDArray] = field(default_factory=dict)
    potentials: dict[str, NDArray] = field(default_factory=dict)
    synops: dict[str, IntArray] = field(default_factory=dict)
    excess: dict[str, NDArray] = field(default_factory=dict)
    deficit: dict[str, NDArray] = field(default_factory=dict)
    deviation: dict[str, NDArray] = field(default_factory=dict)
    logits_by_step: IntArray | None = None
    phases_certified: NDArray[np.bool_] | None = None
    steps: int = 0
    seconds: float = 0.0

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.logits)

    @property
    def predictions(self) -> IntArray:
        """The class with the greatest logit, the first one at a tie."""
        return self.logits.argmax(axis=1)

    @property
    def all_certified(self) -> bool:
        """Whether every sample was certified (and there was one)."""
        return len(self) > 0 and bool(self.certified.all())


def keep(stop: KeyboardInterrupt, record: SpikeRecord) -> None:
    """Let a Ctrl-C in the middle of a run carry the record of the first ``len(record)`` samples: those that are over.

    It is as ``record`` among the attributes of the exception, which stays a KeyboardInterrupt: a shell that is in the
    middle of a loop ends the loop, too, where a program dies of that.

    Parameters
    ----------
    stop : KeyboardInterrupt
    record : SpikeRecord
    """
    vars(stop)["record"] = record


def kept(stop: KeyboardInterrupt) -> SpikeRecord | None:
    """Return what `keep` let an interruption carry.

    Parameters
    ----------
    stop : KeyboardInterrupt

    Returns
    -------
    SpikeRecord or None
        None where no sample was over.
    """
    return vars(stop).get("record")
