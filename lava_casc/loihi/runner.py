"""`run`: an integer network over images, on Lava's CPU simulator."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.conv.process import Conv as LavaConv
from lava.proc.dense.process import Dense as LavaDense
from numpy.typing import ArrayLike, NDArray

from lava_casc.dynamics import batches
from lava_casc.errors import UnsupportedModelError
from lava_casc.hardware import Hardware, read_hardware
from lava_casc.loihi.build import Circuit
from lava_casc.loihi.fast_synapse import FastConvFixed, FastConvFloat, FastDenseFixed, FastDenseFloat
from lava_casc.loihi.layout import torch_images
from lava_casc.loihi.messages import TRAILER, Messages
from lava_casc.loihi.network import SpikingNetwork
from lava_casc.loihi.network.models import GraphOfNetwork, PyFusedNetwork
from lava_casc.loihi.session import Session, tidy
from lava_casc.loihi.staircase import check_staircase, settling_steps
from lava_casc.loihi.staircase.circuit import Staircase, window_of_ones
from lava_casc.loihi.staircase.circuit import build as build_staircase
from lava_casc.network import Conv, IntegerNetwork, MaxPool, Neurons, Shape, Synapse, per_neuron
from lava_casc.ranges import check_ranges
from lava_casc.record import SpikeRecord, keep
from lava_casc.schedule import WakeSleepSchedule

TAGS = {"fixed": "fixed_pt", "float": "floating_pt"}
FAST = {
    "fixed": {LavaConv: FastConvFixed, LavaDense: FastDenseFixed},
    "float": {LavaConv: FastConvFloat, LavaDense: FastDenseFloat},
}
ENGINES = {"fused": PyFusedNetwork, "graph": GraphOfNetwork}
RECORDS = ("counts", "messages", "spikes")
#: Numbers in a message to or from the fused network, at most, unless a single sample needs more.
MESSAGE_SIZE = 1 << 24
#: Batches that are under way or ready: as many as the pipe of the fused network holds.
PIPE_DEPTH = 2
#: Lava's Conv wraps what it delivers at 24 bits, whatever the target's own width.
LAVA_BITS = 24
#: Lava's fixed-point Dense clips weights to 8 bits, whatever the target's own width, and says nothing.
LAVA_WEIGHT_BITS = 8
#: The geometry of a convolution that Lava's own model can hold: it has 8 bits for each number.
STOCK_LIMIT = 127


def run(
    network: IntegerNetwork,
    images: ArrayLike,
    schedule: WakeSleepSchedule | None = None,
    *,
    engine: str = "fused",
    precision: str = "fixed",
    record: Iterable[str] = (),
    until_silent: bool = True,
    stock_synapses: bool = False,
    strict: bool = True,
    hardware: Hardware | None = None,
    batch_size: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> SpikeRecord:
    """Run a network as spikes on Lava's CPU simulator, all samples in one Lava run.

    Parameters
    ----------
    network : IntegerNetwork
        Refused unless its ranges are proven to fit `hardware`.
    images : (N, ...) array of integers
        Within the input's range. (N, P, ...) for a recurrent network: sequences of P phases.
    schedule : WakeSleepSchedule, optional
        By default ``network.schedule()``: unary, with sleep enough for the proven bound.
    engine : {"fused", "graph", "staircase"}
        The whole network in one process that takes many samples at a time; or a process for every layer and synapse and
        one sample after the other, as on a chip. The spikes are the same, in the same steps. The staircase computes
        the settled counts with processes that Lava ships, and nothing else is the same: see `lava_casc.loihi.staircase`
        and the notes below.
    precision : {"fixed", "float"}
        Integers in registers, or float64 potentials in units of the threshold. The latter is exact only where
        every threshold is a power of two, and certifies nothing elsewhere; the graph alone has it.
    record : iterable of {"counts", "messages", "spikes"}
        What to keep beside logits and certificates. Each layer that is recorded costs the graph a process. The
        staircase has counts alone.
    until_silent : bool
        Whether the next sample, or phase, begins as soon as one is certified. The results are the same; it takes
        fewer steps.
    stock_synapses : bool
        The graph and the staircase: whether Lava's own models of Conv and Dense run. Those of lava_casc compute the
        same and are much faster.
    strict : bool
        The graph: whether a potential that leaves its register raises `RangeError`. Otherwise it wraps. In the fused
        network no potential can: its ranges are proven.
    hardware : Hardware, optional
        The limits to hold; by default those of Loihi 2.
    batch_size : int, optional
        Samples that the fused network takes at a time; by default as many as memory allows.
    progress : callable, optional
        Called with the number of samples finished so far.

    Returns
    -------
    SpikeRecord
        As `lava_casc.simulate` returns it, spike by spike.

    Raises
    ------
    DataError, RangeError
        The images do not fit the network, or the network does not fit the hardware, or Lava's LIF in the staircase.
    UnsupportedModelError
        The staircase: the network is recurrent.
    KeyboardInterrupt
        Ctrl-C; after some samples its attribute ``record`` is their record. All Lava processes have been ended.

    Notes
    -----
    The staircase takes one sample after the other. Each is held as the input for as many steps as the longest path
    takes (`settling_steps`), so that branches of different length need no delays, and is read in the last of them. Its
    neurons remember nothing from step to step. Its record's `schedule` has this hold as its wake and no sleep. No
    neuron that says anything ever falls silent, hence `certified` is False for every sample, and `last_spike` is the
    last step of the hold for all of them, without having been observed. That logits and counts equal the integer
    network's is what tests show. The readouts' bias is added by the host.
    """
    if engine not in (*ENGINES, "staircase"):
        raise ValueError(f"engine is fused, graph or staircase, not {engine!r}")
    if precision not in TAGS:
        raise ValueError(f"precision is fixed or float, not {precision!r}")
    if engine == "fused" and (precision != "fixed" or stock_synapses or not strict):
        raise ValueError("the fused engine computes integers that were proven to fit. Use engine='graph'")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    wanted = frozenset(record)
    if wanted - set(RECORDS):
        raise ValueError(f"record knows counts, messages and spikes, not {sorted(wanted - set(RECORDS))[0]!r}")
    hardware = read_hardware() if hardware is None else hardware
    if engine == "staircase":
        if schedule is not None or precision != "fixed" or not until_silent or not strict or batch_size is not None:
            raise ValueError("the staircase computes integers one by one, with no schedule. Use engine='graph'")
        if wanted - {"counts"}:
            raise ValueError(f"the staircase records counts alone, not {sorted(wanted - {'counts'})[0]!r}")
        return _run_staircase(network, network.encode(images), wanted, stock_synapses, hardware, progress)
    schedule = network.schedule() if schedule is None else schedule
    images = network.encode(images)
    clips = engine == "graph" and precision == "fixed"
    hardware = hardware.with_registers(
        state_bits=min(hardware.state_bits, LAVA_BITS),
        weight_bits=min(hardware.weight_bits, LAVA_WEIGHT_BITS) if clips else hardware.weight_bits,
    )
    check_ranges(network, hardware)
    if stock_synapses:
        _check_stock(_synapses(network))
    started = time.perf_counter()
    sequences = images.shape[1] if network.is_recurrent else 1
    batch_size = _batch_size(network, schedule, len(images), sequences, wanted, batch_size)
    with tidy():
        process = SpikingNetwork(
            network=network,
            schedule=schedule,
            samples=images,
            batch_size=batch_size,
            record=wanted,
            until_silent=until_silent,
            circuit={
                "floating": precision == "float",
                "tapped": _tapped(network, wanted),
                "tap_spikes": "spikes" in wanted,
                "state_bits": hardware.state_bits,
                "strict": strict,
            },
            name="network",
        )
        shortest = min(network.last_event(schedule), schedule.period) if until_silent else schedule.period
        hosts: dict[str, type[_Host]] = {"fused": _FusedHost, "graph": _GraphHost}
        host = hosts[engine](process, shortest, progress)

        def made() -> SpikeRecord:
            return _record(network, schedule, host.fields(), wanted, precision, engine, time.perf_counter() - started)

        with (
            _keeping(host, made),
            Session(
                process,
                run_config(precision, stock_synapses, engine),
                lambda executable: check_models(executable, precision, stock_synapses, engine),
            ) as session,
        ):
            host.run(session)
    return made()


@contextmanager
def _keeping(results: _Results, made: Callable[[], SpikeRecord]) -> Iterator[None]:
    """Give a Ctrl-C the record of the samples that are finished by then, if there are any."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if results.finished:
            keep(stop, made())
        raise


