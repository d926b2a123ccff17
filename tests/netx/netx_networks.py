"""Networks made by hand that hold what a file must be able to say."""

from __future__ import annotations

import numpy as np

from lava_casc.network import Conv, Dense, Input, IntegerNetwork, MaxPool, Neurons, Readout


def neurons(name, synapse, channels, rng, levels=4, bias=None):
    """Return a layer with different values in every channel."""
    return Neurons(
        name,
        synapse if isinstance(synapse, tuple) else (synapse,),
        rng.integers(-40, 40, channels) if bias is None else bias,
        rng.integers(5, 60, channels),
        rng.integers(0, 5, channels),
        levels,
        rng.uniform(0.1, 1, channels),
    )


def weights(rng, *shape):
    return rng.integers(-127, 128, shape).astype(np.int32)


def sequential(seed=0):
    """Return a network with H != W != C, uneven strides, paddings and dilations, groups, and a border bias."""
    rng = np.random.default_rng(seed)
    wide = Conv("image", weights(rng, 4, 1, 3, 2), (2, 1), (1, 2), (1, 2), groups=2)
    narrow = Conv("wide", weights(rng, 3, 4, 2, 3), (1, 2), (0, 1))
    layers = (
        Input("image", (2, 9, 6), -3, 16, 0.25),
        neurons("wide", wide, 4, rng, bias=rng.integers(-99, 99, (4, 5, 8))),
        neurons("narrow", narrow, 3, rng, levels=7),
        neurons("flat", Dense("narrow", weights(rng, 5, 3 * 4 * 4)), 5, rng),
        Readout("logits", (Dense("flat", weights(rng, 4, 5)),), rng.integers(-99, 99, 4), 0.125),
    )
    return IntegerNetwork(layers)


def pooled(seed=0):
    """Return a sequential network with a max pool."""
    rng = np.random.default_rng(seed)
    layers = (
        Input("image", (1, 7, 6), 0, 255, 1 / 255, 2),
        neurons("conv", Conv("image", weights(rng, 2, 1, 2, 2)), 2, rng),
        MaxPool("pool", "conv", (2, 3), (2, 1), (1, 0), (1, 2)),
        Readout("logits", (Conv("pool", weights(rng, 3, 2, 4, 1)),), rng.integers(-9, 9, 3)),
    )
    return IntegerNetwork(layers)


def residual(seed=0):
    """Return a network with a skip connection, exponents, a pool, and a layer that is read twice."""
    rng = np.random.default_rng(seed)
    main = Conv("stem", weights(rng, 2, 2, 3, 3), padding=(1, 1))
    skip = Conv("stem", weights(rng, 2, 1, 1, 1), groups=2, exponent=3)
    layers = (
        Input("image", (1, 6, 5), 0, 16),
        neurons("stem", Conv("image", weights(rng, 2, 1, 3, 3), padding=(1, 1)), 2, rng),
        neurons("add", (main, skip), 2, rng, levels=8),
        MaxPool("pool", "add", (2, 2), (2, 2)),
        Readout(
            "logits",
            (Dense("pool", weights(rng, 3, 2 * 3 * 2)), Dense("stem", weights(rng, 3, 60), 1)),
            rng.integers(-9, 9, 3),
            0.5,
        ),
    )
    return IntegerNetwork(layers)


def small(seed=1):
    """Return a sequential network for a golden file: each layer costs kilobytes of HDF5, whatever its size."""
    rng = np.random.default_rng(seed)
    conv = Conv("image", weights(rng, 4, 1, 3, 2), (2, 1), (1, 2), (1, 2), groups=2)
    layers = (
        Input("image", (2, 9, 6), -3, 16, 0.25, 1),
        neurons("conv", conv, 4, rng, bias=rng.integers(-99, 99, (4, 5, 8))),
        Readout("logits", (Dense("conv", weights(rng, 3, 160)),), rng.integers(-99, 99, 3), 0.125),
    )
    return IntegerNetwork(layers)


def small_graph(seed=1):
    """Return a network with a pool, a branch and an exponent for a golden file."""
    rng = np.random.default_rng(seed)
    pooled, direct = weights(rng, 3, 8), weights(rng, 3, 48)
    layers = (
        Input("image", (1, 5, 4), 0, 9),
        neurons("stem", Conv("image", weights(rng, 2, 1, 2, 1), padding=(0, 1)), 2, rng, levels=8),
        MaxPool("pool", "stem", (2, 3), (2, 2)),
        Readout("logits", (Dense("pool", pooled), Dense("stem", direct, 1)), rng.integers(-9, 9, 3), 0.5),
    )
    return IntegerNetwork(layers)


def images(network, n, seed=1):
    """Return sparse images within the input's range, its ends among them."""
    rng = np.random.default_rng(seed)
    entry = network.input
    found = rng.integers(entry.low, entry.high + 1, (n, *entry.shape)) * rng.integers(0, 2, (n, *entry.shape))
    found.reshape(n, -1)[:, 0], found.reshape(n, -1)[:, 1] = entry.low, entry.high
    return found
