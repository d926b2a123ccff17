"""What differs between two records, for tests that demand nothing and for those that demand something."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from lava_casc import loihi
from lava_casc.network import IntegerNetwork
from lava_casc.record import SpikeRecord
from lava_casc.reference import simulate
from lava_casc.schedule import WakeSleepSchedule

KINDS = ("counts", "messages", "spikes")
#: How both engines of Lava are run: the fused one in batches, of which the last is smaller where 2 does not divide.
ENGINES: dict[str, dict[str, Any]] = {"fused": {"batch_size": 2}, "graph": {}}


def agree(
    network: IntegerNetwork, samples: np.ndarray, schedule: WakeSleepSchedule | None = None, **how: Any
) -> SpikeRecord:
    """See that both engines return the reference's record, spike by spike, and return it as the last of them did."""
    expected = simulate(network, samples, schedule, record=KINDS)
    for engine, options in ENGINES.items():
        found = loihi.run(network, samples, schedule, record=KINDS, engine=engine, **options, **how)
        assert differences(found, expected) == [], engine
    return found


def differences(found: SpikeRecord, expected: SpikeRecord, kinds: Iterable[str] = KINDS) -> list[str]:
    """Return what differs between two records: values, shapes, dtypes or layers."""
    wrong = [
        kind
        for kind in ("logits", "certified", "last_spike", "phases_certified")
        if not _same(getattr(found, kind), getattr(expected, kind))
    ]
    for kind in kinds:
        ours, theirs = getattr(found, kind), getattr(expected, kind)
        if list(ours) != list(theirs) or not ours:
            wrong.append(kind)
        wrong += [f"{kind} of {name}" for name in ours if not _same(ours[name], theirs.get(name))]
    return wrong


def _same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.shape == b.shape and a.dtype == b.dtype and bool((a == b).all())
