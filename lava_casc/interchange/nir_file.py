"""NIR, the neuromorphic intermediate representation (arXiv 2311.14641): an integer network as a graph of its nodes.

What NIR can say is written in its own nodes: ``Input``, ``Conv2d``, ``Affine`` and ``Linear``, ``Flatten``, ``IF`` with
the integer threshold, ``Output``. What it cannot say stands in the nodes' metadata, where `read_nir` finds it again and
every other reader passes over it: that a neuron takes spikes back and stops at its levels, the potential that it
starts with, that it resets by subtraction, when it is awake, and that a bias is meant once a sample and not once a
step. **Another reader of the file runs plain integrate-and-fire neurons**: no negative spikes, no cap, no wake and
sleep, and hence no certificate. What would be lost altogether is refused by name: max pooling, memories and their
phases, tokens, and a bias for every place of an image.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lava_casc.errors import NetworkFileError, UnsupportedModelError, first_line
from lava_casc.files import replacing
from lava_casc.hardware import DEFAULT
from lava_casc.interchange.common import library
from lava_casc.network import Conv, Dense, Input, IntegerNetwork, MaxPool, Memory, Neurons, Readout, Synapse, Tokens
from lava_casc.netx import NetworkFile
from lava_casc.schedule import WakeSleepSchedule

FORMAT, VERSION = "lava_casc.nir", 1


def write_nir(
    path: str | Path,
    network: IntegerNetwork,
    schedule: WakeSleepSchedule | None = None,
    *,
    hardware: str = DEFAULT,
) -> None:
    r"""Write an integer network as a NIR graph, under a temporary name first.

    A layer ``y = clip((sum_i w_i y_i + bias + initial) // threshold, 0, levels)`` becomes a node for each synapse
    (``Conv2d``; ``Linear``, or ``Affine`` with the bias; behind a ``Flatten`` where an image is read) with edges to
    one ``IF``, where they add up: weights ``w 2**exponent``, int64 or int32, thresholds int64 of the layer's shape,
    r = 1. A `Readout` becomes an ``Output``. The docstring of the module says what only the metadata holds.

    Parameters
    ----------
    path : str or Path
        A folder that exists; the file may.
    network : IntegerNetwork
        Without max pooling, memories and tokens, and with biases of channels in images.
    schedule : WakeSleepSchedule, optional
        Wake and sleep that the metadata says; by default ``network.schedule()``.
    hardware : str
        The name of the target whose limits the network was checked against, for the metadata.

    Raises
    ------
    UnsupportedModelError
        NIR has no node for a layer.
    NetworkFileError
        The path cannot be written.
    MissingDependencyError
        The package nir is not installed.
    """
    nir = library("nir", Path(path))
    schedule = network.schedule() if schedule is None else schedule
    nodes: dict[str, Any] = {}
    edges: list[tuple[str, str]] = []
    names: dict[str, str] = {}
    timing = network.timing(schedule)
    for index, layer in enumerate(network):
        if isinstance(layer, MaxPool | Memory | Tokens):
            raise UnsupportedModelError(
                f"{layer.name}: NIR has no node for a {type(layer).__name__}. Write a netx file (lava_casc.write)."
            )
        shape = network.shapes[layer.name]
        name = names[layer.name] = _unique(re.sub(r"[^\w.-]+", "_", layer.name).strip(".") or "layer", nodes)
        notes: dict[str, Any] = {"index": index, "layer": layer.name}
        if isinstance(layer, Input):
            notes |= {"low": int(layer.low), "high": int(layer.high), "scale": layer.scale, "shift": int(layer.shift)}
            nodes[name] = nir.Input(input_type={"input": np.array(shape)}, metadata=notes)
            continue
        if layer.bias.ndim > 1:
            raise UnsupportedModelError(
                f"{layer.name}: a bias for every place of an image, and NIR has one for a channel. "
                "Write a netx file (lava_casc.write)."
            )
        if isinstance(layer, Neurons):
            threshold = np.broadcast_to(layer.threshold.reshape(-1, *(1,) * (len(shape) - 1)), shape).copy()
            notes |= {
                "neuron": "CIF",
                "reset": "subtract",
                "signed_spikes": 1,
                "levels": int(layer.levels),
                "initial": np.array(layer.initial),
                "scale": np.array(layer.scale),
                **asdict(timing[layer.name]),
            }
            nodes[name] = nir.IF(r=np.ones(shape), v_threshold=threshold, metadata=notes)
        else:
            notes |= {"scale": layer.scale, **asdict(timing[layer.name])}
            nodes[name] = nir.Output(output_type={"output": np.array(shape)}, metadata=notes)
        for place, synapse in enumerate(layer.synapses):
            source = names[synapse.source]
            before = network.shapes[synapse.source]
            if isinstance(synapse, Dense) and len(before) > 1:
                flat = _unique(f"{name}.{place}.flatten", nodes)
                nodes[flat] = nir.Flatten(input_type={"input": np.array(before)}, start_dim=0, end_dim=-1)
                edges.append((source, flat))
                source = flat
            product = _unique(f"{name}.{place}", nodes)
            nodes[product] = _synapse_node(nir, synapse, before, layer.bias, place)
            edges += [(source, product), (product, name)]
    about = {"format": FORMAT, "version": VERSION, **asdict(schedule), "released": int(schedule.released)}
    about["hardware"] = hardware
    graph = nir.NIRGraph(
        nodes, edges, metadata=about, type_check=False
    )  # it takes grouped kernels, and oblong ones, for wrong
    with replacing(path, NetworkFileError) as temporary:
        nir.write(temporary, graph)


def read_nir(path: str | Path) -> IntegerNetwork:
    """Read what `write_nir` wrote, bit for bit.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    IntegerNetwork
        Of the nodes' weights, biases and thresholds, in the order of the edges, with what the metadata adds.

    Raises
    ------
    NetworkFileError
        The file is missing, damaged, no NIR graph, or one without what spikes need to be exact.
    MissingDependencyError
        The package nir is not installed.
    """
    return read_nir_file(path).network


def read_nir_file(path: str | Path) -> NetworkFile:
    """Read a network with the schedule and the target that it was written with, as `lava_casc.netx.read_file` does.

    Parameters
    ----------
    path : str or Path
        What `write_nir` wrote.

    Returns
    -------
    NetworkFile

    Raises
    ------
    NetworkFileError, MissingDependencyError
        As `read_nir`.
    """
    path = Path(path)
    nir = library("nir", path)
    if not path.is_file():
        raise NetworkFileError(f"{path}: no such file. Give the path of a NIR graph that lava_casc wrote.")
    try:
        graph = nir.read(path, type_check=False)
        about = dict(graph.metadata)
    except Exception as error:  # h5py, nir and numpy each raise errors of their own, asserts among them
        raise _damaged(path, error) from error
    if about.get("format") != FORMAT:
        raise NetworkFileError(
            f"{path}: a NIR graph that lava_casc did not write: it says neither levels nor initial potentials, without "
            "which spikes are not exact. Convert the network itself (lava_casc.convert)."
        )
    if about.get("version") != VERSION:
        raise NetworkFileError(
            f"{path}: version {about.get('version')}; this lava_casc reads {VERSION}. Update lava_casc."
        )
    try:
        wake, sleep, burst = (int(about[name]) for name in ("wake_steps", "sleep_steps", "max_burst"))
        schedule = WakeSleepSchedule(wake, sleep, burst, bool(about["released"]))
        return NetworkFile(_network(nir, graph), schedule, VERSION, str(about.get("hardware", DEFAULT)))
    except Exception as error:  # made-up content makes numpy raise almost anything
        raise _damaged(path, error) from error


def _network(nir: Any, graph: Any) -> IntegerNetwork:
    before: dict[str, list[str]] = {}
    for source, target in graph.edges:
        before.setdefault(target, []).append(source)
    ordered = sorted(
        ((name, node) for name, node in graph.nodes.items() if isinstance(node, nir.Input | nir.IF | nir.Output)),
        key=lambda item: int(item[1].metadata["index"]),
    )
    names = {name: str(node.metadata["layer"]) for name, node in ordered}
    layers: list[Input | Neurons | Readout] = []
    read = {name for name, _ in ordered}
    for name, node in ordered:
        notes = node.metadata
        if isinstance(node, nir.Input):
            shape = tuple(int(n) for n in node.input_type["input"])
            low, high, shift = (int(notes[key]) for key in ("low", "high", "shift"))
            layers.append(Input(names[name], shape, low, high, float(notes["scale"]), shift))
            continue
        found = []
        for product in sorted(before.get(name, ()), key=lambda key: int(graph.nodes[key].metadata["place"])):
            (source,) = before[product]
            read.add(product)
            if isinstance(graph.nodes[source], nir.Flatten):
                read.add(source)
                (source,) = before[source]
            found.append(_synapse(nir, graph.nodes[product], names[source]))
        bias = found[0][1]
        if bias is None or any(more is not None and more.any() for _, more in found[1:]):
            raise ValueError(f"{name}: the bias is not that of the first synapse")
        synapses = tuple(synapse for synapse, _ in found)
        if isinstance(node, nir.Output):
            layers.append(Readout(names[name], synapses, bias, float(notes["scale"])))
            continue
        full = _integers(node.v_threshold)
        threshold = full.reshape(len(full), -1)[:, 0]
        if (full.reshape(len(full), -1) != threshold[:, None]).any() or (node.r != 1).any() or node.v_reset.any():
            raise ValueError(f"{name}: thresholds that differ within a channel, a resistance or a reset potential")
        layers.append(
            Neurons(
                names[name],
                synapses,
                bias,
                threshold,
                _integers(notes["initial"]),
                int(notes["levels"]),
                np.asarray(notes["scale"]),
            )
        )
    unread = set(graph.nodes) - read
    if unread:
        raise ValueError(f"{sorted(unread)[0]}: a node that no layer reads")
    return IntegerNetwork(tuple(layers))


def _synapse_node(nir: Any, synapse: Synapse, shape: tuple[int, ...], bias: NDArray, place: int) -> Any:
    """Return the node of one synapse; the layer's bias goes with the first."""
    weight = np.array(synapse.weight)
    if synapse.exponent:
        weight = weight.astype(np.int64) << synapse.exponent
    notes = {"place": place, "exponent": int(synapse.exponent)}
    if isinstance(synapse, Conv):
        return nir.Conv2d(
            input_shape=shape[1:],
            weight=weight,
            stride=tuple(synapse.stride),
            padding=tuple(synapse.padding),
            dilation=tuple(synapse.dilation),
            groups=int(synapse.groups),
            bias=np.array(bias) if place == 0 else np.zeros(len(weight), np.int64),
            metadata=notes,
        )
    if place == 0:
        return nir.Affine(weight=weight, bias=np.array(bias), metadata=notes)
    return nir.Linear(weight=weight, metadata=notes)


def _synapse(nir: Any, node: Any, source: str) -> tuple[Synapse, NDArray | None]:
    """Return the synapse of a node, and the bias that stands with it."""
    effective, exponent = _integers(node.weight), int(node.metadata["exponent"])
    if not 0 <= exponent < 64 or ((effective >> exponent) << exponent != effective).any():
        raise ValueError(f"weights of {source} that are no multiples of 2**{exponent}")
    weight = effective >> exponent
    if weight.astype(np.int32).astype(np.int64).tolist() != weight.tolist():
        raise ValueError(f"weights of {source} outside int32")
    bias = _integers(node.bias) if hasattr(node, "bias") else None
    if isinstance(node, nir.Conv2d):
        stride, padding, dilation = (
            (int(height), int(width)) for height, width in (node.stride, node.padding, node.dilation)
        )
        return Conv(source, weight.astype(np.int32), stride, padding, dilation, int(node.groups), exponent), bias
    return Dense(source, weight.astype(np.int32), exponent), bias


def _integers(values: Any) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{array.dtype} where integers belong")
    return array.astype(np.int64)


def _unique(name: str, taken: dict[str, Any]) -> str:
    return next(n for n in (name, *(f"{name}_{i}" for i in range(len(taken)))) if n not in taken)


def _damaged(path: Path, error: BaseException) -> NetworkFileError:
    return NetworkFileError(
        f"{path}: damaged, or no NIR graph of lava_casc ({type(error).__name__}: {first_line(error)}). Write it again."
    )