def run_config(precision: str, stock_synapses: bool = False, engine: str = "fused") -> Loihi2SimCfg:
    """Return the run configuration that selects the models of an engine and a `precision`."""
    models: dict[type, type] = {} if stock_synapses else fast_models(precision)
    if engine in ENGINES:
        models[SpikingNetwork] = ENGINES[engine]
    return Loihi2SimCfg(select_tag=TAGS[precision], exception_proc_model_map=models)


def fast_models(precision: str = "fixed") -> dict[type, type]:
    """Return exact and fast models of Lava's Conv and Dense, for any Lava user's run configuration.

    ``Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=lava_casc.loihi.fast_models())``

    Parameters
    ----------
    precision : {"fixed", "float"}

    Returns
    -------
    dict of type to type
        From Lava's process to a model of it, for `exception_proc_model_map`.
    """
    return dict(FAST[precision])


def check_models(executable: Any, precision: str, stock_synapses: bool, engine: str) -> None:
    """Make sure that every process got a model of `precision`, and every synapse the one asked for."""
    models = {process: builder.proc_model for process, builder in executable.proc_builders.items()}
    for process, model in models.items():
        fast = FAST[precision].get(type(process))
        right = model is fast if fast is not None and not stock_synapses else model not in FAST[precision].values()
        if TAGS[precision] not in model.tags or not right:
            raise RuntimeError(
                f"{process.name}: Lava chose the model {model.__name__}, not one for precision {precision!r}"
            )
    if (PyFusedNetwork in models.values()) != (engine == "fused"):
        raise RuntimeError(f"Lava did not choose the {engine} engine")


