"""The network in one Lava process: batches, threads, steps, a Lava user's own use, and how runs end."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.magma.runtime.message_infrastructure.shared_memory_manager import SharedMemoryManager
from loihi_differences import ENGINES, KINDS, differences
from loihi_networks import heads, heads_images, loop, loop_words, small, small_images
from random_networks import cut, random_graph, random_images, random_network, random_recurrent, random_sequences
from sessions import alive, ctrl_c, session

from lava_casc import loihi
from lava_casc.dynamics import Crew, crew
from lava_casc.errors import RangeError
from lava_casc.loihi import runner
from lava_casc.loihi.messages import TRAILER
from lava_casc.loihi.network import models
from lava_casc.loihi.session import _interrupted_later, tidy
from lava_casc.reference import forward, simulate

ROOT = Path(__file__).resolve().parents[2]


def _mixed():
    """Return a network, 7 samples and a schedule that cuts some of them short; the others are certified before that."""
    rng = np.random.default_rng(57)
    network = random_network(rng)
    images = random_images(rng, network, 7)
    images[1] = 0
    return network, images, cut(network.schedule(), 9)


def _phase_steps(network, expected, until_silent):
    """Return (N, P): the steps that each sample needs for each phase, from the reference's record."""
    n, schedule = len(expected), expected.schedule
    of_neurons = [expected.messages[layer.name] for layer in network.spiking]
    active = np.stack([m.reshape(n, -1, m.shape[-1]) > 0 for m in of_neurons]).any(0)
    period, last_event = schedule.period, network.last_event(schedule)
    last = np.where(active.any(-1), active.shape[-1] - active[..., ::-1].argmax(-1), 0)
    certified = expected.certified[:, None] if expected.phases_certified is None else expected.phases_certified
    return np.where(certified & until_silent, np.maximum(last_event, last + 1), period)


def _steps(network, expected, size, until_silent, threads=1):
    """Return how many Lava steps the slowest sample of every batch of `size` needs, phase after phase.

    With threads those of the slowest thread, each of which begins its phases by itself.
    """
    needed = _phase_steps(network, expected, until_silent)
    batches = (needed[start : start + size] for start in range(0, len(needed), size))
    shares = (np.array_split(batch, min(threads, len(batch))) for batch in batches)
    return sum(max(int(share.max(0).sum()) for share in batch) for batch in shares)


@pytest.fixture
def shared(monkeypatch):
    """Let a batch be divided among as many threads as a test says."""

    def share(threads):
        monkeypatch.setattr(crew, "SHARE", 1)
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(threads)))

    return share


# Batches.


@pytest.mark.parametrize("until_silent", [True, False])
@pytest.mark.parametrize("size", [1, 2, 3, 6, 7, 50])
def test_every_batch_size_gives_the_same_record_in_the_steps_of_the_slowest(size, until_silent):
    network, images, schedule = _mixed()
    expected = simulate(network, images, schedule, record=KINDS)
    assert expected.certified.tolist() == [False, True, True, True, True, False, True]
    assert _phase_steps(network, expected, True)[:, 0].tolist() == [25, 21, 24, 25, 24, 25, 21]
    finished = []
    found = loihi.run(
        network, images, schedule, record=KINDS, batch_size=size, until_silent=until_silent, progress=finished.append
    )
    assert differences(found, expected) == []
    assert finished == [*range(size, 7, size), 7]
    assert found.steps == _steps(network, expected, size, until_silent)
    assert found.engine == "lava fused fixed_pt"
    assert found.seconds > 0


@pytest.mark.parametrize(("size", "until_silent"), [(1, True), (2, True), (3, False), (5, True)])
@pytest.mark.parametrize("sleep_steps", [4, None])
def test_every_batch_size_gives_the_same_sequences(size, until_silent, sleep_steps):
    network, words = loop(), loop_words(5)
    schedule = network.schedule() if sleep_steps is None else cut(network.schedule(), sleep_steps)
    expected = simulate(network, words, schedule, record=KINDS)
    assert expected.phases_certified.any()
    assert expected.all_certified == (sleep_steps is None)
    found = loihi.run(network, words, schedule, record=KINDS, batch_size=size, until_silent=until_silent)
    assert differences(found, expected) == []
    assert found.steps == _steps(network, expected, size, until_silent)


