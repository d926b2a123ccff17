"""Draw the terminal of a few real runs, for the pages: python docs/terminal.py

Every picture is what the command printed, run here and now on the digits network of the tests.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI

from lava_casc import console
from lava_casc.cli import main

ROOT = Path(__file__).parents[1]
WIDTH = 120
SCENES = {
    "run": "lava-casc run digits.net --data digits --samples 100 --engine reference",
    "cut": "lava-casc run digits.net --data digits --samples 100 --engine reference --sleep-steps 1",
    "estimate": "lava-casc estimate digits.net",
}
#: The web fonts that rich would have a reader's browser fetch.
FONTS = re.compile(r"@font-face \{.*?\}\s*", re.S)


def draw(folder: Path) -> dict[str, Path]:
    """Run every scene and write its picture into `folder`."""
    made = {}
    with tempfile.TemporaryDirectory() as temporary:
        shutil.copy(ROOT / "tests" / "data" / "digits.pt", temporary)
        home = Path.cwd()
        os.chdir(temporary)
        _call("lava-casc export digits.pt --verify 1 --json", Console(file=io.StringIO()))
        for name, line in SCENES.items():
            screen = Console(record=True, width=WIDTH, force_terminal=True, highlight=False, file=io.StringIO())
            screen.print(f"[bold]$ {line}[/bold]")
            _call(line, screen)
            picture = FONTS.sub("", screen.export_svg(title="", theme=DIMMED_MONOKAI, unique_id=name))
            made[name] = folder / f"terminal-{name}.svg"
            made[name].write_text(picture.replace("Fira Code, ", ""), encoding="utf-8")
        os.chdir(home)
    return made


def _call(line: str, screen: Console) -> None:
    before = console.out, console.err, sys.argv
    console.out, console.err, sys.argv = screen, Console(file=io.StringIO()), shlex.split(line)
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
    finally:
        console.out, console.err, sys.argv = before


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for path in draw(ROOT / "docs" / "images").values():
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")
