"""Start what a folder holds, say how far it is, and stop it.

Two ways, as members of INRC go: ``env``, the run itself on the cloud host, where the variables SLURM, PARTITION or
BOARD and LOIHI_GEN tell Intel's software which board to take; and ``sbatch``, a job of SLURM's. What became of a run is
written down beside it, since SLURM forgets jobs some minutes after they have ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lava_casc.cluster import slurm
from lava_casc.cluster.folder import JobFolder
from lava_casc.cluster.merge import missing
from lava_casc.errors import ClusterError
from lava_casc.files import write_json

STATE = "state.json"


@dataclass(frozen=True)
class Host:
    """Where a run goes.

    Attributes
    ----------
    partition, board : str, optional
        Of SLURM.
    generation : str, optional
        Of the chip, N3B3 or N3C1.
    """

    partition: str | None = None
    board: str | None = None
    generation: str | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which Intel's software finds the board."""
        found = {"PARTITION": self.partition, "BOARD": self.board, "LOIHI_GEN": self.generation}
        return {"SLURM": "1", **{name: value for name, value in found.items() if value is not None}}


@dataclass
class State:
    """What became of a folder.

    Attributes
    ----------
    launcher : {"env", "sbatch"}
    job : str
        SLURM's number, or that of the process.
    tasks : list of int
        Those that were started last.
    states : dict of int to str
        By task, in SLURM's words.
    started : str
        When the process began, as the system has it: a number of a process may be another's by now.
    """

    launcher: str
    job: str
    tasks: list[int]
    states: dict[int, str] = field(default_factory=dict)
    started: str = ""


def command(folder: Path, launcher: str, host: Host, tasks: Sequence[int]) -> list[str]:
    """Return the command that starts tasks of a folder."""
    if launcher == "env":
        return ["bash", "run.sh", *map(str, tasks)]
    return slurm.submit(
        folder / "run.sh", folder, name=folder.name, partition=host.partition, board=host.board, tasks=tasks
    )


def launch(folder: JobFolder, launcher: str, host: Host, tasks: Sequence[int] | None = None) -> State:
    """Start tasks of a folder, by default those without results.

    Parameters
    ----------
    folder : JobFolder
    launcher : {"env", "sbatch"}
        In this process's environment, or as jobs of SLURM.
    host : Host
    tasks : sequence of int, optional

    Returns
    -------
    State

    Raises
    ------
    ClusterError
        There is nothing to do, something is running already, or SLURM refuses.
    """
    before = look(folder)
    if before is not None and not _over(before):
        raise ClusterError(f"{folder.path}: job {before.job} is not over yet. See lava-casc jobs, or lava-casc cancel.")
    tasks = missing(folder) if tasks is None else list(tasks)
    if not tasks:
        raise ClusterError(f"{folder.path}: all of its tasks have results. Use lava-casc collect.")
    if launcher == "sbatch":
        if host.partition is not None:
            slurm.check_partition(host.partition, host.board)
        job = slurm.run_sbatch(command(folder.path, launcher, host, tasks))
        state = State("sbatch", job, tasks, dict.fromkeys(tasks, "PENDING"))
    else:
        if len(tasks) != 1:
            raise ClusterError(f"{folder.path}: {len(tasks)} tasks. --launcher env runs a single one; use --tasks 1.")
        process = _detached(folder.path, command(folder.path, launcher, host, tasks), f"log-{tasks[0]}.txt")
        state = State("env", str(process), tasks, {tasks[0]: "RUNNING"}, _began(process))
    _write(folder, state)
    return state


def look(folder: JobFolder) -> State | None:
    """Return what became of the run that was started last; None if none was.

    What SLURM has forgotten is COMPLETED where the results are whole, and otherwise what was known last, or FAILED.

    Parameters
    ----------
    folder : JobFolder

    Returns
    -------
    State or None
    """
    path = folder.path / STATE
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        state = State(**{**found, "states": {int(task): name for task, name in found["states"].items()}})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ClusterError(f"{path}: is damaged ({error}). Remove it, if nothing of this folder runs.") from error
    now: dict[int, str] | None
    if _over(state):
        now = None
    elif state.launcher == "env":
        now = {state.tasks[0]: "RUNNING"} if _runs(state) else None
    else:
        now = slurm.states(state.job)
    if now is not None:
        state.states.update({task: name for task, name in now.items() if task in state.states})
    absent = set(missing(folder))
    for task, name in state.states.items():
        if now is None and name not in slurm.ENDED:
            state.states[task] = "FAILED" if task in absent else "COMPLETED"
        elif name == "COMPLETED" and task in absent:
            state.states[task] = "FAILED"  # it ended well, and left nothing that is whole
    _write(folder, state)
    return state


def cancel(folder: JobFolder) -> State:
    """Stop what runs of a folder.

    Parameters
    ----------
    folder : JobFolder

    Returns
    -------
    State

    Raises
    ------
    ClusterError
        Nothing was ever started, or it is over.
    """
    state = look(folder)
    if state is None:
        raise ClusterError(f"{folder.path}: nothing of it was ever started. See lava-casc jobs.")
    if _over(state):
        raise ClusterError(f"{folder.path}: job {state.job} is over already. See lava-casc jobs.")
    if state.launcher == "sbatch":
        slurm.stop(state.job)
    elif _runs(state):
        os.killpg(int(state.job), signal.SIGTERM)
    for task, name in state.states.items():
        if name not in slurm.ENDED:
            state.states[task] = "CANCELLED"
    _write(folder, state)
    return state


def log_tail(folder: JobFolder, task: int, lines: int = 3) -> list[str]:
    """Return the last lines that a task printed."""
    path = folder.path / f"log-{task}.txt"
    if not path.is_file():
        return []
    return path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]


def _over(state: State) -> bool:
    return all(name in slurm.ENDED for name in state.states.values())


def _write(folder: JobFolder, state: State) -> None:
    write_json(folder.path / STATE, asdict(state), ClusterError)


def _detached(folder: Path, arguments: Sequence[str], log: str) -> int:
    """Start a command that outlives this one, in a session of its own, and return the number of its process."""
    script = 'log=$1; shift; setsid "$@" </dev/null >>"$log" 2>&1 & echo $!'
    done = subprocess.run(
        ["bash", "-c", script, "bash", log, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    return int(done.stdout)


def _runs(state: State) -> bool:
    """Return whether the process that was started still runs, and is no other one of the same number."""
    return _began(int(state.job)) == state.started != ""


def _began(process: int) -> str:
    """Return when a process began, in the system's words; empty where there is none, or it is a zombie."""
    done = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(process)], capture_output=True, text=True, timeout=10, check=False
    )
    words = done.stdout.split()
    return "" if not words or words[0].startswith("Z") else " ".join(words[1:])
