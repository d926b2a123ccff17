"""Random integer networks that hold the whole mathematics: groups, uneven windows, pools, residuals, border biases."""

from __future__ import annotations

import dataclasses

import numpy as np

from lava_casc.errors import InvalidNetworkError
from lava_casc.network import Conv, Dense, Input, IntegerNetwork, MaxPool, Memory, Neurons, Readout, Tokens


def random_network(rng: np.random.Generator, sequential: bool = False, dyadic: bool = False) -> IntegerNetwork:
    """Return a random network of 1 to 4 stages with H != W != C; dyadic thresholds are powers of two."""
    while True:
        try:
            return _random_network(rng, sequential, dyadic)
        except InvalidNetworkError as error:
            if "does not fit into" not in str(error):
                raise


def random_images(rng: np.random.Generator, network: IntegerNetwork, n: int) -> np.ndarray:
    """Return `n` images within the network's input range, sparse ones among them."""
    images = rng.integers(network.input.low, network.input.high + 1, (n, *network.input.shape))
    return images * (rng.random(images.shape) < rng.choice([0.2, 0.7, 1.0]))


def _random_network(rng: np.random.Generator, sequential: bool, dyadic: bool) -> IntegerNetwork:
    height, width = rng.choice(np.arange(4, 9), 2, replace=False)
    channels = int(rng.choice([c for c in (1, 2, 3) if c not in (height, width)]))
    low, high = [(0, 1), (0, 16), (-8, 7), (0, 255), (-128, 127)][rng.integers(5)]
    layers: list = [Input("input", (channels, int(height), int(width)), low, high)]
    flat = False
    for depth in range(rng.integers(1, 5)):
        shapes = _shapes(layers)
        source = layers[-1]
        kind = rng.choice(["conv", "conv", "pool", "dense", "residual"])
        shape = shapes[source.name]
        if kind == "dense" and depth == 0:
            kind = "conv"
        if flat or kind == "dense":
            flat = True
            synapses = (Dense(source.name, _weights(rng, (int(rng.integers(3, 9)), int(np.prod(shape))))),)
            layers.append(_neurons(rng, f"dense{depth}", synapses, shapes, dyadic))
        elif kind == "pool" and len(layers) > 1:
            layers.append(
                MaxPool(
                    f"pool{depth}",
                    source.name,
                    (2, 1 + int(rng.integers(2))),
                    (int(rng.integers(1, 3)), 2),
                    (int(rng.integers(2)), 0),
                )
            )
            layers[-1].output_shape(shape)
        elif kind == "residual" and not sequential:
            main = _conv(rng, source.name, shape, out=shape[0], same=True)
            layers.append(_neurons(rng, f"conv{depth}", (main,), shapes, dyadic))
            second = _conv(rng, layers[-1].name, shape, out=shape[0], same=True)
            skip = Conv(
                source.name,
                rng.integers(1, 128, (shape[0], 1, 1, 1)).astype(np.int32),
                groups=shape[0],
                exponent=int(rng.integers(3)),
            )
            layers.append(_neurons(rng, f"add{depth}", (second, skip), _shapes(layers), dyadic))
        else:
            layers.append(_neurons(rng, f"conv{depth}", (_conv(rng, source.name, shape),), shapes, dyadic))
    classes = int(rng.integers(2, 6))
    shapes = _shapes(layers)
    weight = _weights(rng, (classes, int(np.prod(shapes[layers[-1].name]))))
    readout = Readout("readout", (Dense(layers[-1].name, weight),), rng.integers(-99, 99, classes))
    return IntegerNetwork((*layers, readout))


def _shapes(layers: list) -> dict:
    end = Readout(
        "end",
        (Dense(layers[-1].name, np.zeros((1, int(np.prod(_shape_of(layers)))), np.int32)),),
        np.zeros(1, np.int64),
    )
    return IntegerNetwork((*layers, end)).shapes


def _shape_of(layers: list) -> tuple[int, ...]:
    shapes = {layers[0].name: layers[0].shape}
    for layer in layers[1:]:
        part = layer if isinstance(layer, MaxPool) else layer.synapses[0]
        shapes[layer.name] = part.output_shape(shapes[part.source])
    return shapes[layers[-1].name]


