"""What differs between two records, for tests that demand nothing and for those that demand something."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from lava_casc.record import SpikeRecord

KINDS = ("counts", "messages", "spikes")


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
