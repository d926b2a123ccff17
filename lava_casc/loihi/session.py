"""Running Lava without hanging: compile, check, run, notice a process that died, and always clean up."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from lava.magma.core.process.process import AbstractProcess, ProcessServer
from lava.magma.core.process.variable import VarServer
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.magma.runtime.mgmt_token_enums import MGMT_RESPONSE, enum_equal

from lava_casc.errors import CascError

#: Messages that a channel between two processes can hold. One a step travels; Lava's 64 only spoil the cache.
CHANNEL_SIZE = 4
#: Seconds between two looks at the results, and at the health of the processes (a system call each);
#: until a process that failed must have said why; and until a message that was sent must have come.
POLL_SECONDS, WATCH_SECONDS, GRACE_SECONDS, MESSAGE_SECONDS = 0.002, 0.1, 5.0, 60.0


class Session:
    """A compiled and started circuit, as a context manager that stops it whatever happens.

    Lava's own `run` waits for ever when a process dies between receiving and sending. Here the run is started
    without waiting, and while it goes on the processes are watched: an error in one of them is raised here,
    as it was there.

    Parameters
    ----------
    process : AbstractProcess
        What is to run; or one of several that are connected.
    config : Loihi2SimCfg
    check : callable
        Called with the executable after compilation; raises where it is not what was asked for.
    """

    def __init__(
        self,
        process: AbstractProcess,
        config: Loihi2SimCfg,
        check: Callable[[Any], None] = lambda executable: None,
    ) -> None:
        self.process, self.config, self.check = process, config, check
        self.runtime: Any = None
        self.processes: list[AbstractProcess] = []

    def __enter__(self) -> Session:
        """Compile, check, and start the processes."""
        first = self.process
        executable = first.compile(self.config, {"pypy_channel_size": CHANNEL_SIZE})
        self.check(executable)
        self.processes = list(executable.proc_builders)
        try:
            with _interrupted_later():
                first.create_runtime(executable=executable)
        except BaseException:
            self.runtime = first.runtime
            self._kill()
            raise
        self.runtime = first.runtime
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop all processes; kill them where they cannot be asked: after an error, or before the first run."""
        with _interrupted_later():
            if kind is None and self.runtime._is_started:
                self.runtime.stop()
            else:
                self._kill()
            for process in self.processes:
                for port in process.out_ports:
                    if port.external_pipe_flag:
                        port.external_pipe_csp_recv_port.join()
                for port in process.in_ports:
                    if port.external_pipe_flag:
                        port.external_pipe_csp_send_port.join()

    def run(self, steps: int, meanwhile: Callable[[], None]) -> None:
        """Run `steps` steps, and call `meanwhile` again and again, also once afterwards."""
        self.runtime.start(RunSteps(steps, blocking=False))
        answers = self.runtime.service_to_runtime
        watched = time.monotonic()
        while not all(port.probe() for port in answers):
            meanwhile()
            time.sleep(POLL_SECONDS)
            if time.monotonic() > watched + WATCH_SECONDS:
                self._watch()
                watched = time.monotonic()
        while not all(enum_equal(port.peek(), MGMT_RESPONSE.DONE) for port in answers):
            # Waiting for the runtime would be for ever where a process died in the middle of a step.
            self._watch()
            time.sleep(POLL_SECONDS)
        self.runtime.wait()
        meanwhile()

    @property
    def _actors(self) -> list[Any]:
        return self.runtime._messaging_infrastructure.actors

    def _kill(self) -> None:
        for actor in self._actors:
            actor.kill()
        self.runtime.join()
        self.runtime._is_started = self.runtime._is_running = False  # nobody is left to answer
        self.runtime.stop()

    def receive(self, port: Any) -> Any:
        """Return the next message of an external pipe that was surely sent."""
        pipe, patience = port.external_pipe_csp_recv_port, time.monotonic() + MESSAGE_SECONDS
        while not pipe.probe():
            if time.monotonic() > patience:
                raise RuntimeError(
                    f"{port.process.name}: a result that was sent did not arrive within {MESSAGE_SECONDS} s"
                )
            time.sleep(POLL_SECONDS)
        return pipe.recv()

    def _watch(self) -> None:
        """Raise the error of a process that failed, or say that one ended without any."""
        ended = [actor for actor in self._actors if not actor.is_alive()]
        # Lava ends the others when a process fails, and they may be gone before it has said why.
        patience = time.monotonic() + GRACE_SECONDS
        self._raise()
        while ended:
            if time.monotonic() > patience:
                raise RuntimeError(f"a Lava process ended by itself (exit code {ended[0].exitcode})")
            time.sleep(POLL_SECONDS)
            self._raise()

    def _raise(self) -> None:
        for actor in self._actors:
            found = actor.exception
            if found is not None:
                error, trace = found
                if isinstance(error, CascError):
                    raise error
                raise RuntimeError(f"a Lava process failed:\n{trace}") from error


@contextmanager
def _interrupted_later() -> Iterator[None]:
    """Let a Ctrl-C take effect at the end of the context, which is a whole: a start, or an end.

    Processes that are started within never heed it: it is for the host, which then ends them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set signal handlers
        return
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        signal.raise_signal(signal.SIGINT)


@contextmanager
def tidy() -> Iterator[None]:
    """Leave Lava's globals as they were.

    Every process adds a handler to the root logger, and two registries keep every process and every variable
    that ever was, with their weights and images. Within this context that is undone at the end.
    """
    loggers = [logging.getLogger(), logging.getLogger("lava.magma.compiler.compiler")]
    handlers = [list(logger.handlers) for logger in loggers]
    processes, variables = ProcessServer().processes, VarServer().vars
    known = len(processes), len(variables)
    try:
        yield
    finally:
        for logger, before in zip(loggers, handlers, strict=True):
            logger.handlers[:] = before
        del processes[known[0] :], variables[known[1] :]
