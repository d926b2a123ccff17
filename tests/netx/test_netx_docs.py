"""The specification names everything that a file holds, with its type, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import netx_networks as made
import numpy as np

from lava_casc import netx
from lava_casc.netx import storage

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "file-format.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| `(/[^`]*)` \| ([^|]*) \|", TEXT, re.M))
KINDS = {"<i8": "i8", "<i4": "i4", "|i1": "i1", "<f8": "f8", "|S10": "S10"}


def test_the_specification_names_every_member_with_its_type(tmp_path):
    seen = set()
    for make in made.KINDS:
        netx.write(tmp_path / "a.net", make())
        for key, value in storage.load(tmp_path / "a.net", "casc", lambda _: None).items():
            path = documented("/" + key)
            seen.add(path)
            kind = KINDS[value.dtype.str] if isinstance(value, np.ndarray) else "text|integer"
            assert re.search(rf"\b({kind})\b", ROWS[path]), (key, ROWS[path])
    assert seen == set(ROWS)


def documented(key):
    """Return the path of a member in the specification, which says what both kinds of file share only once."""
    path = re.sub(r"(layer|synapse)/\d+", lambda m: m[1] + ("/<k>" if m[1] == "synapse" else "/<i>"), key)
    if path in ROWS:
        return path
    return re.sub(r"^/graph/layer/<i>(/synapse/<k>)?", "/layer/<i>", path)


def test_the_specification_knows_its_version_and_seal():
    assert f"This describes versions 1 to **{netx.VERSION}**" in TEXT
    assert re.search(rf"^\| {netx.VERSION} \|", TEXT, re.M)
    for line in storage.SEAL.decode().splitlines():
        assert f"    {line.strip()}" in TEXT
    assert f"first {storage.SEAL_SIZE} bytes" in TEXT


def test_the_reader_on_the_page_computes_what_the_golden_files_hold():
    reader = re.search(r"^```python\n(import hashlib.*?)^```", TEXT, re.S | re.M)[1]
    assert len(reader.splitlines()) < 100
    names = {}
    exec(compile(reader, "docs/file-format.md", "exec"), names)  # noqa: S102  (our own text)
    files = sorted((Path(__file__).resolve().parents[1] / "golden").glob("v*/*.net"))
    assert len(files) == 8
    for path in files:
        kept = np.load(path.with_suffix(".npz"))
        samples = kept["images" if "images" in kept else "samples"].astype(np.int64)
        found = names["logits_of"](path, samples)
        np.testing.assert_array_equal(found, kept["logits"], err_msg=path.stem, strict=True)
