"""Python processes in a session of their own, as a terminal has them, of which nothing remains."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@contextlib.contextmanager
def session(code: str, *arguments: object, cwd: Path | None = None, **environment: str) -> Iterator[subprocess.Popen]:
    """Run code that finds the modules of the tests."""
    folders = (ROOT, ROOT / "tests", ROOT / "tests/loihi")
    with subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders)), **environment},
        start_new_session=True,
        cwd=cwd,
    ) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def alive(process: subprocess.Popen) -> list[int]:
    """Return the processes of a session that are not mere entries in a table."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, _, group, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(group) == process.pid and state != "Z":
                found.append(int(folder.name))
    return found


def ctrl_c(process: subprocess.Popen) -> tuple[str, str]:
    """Interrupt all processes of a session, as a terminal does; return the output once none of them is left."""
    os.killpg(process.pid, signal.SIGINT)
    shown = process.communicate(timeout=90)
    patience = time.monotonic() + 20
    while alive(process) and time.monotonic() < patience:
        time.sleep(0.05)
    assert alive(process) == []
    return shown
