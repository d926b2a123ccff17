"""The notebooks run from start to end, and what is stored in them is what they print and draw."""

from __future__ import annotations

import base64
import copy
import importlib.util
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "notebooks"
NAMES = ("01_first_network", "02_how_casc_works", "03_your_own_model", "04_to_the_chip")
STORED = {name: json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")) for name in NAMES}
HAS_LAVA = importlib.util.find_spec("lava") is not None

if not os.environ.get("CI"):  # there they must not be missing
    for package in ("nbclient", "ipykernel"):
        pytest.importorskip(package)


def make(*arguments, script=FOLDER / "make.py"):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    command = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)


def code(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def text_of(output):
    """Return all texts of an output in one."""
    parts = [output["text"]] if "text" in output else [output["data"][kind] for kind in sorted(output["data"])]
    return "".join("".join(part) for part in parts)


def size(png):
    """Return width and height of a PNG (base64), in pixels."""
    content = base64.b64decode("".join(png))
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", content[16:24])


def without_numbers(text):
    """Return a text without what may differ in a cell tagged `varies`: numbers, checksums, the widths of columns."""
    return re.sub(r"[─━]+|\s+", " ", re.sub(r"\b[0-9a-f]{16}\b|\d+", "#", text))


def outputs(cell):
    """Return what a cell shows in a form to compare: texts as they are, pictures by their size."""
    found = []
    for output in cell["outputs"]:
        data = {"text": output["text"]} if output["output_type"] == "stream" else output["data"]
        shown = {kind: size(value) if kind == "image/png" else "".join(value) for kind, value in data.items()}
        if "varies" in cell["metadata"].get("tags", ()):
            shown = {kind: without_numbers(value) if isinstance(value, str) else value for kind, value in shown.items()}
        found.append((output["output_type"], output.get("name"), output.get("metadata"), shown))
    return found


def alike(stored, executed):
    """Whether two cells show the same; a side of a picture may have been rounded to another pixel."""
    found = outputs(stored), outputs(executed)
    pictures = [[shown.pop("image/png", (0, 0)) for *_, shown in each] for each in found]
    same_sizes = all(abs(x - y) <= 1 for pair in zip(*pictures, strict=False) for x, y in zip(*pair, strict=True))
    return found[0] == found[1] and same_sizes


def differing(stored, executed, has_lava):
    """Return the ids of the cells that show something else; those of Lava's outputs are left out without it."""
    pairs = list(zip(code(stored), code(executed), strict=True))
    assert [a["id"] for a, _ in pairs] == [b["id"] for _, b in pairs]
    return [a["id"] for a, b in pairs if (has_lava or "lava" not in a["metadata"].get("tags", ())) and not alike(a, b)]


@pytest.mark.parametrize("name", NAMES)
def test_stored_outputs_are_those_of_an_execution(name, tmp_path):
    done = make(name, "--into", tmp_path)
    assert done.returncode == 0, done.stderr
    executed = json.loads((tmp_path / f"{name}.ipynb").read_text(encoding="utf-8"))
    wrong = differing(STORED[name], executed, HAS_LAVA)
    shown = {cell["id"]: outputs(cell) for cell in code(executed) if cell["id"] in wrong}
    assert not wrong, f"python notebooks/make.py {name} writes what these cells show now: {shown}"
    assert [cell["source"] for cell in executed["cells"]] == [cell["source"] for cell in STORED[name]["cells"]]


def test_every_notebook_is_tested():
    assert sorted(NAMES) == sorted(path.stem for path in FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_hold_their_outputs_and_no_noise(name):
    notebook = STORED[name]
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 400_000
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert [cell["execution_count"] for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))
    assert all(set(cell["metadata"]) <= {"tags"} for cell in notebook["cells"])
    assert {tag for cell in notebook["cells"] for tag in cell["metadata"].get("tags", ())} <= {"lava", "varies"}
    shown = [output for cell in code(notebook) for output in cell["outputs"]]
    assert {output["output_type"] for output in shown} <= {"stream", "display_data", "execute_result"}  # no errors
    assert all(output.get("name") != "stderr" for output in shown)  # and no warnings
    assert any("image/png" in output.get("data", {}) for output in shown)


@pytest.mark.parametrize("name", NAMES)
def test_no_output_names_a_place_on_a_machine(name):
    places = [str(ROOT), sys.prefix, *(f"/{top}/" for top in ("home", "root", "tmp", "usr", "var", "Users", "work"))]
    for cell in code(STORED[name]):
        for output in cell["outputs"]:
            shown = text_of({**output, "data": {k: v for k, v in output.get("data", {}).items() if k != "image/png"}})
            assert [place for place in places if place in shown] == []


@pytest.mark.parametrize("name", NAMES)
def test_links_to_files_lead_somewhere(name):
    text = "\n".join("".join(cell["source"]) for cell in STORED[name]["cells"] if cell["cell_type"] == "markdown")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("http")]
    assert links
    for link in links:
        assert (FOLDER / link).exists(), link


