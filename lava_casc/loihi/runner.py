"""`run`: an integer network over images, on Lava's CPU simulator."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.conv.process import Conv as LavaConv
from lava.proc.dense.process import Dense as LavaDense
from numpy.typing import ArrayLike, NDArray

from lava_casc.errors import UnsupportedModelError
from lava_casc.hardware import Hardware, read_hardware
from lava_casc.loihi.build import Circuit, build
from lava_casc.loihi.fast_synapse import FastConvFixed, FastConvFloat, FastDenseFixed, FastDenseFloat
from lava_casc.loihi.layout import torch_images
from lava_casc.loihi.readout.process import TRAILER
from lava_casc.loihi.session import Session, tidy
from lava_casc.network import Conv, IntegerNetwork, Neurons
from lava_casc.ranges import check_ranges
from lava_casc.record import SpikeRecord
from lava_casc.schedule import WakeSleepSchedule

TAGS = {"fixed": "fixed_pt", "float": "floating_pt"}
FAST = {
    "fixed": {LavaConv: FastConvFixed, LavaDense: FastDenseFixed},
    "float": {LavaConv: FastConvFloat, LavaDense: FastDenseFloat},
}
RECORDS = ("counts", "messages", "spikes")
#: Lava's Conv wraps what it delivers at 24 bits, whatever the target's own width.
LAVA_BITS = 24
#: The geometry of a convolution that Lava's own model can hold: it has 8 bits for each number.
STOCK_LIMIT = 127


def run(
    network: IntegerNetwork,
    images: ArrayLike,
    schedule: WakeSleepSchedule | None = None,
    *,
    precision: str = "fixed",
    record: Iterable[str] = (),
    until_silent: bool = True,
    stock_synapses: bool = False,
    strict: bool = True,
    hardware: Hardware | None = None,
    progress: Callable[[int], None] | None = None,
) -> SpikeRecord:
    """Run a network as spikes on Lava's CPU simulator, sample after sample in one Lava run, phase after phase in each.

    Parameters
    ----------
    network : IntegerNetwork
        Refused unless its ranges are proven to fit `hardware`.
    images : (N, ...) array of integers
        Within the input's range. (N, P, ...) for a recurrent network: sequences of P phases.
    schedule : WakeSleepSchedule, optional
        By default ``network.schedule()``: unary, with sleep enough for the proven bound.
    precision : {"fixed", "float"}
        Integers in registers, or float64 potentials in units of the threshold. The latter is exact only where
        every threshold is a power of two, and certifies nothing elsewhere.
    record : iterable of {"counts", "messages", "spikes"}
        What to keep beside logits and certificates. Each layer that is recorded costs a process.
    until_silent : bool
        Whether the next sample, or phase, begins as soon as one is certified. The results are the same; it takes
        fewer steps.
    stock_synapses : bool
        Whether Lava's own models of Conv and Dense run. Those of lava_casc compute the same and are much
        faster.
    strict : bool
        Whether a potential that leaves its register raises `RangeError`. Otherwise it wraps.
    hardware : Hardware, optional
        The limits to hold; by default those of Loihi 2.
    progress : callable, optional
        Called with the number of samples finished so far.

    Returns
    -------
    SpikeRecord
        As `lava_casc.simulate` returns it, spike by spike.

    Raises
    ------
    DataError, RangeError
        The images do not fit the network, or the network does not fit the hardware.
    """
    if precision not in TAGS:
        raise ValueError(f"precision is fixed or float, not {precision!r}")
    wanted = frozenset(record)
    if wanted - set(RECORDS):
        raise ValueError(f"record knows counts, messages and spikes, not {sorted(wanted - set(RECORDS))[0]!r}")
    schedule = network.schedule() if schedule is None else schedule
    images = network.encode(images)
    hardware = read_hardware() if hardware is None else hardware
    if hardware.state_bits > LAVA_BITS:
        hardware = hardware.model_copy(update={"state_bits": LAVA_BITS})
    check_ranges(network, hardware)
    if stock_synapses:
        _check_stock(network)
    tapped = _tapped(network, wanted)
    started = time.perf_counter()
    with tidy():
        circuit = build(
            network,
            images,
            schedule,
            floating=precision == "float",
            until_silent=until_silent,
            tapped=tapped,
            tap_spikes="spikes" in wanted,
            state_bits=hardware.state_bits,
            strict=strict,
        )
        config = run_config(precision, stock_synapses)
        with Session(
            circuit.processes, config, lambda executable: check_models(executable, precision, stock_synapses)
        ) as session:
            leading = images.shape[: 2 if network.is_recurrent else 1]
            shortest = min(network.last_event(schedule), schedule.period) if until_silent else schedule.period
            host = _Host(circuit, session, leading, shortest, schedule.period, progress)
            host.run()
    return _record(network, schedule, host, wanted, precision, time.perf_counter() - started)


def run_config(precision: str, stock_synapses: bool) -> Loihi2SimCfg:
    """Return the run configuration that selects the models of `precision`."""
    return Loihi2SimCfg(
        select_tag=TAGS[precision], exception_proc_model_map=None if stock_synapses else fast_models(precision)
    )


def fast_models(precision: str = "fixed") -> dict[type, type]:
    """Return exact and fast models of Lava's Conv and Dense, for any Lava user's run configuration.

    ``Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=lava_casc.loihi.fast_models())``

    Parameters
    ----------
    precision : {"fixed", "float"}
    """
    return dict(FAST[precision])


def check_models(executable: Any, precision: str, stock_synapses: bool) -> None:
    """Make sure that every process got a model of `precision`, and every synapse the one asked for."""
    for process, builder in executable.proc_builders.items():
        model = builder.proc_model
        fast = FAST[precision].get(type(process))
        right = model is fast if fast is not None and not stock_synapses else model not in FAST[precision].values()
        if TAGS[precision] not in model.tags or not right:
            raise RuntimeError(
                f"{process.name}: Lava chose the model {model.__name__}, not one for precision {precision!r}"
            )


def exact_in_floating_point(network: IntegerNetwork) -> bool:
    """Return whether dividing by the thresholds is exact: whether each of them is a power of two."""
    thresholds = [layer.threshold for layer in network if isinstance(layer, Neurons)]
    return all(bool((threshold & (threshold - 1) == 0).all()) for threshold in thresholds)


def _check_stock(network: IntegerNetwork) -> None:
    """Refuse convolutions whose geometry Lava's own model would hold wrongly: with 128 groups it delivers nothing."""
    for layer in network:
        for synapse in getattr(layer, "synapses", ()):
            if not isinstance(synapse, Conv):
                continue
            geometry = {name: max(getattr(synapse, name)) for name in ("stride", "padding", "dilation")}
            for name, value in {**geometry, "groups": synapse.groups, "kernel": max(synapse.weight.shape[2:])}.items():
                if value > STOCK_LIMIT:
                    raise UnsupportedModelError(
                        f"{layer.name}: a convolution's {name} ({value}) exceeds what Lava's own Conv can hold "
                        f"({STOCK_LIMIT}). Leave stock_synapses out."
                    )


