from __future__ import annotations

import pytest
import torch
from voc_folder import make_voc


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Networks as small as these take many times as long where threads wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def voc(tmp_path):
    pytest.importorskip("PIL")
    return make_voc(tmp_path / "voc", {"trainval": 6, "test": 3})
