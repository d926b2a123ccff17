"""What is written down while a batch runs."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from numpy.typing import NDArray

from lava_casc.dynamics.layers import Change, channels_first, channels_last
from lava_casc.linear import apply
from lava_casc.network import Entry, IntegerNetwork, Neurons, Pair, Synapse

#: What a record keeps by layer and step; the last three make up the `errors`.
ERRORS = ("excess", "deficit", "deviation")
NUMBERS = ("messages", "negatives", "synops")
BY_STEP = (*NUMBERS, "spikes", "potentials", *ERRORS)


class Trace:
    """The activity of every sample, and whatever else is wanted of every layer.

    Parameters
    ----------
    network : IntegerNetwork
    period : int
    n : int
        Samples in the batch.
    wanted : collection of {"messages", "negatives", "spikes", "potentials", "synops", "errors"}
    fan_out : dict of str to tensor, optional
        As `fan_outs` returns it; for the synaptic operations.

    Attributes
    ----------
    active : (N, period) ndarray of bool
        Whether any neuron of a sample spoke in a step, the entries aside.
    kept : dict of str to dict of str to ndarray
        By kind and layer, in the shapes of `SpikeRecord`.
    """

    def __init__(
        self,
        network: IntegerNetwork,
        period: int,
        n: int,
        wanted: Collection[str],
        fan_out: dict[str, torch.Tensor] | None = None,
    ) -> None:
        self.network, self.wanted = network, frozenset(wanted)
        self.fan_out = {name: channels_last(each[None]).flatten().double() for name, each in (fan_out or {}).items()}
        self.active = np.zeros((n, period), bool)
        self.kept: dict[str, dict[str, NDArray]] = {kind: {} for kind in BY_STEP}
        for layer in (*network.entries, *network.spiking):
            shape = network.shapes[layer.name]
            for kind in self.wanted.intersection(NUMBERS):
                self.kept[kind][layer.name] = np.zeros((n, period), np.int64)
            if "errors" in self.wanted and isinstance(layer, Neurons):
                self.kept |= {kind: {**self.kept[kind], layer.name: np.zeros((n, period))} for kind in ERRORS}
            if "spikes" in self.wanted:
                self.kept["spikes"][layer.name] = np.zeros((n, period, *shape), np.int64)
            if "potentials" in self.wanted and isinstance(layer, Neurons):
                self.kept["potentials"][layer.name] = np.zeros((n, period, *shape), np.int64)

    def note(self, name: str, change: Change) -> None:
        """Write down what a layer says in a step.

        Parameters
        ----------
        name : str
            Of the layer.
        change : Change
        """
        rows = as_array(change.rows)
        if not isinstance(self.network[name], Entry):
            self.active[rows, change.step - 1] = True
        if "spikes" in self.wanted:
            self.kept["spikes"][name][rows, change.step - 1] = as_array(channels_first(change.spikes))
        if "negatives" in self.wanted:
            self.kept["negatives"][name][rows, change.step - 1] = _numbers((change.spikes < 0).flatten(1))
        if not self.wanted & {"messages", "synops"}:
            return
        spoke = (change.spikes != 0).flatten(1)
        if "messages" in self.wanted:
            self.kept["messages"][name][rows, change.step - 1] = _numbers(spoke)
        if "synops" in self.wanted:
            # Exact: far fewer than 2**53 operations.
            reached = spoke.to(torch.float64) @ self.fan_out[name].to(spoke.device)
            self.kept["synops"][name][rows, change.step - 1] = as_array(reached)

    def compare(self, name: str, step: int, counts: torch.Tensor, expected: torch.Tensor, share: Pair) -> None:
        """Write down in which neurons the counts after a step, and of all steps to come, are not what is expected.

        Parameters
        ----------
        name : str
        step : int
        counts, expected : (N, ...) integer tensors
            A neuron has too many if it is a whole spike above `share` of what is expected, or more; too few likewise.
        share : (int, int)
            How many of how many parts of `expected` are expected by now.
        """
        heard, parts = share
        # Whole numbers, times `parts`: 16 bits hold the difference of two products of 7 bits, which is soon taken.
        small = counts.dtype == expected.dtype == torch.int8 and max(heard, parts) < 1 << 7
        kind = torch.int16 if small else torch.int64
        difference = (counts.to(kind) * parts - expected.to(kind) * heard).flatten(1)
        self.kept["excess"][name][:, step - 1 :] = _numbers(difference >= parts)[:, None]
        self.kept["deficit"][name][:, step - 1 :] = _numbers(difference <= -parts)[:, None]
        self.kept["deviation"][name][:, step - 1 :] = difference.abs().sum(1, keepdim=True).cpu().numpy() / parts

    def potential(self, name: str, step: int, values: torch.Tensor) -> None:
        """Write down the potentials after a step.

        Parameters
        ----------
        name : str
            Of the layer.
        step : int
        values : (N, ...) integer tensor
        """
        self.kept["potentials"][name][:, step - 1] = as_array(channels_first(values))

    @property
    def last_spike(self) -> NDArray[np.int64]:
        """The last step in which any neuron of a sample spoke, 0 where none did."""
        period = self.active.shape[1]
        return np.where(self.active.any(1), period - self.active[:, ::-1].argmax(1), 0)


def fan_outs(network: IntegerNetwork) -> dict[str, torch.Tensor]:
    """Return the fan-out of every neuron of every layer, over all readers: int64, of the layer's shape.

    Parameters
    ----------
    network : IntegerNetwork

    Returns
    -------
    dict of str to tensor of int64
    """
    found = {name: torch.zeros(shape, dtype=torch.int64) for name, shape in network.shapes.items()}
    for layer in network:
        for synapse in getattr(layer, "synapses", ()):
            found[synapse.source] += fan_out(synapse, network.shapes[synapse.source])
    return found


def fan_out(synapse: Synapse, shape: tuple[int, ...]) -> torch.Tensor:
    """Return the number of targets with a non-zero weight of every source neuron, borders included: int64, `shape`.

    Parameters
    ----------
    synapse : Conv or Dense
    shape : tuple of int
        Of the source.

    Returns
    -------
    tensor of int64
    """
    with torch.inference_mode(False), torch.enable_grad():
        ones = torch.ones(1, *shape, dtype=torch.float64, requires_grad=True)
        connected = torch.as_tensor((synapse.weight != 0).astype(np.float64))
        (gradient,) = torch.autograd.grad(apply(synapse, ones, connected).sum(), ones)
    return gradient[0].to(torch.int64)


def _numbers(mask: torch.Tensor) -> NDArray[np.int64]:
    """Return how many of each row are true; ten times sooner than a sum in 64 bits."""
    return as_array(mask.sum(1, dtype=torch.int32))


def as_array(tensor: torch.Tensor) -> NDArray[np.int64]:
    """Return a copy as int64 of its own, in C order.

    Parameters
    ----------
    tensor : tensor
        On any device.

    Returns
    -------
    ndarray of int64
    """
    return tensor.to("cpu", torch.int64, copy=True).contiguous().numpy()
