"""The page for contributors names files and names that are there, and the house as it stands."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
from core.test_house import FLOORS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
STEPS = re.findall(r"^\d+\. .*?(?=^\d+\. |\Z)", PAGE[PAGE.index("## A worked example") :], re.S | re.M)


def _found(path, *folders):
    """Return a file or folder that the page names: of the package, of the repository, or beside what was named last."""
    there = [base / path for base in (ROOT / "lava_casc", ROOT, *folders) if (base / path).exists()]
    assert there, f"there is no {path}"
    return there[0]


def misplaced(step):
    """Return the names of a step that are not in the file which it names before them."""
    where, wrong = None, []
    for word in re.findall(r"`([^`]+)`", step):
        if re.fullmatch(r"[\w./]+(\.py|/)", word):
            where = _found(word, *([where, where.parent] if where else []))
        elif word.startswith("lava_casc."):
            module, _, name = word.rpartition(".")
            assert hasattr(import_module(module), name), word
        elif re.fullmatch(r"\w+", word) and where is not None:
            files = [where] if where.is_file() else where.rglob("*.py")
            if not any(re.search(rf"\b{word}\b", file.read_text(encoding="utf-8")) for file in files):
                wrong.append(f"{word} is not in {where.relative_to(ROOT)}")
    return wrong


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step[:2].strip("."))
def test_every_name_is_in_the_file_that_is_named(step):
    assert misplaced(step) == []


def test_there_are_steps_and_a_wrong_one_is_noticed():
    assert len(STEPS) == 10
    assert misplaced("`ranges.py`: `source_of`, `nobody`") == ["nobody is not in lava_casc/ranges.py"]
    with pytest.raises(AssertionError, match=r"there is no nothing\.py"):
        misplaced("`nothing.py`")


def test_every_file_that_knows_max_pools_is_named():
    named = {path.rstrip("/") for path in re.findall(r"`([\w/]+(?:\.py|/))`", "".join(STEPS))}
    for path in (ROOT / "lava_casc").rglob("*.py"):
        name = path.relative_to(ROOT / "lava_casc").as_posix()
        if "isinstance(layer, MaxPool)" in path.read_text(encoding="utf-8"):
            assert name in named or name.startswith("loihi/staircase/"), name


def test_the_house_on_the_page_is_the_one_that_is_tested():
    rows = re.findall(r"^\| (\d) \| ([^|]*) \|", PAGE, re.M)
    assert {room: int(floor) for floor, rooms in rows for room in re.findall(r"`(\w+)`", rooms)} == FLOORS