class _Host:
    """The host's side of a run: how many steps to run, and what came out so far.

    For Lava every phase of a sequence is a sample; `leading` is (N,), or (N, P) where there are phases.
    """

    def __init__(
        self,
        circuit: Circuit,
        session: Session,
        leading: tuple[int, ...],
        shortest: int,
        period: int,
        progress: Callable[[int], None] | None,
    ) -> None:
        self.circuit, self.session, self.leading = circuit, session, leading
        self.samples, self.phases = math.prod(leading), math.prod(leading[1:])
        self.shortest, self.period, self.progress = shortest, period, progress
        self.ports = {name: readout.result for name, readout in circuit.readouts.items()}
        self.ports |= {name: tap.result for name, tap in circuit.taps.items()}
        self.results: dict[str, list[NDArray]] = {name: [] for name in self.ports}
        self.steps = self.finished = 0

    def run(self) -> None:
        """Run until every sample has its results; that takes at most ``samples * period`` steps."""
        while self.done < self.samples and self.steps < self.samples * self.period:
            # Never more steps than the samples that are left surely take, so that none is wasted.
            ended = int(self.first[self.done - 1][-1]) if self.done else 0
            sure = (self.samples - self.done) * self.shortest - (self.steps - ended)
            self._run(max(sure, 1))
        self._await(self.circuit.readouts)
        if self.circuit.taps and self.samples:
            self._run(1)  # a tap learns in the step after that its sample is over
            self._await(self.circuit.taps)

    @property
    def first(self) -> list[NDArray]:
        """What the first readout said so far."""
        return self.results[next(iter(self.circuit.readouts))]

    @property
    def done(self) -> int:
        """How many samples have ended: all readouts end a sample in the same step."""
        return len(self.first)

    def _run(self, steps: int) -> None:
        self.session.run(steps, self._collect)
        self.steps += steps

    def _collect(self) -> None:
        for name, port in self.ports.items():
            pipe = port.external_pipe_csp_recv_port
            while pipe.probe():
                self._keep(name, pipe.recv())

    def _await(self, names: Iterable[str]) -> None:
        """Receive what was surely sent."""
        for name in names:
            while len(self.results[name]) < self.samples:
                self._keep(name, self.session.receive(self.ports[name]))

    def _keep(self, name: str, result: NDArray) -> None:
        self.results[name].append(result)
        finished = self.done // self.phases
        if self.progress is not None and finished > self.finished:
            self.finished = finished
            self.progress(finished)