def exact_in_floating_point(network: IntegerNetwork) -> bool:
    """Return whether dividing by the thresholds is exact: whether each of them is a power of two."""
    thresholds = [layer.threshold for layer in network if isinstance(layer, Neurons)]
    return all(bool((threshold & (threshold - 1) == 0).all()) for threshold in thresholds)


def _check_stock(synapses: Iterable[tuple[str, Synapse]]) -> None:
    """Refuse convolutions whose geometry Lava's own model would hold wrongly: with 128 groups it delivers nothing."""
    for path, synapse in synapses:
        if not isinstance(synapse, Conv):
            continue
        geometry = {name: max(getattr(synapse, name)) for name in ("stride", "padding", "dilation")}
        for name, value in {**geometry, "groups": synapse.groups, "kernel": max(synapse.weight.shape[2:])}.items():
            if value > STOCK_LIMIT:
                raise UnsupportedModelError(
                    f"{path}: a convolution's {name} ({value}) exceeds what Lava's own Conv can hold "
                    f"({STOCK_LIMIT}). Leave stock_synapses out."
                )


def _synapses(network: IntegerNetwork) -> list[tuple[str, Synapse]]:
    return [(layer.name, synapse) for layer in network for synapse in getattr(layer, "synapses", ())]


def _run_staircase(
    network: IntegerNetwork,
    images: NDArray[np.int64],
    wanted: frozenset[str],
    stock_synapses: bool,
    hardware: Hardware,
    progress: Callable[[int], None] | None,
) -> SpikeRecord:
    check_staircase(network, hardware)
    if stock_synapses:
        pools = [layer for layer in network if isinstance(layer, MaxPool)]
        windows = [(p.name, window_of_ones(p, network.shapes[p.name][0], network.peaks[p.name])) for p in pools]
        _check_stock([*_synapses(network), *windows])
    started, hold = time.perf_counter(), max(settling_steps(network).values())
    counted = [layer.name for layer in network.spiking] if "counts" in wanted else []
    with tidy():
        circuit = build_staircase(network, network.input.injected(images), hold, counted)
        settled = _Settled(circuit, len(images), progress)

        def made() -> SpikeRecord:
            values = {name: settled.values(name, network.shapes[name]) for name in circuit.probes}
            logits = [values[r.name] + per_neuron(r.bias, network.shapes[r.name]) for r in network.readouts]
            return SpikeRecord(
                engine=f"lava staircase {TAGS['fixed']}",
                schedule=WakeSleepSchedule(hold, 0),
                logits=np.concatenate([x.reshape(settled.finished, math.prod(x.shape[1:])) for x in logits], -1),
                certified=np.zeros(settled.finished, np.bool_),
                last_spike=np.full(settled.finished, hold, np.int64),
                counts={name: values[name] for name in counted},
                steps=settled.finished * hold,
                seconds=time.perf_counter() - started,
            )

        if len(images):  # Lava runs one step at least
            with (
                _keeping(settled, made),
                Session(
                    circuit.source,
                    run_config("fixed", stock_synapses, "staircase"),
                    lambda executable: check_models(executable, "fixed", stock_synapses, "staircase"),
                ) as session,
            ):
                session.run(len(images) * hold, settled.exchange)
                settled.finish(session)
    return made()


