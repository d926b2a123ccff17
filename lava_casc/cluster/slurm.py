"""SLURM's commands, each called without a shell, with a time limit, and with its errors in one line.

Lava's own `lava.utils.slurm` (0.10.0) fails on what a real ``sinfo`` prints, so that nothing of it is used.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lava_casc.errors import ClusterError

#: Seconds that a command may take: clients can hang, and sbatch waits where the queue is full.
TIMEOUT = 30.0
#: States in which a job will do nothing more.
ENDED = frozenset(
    ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT")
)


@dataclass(frozen=True)
class Partition:
    """A partition as ``sinfo`` has it.

    Attributes
    ----------
    name : str
    is_up : bool
        Whether it takes jobs, and has a node that can run them.
    nodes : tuple of str
        Of INRC's partitions, the boards.
    """

    name: str
    is_up: bool
    nodes: tuple[str, ...]


def partitions() -> dict[str, Partition]:
    """Return the partitions of the cluster, by name."""
    found: dict[str, Partition] = {}
    for line in _call("sinfo", "-h", "-N", "-o", "%R|%a|%T|%N").splitlines():
        name, _, rest = line.rpartition("|")[0].rpartition("|")[0].rpartition("|")
        state, node = line.split("|")[-2:]
        up = rest == "up" and not state.startswith(("down", "drain", "fail", "inval", "unknown"))
        before = found.get(name, Partition(name, False, ()))
        found[name] = Partition(name, before.is_up or up, (*before.nodes, node))
    return found


def check_partition(name: str, board: str | None = None) -> None:
    """Refuse a partition that does not exist or is down, and a board that is not in it.

    Raises
    ------
    ClusterError
    """
    known = partitions()
    if name not in known:
        raise ClusterError(f"{name}: no such partition. There are: {', '.join(sorted(known)) or 'none'}.")
    if not known[name].is_up:
        raise ClusterError(f"{name}: the partition is down. Choose another one, or wait until sinfo shows it up.")
    if board is not None and board not in known[name].nodes:
        raise ClusterError(f"{board}: no board of {name}. There are: {', '.join(known[name].nodes)}.")


def submit(
    script: Path, folder: Path, *, name: str, partition: str | None, board: str | None, tasks: Sequence[int] | None
) -> list[str]:
    """Return the sbatch command that runs `script` in `folder`, as an array of `tasks` if there are any."""
    log = f"{str(folder).replace('%', '%%')}/log-%a.txt"  # it replaces what follows a % in the folder's name, too
    command = ["sbatch", "--parsable", f"--job-name={name}", f"--chdir={folder}", f"--output={log}"]
    if partition is not None:
        command.append(f"--partition={partition}")
    if board is not None:
        command.append(f"--nodelist={board}")
    if tasks is not None:
        command.append(f"--array={','.join(map(str, tasks))}")
    return [*command, str(script)]


def run_sbatch(command: Sequence[str]) -> str:
    """Run an sbatch command and return the job's number."""
    printed = _call(*command).strip()
    job = printed.splitlines()[-1].split(";")[0] if printed else ""
    if not job.isdigit():
        raise ClusterError(f"sbatch: answered {printed!r}, which is no job. Look at what sbatch says by hand.")
    return job


def states(job: str) -> dict[int, str] | None:
    """Return the state of each task of a job (0 for a job without an array); None where SLURM does not know the job."""
    try:
        printed = _call("squeue", "-h", "-t", "all", "-r", "-j", job, "-o", "%K|%T")
    except ClusterError as error:
        if "Invalid job id" in str(error):
            return None
        raise
    found = {}
    for line in printed.splitlines():
        task, _, state = line.strip().partition("|")
        found[int(task) if task.isdigit() else 0] = state
    return found or None


def stop(job: str) -> None:
    """Cancel a job; one that has ended already stays as it is."""
    try:
        _call("scancel", job)
    except ClusterError as error:
        if "Invalid job id" not in str(error):
            raise


def _call(*command: str) -> str:
    if shutil.which(command[0]) is None:
        raise ClusterError(f"{command[0]}: not found, so there is no SLURM here. Submit on the cluster's login host.")
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        said = _line(error.stderr or b"")
        raise ClusterError(
            f"{command[0]}: no answer within {TIMEOUT:g} s{f' ({said})' if said else ''}. "
            "Try again when the queue is shorter or SLURM answers sinfo."
        ) from error
    if done.returncode:
        raise ClusterError(f"{command[0]}: {_line(done.stderr.encode()) or f'exit code {done.returncode}'}.")
    return done.stdout


def _line(text: bytes | str) -> str:
    """Return the last line that says something."""
    whole = text.decode(errors="replace") if isinstance(text, bytes) else text
    lines = [re.sub(r"^\w+: (error: )?", "", line).strip() for line in whole.splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else ""