def test_the_graph_takes_the_steps_of_batches_of_one():
    for network, samples in ((small(), small_images(3)), (loop(), loop_words(2, 2))):
        expected = simulate(network, samples, record=KINDS)
        assert loihi.run(network, samples, engine="graph").steps == _steps(network, expected, 1, True)


def test_no_more_steps_are_run_than_the_batches_need(monkeypatch):
    ran = []
    right = runner.Session.run

    def counted(self, steps, meanwhile):
        ran.append(steps)
        right(self, steps, meanwhile)
        time.sleep(0.05)  # whatever was sent has come
        meanwhile()

    monkeypatch.setattr(runner.Session, "run", counted)
    network, images, schedule = _mixed()
    for until_silent in (True, False):
        ran.clear()
        found = loihi.run(network, images, schedule, batch_size=2, until_silent=until_silent)
        assert sum(ran) == found.steps
    assert len(ran) == 1, "without an early end all steps are run at once"


def test_batches_are_as_large_as_messages_and_memory_allow(monkeypatch):
    network, schedule = small(), small().schedule()
    sizes = {}
    for record in (frozenset(), frozenset({"spikes"})):
        one = models.Messages(network, schedule, 1, 1, record)
        sizes[record] = max(one.input_size, one.result_size)

    def size(n, record=frozenset(), batch_size=None):
        return runner._batch_size(network, schedule, n, 1, record, batch_size)

    assert [size(n) for n in (0, 1, 256, 257, 1000)] == [1, 1, 256, 256, 256]
    assert [size(10, batch_size=b) for b in (1, 10, 11)] == [1, 10, 10]
    monkeypatch.setattr(runner, "MESSAGE_SIZE", 3 * sizes[frozenset({"spikes"})] + 1)
    assert size(1000, frozenset({"spikes"})) == 3
    monkeypatch.setattr(runner, "MESSAGE_SIZE", 1)
    assert size(1000) == 1, "a single sample is always taken"


RECORDED = [(), ("counts",), ("messages",), ("spikes",), ("messages", "counts")]


@pytest.mark.parametrize(("engine", "record"), [*(("fused", record) for record in RECORDED), ("graph", ("messages",))])
def test_what_is_recorded_is_what_was_asked_for(engine, record):
    network, images = heads(), heads_images(3)
    found = loihi.run(network, images, record=record, batch_size=2, engine=engine)
    assert differences(found, simulate(network, images, record=record or ("counts",)), record) == []
    assert {kind for kind in KINDS if getattr(found, kind)} == set(record)


# Threads.


@pytest.mark.parametrize("until_silent", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_a_crew_of_any_number_gives_the_same(monkeypatch, seed, until_silent):
    monkeypatch.setattr(crew, "SHARE", 1)
    rng = np.random.default_rng(seed)
    network = (random_graph, random_recurrent)[seed % 2](rng)
    samples = network.encode(random_sequences(rng, network, 5))
    schedule = network.schedule() if seed < 2 else cut(network.schedule(), 2)
    batches = samples, samples[[4, 2, 0, 3, 1]]
    found = {}
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 9):
            made = Crew(network, schedule, KINDS, threads)
            assert made.over
            for i, batch in enumerate(batches):
                made.begin(batch, until_silent)
                assert len(made.steppers) == min(threads, 5)
                while not made.over:
                    assert made.step() == made.over
                found[threads, i] = made.result()
    finally:
        torch.set_num_threads(before)
    for (threads, i), result in found.items():
        assert result.keys() == found[1, i].keys()
        for key, values in result.items():
            assert values.shape == found[1, i][key].shape
            assert (values == found[1, i][key]).all(), (threads, key)
    assert (found[1, 0]["logits", ""][[4, 2, 0, 3, 1]] == found[1, 1]["logits", ""]).all()


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_in_lava_give_the_same_record(shared, threads):
    network, images, schedule = _mixed()
    shared(threads)
    expected = simulate(network, images, schedule, record=KINDS)
    found = loihi.run(network, images, schedule, record=KINDS, batch_size=5)
    assert differences(found, expected) == []
    assert found.steps == _steps(network, expected, 5, True)
    words = loop_words(5)
    expected = simulate(loop(), words, record=KINDS)
    found = loihi.run(loop(), words, record=KINDS, batch_size=4)
    assert differences(found, expected) == []
    assert found.steps == _steps(loop(), expected, 4, True, threads)