class _Results:
    """What came out of a run so far; `finished` is of how many samples all of it did."""

    def __init__(self, progress: Callable[[int], None] | None) -> None:
        self.progress, self.finished = progress, 0

    def _tell(self, finished: int) -> None:
        if finished > self.finished:
            self.finished = finished
            if self.progress is not None:
                self.progress(finished)


class _Settled(_Results):
    """What came out of a staircase, by layer, one result a sample."""

    def __init__(self, circuit: Staircase, samples: int, progress: Callable[[int], None] | None) -> None:
        super().__init__(progress)
        self.samples = samples
        self.ports = {name: probe.result for name, probe in circuit.probes.items()}
        self.results: dict[str, list[NDArray]] = {name: [] for name in self.ports}

    def exchange(self) -> None:
        """Receive what has come."""
        for name, port in self.ports.items():
            while port.external_pipe_csp_recv_port.probe():
                self._keep(name, port.external_pipe_csp_recv_port.recv())

    def finish(self, session: Session) -> None:
        """Receive what was surely sent."""
        for name, port in self.ports.items():
            while len(self.results[name]) < self.samples:
                self._keep(name, session.receive(port))

    def values(self, name: str, shape: Shape) -> NDArray[np.int64]:
        """Return the values of a layer of `shape`, (N, *shape)."""
        whole = np.array(self.results[name][: self.finished], np.int64)
        return torch_images(whole.reshape(self.finished, math.prod(shape)), shape)

    def _keep(self, name: str, result: NDArray) -> None:
        self.results[name].append(result)
        self._tell(min(map(len, self.results.values())))


