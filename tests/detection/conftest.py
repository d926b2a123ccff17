from __future__ import annotations

import pytest
from voc_folder import make_voc


@pytest.fixture
def voc(tmp_path):
    pytest.importorskip("PIL")
    return make_voc(tmp_path / "voc", {"trainval": 6, "test": 3})
