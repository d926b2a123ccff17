"""The integer network without time: what every certified run equals, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from lava_casc.dynamics.batch import batches
from lava_casc.linear import apply, effective_weight, exact_dtype, max_pool
from lava_casc.network import IntegerNetwork, MaxPool, Readout, per_neuron


@dataclass(frozen=True, eq=False)
class Activations:
    """The result of a time-free forward pass.

    Attributes
    ----------
    counts : dict of str to (N, ...) ndarray of int64
        ``clip(X // threshold, 0, levels)`` of every spiking layer, in topological order; (N, P, ...) of every phase of
        a recurrent network.
    logits : (N, K) ndarray of int64
        ``X`` of the readouts, flattened, one behind the other; summed over the phases.
    """

    counts: dict[str, NDArray[np.int64]]
    logits: NDArray[np.int64]


def forward(network: IntegerNetwork, images: ArrayLike, batch_size: int | None = None) -> Activations:
    """Compute every count and every logit of the integer network.

    Parameters
    ----------
    network : IntegerNetwork
    images : (N, ...) array of integers
        Within the input's range; `IntegerNetwork.encode` is applied to them. (N, P, ...) for a recurrent network.
    batch_size : int, optional
        Samples computed at a time; by default as many as memory allows, see `lava_casc.dynamics.batch`.

    Returns
    -------
    Activations
        ``counts`` by layer, int64, and ``logits`` (N, K), int64.

    Raises
    ------
    DataError, RangeError
        The images do not fit the network's input.
    """
    parts = list(_parts(network, images, batch_size))
    counts = {layer.name: np.concatenate([found.counts[layer.name] for found in parts]) for layer in network.spiking}
    return Activations(counts, np.concatenate([found.logits for found in parts]))


def logits(
    network: IntegerNetwork, images: ArrayLike, progress: Callable[[int], None] = lambda done: None
) -> NDArray[np.int64]:
    """Compute every logit of the integer network, (N, K), and keep no count: as `forward`, for as many as there are.

    Parameters
    ----------
    network : IntegerNetwork
    images : (N, ...) array of integers
        As for `forward`.
    progress : callable
        Called with the number of samples finished so far.

    Returns
    -------
    (N, K) ndarray of int64

    Raises
    ------
    DataError, RangeError
        The images do not fit the network's input.
    """
    found: list[NDArray[np.int64]] = []
    for part in _parts(network, images, None):
        found.append(part.logits)
        progress(sum(map(len, found)))
    return np.concatenate(found)


def _parts(network: IntegerNetwork, images: ArrayLike, batch_size: int | None) -> Iterator[Activations]:
    """Yield what the network computes, some samples at a time."""
    images = network.encode(images)
    passing = Pass(network)
    for part in batches(network, len(images), batch_size, most=256):
        yield passing.sequence(images[part])


class Pass:
    """The tensors of a network, made once, and the pass through its layers."""

    def __init__(self, network: IntegerNetwork) -> None:
        self.network = network
        self.weights = {
            (layer.name, i): effective_weight(synapse, exact_dtype(network.magnitudes[layer.name]))
            for layer in network.computed
            if not isinstance(layer, MaxPool)
            for i, synapse in enumerate(layer.synapses)
        }

    def sequence(self, images: NDArray[np.int64]) -> Activations:
        """Compute one phase after the other, each from the counts of the one before."""
        network = self.network
        if not network.is_recurrent:
            return self.once(images, {})
        phases: list[Activations] = []
        held = {m.name: np.zeros((len(images), *m.shape), np.int64) for m in network.memories}
        for phase in range(images.shape[1]):
            phases.append(self.once(images[:, phase], held))
            held = {memory.name: phases[-1].counts[memory.source] for memory in network.memories}
        counts = {name: np.stack([found.counts[name] for found in phases], 1) for name in phases[0].counts}
        return Activations(counts, sum((found.logits for found in phases[1:]), phases[0].logits))

    def once(self, images: NDArray[np.int64], held: dict[str, NDArray[np.int64]]) -> Activations:
        """Compute every layer, given what the memories hold."""
        network = self.network
        entries = {network.input.name: network.input.injected(images), **held}
        values = {name: torch.as_tensor(entry) for name, entry in entries.items()}
        for layer in network.computed:
            name = layer.name
            if isinstance(layer, MaxPool):
                counts = values[layer.source]
                values[name] = max_pool(layer, counts.to(exact_dtype(network.peaks[name]))).to(counts.dtype)
                continue
            shape, magnitude = network.shapes[name], network.magnitudes[name]
            # Both types hold every partial sum exactly: `magnitudes` proves it.
            real, integer = exact_dtype(magnitude), torch.int32 if magnitude < 1 << 31 else torch.int64
            received = _tensor(layer.bias, shape, integer)
            for i, synapse in enumerate(layer.synapses):
                current = apply(synapse, values[synapse.source].to(real), self.weights[name, i])
                received = received + current.to(integer)
            if not isinstance(layer, Readout):
                received = received + _tensor(layer.initial, shape, integer)
                threshold = _tensor(layer.threshold, shape, integer)
                received = torch.div(received, threshold, rounding_mode="floor").clamp(0, layer.levels)
            values[name] = received
        found = {name: value.to(torch.int64).numpy() for name, value in values.items()}
        logits = np.concatenate(
            [found[r.name].reshape(len(images), math.prod(network.shapes[r.name])) for r in network.readouts], 1
        )
        return Activations({layer.name: found[layer.name] for layer in network.spiking}, logits)


def _tensor(values: NDArray[np.int64], shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.tensor(per_neuron(values, shape), dtype=dtype)
