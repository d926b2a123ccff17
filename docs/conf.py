"""The documentation site: `make docs` builds it, without a network, into out/docs."""

from __future__ import annotations

from pathlib import Path

import typer
from sphinx.application import Sphinx

import lava_casc
from lava_casc.cli import app

project = "lava_casc"
author = "the lava_casc authors"
copyright = author  # noqa: A001  Sphinx calls it so
version = release = lava_casc.__version__
extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx-mathjax-offline",
]
html_theme = "furo"
html_title = "lava_casc"
html_show_sphinx = False
smartquotes = False  # options begin with two hyphens
default_role = "py:obj"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the tests execute the notebooks, and hold their outputs to it
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc's parameters say them, with shapes and ranges
numpydoc_class_members_toctree = False
numpydoc_show_inherited_class_members = False
suppress_warnings = ["myst.xref_missing"]  # links out of docs/, to files of the repository


def _commands(source: Path) -> None:
    """Write every command's help, as the terminal has it."""
    group = typer.main.get_command(app)
    lines = ["# The command line", "", "What `lava-casc COMMAND --help` says, made of the program itself.", ""]
    for name, command in getattr(group, "commands", {}).items():
        lines += [f"## lava-casc {name}", "", (command.help or "").strip(), ""]
        if command.epilog:
            lines += ["```console", command.epilog.removeprefix("Example: "), "```", ""]
        lines += ["| | |", "|---|---|"]
        for parameter in command.params:
            shown = ", ".join(f"`{option}`" for option in parameter.opts)
            if parameter.param_type_name == "argument":
                shown = f"`{parameter.name.upper()}`"
            text = " ".join((getattr(parameter, "help", None) or "").split()).replace("|", "\\|")
            lines.append(f"| {shown} | {text} |")
        lines.append("")
    (source / "cli.md").write_text("\n".join(lines), encoding="utf-8")


def _notebooks(source: Path) -> None:
    """Take the notebooks in, with links from beside the pages."""
    folder = source / "notebooks"
    folder.mkdir(exist_ok=True)
    for path in (source.parent / "notebooks").glob("*.ipynb"):
        text = path.read_text(encoding="utf-8").replace("](../docs/", "](../")
        (folder / path.name).write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Make the pages that are made of something else."""
    _commands(Path(app.srcdir))
    _notebooks(Path(app.srcdir))
