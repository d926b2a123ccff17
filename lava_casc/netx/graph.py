"""Networks beyond netx's schema: ``/graph/layer/<i>``, where each synapse names the layer that it comes from.

What a memory remembers comes later in the file than the memory itself; everything else is read from layers before.

There is no ``/layer`` in such a file, so that the stock loader fails on it at once. It would not on a layer
type that it has never heard of: it skips those in silence and builds another network.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from lava_casc.network import Input, IntegerNetwork, Layer, MaxPool, Memory, Synapse, Tokens
from lava_casc.netx import parts
from lava_casc.netx.section import Section
from lava_casc.netx.sequential import Chain
from lava_casc.netx.storage import Content

ROOT = "graph"


def encode(network: IntegerNetwork) -> Content:
    """Return the group ``/graph``."""
    index = {layer.name: i for i, layer in enumerate(network)}
    content: Content = {}
    for i, layer in enumerate(network):
        content |= parts.under(f"{ROOT}/layer/{i}", _encode_layer(network, layer, index))
    return content


def decode(content: Content) -> Chain:
    """Take the group ``/graph`` and return its layers with the shapes that they claim."""
    chain = Chain()
    sections = Section(content, ROOT).numbered("layer")
    for section in sections:
        _DECODE[section.kind(tuple(_DECODE))](section, chain)
    for i, layer in enumerate(chain.layers):
        if isinstance(layer, Memory):
            source = sections[i].integer("source", i + 1, len(sections) - 1)
            chain.layers[i] = dataclasses.replace(layer, source=chain.layers[source].name)
    return chain


def _encode_layer(network: IntegerNetwork, layer: Layer, index: dict[str, int]) -> Content:
    shape = network.shapes[layer.name]
    if isinstance(layer, Input):
        return parts.encode_input(layer)
    if isinstance(layer, Tokens):
        return parts.encode_tokens(layer)
    if isinstance(layer, Memory):
        return parts.encode_memory(layer) | {"source": parts.integers(index[layer.source])}
    if isinstance(layer, MaxPool):
        return parts.encode_pool(layer, shape) | {"source": parts.integers(index[layer.source])}
    fields = {"type": parts.text("cif")} | parts.encode_population(layer, shape)
    for k, synapse in enumerate(layer.synapses):
        fields |= parts.under(f"synapse/{k}", _encode_synapse(synapse, index))
    return fields


def _encode_synapse(synapse: Synapse, index: dict[str, int]) -> Content:
    kind = parts.synapse_kind(synapse)
    return {
        "type": parts.text(kind),
        "source": parts.integers(index[synapse.source]),
        "exponent": parts.integers(synapse.exponent),
        **parts.SYNAPSES[kind].encode(synapse),
    }


def _source(section: Section, chain: Chain) -> str:
    return chain.layers[section.integer("source", 0, len(chain.layers) - 1)].name


def _decode_input(section: Section, chain: Chain) -> None:
    layer = parts.decode_input(section, section.top("casc/input"))
    chain.add(layer, layer.shape)


def _decode_tokens(section: Section, chain: Chain) -> None:
    layer = parts.decode_tokens(section)
    chain.add(layer, layer.shape)


def _decode_memory(section: Section, chain: Chain) -> None:
    layer = parts.decode_memory(section)
    chain.add(layer, layer.shape)


def _decode_cif(section: Section, chain: Chain) -> None:
    shape = section.shape()
    synapses = tuple(_decode_synapse(part, chain) for part in section.numbered("synapse"))
    chain.add(parts.decode_population(section, shape, synapses), shape)


def _decode_synapse(section: Section, chain: Chain) -> Synapse:
    kind = section.kind(tuple(parts.SYNAPSES))
    return parts.SYNAPSES[kind].decode(section, _source(section, chain), section.integer("exponent", 0, 31))


def _decode_pool(section: Section, chain: Chain) -> None:
    shape = section.shape()
    chain.add(parts.decode_pool(section, _source(section, chain)), shape)


_DECODE: dict[str, Callable[[Section, Chain], None]] = {
    "input": _decode_input,
    "tokens": _decode_tokens,
    "memory": _decode_memory,
    "cif": _decode_cif,
    "pool": _decode_pool,
}
