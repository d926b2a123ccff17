"""Running Lava without hanging: compile, check, run, notice a process that died, and always clean up."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg

from lava_casc.errors import CascError

#: Messages that a channel between two processes can hold. One a step travels; Lava's 64 only spoil the cache.
CHANNEL_SIZE = 4
#: Seconds between two looks at a running simulation, and until a message that was sent must have come.
POLL_SECONDS, MESSAGE_SECONDS = 0.001, 60.0


class Session:
    """A compiled and started circuit, as a context manager that stops it whatever happens.

    Lava's own `run` waits for ever when a process dies between receiving and sending. Here the run is started
    without waiting, and while it goes on the processes are watched: an error in one of them is raised here,
    as it was there.

    Parameters
    ----------
    processes : list of AbstractProcess
        All processes of the circuit, connected.
    config : Loihi2SimCfg
    check : callable
        Called with the executable after compilation; raises where it is not what was asked for.
    """

    def __init__(
        self,
        processes: list[AbstractProcess],
        config: Loihi2SimCfg,
        check: Callable[[Any], None] = lambda executable: None,
    ) -> None:
        self.processes, self.config, self.check = processes, config, check
        self.runtime: Any = None
        self.failed = False

    def __enter__(self) -> Session:
        """Compile, check, and start the processes."""
        first = self.processes[0]
        executable = first.compile(self.config, {"pypy_channel_size": CHANNEL_SIZE})
        self.check(executable)
        first.create_runtime(executable=executable)
        self.runtime = first.runtime
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop all processes; kill them where they cannot be asked any more."""
        if kind is not None:
            for actor in self._actors:
                actor.kill()
            self.runtime.join()
            self.runtime._is_started = self.runtime._is_running = False  # nobody is left to answer
        self.runtime.stop()
        for process in self.processes:
            for port in process.out_ports:
                if port.external_pipe_flag:
                    port.external_pipe_csp_recv_port.join()

    @property
    def _actors(self) -> list[Any]:
        return self.runtime._messaging_infrastructure.actors

    def run(self, steps: int, meanwhile: Callable[[], None]) -> None:
        """Run `steps` steps, and call `meanwhile` again and again, also once afterwards."""
        self.runtime.start(RunSteps(steps, blocking=False))
        while not all(port.probe() for port in self.runtime.service_to_runtime):
            meanwhile()
            self._watch()
            time.sleep(POLL_SECONDS)
        self.runtime.wait()
        meanwhile()

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
        for actor in self._actors:
            found = actor.exception
            if found is not None:
                error, trace = found
                if isinstance(error, CascError):
                    raise error
                raise RuntimeError(f"a Lava process failed:\n{trace}") from error
            if not actor.is_alive():
                raise RuntimeError(f"a Lava process ended by itself (exit code {actor.exitcode})")


class quiet_logging:  # noqa: N801  (a context manager that reads as a statement)
    """Give the loggers back as they were: every Lava process adds a handler to the root logger, for good."""

    def __enter__(self) -> None:
        """Remember the handlers."""
        self.loggers = [logging.getLogger(), logging.getLogger("lava.magma.compiler.compiler")]
        self.handlers = [list(logger.handlers) for logger in self.loggers]

    def __exit__(self, *_: object) -> None:
        """Restore them."""
        for logger, handlers in zip(self.loggers, self.handlers, strict=True):
            logger.handlers[:] = handlers
