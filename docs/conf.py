"""The documentation site: `make docs` builds it, without a network, into out/docs."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import typer
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

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
html_use_index = html_domain_indices = False  # the search finds names
smartquotes = False  # options begin with two hyphens
default_role = "py:obj"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the tests execute the notebooks, and hold their outputs to it
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc's parameters say them, with shapes and ranges
numpydoc_show_class_members = False  # autodoc lists them
suppress_warnings = ["myst.xref_missing"]  # links out of docs/, to files of the repository

#: Modules that nobody is meant to import: the command line's, and helpers.
INTERNAL = ("cli", "configs", "console", "demo", "doctor", "files", "linear")


def public_modules() -> list[str]:
    """Return every module or package with a page of its own."""
    found = [module.name for module in iter_modules(lava_casc.__path__) if module.name not in INTERNAL]
    return ["lava_casc", *(f"lava_casc.{name}" for name in found)]


def public_names(module: str) -> dict[str, Any]:
    """Return what a module offers: what is in `__all__`, and without one the functions and classes that it defines."""
    there = importlib.import_module(module)
    if hasattr(there, "__all__"):
        return {name: getattr(there, name) for name in there.__all__ if not inspect.ismodule(getattr(there, name))}
    return {
        name: value
        for name, value in vars(there).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module
    }


def documented_as(module: str, name: str, value: Any) -> str:
    """Return the one name under which something is documented: that of the top level where it has one."""
    return f"lava_casc.{name}" if value is public_names("lava_casc").get(name) else f"{module}.{name}"


def _comment(module: str, name: str) -> list[str]:
    """Return the comment (#:) of a constant, from the module of the package in which it is defined."""
    there = importlib.import_module(module)
    defined = [module, *(f"{module}.{part.name}" for part in iter_modules(getattr(there, "__path__", [])))]
    for candidate in defined:
        comment = ModuleAnalyzer.for_module(candidate).find_attr_docs().get(("", name))
        if comment:
            return comment
    raise ValueError(f"{module}.{name} has no comment that begins with #:")


def _api(source: Path) -> None:
    """Write a page for every module, with all of its public names."""
    folder = source / "api"
    folder.mkdir(exist_ok=True)
    for module in public_modules():
        lines = [f"# {module}", "", "```{eval-rst}", f".. automodule:: {module}", ""]
        elsewhere = []
        for name, value in public_names(module).items():
            path = documented_as(module, name, value)
            if path != f"{module}.{name}":
                elsewhere.append(f":py:obj:`{path}`")
            elif inspect.isclass(value):
                lines += [f".. autoclass:: {path}", "   :members:", ""]
            elif inspect.isfunction(value):
                lines += [f".. autofunction:: {path}", ""]
            else:
                comment = [f"   {line}" for line in _comment(module, name)]
                lines += [f".. py:data:: {name}", f"   :module: {module}", "", *comment]
        if elsewhere:
            lines += ["Also here: " + ", ".join(elsewhere) + ".", ""]
        (folder / f"{module}.md").write_text("\n".join([*lines, "```", ""]), encoding="utf-8")


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


def _no_way_back(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Leave out the links from source to documentation: they are wrong where a name is documented at the top level."""
    if page.startswith("_modules/") and "body" in context:
        context["body"] = re.sub(r'<a class="viewcode-back".*?</a>', "", context["body"])


def setup(app: Sphinx) -> None:
    """Make the pages that are made of something else."""
    app.connect("html-page-context", _no_way_back)
    _api(Path(app.srcdir))
    _commands(Path(app.srcdir))
    _notebooks(Path(app.srcdir))
