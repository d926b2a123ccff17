"""A folder that holds all that a run needs: the network, its inputs, lava_casc itself, and a list with checksums."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import lava_casc
from lava_casc.errors import ClusterError
from lava_casc.network import IntegerNetwork
from lava_casc.schedule import WakeSleepSchedule

#: The version of these folders.
VERSION = 1
MANIFEST, JOB, NETWORK, INPUTS = "manifest.json", "job.json", "network.net", "inputs.npy"
RUN = '''\
"""Run one task of this folder: python run.py TASK."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "src"))

from lava_casc import console  # noqa: E402
from lava_casc.cluster.worker import work  # noqa: E402

task = int(sys.argv[1])
record = work(HERE, task)
console.out.print(f"task {task}: {int(record.certified.sum())} of {len(record)} samples certified")
'''


@dataclass(frozen=True)
class Task:
    """The samples of one task: from `start` to before `stop`.

    Attributes
    ----------
    start, stop : int
    """

    start: int
    stop: int


@dataclass(frozen=True)
class Settings:
    """How the network is run, and where.

    Attributes
    ----------
    engine : {"fused", "graph", "reference"}
    environment : dict of str to str
        Variables that are set for the run, such as SLURM, PARTITION, BOARD and LOIHI_GEN.
    path : tuple of str
        Folders to put before PATH.
    python : str
        The interpreter that has what `requirements.txt` names.
    """

    engine: str = "reference"
    environment: dict[str, str] | None = None
    path: tuple[str, ...] = ()
    python: str = field(default_factory=lambda: sys.executable)


@dataclass(frozen=True, eq=False)
class JobFolder:
    """A folder that was made, and whose files are as they were then.

    Attributes
    ----------
    path : Path
    engine : str
    schedule : WakeSleepSchedule
    tasks : tuple of Task
    manifest : dict of str to str
        SHA-256 of every file.
    """

    path: Path
    engine: str
    schedule: WakeSleepSchedule
    tasks: tuple[Task, ...]
    manifest: dict[str, str]

    @property
    def identity(self) -> str:
        """A digest of all that the results depend on."""
        return self.manifest[JOB] + self.manifest[NETWORK] + self.manifest[INPUTS]

    def network(self) -> IntegerNetwork:
        """Return the network.

        Returns
        -------
        IntegerNetwork
        """
        from lava_casc import netx

        return netx.read(self.path / NETWORK)

    def inputs(self) -> NDArray[np.int64]:
        """Return the inputs of all tasks.

        Returns
        -------
        (N, ...) ndarray of int64
        """
        found: NDArray[np.int64] = np.load(self.path / INPUTS, allow_pickle=False, mmap_mode="r")
        return found

    def part(self, task: int) -> Path:
        """Return where a task leaves its results.

        Parameters
        ----------
        task : int
            From 0.

        Returns
        -------
        Path
        """
        return self.path / f"part-{task}.npz"


def make_folder(
    path: Path,
    network: IntegerNetwork,
    inputs: NDArray[np.int64],
    schedule: WakeSleepSchedule,
    tasks: int = 1,
    settings: Settings | None = None,
) -> JobFolder:
    """Make a folder, whole or not at all.

    Parameters
    ----------
    path : Path
        Must not exist.
    network : IntegerNetwork
    inputs : (N, ...) array of integers
    schedule : WakeSleepSchedule
    tasks : int
        Into how many parts the samples are divided; at most one a sample.
    settings : Settings, optional

    Returns
    -------
    JobFolder

    Raises
    ------
    ClusterError
        The folder exists, or cannot be made.
    """
    from lava_casc import netx

    settings = settings or Settings()
    path = path.absolute()
    if path.exists():
        raise ClusterError(f"{path}: exists already. Choose another folder.")
    if {"\\", "\n"} & set(str(path)):  # SLURM takes a backslash in the name of a log for a sign of its own
        raise ClusterError(f"{str(path)!r}: holds a backslash or the end of a line. Choose another name.")
    network.encode(inputs)  # refused here rather than by every task
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise ClusterError(f"{path}: cannot be made ({error.strerror}). Choose a writable folder.") from error
    try:
        netx.write(temporary / NETWORK, network, schedule)
        np.save(temporary / INPUTS, np.ascontiguousarray(inputs, np.int64), allow_pickle=False)
        edges = np.arange(min(tasks, len(inputs)) + 1) * len(inputs) // min(tasks, len(inputs))
        job = {
            "version": VERSION,
            "engine": settings.engine,
            "schedule": asdict(schedule),
            "tasks": [[int(a), int(b)] for a, b in zip(edges, edges[1:], strict=False)],
        }
        (temporary / JOB).write_text(json.dumps(job, indent=1) + "\n", encoding="utf-8")
        (temporary / "run.py").write_text(RUN, encoding="utf-8")
        (temporary / "run.sh").write_text(run_script(settings), encoding="utf-8")
        (temporary / "run.sh").chmod(0o755)
        (temporary / "requirements.txt").write_text(_requirements(settings.engine), encoding="utf-8")
        source = Path(lava_casc.__file__).parent
        shutil.copytree(source, temporary / "src/lava_casc", ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        configs = source / "hw_configs"
        if not configs.is_dir():  # in the repository they lie beside the package
            shutil.copytree(source.parent / "hw_configs", temporary / "src/lava_casc/hw_configs")
        manifest = {str(file.relative_to(temporary)): digest(file) for file in _files(temporary)}
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        temporary.chmod(0o755)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return open_folder(path)


def open_folder(path: Path) -> JobFolder:
    """Return a folder that `make_folder` made, if nothing in it was changed since.

    Parameters
    ----------
    path : Path

    Returns
    -------
    JobFolder

    Raises
    ------
    ClusterError
        It is none, is of a newer version, or a file is missing or another.
    """
    path = path.absolute()
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        job = json.loads((path / JOB).read_text(encoding="utf-8"))
        schedule = WakeSleepSchedule(**job["schedule"])
        tasks = tuple(Task(*pair) for pair in job["tasks"])
        newer, engine = job["version"] > VERSION, job["engine"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ClusterError(
            f"{path}: no folder of lava-casc submit ({error}). Make one with lava-casc submit."
        ) from error
    if newer:
        raise ClusterError(
            f"{path}: its version ({job['version']}) exceeds what is known ({VERSION}). Update lava_casc."
        )
    for name, wanted in manifest.items():
        file = path / name
        if not file.is_file() or digest(file) != wanted:
            state = "was changed" if file.is_file() else "is missing"
            raise ClusterError(f"{path}: {name} {state}. Make the folder again, with lava-casc submit.")
    return JobFolder(path, engine, schedule, tasks, manifest)


def run_script(settings: Settings) -> str:
    """Return the script that a host runs, in the folder; every value is quoted."""
    variables = settings.environment or {}
    lines = ["#!/bin/bash", "# Run in this folder: bash run.sh [TASK]", "set -eu"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    lines += [f'export PATH={shlex.quote(folder)}:"$PATH"' for folder in settings.path]
    lines += [
        'export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}"',
        f'exec {shlex.quote(settings.python)} run.py "${{1:-${{SLURM_ARRAY_TASK_ID:-0}}}}"',
    ]
    return "\n".join(lines) + "\n"


def digest(file: Path) -> str:
    """Return a file's SHA-256."""
    found = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _requirements(engine: str) -> str:
    """Return what has to be installed, in the versions that are installed here."""
    names = ["h5py", "jinja2", "numpy", "pydantic", "rich", "tomli", "torch", "typer"]
    names += ["lava-nc", "lava-dl", "threadpoolctl"] if engine in ("fused", "graph") else []
    lines = []
    for name in names:
        try:
            lines.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            lines.append(name)
    return "\n".join(lines) + "\n"
