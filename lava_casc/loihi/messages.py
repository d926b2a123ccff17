"""The messages that go into a fused network and come out of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lava_casc.errors import DataError
from lava_casc.network import IntegerNetwork
from lava_casc.schedule import WakeSleepSchedule

#: What follows the logits of a phase: certified (0 or 1), the last step with a spike, the Lava step of the end.
TRAILER = 3


@dataclass(frozen=True)
class Messages:
    """How batches of samples, and their results, are written into flat messages of int32.

    Attributes
    ----------
    network : IntegerNetwork
    schedule : WakeSleepSchedule
    batch_size : int
        The most samples in a message.
    phases : int
        Of a sample: 1 unless the network is recurrent.
    record : frozenset of {"counts", "messages", "spikes"}
        What is recorded of every layer.
    """

    network: IntegerNetwork
    schedule: WakeSleepSchedule
    batch_size: int
    phases: int
    record: frozenset[str]

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of a sample, its phases included."""
        shape = self.network.input.sample_shape
        return (self.phases, *shape) if self.network.is_recurrent else shape

    @property
    def input_size(self) -> int:
        """The length of a message with samples: how many there are, then their numbers."""
        return 1 + self.batch_size * int(np.prod(self.sample_shape))

    @cached_property
    def fields(self) -> dict[tuple[str, str], tuple[int, ...]]:
        """What a sample's result is made of in every phase, by kind and layer, and the shape of each."""
        shapes, period = self.network.shapes, self.schedule.period
        logits = sum(int(np.prod(shapes[readout.name])) for readout in self.network.readouts)
        found: dict[tuple[str, str], tuple[int, ...]] = {("logits", ""): (logits,), ("trailer", ""): (TRAILER,)}
        spiking = [layer.name for layer in self.network.spiking]
        for name in (*(layer.name for layer in self.network.entries), *spiking):
            if "messages" in self.record:
                found["messages", name] = (period,)
            if "counts" in self.record and name in spiking:
                found["counts", name] = shapes[name]
            if "spikes" in self.record:
                found["spikes", name] = (period, *shapes[name])
        return found

    @property
    def result_size(self) -> int:
        """The length of a message with results."""
        return self.batch_size * self.phases * sum(int(np.prod(shape)) for shape in self.fields.values())

    def pack_samples(self, samples: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the message for at most `batch_size` samples, as `IntegerNetwork.encode` returns them.

        Raises
        ------
        DataError
            There are more of them, or of another shape.
        """
        if samples.shape[1:] != self.sample_shape or len(samples) > self.batch_size:
            raise DataError(
                f"{self.network.input.name}: samples of shape {samples.shape} exceed a message of {self.batch_size} of "
                f"shape {self.sample_shape}. Pack encoded samples, batch by batch."
            )
        message = np.zeros(self.input_size, np.int32)
        message[0] = len(samples)
        message[1 : 1 + samples.size] = samples.ravel()
        return message

    def unpack_samples(self, message: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return the samples of a message."""
        n = int(message[0])
        size = n * int(np.prod(self.sample_shape))
        return message[1 : 1 + size].astype(np.int64).reshape(n, *self.sample_shape)

    def pack_result(self, result: dict[tuple[str, str], NDArray]) -> NDArray[np.int32]:
        """Return the message for the fields (N, P, ...) of a batch."""
        n = len(result["logits", ""])
        flat = np.concatenate([result[key].reshape(n, -1) for key in self.fields], 1)
        message = np.zeros(self.result_size, np.int32)
        message[: flat.size] = flat.ravel()
        return message

    def unpack_result(self, message: NDArray[np.int32], n: int) -> dict[tuple[str, str], NDArray[np.int64]]:
        """Return the fields (N, P, ...) of the `n` samples of a message."""
        sizes = [self.phases * int(np.prod(shape)) for shape in self.fields.values()]
        rows = message[: n * sum(sizes)].reshape(n, sum(sizes)).astype(np.int64)
        parts = np.split(rows, np.cumsum(sizes)[:-1], axis=1)
        pairs = zip(self.fields.items(), parts, strict=True)
        return {key: part.reshape(n, self.phases, *shape) for (key, shape), part in pairs}
