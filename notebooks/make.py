"""Execute the notebooks from start to end, and write them with what they print and draw.

    python notebooks/make.py                    # all of them, in place
    python notebooks/make.py --into FOLDER      # copies; the notebooks stay as they are
    python notebooks/make.py 02_how_casc_works  # one of them

A notebook runs in an empty folder of its own, with the interpreter that runs this script. What differs from run to run
without saying anything, such as the times of execution, is not written. Cells may have one of two tags, for the tests
that compare what is stored with what an execution gives: the outputs of ``lava`` are those that one gets with Lava, and
``varies`` says that numbers in the outputs (sizes, checksums, processes) are not the same each time.
"""

from __future__ import annotations

import argparse
import base64
import importlib.util
import io
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from traitlets.config import Config

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
#: The metadata that a notebook needs to be opened.
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
#: Colours of a picture: as many as drawings need, in files a quarter as large.
COLOURS = 128
#: What colours a traceback in a terminal.
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def main() -> None:
    """Run the command line."""
    names = sorted(path.stem for path in HERE.glob("*.ipynb"))
    parser = argparse.ArgumentParser(description="Execute the notebooks, and write them with their outputs.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"by default all: {', '.join(names)}")
    parser.add_argument("--into", type=Path, default=HERE, help="folder for the results; by default in place")
    options = parser.parse_args()
    for name in options.names:
        if name not in names:
            parser.error(f"{name}: no such notebook. Choose from: {', '.join(names)}.")
    if options.into == HERE and importlib.util.find_spec("lava") is None:
        parser.error("the notebooks are kept with the outputs of Lava, which is not installed. Give --into FOLDER.")
    options.into.mkdir(parents=True, exist_ok=True)
    for name in options.names or names:
        began = time.perf_counter()
        try:
            text = executed(HERE / f"{name}.ipynb")
        except CellExecutionError as error:
            sys.exit(f"{name}: a cell failed, and nothing was written.\n{re.sub(ANSI, '', str(error))}")
        (options.into / f"{name}.ipynb").write_text(text, encoding="utf-8")
        print(f"{name}: {time.perf_counter() - began:.1f} s, {len(text) / 1000:.0f} kB")


def executed(path: Path) -> str:
    """Return the notebook at `path` as JSON, executed. An error in a cell is raised (nbclient's CellExecutionError)."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as private:
        os.environ |= {
            # The kernel of this interpreter, this very lava_casc, one thread, and nothing of the user's own settings.
            "IPYTHONDIR": private,
            "JUPYTER_PLATFORM_DIRS": "1",
            "JUPYTER_PREFER_ENV_PATH": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        }
        options = {
            "resources": {"metadata": {"path": folder}},
            # Sockets in the file system, where nobody else can listen.
            "config": Config({"KernelManager": {"transport": "ipc", "ip": f"{private}/kernel"}}),
        }
        NotebookClient(notebook, kernel_name="python3", timeout=300, record_timing=False, **options).execute()
    tidy(notebook)
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Take away what differs from run to run, and what makes files large."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({key: value for key, value in cell.metadata.items() if key == "tags"})
        if cell.cell_type == "code":
            cell.outputs = joined(cell.outputs)
            for output in cell.outputs:
                if output.output_type == "stream":
                    output.text = stripped(output.text)
                data = output.get("data", {})
                data |= {kind: stripped(text) for kind, text in data.items() if kind.startswith("text/")}
                if "image/png" in data:
                    data["image/png"] = with_palette(data["image/png"])


def joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Return outputs in which neighbouring pieces of a stream are one: how it was cut depends on the moment."""
    found: list[nbformat.NotebookNode] = []
    for output in outputs:
        if found and output.output_type == found[-1].output_type == "stream" and output.name == found[-1].name:
            found[-1].text += output.text
        else:
            found.append(output)
    return found


def stripped(text: str) -> str:
    """Return a text without spaces at the ends of lines."""
    return re.sub(r" +$", "", text, flags=re.MULTILINE)


def with_palette(png: str) -> str:
    """Return a picture (base64) with few colours."""
    from PIL import Image

    picture, found = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"), io.BytesIO()
    picture = picture.quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    picture.save(found, "png", optimize=True)
    return base64.b64encode(found.getvalue()).decode()


if __name__ == "__main__":
    main()
