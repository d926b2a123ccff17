"""A file of every released version stays readable, and still gives the logits that were kept with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lava_casc import netx
from lava_casc.netx import storage
from lava_casc.reference import forward, simulate

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
FOLDER = GOLDEN / f"v{netx.VERSION}"
FILES = sorted(GOLDEN.glob("v*/*.net"))


def test_every_version_has_its_files():
    found = {path.parent.name for path in FILES}
    assert found == {f"v{version}" for version in range(1, netx.VERSION + 1)}
    assert {path.stem for path in FOLDER.glob("*.net")} == {"sequential", "graph"}
    assert sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.suffix in (".net", ".npz")) < 80_000


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_golden_file(path, tmp_path):
    found, kept = netx.read_file(path), np.load(path.with_suffix(".npz"))
    assert f"v{found.version}" == path.parent.name
    assert (forward(found.network, kept["images"]).logits == kept["logits"]).all()
    assert len(np.unique(kept["logits"], axis=0)) > 1
    record = simulate(found.network, kept["images"], found.schedule)
    assert record.all_certified
    assert (record.logits == kept["logits"].reshape(record.logits.shape)).all()
    netx.write(tmp_path / "again.net", found.network, found.schedule)
    if found.version == netx.VERSION:
        before, after = (content(p) for p in (path, tmp_path / "again.net"))
        assert list(before) == list(after)
        for key in before:
            np.testing.assert_array_equal(before[key], after[key], err_msg=key, strict=True)


def content(path):
    """Return all that a file says but who wrote it."""
    found = storage.load(path, "casc", lambda _: None)
    return {key: np.asarray(found[key]) for key in sorted(found) if key != "casc@lava_casc"}