def test_the_helper_for_the_terminal_is_the_same_everywhere():
    setups = [next("".join(c["source"]) for c in code(STORED[name]) if c["id"] == "setup") for name in NAMES]
    helpers = [setup.split("def terminal", 1)[1] for setup in setups if "def terminal" in setup]
    assert len(helpers) == 3
    assert helpers[0] == helpers[1]
    shorter = '.replace(f"{Path.cwd()}/", "")  # paths from here on'
    assert helpers[2].replace(shorter, "") == helpers[0]


def changed(name, cell_id, change):
    """Return a notebook in which `change` was made to a cell."""
    notebook = copy.deepcopy(STORED[name])
    change(next(cell for cell in code(notebook) if cell["id"] == cell_id))
    return notebook


def _another_number(cell):
    cell["outputs"][0]["text"] = ["".join(cell["outputs"][0]["text"]).replace("360", "361")]


def _no_outputs(cell):
    cell["outputs"] = []


def _smaller_picture(cell):
    pixel = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + struct.pack(">II", 1, 1)
    cell["outputs"][-1]["data"]["image/png"] = base64.b64encode(pixel).decode()


def _no_picture(cell):
    del cell["outputs"][-1]["data"]["image/png"]


def _another_word(cell):
    text = "".join(cell["outputs"][0]["data"]["text/plain"])
    cell["outputs"][0]["data"]["text/plain"] = text.replace("network.net", "network.txt")


@pytest.mark.parametrize(
    ("name", "cell", "change"),
    [
        ("01_first_network", "certificate", _another_number),
        ("01_first_network", "certificate", _no_outputs),
        ("02_how_casc_works", "even", _smaller_picture),
        ("02_how_casc_works", "even", _no_outputs),
        ("02_how_casc_works", "even", _no_picture),
        ("04_to_the_chip", "submit", _another_word),
    ],
)
def test_the_comparison_notices(name, cell, change):
    assert differing(STORED[name], STORED[name], has_lava=True) == []
    assert differing(STORED[name], changed(name, cell, change), has_lava=True) == [cell]


def test_the_comparison_leaves_out_what_varies_and_what_lava_shows():
    def more(cell):
        for output in cell["outputs"]:
            for kind, value in output.get("data", {}).items():
                output["data"][kind] = re.sub(r"[1-9]", "4", "".join(value))

    assert differing(STORED["04_to_the_chip"], changed("04_to_the_chip", "submit", more), has_lava=True) == []
    without = changed("01_first_network", "run", _no_outputs)
    assert differing(STORED["01_first_network"], without, has_lava=True) == ["run"]
    assert differing(STORED["01_first_network"], without, has_lava=False) == []


def notebook_of(source):
    cell = {"cell_type": "code", "execution_count": None, "id": "one", "metadata": {}, "outputs": [], "source": source}
    return {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def test_a_cell_that_fails_is_told_and_nothing_is_written(tmp_path):
    script = Path(shutil.copy(FOLDER / "make.py", tmp_path))
    before = json.dumps(notebook_of("print(6 * 7)\nraise ValueError('no such luck')"))
    (tmp_path / "broken.ipynb").write_text(before)
    done = make("--into", tmp_path / "out", script=script)
    assert done.returncode == 1
    assert "broken: a cell failed, and nothing was written." in done.stderr
    assert "ValueError: no such luck" in done.stderr
    assert "\x1b" not in done.stderr
    assert list((tmp_path / "out").iterdir()) == []
    assert (tmp_path / "broken.ipynb").read_text() == before


def test_a_notebook_runs_with_this_interpreter_in_an_empty_folder(tmp_path):
    script = Path(shutil.copy(FOLDER / "make.py", tmp_path))
    source = "import os, sys\nsys.stdout.write(sys.executable + '\\n')\nsys.stdout.flush()\nprint(os.listdir())"
    (tmp_path / "one.ipynb").write_text(json.dumps(notebook_of(source)))
    assert make("one", "--into", tmp_path / "out", script=script).returncode == 0
    made = json.loads((tmp_path / "out/one.ipynb").read_text())
    ((stream, _, _, shown),) = outputs(made["cells"][0])  # what was flushed in between is one output all the same
    assert (stream, shown["text"].split("\n")) == ("stream", [sys.executable, "[]", ""])


def test_a_wrong_name_is_refused():
    done = make("05_nowhere")
    assert done.returncode == 2
    assert "05_nowhere: no such notebook. Choose from: 01_first_network, 02_how_casc_works" in done.stderr


@pytest.mark.skipif(HAS_LAVA, reason="Lava is here")
def test_notebooks_are_not_overwritten_without_lava():
    done = make()
    assert done.returncode == 2
    assert "kept with the outputs of Lava, which is not installed. Give --into FOLDER." in done.stderr
