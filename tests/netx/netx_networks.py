"""Networks made by hand that hold what a file must be able to say."""

from __future__ import annotations

import numpy as np

from lava_casc.network import Conv, Dense, Input, IntegerNetwork, MaxPool, Memory, Neurons, Readout, Tokens, per_neuron
from lava_casc.reference import forward


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


def concatenated(seed=7):
    """Return a network whose layers read several sources each: of several sizes, with pools and the input among them.

    A concatenation is never made: each layer behind it has one synapse more for each of its parts.
    """
    rng = np.random.default_rng(seed)
    pooled = MaxPool("wide", "narrow", (3, 3), (1, 1), (1, 1))
    parts = (
        Conv("narrow", weights(rng, 2, 3, 1, 1)),
        Conv("wide", weights(rng, 2, 3, 1, 1)),
        Conv("image", weights(rng, 2, 1, 2, 1), (1, 1), (1, 0), (2, 1)),
    )
    heads = (Dense("join", weights(rng, 3, 60)), Dense("wide", weights(rng, 3, 90)))
    layers = (
        Input("image", (1, 6, 5), -4, 5, 0.5),
        neurons("narrow", Conv("image", weights(rng, 3, 1, 3, 3), padding=(1, 1)), 3, rng, levels=3),
        pooled,
        neurons("join", parts, 2, rng, levels=6),
        Readout("logits", heads, rng.integers(-9, 9, 3), 0.25),
    )
    return IntegerNetwork(layers)


def several(seed=6):
    """Return a network with three readouts: one flat, two of images, of several shapes, sources and scales."""
    rng = np.random.default_rng(seed)
    stem = Conv("image", weights(rng, 3, 2, 3, 2), (2, 1), (1, 0))
    layers = (
        Input("image", (2, 5, 4), 0, 15, 1 / 15),
        neurons("stem", stem, 3, rng),
        neurons("where", Conv("stem", weights(rng, 2, 3, 1, 3), padding=(0, 1)), 2, rng, levels=6),
        Readout("boxes", (Conv("where", weights(rng, 4, 2, 2, 1)),), rng.integers(-99, 99, (4, 2, 3)), 0.5),
        Readout("logits", (Dense("stem", weights(rng, 5, 27)),), rng.integers(-99, 99, 5), 0.125),
        Readout("objects", (Conv("where", weights(rng, 1, 2, 1, 1)),), rng.integers(-9, 9, 1), 0.75),
    )
    return IntegerNetwork(layers)


def recurrent(seed=7):
    """Return a network of tokens that remembers two layers, one of them only where it comes later than its reader."""
    rng = np.random.default_rng(seed)
    first = (Dense("words", weights(rng, 4, 9)), Dense("late", weights(rng, 4, 3)), Dense("early", weights(rng, 4, 4)))
    layers = (
        Tokens("words", 9),
        Memory("late", "second", (3,), 7),
        Memory("early", "first", (4,), 4),
        neurons("first", first, 4, rng),
        neurons("second", (Dense("first", weights(rng, 3, 4)), Dense("late", weights(rng, 3, 3), 1)), 3, rng, levels=7),
        Readout("logits", (Dense("second", weights(rng, 4, 3)),), rng.integers(-99, 99, 4), 0.125),
    )
    return IntegerNetwork(layers)


def film(seed=8):
    """Return a network of images, one a phase, that remembers an image and has two readouts."""
    rng = np.random.default_rng(seed)
    drawn = Conv("image", weights(rng, 2, 1, 2, 2))
    held = Conv("before", weights(rng, 2, 1, 3, 1), padding=(1, 0), groups=2)
    layers = (
        Input("image", (1, 4, 5), 0, 99, 0.5, 2),
        Memory("before", "now", (2, 3, 4), 5),
        neurons("now", (drawn, held), 2, rng, levels=5, bias=rng.integers(-99, 99, (2, 3, 4))),
        Readout("logits", (Dense("now", weights(rng, 3, 24)),), rng.integers(-99, 99, 3), 0.25),
        Readout("map", (Conv("before", weights(rng, 1, 2, 1, 1)),), rng.integers(-9, 9, 1)),
    )
    return IntegerNetwork(layers)


#: Every kind of network that a file can hold, and the version of the format that it needs.
KINDS = {sequential: 1, pooled: 1, residual: 1, concatenated: 1, several: 2, recurrent: 2, film: 2}


def samples(network, n, seed=1):
    """Return images, or sequences of three phases, that use the whole range of the input."""
    if not network.is_recurrent:
        return images(network, n, seed)
    shape = (n, 3, *network.input.sample_shape)
    return np.random.default_rng(seed).integers(network.input.low, network.input.high + 1, shape)


def images(network, n, seed=1):
    """Return sparse images within the input's range, its ends among them."""
    rng = np.random.default_rng(seed)
    entry = network.input
    found = rng.integers(entry.low, entry.high + 1, (n, *entry.shape)) * rng.integers(0, 2, (n, *entry.shape))
    found.reshape(n, -1)[:, 0], found.reshape(n, -1)[:, 1] = entry.low, entry.high
    return found


def meaning(network, samples):
    """Return what a network makes of samples: logits, outputs and activations, in integers and in real numbers."""
    found = forward(network, samples)
    phases = samples.shape[1] if network.is_recurrent else 1
    kept = {"logits": found.logits}
    kept |= {f"output {name}": values for name, values in network.outputs(found.logits, phases).items()}
    for name, counts in found.counts.items():
        if isinstance(network[name], Neurons):
            kept[f"activation {name}"] = counts * per_neuron(network[name].scale, network.shapes[name])
    return kept
