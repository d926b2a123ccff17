"""A Lava process model without Lava's runtime: its variables are set and its ports are lists."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np


class Port:
    """A port whose messages a test puts in or takes out."""

    def __init__(self) -> None:
        self.messages: deque = deque()

    def recv(self) -> np.ndarray:
        """Return the oldest message."""
        return self.messages.popleft()

    def send(self, message: np.ndarray) -> None:
        """Keep a copy, as Lava's shared memory does."""
        self.messages.append(np.array(message))


def started(process: Any, model: type) -> Any:
    """Return the model of a process as Lava's builder makes it, ports aside."""
    made = model(process.proc_params)
    for var in process.vars:
        value = np.ndarray(var.shape, getattr(model, var.name).d_type)
        value[:] = var.init
        setattr(made, var.name, value)
    for port in (*process.in_ports, *process.out_ports):
        setattr(made, port.name, Port())
    return made


def step(model: Any, **messages: Any) -> dict[str, np.ndarray]:
    """Run one step with `messages` at the in-ports and return what the model sent."""
    ports = {name: port for name, port in vars(model).items() if isinstance(port, Port)}
    for name, message in messages.items():
        ports[name].messages.append(np.asarray(message))
    model.time_step += 1
    model.run_spk()
    return {name: port.messages.popleft() for name, port in ports.items() if port.messages}
