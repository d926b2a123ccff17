"""How each part of a layer looks in the file: inputs, memories, synapses, neurons, pools. Both kinds of file use it.

Every `encode_*` returns the members of one group, every `decode_*` takes just these from a `Section`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lava_casc.errors import NetworkFileError
from lava_casc.network import Conv, Dense, Input, MaxPool, Memory, Neurons, Readout, Shape, Synapse, Tokens
from lava_casc.netx.layout import bias_from_file, bias_to_file
from lava_casc.netx.section import LARGEST, Section
from lava_casc.netx.storage import Content

#: What netx wants of every neuron: no memory of the current, no leak of the potential, no refractory time.
NETX_CONSTANTS = {"iDecay": 4096, "vDecay": 0, "refDelay": 1}

#: The neuron type of every layer that integrates; with `levels` 0 it never spikes: the readout.
NEURON = "CIF"


def under(path: str, fields: Content) -> Content:
    """Return `fields` as members of the group `path`."""
    return {f"{path}{'' if key.startswith('@') else '/'}{key}": value for key, value in fields.items()}


def text(value: str) -> NDArray:
    """Return a type string as slayer writes it: one element, ten bytes."""
    return np.array([value.encode("ascii")], "S10")


def integers(values: object) -> NDArray:
    """Return an integer, or a sequence of some, as int64 of the file.

    Raises
    ------
    NetworkFileError
        One is beyond 32 bits, which no reader would take.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "iu" or not -LARGEST - 1 <= int(array.min()) <= int(array.max()) <= LARGEST:
        raise NetworkFileError(f"{values} does not fit the 32 bits that a network file keeps. Use smaller numbers.")
    return array.astype("<i8")


def encode_input(layer: Input) -> Content:
    """Return an input layer without a neuron: netx then takes its shape and starts with the next layer."""
    return {"@name": layer.name, "type": text("input"), "shape": integers(layer.shape)}


def decode_input(section: Section, values: Section) -> Input:
    """Take an input layer; its range and scale lie in `values`, the group ``/casc/input``."""
    return Input(
        section.label("name"),
        section.shape(),
        values.integer("low", -LARGEST - 1, 0),
        values.integer("high", 0),
        values.real("scale"),
        values.integer("shift", 0, 31),
    )


def encode_tokens(layer: Tokens) -> Content:
    """Return an input of words: one place for each, and no range that would have to be said."""
    return {"@name": layer.name, "type": text("tokens"), "shape": integers(layer.shape)}


def decode_tokens(section: Section) -> Tokens:
    """Take an input of words."""
    (vocabulary,) = section.integers("shape", (1,), 1)
    return Tokens(section.label("name"), vocabulary)


def encode_memory(layer: Memory) -> Content:
    """Return a memory but its source."""
    levels = integers(layer.levels)
    return {"@name": layer.name, "type": text("memory"), "shape": integers(layer.shape), "levels": levels}


def decode_memory(section: Section) -> Memory:
    """Take a memory but its type and its source, which has not been read yet."""
    return Memory(section.label("name"), "", section.shape(), section.integer("levels", 1))


def encode_conv(synapse: Conv) -> Content:
    """Return the fields of a convolution, those that netx writes and does not read among them."""
    out, per_group, *kernel = synapse.weight.shape
    return {
        "inChannels": integers(per_group * synapse.groups),
        "outChannels": integers(out),
        "kernelSize": integers(kernel),
        "stride": integers(synapse.stride),
        "padding": integers(synapse.padding),
        "dilation": integers(synapse.dilation),
        "groups": integers(synapse.groups),
        "weight": _weight(synapse.weight),
    }


def decode_conv(section: Section, source: str, exponent: int = 0) -> Conv:
    """Take the fields of a convolution."""
    weight = section.array("weight", ("|i1", "<i4"), (None,) * 4)
    groups = section.integer("groups", 1)
    section.constants("inChannels", "<i8", (), weight.shape[1] * groups)
    section.constants("outChannels", "<i8", (), weight.shape[0])
    kernel = section.pair("kernelSize", 1)
    if kernel != weight.shape[2:]:
        raise section.error("kernelSize", f"is {kernel}, but the weights have {weight.shape[2:]}")
    stride, padding, dilation = (section.pair(k, low) for k, low in (("stride", 1), ("padding", 0), ("dilation", 1)))
    return Conv(source, _widened(weight), stride, padding, dilation, groups, exponent)


def encode_dense(synapse: Dense) -> Content:
    """Return the fields of a fully connected synapse."""
    out, features = synapse.weight.shape
    return {
        "inFeatures": integers(features),
        "outFeatures": integers(out),
        "weight": _weight(synapse.weight),
    }