def _tapped(network: IntegerNetwork, wanted: frozenset[str]) -> list[str]:
    names = [layer.name for layer in network.spiking]
    if wanted & {"messages", "spikes"}:
        return [*(layer.name for layer in network.entries), *names]
    return names if "counts" in wanted else []


def _record(
    network: IntegerNetwork,
    schedule: WakeSleepSchedule,
    host: _Host,
    wanted: frozenset[str],
    precision: str,
    seconds: float,
) -> SpikeRecord:
    fixed, leading = precision == "fixed", host.leading
    logits = []
    for readout in network.readouts:
        shape, size = network.shapes[readout.name], int(np.prod(network.shapes[readout.name]))
        results = np.array(host.results[readout.name]).reshape(*leading, size + TRAILER)
        logits.append(torch_images(results[..., :size], shape).reshape(*leading, size))
        trailer = results[..., size:]  # the same from every readout
    flat = np.concatenate(logits, -1)
    # Silence proves the integers' answer only where the arithmetic was exact.
    certified = (trailer[..., 0] != 0) & (fixed or exact_in_floating_point(network))
    last_spike = trailer[..., 1].astype(np.int64)
    kept: dict[str, Any] = {kind: {} for kind in RECORDS}
    for name, tap in host.circuit.taps.items():
        shape, period = network.shapes[name], schedule.period
        size = int(np.prod(shape))
        records = np.array(host.results[name], np.int64).reshape(*leading, tap.result.shape[0])
        kept["messages"][name] = records[..., :period]
        kept["counts"][name] = torch_images(records[..., period : period + size], shape)
        if "spikes" in wanted:
            kept["spikes"][name] = torch_images(records[..., period + size :].reshape(*leading, period, size), shape)
    for layer in network.entries:
        kept["counts"].pop(layer.name, None)
    sequences = network.is_recurrent
    return SpikeRecord(
        engine=f"lava {TAGS[precision]}",
        schedule=schedule,
        logits=(flat.sum(1) if sequences else flat).astype(np.int64 if fixed else np.float64),
        certified=certified.all(1) if sequences else certified,
        last_spike=last_spike.max(1) if sequences else last_spike,
        phases_certified=certified if sequences else None,
        steps=int(trailer.reshape(-1, TRAILER)[-1, -1]) if trailer.size else 0,
        seconds=seconds,
        **{kind: values if kind in wanted else {} for kind, values in kept.items()},
    )
