"""Everything here needs Lava, hence Python 3.10."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
# The random networks lie beside this folder; pytest puts no folder above a test on the path.
sys.path.insert(0, str(HERE.parent))

#: The one file that has something to say where Lava is missing.
WITHOUT = "test_without_lava.py"
if importlib.util.find_spec("lava") is None:
    collect_ignore = [path.name for path in HERE.glob("test_*.py") if path.name != WITHOUT]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder that needs Lava."""
    for item in items:
        if HERE in Path(item.path).parents and Path(item.path).name != WITHOUT:
            item.add_marker(pytest.mark.lava)
