"""Teach lava-dl's own netx loader the CIF neuron, so that an existing netx script opens our files.

For example::

    from lava.lib.dl import netx
    from lava_casc.loihi.netx import input_steps, register_netx

    register_netx()
    net = netx.hdf5.Network(net_config="digits.net")
    source = RingBuffer(data=input_steps(network, images, schedule))
    source.s_out.connect(net.inp)
    net.run(condition=RunSteps(schedule.period), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
    logits = net.out_layer.neuron.u.get()

The neurons reset themselves in the first step of every period, so that `reset_interval` is not needed. This module is
the only one that needs lava-dl; `lava_casc.loihi.run` needs Lava alone and runs every network, not only those that
netx's schema can say.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lava_casc.errors import MissingDependencyError, NetworkFileError, RangeError, UnsupportedModelError
from lava_casc.integer import signed_bits, spread
from lava_casc.loihi import require_lava
from lava_casc.loihi.layout import lava_images
from lava_casc.network import Dense, IntegerNetwork
from lava_casc.schedule import WakeSleepSchedule

#: The version of the file format that is known here, and what its files start with (docs/file-format.md).
VERSION = 2
SEAL = b"lava_casc network\nsha256 "
SEAL_SIZE = 512
#: Lava's model of Conv holds its geometry in 8 bits: it takes 128 groups for -128, and delivers nothing.
STOCK_LIMIT = 127


def register_netx() -> None:
    """Let `lava.lib.dl.netx.hdf5.Network` open the sequential networks that `lava_casc.write` wrote.

    Whatever file has no ``/casc`` group is loaded as before. Calling it twice changes nothing.

    Raises
    ------
    MissingDependencyError
        Lava or lava-dl is not installed.
    """
    require_lava()
    try:
        from lava.lib.dl.netx import hdf5
    except ImportError as error:
        raise MissingDependencyError(
            f'The netx loader needs lava-dl, which cannot be imported ({error}). pip install "lava-casc[lava]".'
        ) from error
    network = hdf5.Network
    if getattr(network, "_knows_cif", False):
        return
    stock_params, stock_dense, stock_create = network.get_neuron_params, network.create_dense, network._create

    # `wraps` keeps what was there before under `__wrapped__`.
    @functools.wraps(stock_params)
    def get_neuron_params(neuron_config: Any, *args: Any, **kwargs: Any) -> Any:
        if neuron_config["type"] == "CIF":
            return _neuron_params(neuron_config, *args, **kwargs)
        return stock_params(neuron_config, *args, **kwargs)

    @functools.wraps(stock_dense)
    def create_dense(layer_config: Any, *args: Any, **kwargs: Any) -> Any:
        if "neuron" in layer_config.f and layer_config["neuron"]["type"] == "CIF":
            return _create_dense(network, layer_config, *args, **kwargs)
        return stock_dense(layer_config, *args, **kwargs)

    @functools.wraps(stock_create)
    def create(self: Any) -> Any:
        if "casc" in self.net_config.f:
            _check(self.filename, self.net_config)
            # With 0 bits, netx's default, a synapse takes every message for a 1.
            self.input_message_bits = self.input_message_bits or _input_bits(self.net_config)
        return stock_create(self)

    network.get_neuron_params = staticmethod(get_neuron_params)
    network.create_dense = staticmethod(create_dense)
    network._create = create
    network._knows_cif = True


def input_steps(
    network: IntegerNetwork, images: ArrayLike, schedule: WakeSleepSchedule | None = None
) -> NDArray[np.int32]:
    """Return what a source must play into ``net.inp``, step by step, sample after sample.

    Parameters
    ----------
    network : IntegerNetwork
    images : (N, ...) array of integers
        Within the network's input range.
    schedule : WakeSleepSchedule, optional
        The one that the network was written with; by default ``network.schedule()``, which is also the default of
        `lava_casc.write`.

    Returns
    -------
    (W, H, C, N * period) or (size, N * period) ndarray of int32
        Time is the last axis, as `lava.proc.io.source.RingBuffer` takes it. Flat where the first layer is dense,
        then in the order of torch's flattened (C, H, W), as netx has it.

    Raises
    ------
    DataError, RangeError
        The images do not fit the network's input.
    """
    schedule = network.schedule() if schedule is None else schedule
    encoded = network.encode(images)
    first = getattr(network.layers[1], "synapses", (None,))[0]
    values = encoded.reshape(len(encoded), -1) if isinstance(first, Dense) else lava_images(encoded)
    shares = [spread(values, schedule.wake_steps, step) for step in range(1, schedule.period + 1)]
    steps = np.moveaxis(np.stack(shares, axis=1), (0, 1), (-2, -1))
    return np.ascontiguousarray(steps.reshape(*values.shape[1:], -1), dtype=np.int32)


def _neuron_params(
    config: Any,
    input: bool = False,  # noqa: A002  netx calls it by this name
    reset_interval: int | None = None,
    reset_offset: int = 0,
    spike_exp: int = 6,
) -> dict[str, Any]:
    """Return what netx's blocks hand to a neuron, for the layer to which the group `config` belongs."""
    from lava_casc.loihi.cif import CIF

    file, layer = config.f.file, config.f.parent
    schedule = _schedule(file)
    if reset_interval not in (None, schedule.period):
        raise RangeError(
            f"{file.filename}: reset_interval ({reset_interval}) is not the period ({schedule.period}) in which the "
            "neurons reset themselves. Leave reset_interval out."
        )
    timing = schedule.timing(*_depth(layer, schedule))
    levels = int(config.f["levels"][()])
    burst = min(schedule.max_burst, levels)
    return {
        "neuron_proc": CIF,
        "bias_key": "bias",
        "num_message_bits": max(2, signed_bits(-burst, burst)),
        "threshold": config["vThMant"],
        "levels": levels,
        "initial": config.f["initial"][()],
        "wake_steps": schedule.wake_steps,
        "period": schedule.period,
        "bias_start": timing.bias_start,
        "max_burst": schedule.max_burst,
        "release": timing.release,
        "name": layer.attrs["name"],
    }


