"""What came back: whether it is whole, whether it is certified, and whether it is what the integer network says."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lava_casc.cluster.folder import JobFolder
from lava_casc.cluster.worker import digest_of
from lava_casc.errors import ClusterError
from lava_casc.record import SpikeRecord


@dataclass(frozen=True)
class Difference:
    """A logit that is not the integer network's.

    Attributes
    ----------
    sample, logit : int
    found, wanted : int
    certified : bool
        Whether the sample was certified: then this must not be.
    """

    sample: int
    logit: int
    found: int
    wanted: int
    certified: bool


def read_part(folder: JobFolder, task: int) -> SpikeRecord | None:
    """Return the results of a task; None where there are none, or no whole ones of this very job.

    Parameters
    ----------
    folder : JobFolder
    task : int
        From 0.

    Returns
    -------
    SpikeRecord or None
    """
    path, chosen = folder.part(task), folder.tasks[task]
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            facts = json.loads(found["facts"].tobytes())
            logits, certified, last_spike = (found[name] for name in ("logits", "certified", "last_spike"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    n = chosen.stop - chosen.start
    if (facts.get("identity"), facts.get("task")) != (folder.identity, task):
        return None
    record = SpikeRecord(facts["engine"], folder.schedule, logits, certified, last_spike, seconds=facts["seconds"])
    whole = len(logits) == len(certified) == len(last_spike) == n and digest_of(record) == facts["digest"]
    return record if whole else None


def missing(folder: JobFolder) -> list[int]:
    """Return the tasks without whole results.

    Parameters
    ----------
    folder : JobFolder

    Returns
    -------
    list of int
    """
    return [task for task in range(len(folder.tasks)) if read_part(folder, task) is None]


def collect(folder: JobFolder) -> SpikeRecord:
    """Return the results of all tasks as one record.

    Parameters
    ----------
    folder : JobFolder

    Returns
    -------
    SpikeRecord

    Raises
    ------
    ClusterError
        Some are missing.
    """
    parts = [read_part(folder, task) for task in range(len(folder.tasks))]
    absent = [task for task, part in enumerate(parts) if part is None]
    if absent:
        shown = ", ".join(map(str, absent[:10])) + (" and more" if len(absent) > 10 else "")
        raise ClusterError(
            f"{folder.path}: {len(absent)} of {len(parts)} tasks have no whole results ({shown}). "
            "See lava-casc jobs, then run what is missing."
        )
    found = [part for part in parts if part is not None]
    return SpikeRecord(
        found[0].engine,
        folder.schedule,
        np.concatenate([part.logits for part in found]),
        np.concatenate([part.certified for part in found]),
        np.concatenate([part.last_spike for part in found]),
        seconds=sum(part.seconds for part in found),
    )


def differences(
    folder: JobFolder, record: SpikeRecord, progress: Callable[[int], None] = lambda done: None
) -> list[Difference]:
    """Return every logit that is not that of the integer network, computed here; `progress` hears of the samples."""
    from lava_casc.reference import logits

    wanted = logits(folder.network(), np.asarray(folder.inputs()), progress)
    return [
        Difference(int(i), int(k), int(record.logits[i, k]), int(wanted[i, k]), bool(record.certified[i]))
        for i, k in zip(*np.nonzero(record.logits != wanted), strict=True)
    ]
