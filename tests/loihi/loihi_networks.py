"""Three small networks that hold a lot, with samples for them: an image's way, several readouts, and a loop."""

from __future__ import annotations

import numpy as np

from lava_casc.network import Conv, Dense, Input, IntegerNetwork, MaxPool, Memory, Neurons, Readout, Tokens


def small(weight=3, threshold=4, levels=4):
    """A network that is small, but with a convolution, a pool, a residual and everything uneven."""
    rng = np.random.default_rng(0)

    def neurons(name, *synapses, channels):
        bias = rng.integers(-9, 10, channels)
        ones = np.ones(channels, np.int64)
        return Neurons(name, synapses, bias, threshold * ones, threshold // 2 * ones, levels, ones.astype(float))

    def kernel(*shape):
        return rng.integers(-weight, weight + 1, shape).astype(np.int32)

    return IntegerNetwork(
        (
            Input("input", (2, 5, 6), -7, 8),
            neurons("stem", Conv("input", kernel(3, 2, 3, 2), padding=(1, 0)), channels=3),
            neurons(
                "block",
                Conv("stem", kernel(3, 3, 1, 3), padding=(0, 1)),
                Conv("stem", kernel(3, 1, 1, 1), groups=3),
                channels=3,
            ),
            MaxPool("pool", "block", (2, 3), (2, 1), (1, 0)),
            Readout("readout", (Dense("pool", kernel(4, 27)),), rng.integers(-9, 9, 4)),
        )
    )


def small_images(n=3):
    return np.random.default_rng(1).integers(-7, 9, (n, 2, 5, 6))


def _weights(rng, *shape):
    return rng.integers(-9, 10, shape).astype(np.int32)


def _neurons(name, rng, *synapses, levels=4, scale=1):
    channels = len(synapses[0].weight)
    threshold = scale * rng.integers(5, 20, channels)
    bias = rng.integers(-9, 20, channels)
    return Neurons(name, synapses, bias, threshold, threshold // 2, levels, np.ones(channels))


def heads():
    """A small network with readouts of several shapes behind several layers, a concatenation and pools among them."""
    rng = np.random.default_rng(4)
    parts = [Conv(name, _weights(rng, 2, 2, 1, 1)) for name in ("stem", "pool")]
    return IntegerNetwork(
        (
            Input("image", (1, 4, 5), 0, 15),
            _neurons("stem", rng, Conv("image", _weights(rng, 2, 1, 3, 3), padding=(1, 1)), scale=8),
            MaxPool("pool", "stem", (3, 3), (1, 1), (1, 1)),
            _neurons("join", rng, *parts, levels=6),
            Readout("objects", (Conv("join", _weights(rng, 1, 2, 1, 1)),), np.array([3])),
            Readout("classes", (Dense("stem", _weights(rng, 3, 40)),), np.array([3, -2, 1]), 0.5),
            Readout("boxes", (Conv("join", _weights(rng, 4, 2, 2, 1)),), rng.integers(-9, 9, (4, 3, 5)), 0.25),
        )
    )


def heads_images(n):
    return np.random.default_rng(1).integers(0, 16, (n, 1, 4, 5))


def loop():
    """A small network of words, whose second layer feeds back into the first, and the first into itself."""
    rng = np.random.default_rng(2)
    sources = {"words": 6, "first before": 4, "second before": 3}
    first = _neurons("first", rng, *(Dense(name, _weights(rng, 4, size)) for name, size in sources.items()), levels=5)
    return IntegerNetwork(
        (
            Tokens("words", 6),
            Memory("first before", "first", (4,), 5),
            Memory("second before", "second", (3,), 4),
            first,
            _neurons("second", rng, Dense("first", _weights(rng, 3, 4))),
            Readout("fc", (Dense("second", _weights(rng, 3, 3)),), np.array([5, -7, 0])),
        )
    )


def loop_words(n, phases=4):
    return np.random.default_rng(3).integers(0, 6, (n, phases))