def _create_dense(
    network: Any,
    layer_config: Any,
    input_message_bits: int = 0,
    reset_interval: int | None = None,
    reset_offset: int = 0,
    spike_exp: int = 6,
    sparse_synapse: bool = False,
    rec: bool = False,
) -> tuple[Any, str]:
    """Return a dense block and its line in netx's table; instead of stock netx's, whose way with weights is not exact.

    `optimize_weight_bits` fails on weights that are all zero and alters some that are all negative.
    """
    from lava.lib.dl.netx.blocks.process import Dense as DenseBlock

    weight = layer_config["weight"]
    # The synapse's fixed-point model drops the last bit of weights of both signs: it gets one that means nothing.
    mixed = int(weight.min() < 0 < weight.max())
    shape = (len(weight),)
    block = DenseBlock(
        shape=shape,
        neuron_params=network.get_neuron_params(
            layer_config["neuron"],
            reset_interval=reset_interval,
            reset_offset=reset_offset,
            spike_exp=spike_exp,
        ),
        weight=weight << mixed,
        weight_exponent=-mixed,
        num_weight_bits=8,
        bias=layer_config["bias"],
        input_message_bits=input_message_bits,
        sparse_synapse=sparse_synapse,
    )
    return block, network._table_str(type_str="Dense", width=1, height=1, channel=shape[0])


def _check(filename: str, config: Any) -> None:
    """Refuse what netx cannot build, and what is not byte for byte what was written."""
    data = Path(filename).read_bytes()
    seal = SEAL + hashlib.sha256(data[SEAL_SIZE:]).hexdigest().encode("ascii") + b"\n"
    if data[:SEAL_SIZE].rstrip(b"\0") != seal:
        raise NetworkFileError(
            f"{filename}: was damaged or altered: it does not match its SHA-256. "
            "Export the network again with lava_casc.write."
        )
    version = int(config.f["casc"].attrs["version"])
    if version > VERSION:
        raise NetworkFileError(f"{filename}: has format version {version}, known is {VERSION}. Update lava_casc.")
    for i in range(len(config["layer"])) if "layer" in config.f else ():
        for name in ("kernelSize", "stride", "padding", "dilation", "groups"):
            value = int(np.max(config["layer"][i].f[name][()])) if name in config["layer"][i].f else 0
            if value > STOCK_LIMIT:
                raise UnsupportedModelError(
                    f"{filename}: layer {i}: its {name} ({value}) exceeds what Lava's own Conv can hold "
                    f"({STOCK_LIMIT}). Use lava_casc.loihi.run."
                )
    kinds = [config["layer"][i]["type"] for i in range(len(config["layer"]))] if "layer" in config.f else []
    if not kinds or "pool" in kinds:
        beyond = "branches, several readouts, memories, tokens, weight exponents or weights of more than 8 bits"
        what = "max pooling" if kinds else beyond
        raise UnsupportedModelError(f"{filename}: has {what}, which netx cannot build. Use lava_casc.loihi.run.")


def _input_bits(config: Any) -> int:
    low, high = (int(config.f[f"casc/input/{name}"][()]) for name in ("low", "high"))
    return max(2, signed_bits(low, high))


def _schedule(file: Any) -> WakeSleepSchedule:
    if "casc/schedule" not in file:
        raise NetworkFileError(
            f"{file.filename}: has CIF neurons, but no /casc/schedule. Export the network with lava_casc.write."
        )
    steps = {name: int(file["casc/schedule"][name][()]) for name in ("wake_steps", "sleep_steps", "max_burst")}
    return WakeSleepSchedule(**steps, released=bool(file["casc/schedule/released"][()]))


def _depth(layer: Any, schedule: WakeSleepSchedule) -> tuple[int, int]:
    """Return the synapses from the input to the layer of this group, and the step in which its inputs are complete."""
    last = int(layer.name.rsplit("/", 1)[1])
    groups = [layer.parent[str(i)] for i in range(last + 1)]
    groups = [group for group in groups if group["type"][0] in (b"conv", b"dense")]
    spoken = sum(schedule.duration(int(group["neuron/levels"][()])) for group in groups[:-1])
    return len(groups), schedule.wake_steps + 1 + spoken