class _Host(_Results):
    """The host's side of a run: how many steps to run, and what came out so far.

    A run is made of `units` that follow each other, and take between `shortest` and `longest` steps each.
    """

    def __init__(self, process: SpikingNetwork, shortest: int, progress: Callable[[int], None] | None) -> None:
        super().__init__(progress)
        self.process, self.shortest = process, shortest
        self.messages, self.samples = process.messages, process.all_samples

    def run(self, session: Session) -> None:
        """Run until every unit has its results."""
        self.session = session
        self.units, per_unit = self._divide()
        shortest, longest = per_unit * self.shortest, per_unit * self.messages.schedule.period
        self.steps = 0
        while self.done < self.units and self.steps < self.units * longest:
            # Never more steps than the units that are left surely take, so that none is wasted.
            sure = (self.units - self.done) * shortest - (self.steps - self.ended)
            self._run(max(sure, 1))
        self._finish()

    def _run(self, steps: int) -> None:
        self.session.run(steps, self._exchange)
        self.steps += steps

    def _divide(self) -> tuple[int, int]:
        """Return the number of units, and the phases that each of them has."""
        raise NotImplementedError

    @property
    def done(self) -> int:
        """How many units have ended."""
        raise NotImplementedError

    @property
    def ended(self) -> int:
        """The step in which the last of them did, 0 before."""
        raise NotImplementedError

    def _exchange(self) -> None:
        """Send what can be sent, and receive what has come."""
        raise NotImplementedError

    def _finish(self) -> None:
        """Receive what was surely sent."""
        raise NotImplementedError

    def fields(self) -> dict[tuple[str, str], NDArray]:
        """Return all that came out of the finished samples, (N, P, ...), by kind and layer."""
        raise NotImplementedError


class _FusedHost(_Host):
    """One process; a unit is a batch."""

    def _divide(self) -> tuple[int, int]:
        self.slices = batches(self.messages.network, len(self.samples), self.messages.batch_size, 1)
        self.slices = self.slices if len(self.samples) else []
        self.sent = 0
        self.results: list[dict[tuple[str, str], NDArray]] = []
        return len(self.slices), self.messages.phases

    @property
    def done(self) -> int:
        return len(self.results)

    @property
    def ended(self) -> int:
        return int(self.results[-1]["trailer", ""][0, -1, -1]) if self.results else 0

    def _exchange(self) -> None:
        # One batch is under way, one is ready: more would only wait in memory.
        while self.sent < min(self.units, self.done + PIPE_DEPTH):
            samples = self.samples[self.slices[self.sent]]
            self.process.samples.external_pipe_csp_send_port.send(self.messages.pack_samples(samples))
            self.sent += 1
        while self.process.result.external_pipe_csp_recv_port.probe():
            self._keep(self.process.result.external_pipe_csp_recv_port.recv())

    def _finish(self) -> None:
        while self.done < self.units:
            self._keep(self.session.receive(self.process.result))

    def _keep(self, message: NDArray[np.int32]) -> None:
        part = self.slices[self.done]
        finished = min(part.stop, len(self.samples))
        self.results.append(self.messages.unpack_result(message, finished - part.start))
        self._tell(finished)

    def fields(self) -> dict[tuple[str, str], NDArray]:
        empty = self.messages.unpack_result(np.zeros(0, np.int32), 0)
        return {key: np.concatenate([empty[key], *(found[key] for found in self.results)]) for key in empty}


