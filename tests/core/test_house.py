"""The house: imports go downwards only, dependencies stay in their rooms, and the package keeps quiet."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lava_casc

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "lava_casc"

#: The floor of every module and subpackage. Imports go to a lower floor, or stay on a shared one.
FLOORS = {
    "configs": 0, "errors": 0, "files": 0, "integer": 0,
    "energy": 1, "hardware": 1, "schedule": 1,
    "network": 2, "linear": 2, "ranges": 2, "record": 2, "dynamics": 2,
    "frontend": 3, "reference": 3, "netx": 3, "loihi": 3, "mapping": 3, "report": 3,
    "cluster": 4, "interchange": 4, "pipeline": 4, "training": 4, "evaluation": 4, "study": 4,
    "baselines": 5, "detection": 5, "text": 5,
    "cli": 6, "console": 6, "demo": 6, "doctor": 6,
}  # fmt: skip

#: Floors on which the rooms know each other. Those on floor 3 must not: their equality is to prove something.
SHARED = {0, 2, 6}

#: Who may import what is neither the standard library nor NumPy.
ROOMS = {
    "h5py": {"netx"},
    "lava": {"loihi"},
    "matplotlib": {"report"},
    "jinja2": {"report"},
    "markupsafe": {"report"},
    "nir": {"interchange"},
    "onnx": {"interchange"},
    "onnx2torch": {"interchange"},
    "pydantic": {"energy", "hardware"},
    "PIL": {"detection"},
    "rich": {"console"},
    "sklearn": {"training"},
    "threadpoolctl": {"loihi"},
    "tomli": {"configs"},
    "tomllib": {"configs"},  # Python 3.11 and later
    "torch": {
        "baselines",
        "dynamics",
        "linear",
        "ranges",
        "reference",
        "frontend",
        "interchange",
        "training",
        "pipeline",
        "study",
        "evaluation",
        "detection",
        "text",
        "demo",
        "doctor",
    },
    "torchmetrics": {"detection"},
    "torchvision": {"training", "detection"},
    "typer": {"cli", "demo"},
}

FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
NAMES = {path: str(path.relative_to(PACKAGE).as_posix()) for path in FILES}


def _room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(tree):
    """Yield the dotted name of everything that a module imports, also where it does so late or for types alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "lava_casc":
            # `lava_casc.simulate` loads a module, too.
            yield f"lava_casc.{node.attr}"


def _rooms_entered(tree):
    """Yield the rooms of this package that a module imports from; its version and its file belong to none."""
    for name in _imports(tree):
        top, *rest = name.split(".")
        if top == "lava_casc" and rest and not rest[0].startswith("__"):
            yield lava_casc._WHERE.get(rest[0], name).split(".")[1]


def _climbs(room, tree):
    """Return the imports of a module in `room` that the floors forbid."""
    floor = FLOORS[room]
    return [
        other
        for other in _rooms_entered(tree)
        if other != room and not (FLOORS[other] < floor or (FLOORS[other] == floor and floor in SHARED))
    ]


@pytest.mark.parametrize("path", FILES, ids=NAMES.get)
def test_imports_go_downwards_only(path):
    if path != PACKAGE / "__init__.py":
        assert _room(path) in FLOORS, "give the new module a floor in this table"
        assert _climbs(_room(path), TREES[path]) == []


@pytest.mark.parametrize("path", FILES, ids=NAMES.get)
def test_dependencies_stay_in_their_rooms(path):
    allowed = {*sys.stdlib_module_names, "numpy", "lava_casc"}
    for top in {name.split(".")[0] for name in _imports(TREES[path])} - allowed:
        assert _room(path) in ROOMS.get(top, set()), f"{top} must not be imported here"


