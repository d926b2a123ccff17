"""A data set over an array of jobs: started, watched, started again where something failed, and merged."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lava_casc.cluster import slurm
from lava_casc.cluster.folder import JobFolder, Settings, make_folder, open_folder
from lava_casc.cluster.launch import Host, cancel, launch, log_tail, look
from lava_casc.cluster.merge import collect, missing
from lava_casc.errors import ClusterError
from lava_casc.network import IntegerNetwork
from lava_casc.record import SpikeRecord
from lava_casc.schedule import WakeSleepSchedule

#: How many times a task that left no whole results is started in all, and seconds between two looks.
ROUNDS, PAUSE = 3, 1.0


def spread(
    path: Path,
    network: IntegerNetwork,
    inputs: NDArray[np.int64],
    schedule: WakeSleepSchedule,
    *,
    tasks: int,
    engine: str = "reference",
    partition: str | None = None,
    progress: Callable[[float], None] = lambda done: None,
    tell: Callable[[str], None] = lambda line: None,
) -> SpikeRecord:
    """Run samples as an array of jobs of SLURM, and return their record.

    A task that was killed, or whose node was lost, is started again. Only whole results are merged. Called again with
    the same folder, only what is missing runs.

    Parameters
    ----------
    path : Path
        Of the folder; on a file system that all nodes see.
    network, inputs, schedule
        As for `make_folder`.
    tasks : int
    engine : {"fused", "graph", "reference"}
    partition : str, optional
        By default SLURM's own.
    progress : callable
        Called with the number of samples done.
    tell : callable
        Called with a line where something has to be started again.

    Returns
    -------
    SpikeRecord

    Raises
    ------
    ClusterError
        The folder is of something else, SLURM refuses, or a task failed in every round.
    """
    folder = _folder(path, network, inputs, schedule, tasks, engine)
    for turn in range(ROUNDS):
        state = look(folder)
        if state is None or all(name in slurm.ENDED for name in state.states.values()):
            absent = missing(folder)
            if not absent:
                break
            if turn:
                tell(f"round {turn + 1}: {len(absent)} of {len(folder.tasks)} tasks left no whole results, again")
            launch(folder, "sbatch", Host(partition), absent)
        _watch(folder, progress)
    absent = missing(folder)
    if absent:
        said = " / ".join(log_tail(folder, absent[0])) or "nothing"
        raise ClusterError(
            f"{folder.path}: {len(absent)} of {len(folder.tasks)} tasks failed {ROUNDS} times; task {absent[0]} said: "
            f"{said}. Mend that and run the same command again: what is done stays."
        )
    return collect(folder)


def _folder(
    path: Path, network: IntegerNetwork, inputs: NDArray[np.int64], schedule: WakeSleepSchedule, tasks: int, engine: str
) -> JobFolder:
    """Return the folder, made or as it was left, if it is of the same samples, network and schedule."""
    if not path.exists():
        return make_folder(path, network, inputs, schedule, tasks, Settings(engine=engine))
    folder = open_folder(path)
    same = (
        folder.engine == engine
        and folder.schedule == schedule
        and np.array_equal(folder.inputs(), inputs)
        and folder.network() == network
    )
    if not same:
        raise ClusterError(f"{path}: is of another network, schedule, engine or data. Choose another folder.")
    return folder


def _watch(folder: JobFolder, progress: Callable[[float], None]) -> None:
    """Wait until no task runs any more; Ctrl-C cancels them, and what is done stays."""
    try:
        while True:
            state = look(folder)
            absent = set(missing(folder))
            progress(sum(t.stop - t.start for i, t in enumerate(folder.tasks) if i not in absent))
            if state is None or all(name in slurm.ENDED for name in state.states.values()):
                return
            time.sleep(PAUSE)
    except KeyboardInterrupt:
        cancel(folder)
        raise
