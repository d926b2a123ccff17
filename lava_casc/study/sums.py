"""`Study`: everything that is added up over the samples of a data set."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lava_casc.dynamics import VARIANTS

#: The run under the network's own schedule, with nothing left out; and the same network with graded spikes.
WHOLE, GRADED = "cif+wsc", "graded"
#: What is added up by layer and step.
KINDS = ("messages", "negatives", "synops", "excess", "deficit", "deviation")


@dataclass
class Run:
    """One way to run the network, and the sums over the samples so far.

    Attributes
    ----------
    variant : str
        One of `lava_casc.dynamics.VARIANTS`, or the name of another method.
    wake_steps, max_burst : int
    released : bool
        As in `WakeSleepSchedule`.
    steps : int
        T, the number of steps; of a word, by a recurrent network.
    points : list of int
        The steps after which outputs are scored: all of them, but for recurrent networks.
    squares : list of float
        At every point, the sum over samples of the mean squared difference between the outputs, in real numbers, and
        the float network's.
    layers : dict of str to dict of str to list of float
        By layer and kind (`KINDS`), a sum for each step: messages, those of them that take back, synaptic operations;
        neurons with too many and too few spikes, and the sum of how far all are off, as in `SpikeRecord`.
    silent : list of int
        Samples whose certificate is in step 1, 2, ...; empty for what certifies nothing.
    last_spike : list of int
        Of every sample.
    """

    variant: str
    wake_steps: int
    max_burst: int
    released: bool
    steps: int
    points: list[int]
    squares: list[float]
    layers: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    silent: list[int] = field(default_factory=list)
    last_spike: list[int] = field(default_factory=list)

    @property
    def certified(self) -> int:
        """Samples that were certified."""
        return sum(self.silent)

    def total(self, kind: str, layers: list[str], until: int | None = None) -> float:
        """Return the sum of a kind over some layers and the steps to `until`, that one included.

        Parameters
        ----------
        kind : str
        layers : list of str
        until : int, optional
            By default the last step.

        Returns
        -------
        float
        """
        return sum(sum(self.layers[name][kind][:until]) for name in layers if kind in self.layers[name])


@dataclass
class Study:
    """A network, how it was run on a data set, and the sums over the samples so far.

    Attributes
    ----------
    about : dict
        What a person wants to know of it: model, data, command, versions.
    network : dict
        ``layers``, one row each; ``levels``; ``depth``, the longest path in synapses; ``neurons``; ``macs``, the
        multiply-accumulates of the float network; and more.
    identity : str
        A digest of all that the sums depend on.
    data : str
        A digest of the samples.
    steps : int
        T, the greatest step of the ablations.
    planned : int
        The step whose outputs are the network's: the end of its own schedule.
    bound : int
        The step by which every sample is proven to have its certificate.
    phases : int
        Of a sample; 1 without recurrence.
    samples : int
    runs : dict of str to Run
        By name: the variants, ``graded``, and other methods.
    scores : dict of str to dict of str to list of (value, low, high)
        By form and score: ``float`` and ``integer`` have one point, a run has its own.
    expected : dict of str to float
        The sum of all counts of the integer network, by layer.
    logit_squares : float
        The sum over samples of the mean squared float outputs.
    """

    about: dict[str, Any]
    network: dict[str, Any]
    identity: str
    data: str
    steps: int
    planned: int
    bound: int
    phases: int = 1
    samples: int = 0
    runs: dict[str, Run] = field(default_factory=dict)
    scores: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    expected: dict[str, float] = field(default_factory=dict)
    logit_squares: float = 0.0

    @property
    def methods(self) -> list[str]:
        """The runs that are of other methods."""
        return [name for name, run in self.runs.items() if run.variant not in VARIANTS]

    @property
    def whole(self) -> Run:
        """The run that certifies, under the network's own schedule."""
        return self.runs[WHOLE]