def _weights(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    low, high = [(-127, 128), (-7, 8), (0, 16), (-16, 0)][rng.choice(4, p=[0.5, 0.3, 0.1, 0.1])]
    return rng.integers(low, high, shape).astype(np.int32)


def _conv(
    rng: np.random.Generator, source: str, shape: tuple[int, ...], out: int | None = None, same: bool = False
) -> Conv:
    channels = shape[0]
    groups = int(rng.choice([g for g in (1, 2, 3) if channels % g == 0 and (out is None or out % g == 0)]))
    out = groups * int(rng.integers(1, 4)) if out is None else out
    if same:
        kernel, padding, stride, dilation = (3, 1), (1, 0), (1, 1), (1, 1)
    else:
        kernel = tuple(int(k) for k in rng.integers(1, 4, 2))
        padding, stride, dilation = (tuple(int(v) for v in rng.integers(a, b, 2)) for a, b in ((0, 3), (1, 3), (1, 3)))
    return Conv(source, _weights(rng, (out, channels // groups, *kernel)), stride, padding, dilation, groups)


def _neurons(rng: np.random.Generator, name: str, synapses: tuple, shapes: dict, dyadic: bool) -> Neurons:
    shape = synapses[0].output_shape(shapes[synapses[0].source])
    spread = max(2, int(np.abs(synapses[0].weight).max() * rng.choice([1, 4, 16])))
    threshold = rng.integers(1, spread + 1, shape[0])
    if dyadic:
        threshold = 2 ** np.ceil(np.log2(threshold)).astype(np.int64)
    initial = threshold // 2 if rng.random() < 0.5 else np.zeros_like(threshold)
    bias = rng.integers(-2 * spread, 2 * spread + 1, shape if rng.random() < 0.3 else shape[0])
    return Neurons(name, synapses, bias, threshold, initial, int(rng.choice([1, 2, 4, 8, 16])), np.ones(shape[0]))


def cut(schedule, sleep_steps: int):
    """Return `schedule` with another sleep."""
    return dataclasses.replace(schedule, sleep_steps=sleep_steps)


def random_graph(rng: np.random.Generator) -> IntegerNetwork:
    """Return a random network of any shape: up to three synapses a layer, from whatever comes before, pools of pools.

    Branches meet by sums and by concatenation, the input is read at several depths, layers differ in their levels, and
    the first of one to three readouts, flat ones and images, reads whatever nothing else does.
    """
    height, width, channels = (int(n) for n in rng.choice(np.arange(2, 7), 3, replace=False))
    low, high = [(0, 1), (0, 15), (-8, 7), (0, 200)][rng.integers(4)]
    entry = Input("input", (min(channels, 4), height, width), low, high, shift=int(rng.integers(3)) if high > 99 else 0)
    layers: list = [entry]
    for depth in range(int(rng.integers(2, 7))):
        shapes = _shapes_of(layers)
        images = [name for name, shape in shapes.items() if len(shape) == 3]
        pooled = [name for name in images[1:] if min(shapes[name][1:]) > 1]
        if pooled and rng.random() < 0.25:
            kernel, stride = tuple(int(k) for k in rng.integers(1, 3, 2)), tuple(int(s) for s in rng.integers(1, 3, 2))
            padding = tuple(int(rng.integers(2)) if k > 1 else 0 for k in kernel)
            layers.append(MaxPool(f"pool{depth}", str(rng.choice(pooled)), kernel, stride, padding))
            continue
        if rng.random() < 0.7:
            out, size = int(rng.integers(1, 4)), _size(rng, shapes[str(rng.choice(images))])
            made = (_fitting(rng, str(name), shapes, out, size) for name in rng.choice(images, int(rng.integers(1, 4))))
            synapses = tuple(synapse for synapse in made if synapse is not None)
        else:
            out, names = int(rng.integers(1, 6)), rng.choice(list(shapes), int(rng.integers(1, 3)))
            synapses = tuple(_dense(rng, str(name), shapes, out) for name in names)
        if synapses:
            layers.append(_neurons(rng, f"layer{depth}", synapses, shapes, dyadic=False))
    return IntegerNetwork((*layers, *_readouts(rng, layers)))


def random_recurrent(rng: np.random.Generator, dyadic: bool = False) -> IntegerNetwork:
    """Return a random network with one to three memories, of images or of tokens, that feed back into any layer."""
    tokens = rng.random() < 0.4
    entry: Input | Tokens = Tokens("input", int(rng.integers(2, 9)))
    if not tokens:
        height, width = (int(n) for n in rng.choice(np.arange(2, 6), 2, replace=False))
        entry = Input("input", (int(rng.integers(1, 3)), height, width), -8, 7)
    # What is remembered must be named before it is made: every layer is planned first.
    plan = [f"layer{depth}" for depth in range(int(rng.integers(1, 5)))]
    held = sorted(rng.choice(plan, int(rng.integers(1, 1 + min(3, len(plan)))), replace=False))
    out = {name: int(rng.integers(1, 6)) for name in plan}
    levels = {name: int(rng.choice([1, 2, 4, 8])) for name in plan}
    layers: list = [entry, *(Memory(f"{name}.memory", name, (out[name],), levels[name]) for name in held)]
    for depth, name in enumerate(plan):
        shapes = _shapes_of(layers)
        before = [list(shapes)[0] if depth == 0 else plan[depth - 1], *rng.choice(list(shapes), int(rng.integers(2)))]
        loops = [f"{n}.memory" for n in held if n == name or rng.random() < 0.3]
        synapses = tuple(_dense(rng, str(n), shapes, out[name]) for n in dict.fromkeys([*map(str, before), *loops]))
        made = _neurons(rng, name, synapses, shapes, dyadic)
        layers.append(dataclasses.replace(made, levels=levels[name]))
    return IntegerNetwork((*layers, *_readouts(rng, layers)))


def random_sequences(rng: np.random.Generator, network: IntegerNetwork, n: int) -> np.ndarray:
    """Return `n` samples of a network: sequences of one to four phases where it is recurrent."""
    if not network.is_recurrent:
        return random_images(rng, network, n)
    shape = (n, int(rng.integers(1, 5)), *network.input.sample_shape)
    return rng.integers(network.input.low, network.input.high + 1, shape)


def _readouts(rng: np.random.Generator, layers: list) -> list[Readout]:
    """Return one to three readouts; the first is flat and reads whatever nothing else does."""
    shapes = _shapes_of(layers)
    read = {source for layer in layers for source in layer.sources}
    synapses = tuple(_dense(rng, name, shapes, 3) for name in shapes if name not in read or rng.random() < 0.1)
    found = [Readout("readout", synapses, rng.integers(-99, 99, 3), 0.5)]
    for k in range(int(rng.choice(3, p=[0.6, 0.2, 0.2]))):
        source = str(rng.choice(list(shapes)))
        flat = len(shapes[source]) == 1 or rng.random() < 0.3
        made = _dense(rng, source, shapes, 2) if flat else _fitting(rng, source, shapes, 2, _size(rng, shapes[source]))
        if made is not None:
            found.append(Readout(f"head{k}", (made,), rng.integers(-99, 99, 2), 0.25))
    return found


def _shapes_of(layers: list) -> dict:
    shapes = {layer.name: layer.shape for layer in layers if isinstance(layer, Input | Tokens | Memory)}
    for layer in layers[len(shapes) :]:
        part = layer if isinstance(layer, MaxPool) else layer.synapses[0]
        shapes[layer.name] = part.output_shape(shapes[part.source])
    return shapes


def _size(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(rng.integers(max(1, n // 2), n + 1)) for n in shape[1:])


def _fitting(rng: np.random.Generator, source: str, shapes: dict, out: int, size: tuple[int, ...]) -> Conv | None:
    """Return a convolution from `source` to a layer of `out` channels and `size`, where there is a small one."""
    channels, *image = shapes[source]
    padding, stride = (tuple(int(v) for v in rng.integers(low, high, 2)) for low, high in ((0, 2), (1, 3)))
    kernel = tuple(n + 2 * p - (m - 1) * s for n, p, m, s in zip(image, padding, size, stride, strict=True))
    if min(kernel) < 1 or max(kernel) > 5:
        return None
    groups = int(rng.choice([g for g in (1, 2, 3, 4) if channels % g == 0 and out % g == 0]))
    weight = _weights(rng, (out, channels // groups, *kernel))
    return Conv(source, weight, stride, padding, (1, 1), groups, int(rng.integers(3)))


def _dense(rng: np.random.Generator, source: str, shapes: dict, out: int) -> Dense:
    return Dense(source, _weights(rng, (out, int(np.prod(shapes[source])))), int(rng.integers(2)))
