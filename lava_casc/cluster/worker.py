"""What a host does: run the samples of one task, and leave the results with their checksum."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from lava_casc.cluster.folder import JobFolder, open_folder
from lava_casc.errors import ClusterError
from lava_casc.files import replacing
from lava_casc.record import SpikeRecord


def work(path: Path, task: int) -> SpikeRecord:
    """Run one task of a folder; its results appear under their name only when they are whole."""
    folder = open_folder(path)
    if not 0 <= task < len(folder.tasks):
        raise ClusterError(f"{path}: has no task {task}. Choose one from 0 to {len(folder.tasks) - 1}.")
    chosen = folder.tasks[task]
    began = time.perf_counter()
    record = run(folder, chosen.start, chosen.stop)
    facts = {
        "identity": folder.identity,
        "task": task,
        "engine": record.engine,
        "seconds": time.perf_counter() - began,
        "digest": digest_of(record),
    }
    with replacing(folder.part(task), ClusterError) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            logits=record.logits,
            certified=record.certified,
            last_spike=record.last_spike,
            facts=np.frombuffer(json.dumps(facts).encode(), np.uint8),
        )
    return record


def digest_of(record: SpikeRecord) -> str:
    """Return the SHA-256 of what comes back."""
    found = hashlib.sha256()
    for array in (record.logits, record.certified, record.last_spike):
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def run(folder: JobFolder, start: int, stop: int) -> SpikeRecord:
    """Run some samples on the folder's engine."""
    network, inputs = folder.network(), np.asarray(folder.inputs()[start:stop])
    if folder.engine == "reference":
        from lava_casc.reference import simulate

        return simulate(network, inputs, folder.schedule, record=())
    from lava_casc import loihi

    engine: Any = folder.engine
    return loihi.run(network, inputs, folder.schedule, engine=engine)
