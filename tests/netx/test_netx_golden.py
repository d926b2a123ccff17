"""A file of every released version stays readable, and means what it meant: the numbers that were kept with it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import netx_networks as made
import numpy as np
import pytest

from lava_casc import netx
from lava_casc.hardware import read_hardware
from lava_casc.netx import storage
from lava_casc.reference import simulate

GOLDEN = Path(__file__).resolve().parents[1] / "golden"

#: Every file, its own version, and the first digits of the SHA-256 of it and of what was kept with it. These rows stay
#: for ever: a new reader has to read the old files, and a new writer has to write the same.
FILES = {
    "v1/sequential": (1, "e5ffdef951c56606", "2cbe00fc6e3975c1"),
    "v1/graph": (1, "e505dadf95e1f211", "19a0cb4b66c04c52"),
    "v2/max-pool": (1, "fe4c0a9122057f1c", "07f220b75aafaa70"),
    "v2/residual": (1, "edc91636dc3ec982", "132420d5d798ecea"),
    "v2/concatenation": (1, "5753c107c5805123", "253332adddae04cc"),
    "v2/readouts": (2, "710565945fdae4d6", "d5ba5a9b01f76ffd"),
    "v2/tokens": (2, "df40f3ef9977005a", "802029bfe05b4349"),
    "v2/sequence": (2, "1c5c61dad420c9e2", "bd183e44ccb5d42b"),
}


def test_every_file_is_there_and_as_it_was():
    assert {str(path.relative_to(GOLDEN).with_suffix("")) for path in GOLDEN.glob("v*/*")} == set(FILES)
    for name, (_, *digests) in FILES.items():
        for suffix, digest in zip((".net", ".npz"), digests, strict=True):
            assert hashlib.sha256((GOLDEN / f"{name}{suffix}").read_bytes()).hexdigest()[:16] == digest, name + suffix
    assert {version for version, *_ in FILES.values()} == set(range(1, netx.VERSION + 1))
    assert sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.suffix in (".net", ".npz")) < 450_000


@pytest.mark.parametrize("name", FILES)
def test_golden_file(name, tmp_path):
    path = GOLDEN / f"{name}.net"
    found, kept = netx.read_file(path), dict(np.load(path.with_suffix(".npz")))
    assert found.version == FILES[name][0]
    samples = kept.pop("images" if "images" in kept else "samples").astype(np.int64)
    meaning = made.meaning(found.network, samples)
    assert len(np.unique(kept["logits"], axis=0)) > 1
    for key, values in kept.items():
        np.testing.assert_array_equal(meaning[key], values, err_msg=key, strict=True)
    assert set(kept) == set(meaning) or name.startswith("v1/")  # with those the logits alone were kept
    record = simulate(found.network, samples, found.schedule)
    assert record.all_certified
    assert (record.logits == kept["logits"]).all()
    hardware = read_hardware().with_registers(name=found.hardware)
    netx.write(tmp_path / "again.net", found.network, found.schedule, hardware=hardware)
    before, after = (content(p) for p in (path, tmp_path / "again.net"))
    assert list(before) == list(after)
    for key in before:
        np.testing.assert_array_equal(before[key], after[key], err_msg=key, strict=True)


def content(path):
    """Return all that a file says but who wrote it."""
    found = storage.load(path, "casc", lambda _: None)
    return {key: np.asarray(found[key]) for key in sorted(found) if key != "casc@lava_casc"}
