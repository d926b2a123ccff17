"""Networks that netx's own schema can say: ``/layer/<i>``, each layer fed by the one before it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from lava_casc.errors import NetworkFileError
from lava_casc.network import Dense, Input, IntegerNetwork, Layer, MaxPool, Neurons, Readout, Shape
from lava_casc.netx import parts
from lava_casc.netx.section import Section
from lava_casc.netx.storage import REMEDY, Content

ROOT = "layer"


@dataclass
class Chain:
    """What was read so far.

    Attributes
    ----------
    layers : list of Layer
    shapes : dict of str to tuple of int
        As the file declares them.
    flattened : bool
        Whether a `flatten` waits for its dense layer.
    """

    layers: list[Layer] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    flattened: bool = False

    def add(self, layer: Layer, shape: Shape) -> None:
        """Append a layer, and refuse a second one of the same name before its shape replaces the first's."""
        if layer.name in self.shapes:
            raise NetworkFileError(f"two layers are named {layer.name!r}. {REMEDY}.")
        self.layers.append(layer)
        self.shapes[layer.name] = shape

    @property
    def last(self) -> str:
        """The name of the layer that feeds the next one."""
        return self.layers[-1].name

    @property
    def shape(self) -> Shape:
        """The shape of that layer."""
        return self.shapes[self.last]


def fits(network: IntegerNetwork) -> bool:
    """Return whether netx's schema can say `network`: images, sequential, and 8-bit weights without an exponent."""
    synapses = [synapse for layer in network for synapse in getattr(layer, "synapses", ())]
    narrow = all(parts.fits_int8(s.weight) for s in synapses)
    plain = isinstance(network.input, Input) and network.is_sequential
    return plain and narrow and not any(synapse.exponent for synapse in synapses)


def encode(network: IntegerNetwork) -> Content:
    """Return the group ``/layer``."""
    groups = [group for layer in network for group in _encode_layer(network, layer)]
    return {key: value for i, group in enumerate(groups) for key, value in parts.under(f"{ROOT}/{i}", group).items()}


def decode(content: Content) -> Chain:
    """Take the group ``/layer`` and return its layers with the shapes that they claim."""
    chain = Chain()
    for i, section in enumerate(Section(content, "").numbered(ROOT)):
        kind = section.kind(tuple(_DECODE))
        if (kind == "input") != (i == 0):
            raise section.error("type", "is wrong: a network starts with its input, and has one")
        if chain.flattened and kind != "dense":
            raise section.error("type", f"is {kind}, but after a flatten comes a dense layer")
        _DECODE[kind](section, kind, chain)
    return chain


def _encode_layer(network: IntegerNetwork, layer: Layer) -> list[Content]:
    shape = network.shapes[layer.name]
    if isinstance(layer, Input):
        return [parts.encode_input(layer)]
    if isinstance(layer, MaxPool):
        return [parts.encode_pool(layer, shape)]
    population = cast(Neurons | Readout, layer)  # `fits` lets nothing else in
    (synapse,) = population.synapses
    kind, rest = parts.synapse_kind(synapse), parts.encode_population(population, shape)
    fields = {"type": parts.text(kind)} | parts.SYNAPSES[kind].encode(synapse) | rest
    source = network.shapes[synapse.source]
    flatten = isinstance(synapse, Dense) and len(source) > 1
    return [_encode_flatten(source), fields] if flatten else [fields]


def _encode_flatten(source: Shape) -> Content:
    return {"type": parts.text("flatten"), "shape": parts.integers((math.prod(source), 1, 1))}


def _decode_input(section: Section, kind: str, chain: Chain) -> None:
    layer = parts.decode_input(section, section.top("casc/input"))
    chain.add(layer, layer.shape)


def _decode_synaptic(section: Section, kind: str, chain: Chain) -> None:
    if kind == "dense" and (len(chain.shape) > 1) != chain.flattened:
        wanted = "needs a flatten before it" if not chain.flattened else "has a flatten before it that flattens nothing"
        raise section.error("type", f"is dense after shape {chain.shape}, which {wanted}")
    chain.flattened = False
    shape = section.shape()
    synapse = parts.SYNAPSES[kind].decode(section, chain.last)
    chain.add(parts.decode_population(section, shape, (synapse,)), shape)


def _decode_pool(section: Section, kind: str, chain: Chain) -> None:
    shape = section.shape()
    chain.add(parts.decode_pool(section, chain.last), shape)


def _decode_flatten(section: Section, kind: str, chain: Chain) -> None:
    wanted = (math.prod(chain.shape), 1, 1)
    if (shape := section.shape()) != wanted:
        raise section.error("shape", f"is {shape}, but {chain.last} has {chain.shape}")
    chain.flattened = True


_DECODE: dict[str, Callable[[Section, str, Chain], None]] = {
    "input": _decode_input,
    "conv": _decode_synaptic,
    "dense": _decode_synaptic,
    "flatten": _decode_flatten,
    "pool": _decode_pool,
}