class _GraphHost(_Host):
    """A process for each part; a unit is a phase of a sample."""

    def _divide(self) -> tuple[int, int]:
        self.circuit: Circuit = self.process.circuit
        self.ports = {name: readout.result for name, readout in self.circuit.readouts.items()}
        self.ports |= {name: tap.result for name, tap in self.circuit.taps.items()}
        self.results: dict[str, list[NDArray]] = {name: [] for name in self.ports}
        return len(self.samples) * self.messages.phases, 1

    @property
    def first(self) -> list[NDArray]:
        """What the first readout said so far: all readouts end a sample in the same step."""
        return self.results[next(iter(self.circuit.readouts))]

    @property
    def done(self) -> int:
        return len(self.first)

    @property
    def ended(self) -> int:
        return int(self.first[-1][-1]) if self.first else 0

    def _exchange(self) -> None:
        for name, port in self.ports.items():
            pipe = port.external_pipe_csp_recv_port
            while pipe.probe():
                self._keep(name, pipe.recv())

    def _finish(self) -> None:
        self._await(self.circuit.readouts)
        if self.circuit.taps and self.units:
            self._run(1)  # a tap learns in the step after that its sample is over
            self._await(self.circuit.taps)

    def _await(self, names: Iterable[str]) -> None:
        for name in names:
            while len(self.results[name]) < self.units:
                self._keep(name, self.session.receive(self.ports[name]))

    def _keep(self, name: str, result: NDArray) -> None:
        self.results[name].append(result)
        self._tell(min(map(len, self.results.values())) // self.messages.phases)

    def fields(self) -> dict[tuple[str, str], NDArray]:
        network, period = self.messages.network, self.messages.schedule.period
        leading = (self.finished, self.messages.phases)
        results = {name: np.array(found[: math.prod(leading)]) for name, found in self.results.items()}
        found: dict[tuple[str, str], NDArray] = {}
        logits = []
        for readout in network.readouts:
            shape, size = network.shapes[readout.name], int(np.prod(network.shapes[readout.name]))
            result = results[readout.name].reshape(*leading, size + TRAILER)
            logits.append(torch_images(result[..., :size], shape).reshape(*leading, size))
            found["trailer", ""] = result[..., size:]  # the same from every readout
        found["logits", ""] = np.concatenate(logits, -1)
        for name, tap in self.circuit.taps.items():
            shape = network.shapes[name]
            size = int(np.prod(shape))
            records = results[name].astype(np.int64).reshape(*leading, tap.result.shape[0])
            messages, counts, spikes = np.split(records, [period, period + size], axis=-1)
            found["messages", name] = messages
            found["counts", name] = torch_images(counts, shape)
            steps = spikes.shape[-1] // size  # none where they are not recorded
            found["spikes", name] = torch_images(spikes.reshape(*leading, steps, size), shape)
        return found


def _batch_size(
    network: IntegerNetwork,
    schedule: WakeSleepSchedule,
    samples: int,
    phases: int,
    wanted: frozenset[str],
    batch_size: int | None,
) -> int:
    """Return how many samples the fused engine takes at a time: no more than there are, or than messages can hold."""
    if batch_size is None:
        single = Messages(network, schedule, 1, phases, wanted)
        fits = max(1, MESSAGE_SIZE // max(single.input_size, single.result_size))
        first = batches(network, samples, None, most=256)[0]
        batch_size = min(fits, first.stop)
    return max(1, min(batch_size, samples))


def _tapped(network: IntegerNetwork, wanted: frozenset[str]) -> list[str]:
    names = [layer.name for layer in network.spiking]
    if wanted & {"messages", "spikes"}:
        return [*(layer.name for layer in network.entries), *names]
    return names if "counts" in wanted else []


def _record(
    network: IntegerNetwork,
    schedule: WakeSleepSchedule,
    fields: dict[tuple[str, str], NDArray],
    wanted: frozenset[str],
    precision: str,
    engine: str,
    seconds: float,
) -> SpikeRecord:
    fixed, sequences = precision == "fixed", network.is_recurrent
    logits, trailer = fields["logits", ""], fields["trailer", ""]
    # Silence proves the integers' answer only where the arithmetic was exact.
    certified = (trailer[..., 0] != 0) & (fixed or exact_in_floating_point(network))
    entries = {layer.name for layer in network.entries}
    kept: dict[str, Any] = {kind: {} for kind in RECORDS}
    for kind in wanted:
        for layer in (*network.entries, *network.spiking):
            if kind != "counts" or layer.name not in entries:
                values = fields[kind, layer.name]
                kept[kind][layer.name] = values if sequences else values[:, 0]
    return SpikeRecord(
        engine=f"lava fused {TAGS[precision]}" if engine == "fused" else f"lava {TAGS[precision]}",
        schedule=schedule,
        logits=logits.sum(1).astype(np.int64 if fixed else np.float64),
        certified=certified.all(1),
        last_spike=trailer[..., 1].astype(np.int64).max(1),
        phases_certified=certified if sequences else None,
        steps=int(trailer.reshape(-1, TRAILER)[-1, -1]) if trailer.size else 0,
        seconds=seconds,
        **kept,
    )
