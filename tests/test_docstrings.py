"""Every public docstring says all parameters, in their order, and what is returned, by numpydoc's own validator."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import runpy
from pathlib import Path

import pytest

if any(importlib.util.find_spec(name) is None for name in ("numpydoc", "sphinx", "lava")):
    pytest.skip("the site's tools and Lava are not all installed", allow_module_level=True)

from numpydoc.docscrape import get_doc_object
from numpydoc.validate import Validator, validate

CONF = runpy.run_path(str(Path(__file__).parents[1] / "docs" / "conf.py"))

#: What is held: a summary, parameters (all, none unknown, in order, none without a name), and what is returned.
CODES = {"GL08", "SS01", "SS05", "PR01", "PR02", "PR03", "RT01", "RT02", "YD01"}


class Ours(Validator):
    """A validator to which the fields of a record are its parameters, and a Lava process is made by its `__init__`."""

    def __init__(self, value):
        super().__init__(get_doc_object(value))

    @property
    def doc_all_parameters(self):
        found = self._doc_parameters(["Parameters", "Other Parameters"])
        if inspect.isclass(self.obj):
            attributes = self._doc_parameters(["Attributes"])
            # Fields that belong together are described together, in whatever order they were added.
            found.update((name, attributes[name]) for name in self.signature_parameters if name in attributes)
        return found

    @property
    def signature_parameters(self):
        if not inspect.isclass(self.obj):
            return super().signature_parameters
        if dataclasses.is_dataclass(self.obj):
            return tuple(field.name for field in dataclasses.fields(self.obj))
        if hasattr(self.obj, "model_fields"):
            return tuple(self.obj.model_fields)
        if (
            self.obj.__init__ is object.__init__
            or issubclass(self.obj, Exception)
            or vars(self.obj).get("_is_protocol")
        ):
            return ()
        return tuple(name for name in inspect.signature(self.obj.__init__).parameters if name != "self")


def public():
    """Return what is documented, by where it is documented: functions, classes, and the methods of these."""
    found = {}
    for module in CONF["public_modules"]():
        for name, value in CONF["public_names"](module).items():
            if not (inspect.isclass(value) or inspect.isfunction(value)):
                continue
            path = CONF["documented_as"](module, name, value)
            found[path] = value
            if inspect.isclass(value):
                methods = {n: m for n, m in vars(value).items() if not n.startswith("_") and inspect.isfunction(m)}
                found.update((f"{path}.{n}", method) for n, method in methods.items())
    return found


def complaints(value):
    errors = validate(None, validator_cls=lambda obj_name: Ours(value))["errors"]
    return [f"{code}: {message}" for code, message in errors if code in CODES]


def test_public_docstrings_say_parameters_and_returns():
    found = public()
    assert len(found) > 200
    wrong = {path: said for path, value in found.items() if (said := complaints(value))}
    assert not wrong, "\n".join(f"{path}: {said}" for path, said in wrong.items())