def test_small_batches_have_no_threads_and_large_ones_as_many_as_there_are_processors(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    network = small()
    before = torch.get_num_threads()
    try:
        made = Crew(network, network.schedule())
        shares = []
        for share in (network.neurons * 4, network.neurons * 2, network.neurons):
            monkeypatch.setattr(crew, "SHARE", share)
            made.begin(small_images(4))
            shares.append(len(made.steppers))
    finally:
        torch.set_num_threads(before)
    assert shares == [1, 2, 3]


PARENT_WITH_THREADS = """
import faulthandler, os
faulthandler.dump_traceback_later(100, exit=True)
import torch
torch.set_num_threads(2)
big = torch.rand(1500, 1500)
assert (big @ big).isfinite().all()
torch.nn.functional.conv2d(torch.rand(8, 16, 64, 64), torch.rand(16, 16, 3, 3))
from lava_casc import loihi
from lava_casc.dynamics import crew
from lava_casc.reference import simulate
from loihi_differences import KINDS, differences
from loihi_networks import small, small_images
os.sched_getaffinity = lambda pid: set(range(3))
network, images = small(), small_images(6)
for engine, share in (("fused", crew.SHARE), ("fused", 1), ("graph", 1)):
    crew.SHARE = share
    found = loihi.run(network, images, record=KINDS, engine=engine, batch_size=4)
    assert differences(found, simulate(network, images, record=KINDS)) == []
assert torch.get_num_threads() == 2
assert (big @ big).isfinite().all()
print("done")
"""


def test_a_parent_that_has_used_torchs_threads_does_not_make_lava_hang():
    with session(PARENT_WITH_THREADS, OMP_NUM_THREADS="2") as process:
        printed, errors = process.communicate(timeout=120)
    assert (printed, process.returncode) == ("done\n", 0), errors


# A Lava user's own use.


def _results(process, pipe, n):
    return process.messages.unpack_result(pipe.recv(), n)


def test_a_lava_user_feeds_the_fused_network_by_hand():
    network, images = small(), small_images(5)
    schedule = network.schedule()
    with tidy():
        process = loihi.SpikingNetwork(
            network=network,
            schedule=schedule,
            samples=network.encode(images),
            batch_size=2,
            record=("counts",),
            until_silent=False,
        )
        process.create_runtime(Loihi2SimCfg(select_tag="fixed_pt"))
        send = process.samples.external_pipe_csp_send_port
        receive = process.result.external_pipe_csp_recv_port
        found = []
        try:
            for start in (0, 2, 4):
                batch = network.encode(images[start : start + 2])
                send.send(process.messages.pack_samples(batch))
                process.run(RunSteps(schedule.period))  # a batch takes a period
                found.append(_results(process, receive, len(batch)))
        finally:
            process.stop()
        assert process.circuit is None
    exact = forward(network, images)
    logits, trailer = (np.concatenate([part[kind, ""] for part in found])[:, 0] for kind in ("logits", "trailer"))
    assert (logits == exact.logits).all()
    assert trailer[:, 0].all()
    assert trailer[:, 2].tolist() == [schedule.period * k for k in (1, 1, 2, 2, 3)]
    for name, counts in exact.counts.items():
        assert (np.concatenate([part["counts", name] for part in found])[:, 0] == counts).all()


def test_a_lava_user_streams_batches_until_each_is_silent():
    network, words = loop(), loop_words(6)
    expected = simulate(network, words, record=KINDS)
    with tidy():
        process = loihi.SpikingNetwork(
            network=network, schedule=network.schedule(), samples=words, batch_size=2, record=KINDS
        )
        process.create_runtime(Loihi2SimCfg(select_tag="fixed_pt", select_sub_proc_model=False))
        send = process.samples.external_pipe_csp_send_port
        receive = process.result.external_pipe_csp_recv_port
        try:
            process.run(RunSteps(3 * 4 * network.schedule().period, blocking=False))
            for start in (0, 2, 4):
                send.send(process.messages.pack_samples(words[start : start + 2]))
            found = [_results(process, receive, 2) for _ in range(3)]
            process.wait()
        finally:
            process.stop()
    for key, of_phases in (
        (("logits", ""), None),
        (("spikes", "first"), expected.spikes["first"]),
        (("counts", "second"), expected.counts["second"]),
    ):
        values = np.concatenate([part[key] for part in found])
        assert (values == of_phases).all() if of_phases is not None else (values.sum(1) == expected.logits).all()
    assert found[-1]["trailer", ""][0, -1, -1] == _steps(network, expected, 2, True)


@pytest.mark.parametrize("fast", [True, False])
def test_a_lava_user_chooses_the_graph(fast):
    network, images = small(), small_images(2)
    schedule = network.schedule()
    with tidy():
        process = loihi.SpikingNetwork(
            network=network, schedule=schedule, samples=network.encode(images), until_silent=False
        )
        process.create_runtime(
            Loihi2SimCfg(
                select_tag="fixed_pt",
                select_sub_proc_model=True,
                exception_proc_model_map=loihi.fast_models() if fast else {},
            )
        )
        result = process.circuit.readouts["readout"].result.external_pipe_csp_recv_port
        try:
            process.run(RunSteps(2 * schedule.period))
            found = np.array([result.recv(), result.recv()])
        finally:
            process.stop()
    assert (found[:, :-TRAILER] == forward(network, images).logits).all()
    assert found[:, -TRAILER:].tolist() == [
        [1, last, schedule.period * (i + 1)] for i, last in enumerate(simulate(network, images).last_spike)
    ]


# How runs end.


@pytest.fixture
def tidied(monkeypatch):
    """See that a test leaves no process, no shared memory and no handler of a logger behind."""
    memory = set()
    right = SharedMemoryManager.create_shared_memory

    def noted(self, size):
        made = right(self, size)
        memory.add(made.name)
        return made

    monkeypatch.setattr(SharedMemoryManager, "create_shared_memory", noted)
    handlers = list(logging.getLogger().handlers)
    yield
    assert memory
    assert not memory & set(os.listdir("/dev/shm"))
    assert multiprocessing.active_children() == []
    assert logging.getLogger().handlers == handlers


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_of_a_run_stays_behind(monkeypatch, tidied, engine):
    made = []
    right = runner.check_models

    def watched(executable, *how):
        made.extend(weakref.ref(process) for process in executable.proc_builders)
        right(executable, *how)

    monkeypatch.setattr(runner, "check_models", watched)
    loihi.run(small(), small_images(), record=KINDS, engine=engine)
    gc.collect()
    assert len(made) == 1 if engine == "fused" else len(made) > 10
    assert {process() for process in made} == {None}


def _die(*_):
    raise ZeroDivisionError("on purpose")


def _refuse(*_):
    raise RangeError("stem: potential (9) exceeds 8. Be smaller.")


def _vanish(*_):
    os._exit(3)


WHERE = {
    "fused": "lava_casc.dynamics.stepper.Stepper.step",
    "fused, in threads": "lava_casc.dynamics.stepper.Stepper.step",
    "graph": "lava_casc.loihi.cif.models.AbstractPyCIF.advance",
}


@pytest.mark.parametrize("engine", [*WHERE])
@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        (_die, RuntimeError, "a Lava process failed:(.|\n)*ZeroDivisionError: on purpose"),
        (_refuse, RangeError, r"stem: potential \(9\) exceeds 8"),
        (_vanish, RuntimeError, r"a Lava process ended by itself \(exit code 3\)"),
    ],
)
def test_a_process_that_fails_ends_the_run_with_its_error(monkeypatch, shared, tidied, engine, how, error, words):
    if engine == "fused, in threads":
        shared(2)
    monkeypatch.setattr(WHERE[engine], how)
    monkeypatch.setattr("lava_casc.loihi.session.GRACE_SECONDS", 0.5)
    with pytest.raises(error, match=words):
        loihi.run(small(), small_images(), engine=engine.split(",")[0], batch_size=2)