def decode_dense(section: Section, source: str, exponent: int = 0) -> Dense:
    """Take the fields of a fully connected synapse."""
    weight = section.array("weight", ("|i1", "<i4"), (None,) * 2)
    section.constants("inFeatures", "<i8", (), weight.shape[1])
    section.constants("outFeatures", "<i8", (), weight.shape[0])
    return Dense(source, _widened(weight), exponent)


@dataclass(frozen=True)
class SynapseCodec:
    """How one kind of synapse is written and read."""

    cls: type
    encode: Callable[..., Content]
    decode: Callable[..., Synapse]


SYNAPSES = {
    "conv": SynapseCodec(Conv, encode_conv, decode_conv),
    "dense": SynapseCodec(Dense, encode_dense, decode_dense),
}


def synapse_kind(synapse: Synapse) -> str:
    """Return the name of the kind of a synapse in the file."""
    return next(kind for kind, codec in SYNAPSES.items() if codec.cls is type(synapse))


def encode_population(layer: Neurons | Readout, shape: Shape) -> Content:
    """Return all of a layer that integrates but its synapses. `bias` is the total over the wake."""
    if isinstance(layer, Neurons):
        threshold, levels, initial = layer.threshold, layer.levels, layer.initial
    else:
        # A readout is a neuron without levels: it never spikes, and its potential holds the logits.
        threshold, levels, initial = np.ones(shape[:1], np.int64), 0, np.zeros(shape[:1], np.int64)
    neuron: Content = {key: integers(value) for key, value in NETX_CONSTANTS.items()}
    neuron |= {
        "type": text(NEURON),
        "vThMant": _register(threshold),
        "levels": integers(levels),
        "initial": _register(initial),
        "scale": np.asarray(layer.scale, "<f8"),
    }
    bias = bias_to_file(_register(layer.bias))
    return {"@name": layer.name, "shape": integers(shape), "bias": bias, **under("neuron", neuron)}


def decode_population(section: Section, shape: Shape, synapses: tuple[Synapse, ...]) -> Neurons | Readout:
    """Take all of a layer that integrates but its type, its shape and its synapses."""
    name, channels = section.label("name"), shape[:1]
    bias = bias_from_file(section.array("bias", "<i4", channels, shape[::-1]))
    neuron = section.section("neuron")
    neuron.kind((NEURON,))
    for key, value in NETX_CONSTANTS.items():
        neuron.constants(key, "<i8", (), value)
    levels = neuron.integer("levels", 0)
    if levels == 0:
        neuron.constants("vThMant", "<i4", channels, 1)
        neuron.constants("initial", "<i4", channels, 0)
        return Readout(name, synapses, bias, neuron.real("scale"))
    threshold, initial = (neuron.array(key, "<i4", channels) for key in ("vThMant", "initial"))
    return Neurons(name, synapses, bias, threshold, initial, levels, neuron.reals("scale", channels))


def encode_pool(pool: MaxPool, shape: Shape) -> Content:
    """Return a max pool. slayer's own `pool` sums and has no `mode`; the stock loader refuses both."""
    return {
        "@name": pool.name,
        "type": text("pool"),
        "mode": text("max"),
        "shape": integers(shape),
        "kernelSize": integers(pool.kernel),
        "stride": integers(pool.stride),
        "padding": integers(pool.padding),
        "dilation": integers(pool.dilation),
    }


def decode_pool(section: Section, source: str) -> MaxPool:
    """Take a max pool but its type and its shape."""
    section.kind(("max",), "mode")
    return MaxPool(
        section.label("name"),
        source,
        section.pair("kernelSize", 1),
        section.pair("stride", 1),
        section.pair("padding", 0),
        section.pair("dilation", 1),
    )


def fits_int8(weight: NDArray) -> bool:
    """Return whether every weight is one of netx's own 8 bits."""
    limits = np.iinfo(np.int8)
    return bool(limits.min <= weight.min(initial=0) and weight.max(initial=0) <= limits.max)


def _weight(weight: NDArray) -> NDArray:
    return weight.astype("|i1" if fits_int8(weight) else "<i4")


def _widened(weight: NDArray) -> NDArray:
    """Return weights of a file as a network has them, read-only, so that it need not copy them."""
    wide = weight.astype(np.int32)
    wide.setflags(write=False)
    return wide


def _register(values: NDArray) -> NDArray:
    """Return per-neuron integers as int32, the widest register of any target."""
    integers(values)
    return values.astype("<i4")
