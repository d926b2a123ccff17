"""Networks whose answers are rates: the input in every step, no wake and no sleep, and the mean of what is received."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lava_casc.dynamics import Variant
from lava_casc.errors import UnsupportedModelError
from lava_casc.network import Dense, IntegerNetwork, Neurons, Readout, Synapse
from lava_casc.record import SpikeRecord
from lava_casc.reference import simulate
from lava_casc.schedule import WakeSleepSchedule
from lava_casc.study import plain

#: Potentials that are kept at a time, at most: half a gigabyte.
POTENTIALS = 1 << 26


def at_rates(network: IntegerNetwork) -> IntegerNetwork:
    """Return a network in which a neuron's rate, 0 to 1, means what its count of 0 to its levels does in `network`.

    With y = L r for the count y of a neuron and its rate r, ``w y = (w L) r``, and ``X = theta L`` is what a neuron
    receives at rate 1: weights are multiplied by the levels of what they read, thresholds and initial potentials by a
    neuron's own. A schedule with a wake of 1 and no sleep injects the whole input and the whole bias in every step, so
    that nothing is rounded.

    Parameters
    ----------
    network : IntegerNetwork

    Returns
    -------
    IntegerNetwork

    Raises
    ------
    UnsupportedModelError
        The network is recurrent.
    """
    if network.is_recurrent:
        raise UnsupportedModelError(
            f"{network.memories[0].name}: a rate takes all the steps that there are, and a recurrent network goes on "
            "to the next word. Use a network without recurrence."
        )

    def scaled(synapse: Synapse) -> Synapse:
        levels = network.peaks.get(synapse.source, 1)
        shift = (levels & -levels).bit_length() - 1  # powers of two go to the exponent, and weights stay small
        return replace(synapse, weight=synapse.weight * np.int32(levels >> shift), exponent=synapse.exponent + shift)

    def changed(layer: Any) -> Any:
        if isinstance(layer, Neurons):
            return replace(
                layer,
                synapses=tuple(map(scaled, layer.synapses)),
                threshold=layer.threshold * layer.levels,
                initial=layer.initial * layer.levels,
            )
        if isinstance(layer, Readout):
            return replace(layer, synapses=tuple(map(scaled, layer.synapses)))
        return layer

    return IntegerNetwork(tuple(changed(layer) for layer in network))


@dataclass(frozen=True, eq=False)
class Rates:
    """A network at rates, and the neuron that it runs with: the `lava_casc.study.Method` of most baselines.

    Attributes
    ----------
    network : IntegerNetwork
        As `at_rates` returns it.
    variant : Variant
        One that does not sleep.
    silencing : int, optional
        The steps of a first stage, after which the neurons whose potential is not above 0 are silent for good, and the
        second stage begins anew (SRP, arXiv 2302.02091). The steps that are counted are those of the second.
    """

    network: IntegerNetwork
    variant: Variant
    silencing: int | None = None

    @property
    def parts(self) -> list[Any]:
        """All that its answers depend on."""
        return [*plain(self.network), repr(self.variant), self.silencing]

    @property
    def layers(self) -> tuple[str, ...]:
        """Every layer that says something."""
        return tuple(layer.name for layer in self.network if not isinstance(layer, Readout))

    def points(self, steps: int) -> list[int]:
        """Return every step.

        Parameters
        ----------
        steps : int

        Returns
        -------
        list of int
        """
        return list(range(1, steps + 1))

    def run(self, samples: NDArray[np.int64], steps: int) -> tuple[list[list[NDArray]], SpikeRecord]:
        """Return the real outputs after every step, by the rates since the input has reached them, and the record.

        Parameters
        ----------
        samples : (N, ...) ndarray of int64
        steps : int

        Returns
        -------
        outputs : list of list of (N, ...) ndarray
            By point, and by output of the model.
        record : SpikeRecord
        """
        record = simulate(
            self.network,
            samples,
            WakeSleepSchedule(1, steps - 1),
            record=("messages", "negatives", "synops", "logits"),
            variant=self.variant,
            silenced=self.silenced(samples),
        )
        assert record.logits_by_step is not None
        return [self._outputs(record.logits_by_step[:, step - 1], step) for step in self.points(steps)], record

    def counts(self, samples: NDArray[np.int64], name: str, steps: int) -> NDArray[np.int64]:
        """Return what a layer has counted in the first `steps` steps in which its input reaches it, (N, ...).

        Parameters
        ----------
        samples : (N, ...) ndarray of int64
        name : str
            Of the layer.
        steps : int

        Returns
        -------
        (N, ...) ndarray of int64
        """
        part = up_to(self.network, name)
        schedule = WakeSleepSchedule(1, part.distances[name][0] + steps - 1)
        found: NDArray[np.int64] = simulate(part, samples, schedule, record=("counts",), variant=self.variant).counts[
            name
        ]
        return found

    def silenced(self, samples: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]] | None:
        """Return by layer which neurons the first stage silences in each sample; None without a first stage.

        Parameters
        ----------
        samples : (N, ...) ndarray of int64

        Returns
        -------
        dict of str to (N, ...) ndarray of bool, or None
        """
        if self.silencing is None:
            return None
        network, found = self.network, []
        period = max(short for short, _ in network.distances.values()) + self.silencing
        size = max(1, POTENTIALS // (network.neurons * period))
        for start in range(0, len(samples), size):
            # A layer's own first step is the one in which its input reaches it.
            potentials = simulate(
                network,
                samples[start : start + size],
                WakeSleepSchedule(1, period - 1),
                record=("potentials",),
                variant=self.variant,
            ).potentials
            ends = {name: network.distances[name][0] + self.silencing for name in potentials}
            found.append({name: values[:, ends[name] - 1] <= 0 for name, values in potentials.items()})
        return {name: np.concatenate([part[name] for part in found]) for name in found[0]}

    def _outputs(self, logits: NDArray[np.int64], step: int) -> list[NDArray]:
        distances = self.network.distances
        found = self.network.outputs(logits)
        return [values / max(1, step - distances[name][0]) for name, values in found.items()]


def up_to(network: IntegerNetwork, name: str) -> IntegerNetwork:
    """Return the part of a network that a layer of neurons depends on, with a readout that only closes it."""
    needed = {name}
    for layer in reversed(network.layers):
        if layer.name in needed:
            needed.update(layer.sources)
    layers = [layer for layer in network if layer.name in needed]
    return IntegerNetwork((*layers, _closing(network, name)))


def _closing(network: IntegerNetwork, name: str) -> Readout:
    size = int(np.prod(network.shapes[name]))
    return Readout(f"{name}.end", (Dense(name, np.zeros((1, size), np.int32)),), np.zeros(1, np.int64))