def test_a_process_that_fails_in_a_later_batch_ends_the_run(monkeypatch):
    right = Crew.begin

    def second(self, samples, until_silent):
        if len(samples) == 1:
            _die()
        right(self, samples, until_silent)

    monkeypatch.setattr(Crew, "begin", second)
    finished = []
    with pytest.raises(RuntimeError, match="ZeroDivisionError: on purpose"):
        loihi.run(small(), small_images(5), batch_size=2, progress=finished.append)
    assert finished == [2, 4][: len(finished)], "as many as had come when the error did"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_error_of_the_host_ends_the_processes(tidied, engine, error):
    def fail(finished):
        raise error

    with pytest.raises(error):
        loihi.run(small(), small_images(9), engine=engine, batch_size=2, progress=fail)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_processes_of_a_run_leave_ctrl_c_to_the_host(engine):
    def interrupt(finished):
        children.extend(multiprocessing.active_children())
        for child in children:
            os.kill(child.pid, signal.SIGINT)

    children = []
    before = signal.getsignal(signal.SIGINT)
    found = loihi.run(small(), small_images(3), engine=engine, batch_size=2, progress=interrupt)
    assert len(children) > 1
    assert found.all_certified
    assert signal.getsignal(signal.SIGINT) == before


def test_ctrl_c_while_processes_start_takes_effect_once_they_have():
    done = []

    def start():
        with _interrupted_later():
            signal.raise_signal(signal.SIGINT)
            done.append("the start")

    with pytest.raises(KeyboardInterrupt):
        start()
    assert done == ["the start"]


INTERRUPTED = """
import faulthandler, signal, sys
faulthandler.dump_traceback_later(60, exit=True)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets its background jobs ignore it
import torch
torch.set_num_threads(1)
from lava.magma.runtime.message_infrastructure.shared_memory_manager import SharedMemoryManager
from lava_casc import loihi
from loihi_networks import small, small_images
right = SharedMemoryManager.create_shared_memory
def noted(self, size):
    made = right(self, size)
    print(made.name, flush=True)
    return made
SharedMemoryManager.create_shared_memory = noted
said = []
def progress(finished):
    if not said:
        said.append(finished)
        print("running", flush=True)
loihi.run(small(), small_images(20000), engine=sys.argv[1], until_silent=False, batch_size=2, progress=progress)
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_ctrl_c_ends_the_run_and_all_of_its_processes(engine):
    with session(INTERRUPTED, engine) as process:
        memory = {name.strip() for name in iter(process.stdout.readline, "running\n")}
        assert len(alive(process)) > 2
        _, errors = ctrl_c(process)
    assert process.returncode == -signal.SIGINT, errors
    assert errors.count("KeyboardInterrupt") == 1
    assert errors.count("Traceback") == 1, errors
    assert memory
    assert not memory & set(os.listdir("/dev/shm"))