@pytest.mark.parametrize(
    ("room", "source", "forbidden"),
    [
        ("reference", "from lava_casc.loihi import run", ["loihi"]),
        ("loihi", "from lava_casc import reference", ["reference"]),
        ("netx", "import lava_casc\nlava_casc.simulate", ["reference"]),
        ("integer", "def f():\n    from lava_casc.network import Conv", ["network"]),
        ("network", "import lava_casc.ranges\nfrom lava_casc.pipeline import convert", ["pipeline"]),
        ("hardware", "from lava_casc.schedule import LayerTiming", ["schedule"]),
        ("training", "import lava_casc.pipeline", ["pipeline"]),
        ("pipeline", "from lava_casc import __version__, reference", []),
    ],
)
def test_the_walk_sees_what_it_should(room, source, forbidden):
    assert _climbs(room, ast.parse(source)) == forbidden


def test_every_floor_is_in_use():
    assert set(FLOORS) == {_room(path) for path in FILES} - {"__init__"}


def test_the_core_below_the_linear_algebra_needs_no_torch():
    assert not ROOMS["torch"] & {"errors", "files", "integer", "hardware", "schedule", "network", "record", "netx"}


@pytest.mark.parametrize("path", FILES, ids=NAMES.get)
def test_nothing_is_printed(path):
    calls = [node for node in ast.walk(TREES[path]) if isinstance(node, ast.Call)]
    assert not [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


@pytest.mark.parametrize("path", FILES, ids=NAMES.get)
def test_no_check_is_left_to_an_assert_and_nothing_is_swallowed(path):
    nodes = list(ast.walk(TREES[path]))
    checks = [n for n in nodes if isinstance(n, ast.Assert) and "is not None" not in ast.unparse(n)]
    assert not [n.lineno for n in checks], "asserts vanish with -O; they are for the type checker alone"
    assert not [n.lineno for n in nodes if isinstance(n, ast.ExceptHandler) and n.type is None]


def _public(body, prefix=""):
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield f"{prefix}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from _public(node.body, f"{node.name}.")


@pytest.mark.parametrize("path", FILES, ids=NAMES.get)
def test_everything_public_says_what_it_is(path):
    if path.stat().st_size:
        assert ast.get_docstring(TREES[path]), "the module"
    assert [name for name, node in _public(TREES[path].body) if not ast.get_docstring(node)] == []


BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Block())
"""
HEAVY = ("lava", "h5py", "matplotlib", "pydantic", "torchvision", "torchmetrics", "PIL", "sklearn", "typer", "rich")


def _fresh(code, blocked=()):
    code = BLOCK.format(blocked=blocked) + code
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    return found.stdout.split()


def test_importing_the_package_loads_nothing_heavy():
    loaded = _fresh("import lava_casc; print(*{name.split('.')[0] for name in sys.modules})")
    assert not {*HEAVY, "torch"} & set(loaded)


def test_the_package_imports_where_nothing_heavy_is_installed():
    code = "import lava_casc; print(lava_casc.__version__, lava_casc.WakeSleepSchedule(1, 2).period)"
    assert _fresh(code, blocked=HEAVY) == [lava_casc.__version__, "3"]


def test_the_reference_runs_on_numpy_and_torch_alone():
    code = """
import numpy as np, lava_casc
from lava_casc.network import Dense, Input, Readout
read = Readout("r", (Dense("i", np.array([[2]], np.int32)),), np.array([1]))
network = lava_casc.IntegerNetwork((Input("i", (1,), 0, 3), read))
record = lava_casc.simulate(network, [[3]])
print(record.logits.item(), lava_casc.forward(network, [[3]]).logits.item(), record.all_certified)
"""
    assert _fresh(code, blocked=HEAVY) == ["7", "7", "True"]


def test_every_name_of_the_package_is_there():
    names = set(lava_casc.__all__) - {"loihi"}
    assert all(getattr(lava_casc, name).__name__ == name for name in names)
    assert set(lava_casc.__all__) <= set(dir(lava_casc))
    with pytest.raises(AttributeError, match="module 'lava_casc' has no attribute 'nothing'"):
        _ = lava_casc.nothing


def test_every_error_of_the_user_is_a_casc_error():
    from lava_casc import errors

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert len(kinds) > 5
    assert all(issubclass(kind, errors.CascError) for kind in kinds)
    assert str(errors.exceeds("conv1", "a weight", 9, "the limit", 8, "Use less")) == (
        "conv1: a weight (9) exceeds the limit (8). Use less."
    )
