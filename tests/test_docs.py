"""Every block of commands and of Python on the README and in docs/ runs, on small stand-ins for the data sets."""

from __future__ import annotations

import html
import importlib.util
import io
import re
import runpy
import shlex
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from csv_folder import make_texts
from rich.console import Console
from voc_folder import make_voc

from lava_casc import console
from lava_casc.cli import main

ROOT = Path(__file__).parents[1]
PAGES = {str(path.relative_to(ROOT)): path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
PAGES.pop("docs/cli.md", None)  # made of the program when the site is built
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```", re.S | re.M)
#: Pages whose blocks need what not every environment has.
LIBRARIES = {"docs/interchange.md": ("onnx", "onnx2torch", "nir")}
HAS_LAVA = importlib.util.find_spec("lava") is not None
HAS_TORCHVISION = importlib.util.find_spec("torchvision") is not None

#: What no test of this file runs, by how it begins, and who does.
ELSEWHERE = {
    "make ": "targets that are there, see below; tests/test_setup.py and tests/test_demo.py run what they call",
    "python benchmarks/large_networks.py": "test_large_networks_as_a_page_has_them, a small one in their place",
    "lava-casc evaluate out/vgg9-L8.pt --data-dir data --slurm": "tests/cluster, on a SLURM of its own",
    "lava-casc submit out/digits.net --data digits --launcher sbatch": "tests/cluster, on a SLURM of its own",
    "lava-casc submit out/digits.net --again": "tests/cluster, after killing a task",
    "lava-casc cancel": "tests/cluster, while it runs: here it would be over by then",
}


def blocks(path):
    return [(kind, text) for kind, text in BLOCK.findall(path.read_text(encoding="utf-8"))]


def commands(text):
    """Return the commands of a block, continued lines put together."""
    lines = [shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines()]
    return [words for words in lines if words]


def with_blocks():
    return [name for name, path in PAGES.items() if blocks(path)]


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory):
    """A folder with what the pages speak of: data sets of a few samples, and networks trained a little."""
    home = tmp_path_factory.mktemp("pages")
    rng = np.random.default_rng(0)
    (home / "data").mkdir()
    labels = np.arange(40, dtype=np.uint8) % 10
    pixels = rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    arrays = {"x_train": pixels[:32], "y_train": labels[:32], "x_test": pixels[32:36], "y_test": labels[32:36]}
    np.savez(home / "data" / "cifar10.npz", **arrays, classes=np.array(list("abcdefghij")))
    if importlib.util.find_spec("PIL"):
        make_voc(home / "BCCD", {"trainval": 2, "test": 2})
        make_photos(home / "photos", rng)
    (home / "ag_news_csv").mkdir()
    make_texts(home / "ag_news_csv")
    (home / "out").mkdir()
    shutil.copy(ROOT / "tests" / "data" / "digits.pt", home / "out" / "digits.pt")
    for name in ("vgg9-L8", "vgg9-L16"):
        shutil.copy(ROOT / "tests" / "data" / "cifar-vgg9.pt", home / "out" / f"{name}.pt")
    shutil.copy(ROOT / "tests" / "data" / "digits.pt", home / "digits.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        call(patch, "export", "digits.pt", "-o", "model.net", "--verify", "1")
        shutil.copy("model.net", "out/digits.net")
        call(patch, "export", "out/vgg9-L8.pt", "-o", "out/vgg9.net", "--verify", "0")
    return home


def make_photos(folder, rng):
    """Write a few pictures of several sizes in folders of classes."""
    from PIL import Image

    for split, count in (("train", 4), ("test", 2)):
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (32 + i, 40 - i, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")


def call(patch, *arguments):
    """Run a command in this process."""
    patch.setattr(sys, "argv", ["lava-casc", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code, arguments


def shortened(words):
    """Return a command as a test has time for: one epoch."""
    words = list(words)
    for option in ("--epochs", "--finetune-epochs"):
        if option in words:
            words[words.index(option) + 1] = "1"
    if words[:2] == ["python", "benchmarks/recurrent.py"]:
        words += ["--samples", "4", "--steps", "2"]
    return words


def run_script(patch, words):
    """Run a script of the repository in this process."""
    patch.setattr(sys, "argv", words[1:])
    with pytest.raises(SystemExit) as ended:
        sys.exit(not runpy.run_path(str(ROOT / words[1]), run_name="__main__"))  # where it does not end by itself
    assert not ended.value.code, words


def needs_torchvision(words):
    return any(word in ("detection", "out/detector.pt") or "photos" in word for word in words)


def needs_lava(words):
    runs = words[1] in ("run", "submit") if words[0] == "lava-casc" else False
    return runs and "reference" not in words and (words[1] == "run" or "--no-dry-run" in words)


@pytest.mark.parametrize("page", with_blocks())
def test_every_block_of_a_page_runs(page, stand_ins, tmp_path, monkeypatch, capsys):
    for library in LIBRARIES.get(page, ()):
        pytest.importorskip(library)
    home = tmp_path / "home"
    shutil.copytree(stand_ins, home)
    (home / "export").symlink_to(ROOT / "export")
    monkeypatch.chdir(home)
    names = {}
    for kind, text in blocks(PAGES[page]):
        if kind == "python":
            if HAS_LAVA or "loihi" not in text:
                exec(compile(text, page, "exec"), names)  # noqa: S102  (our own text)
            continue
        run_commands(monkeypatch, text)


def run_commands(patch, text):
    """Run a block of commands, but for those that others run, or that need what is not there."""
    for words in map(shortened, commands(text)):
        line = shlex.join(words)
        if any(line.startswith(beginning) for beginning in ELSEWHERE) or (needs_lava(words) and not HAS_LAVA):
            continue
        if needs_torchvision(words) and not HAS_TORCHVISION:
            continue
        if words[0] == "python":
            run_script(patch, words)
            continue
        assert words[0] == "lava-casc", f"no test runs {line}"
        if words[1] in ("collect", "jobs") and not HAS_LAVA:
            continue  # of a run that needs Lava
        if words[1] == "collect":
            _wait_for(Path(words[2]))
        call(patch, *words[1:])


#: What the examples of the page of the command line begin with.
BEFORE_THE_EXAMPLES = """
lava-casc train --data cifar10 --data-dir data --activation relu --architecture vgg9 --width 0.25 --epochs 1 -o relu.pt
lava-casc train --task detection --data-dir VOC2007 --image-size 128,160 --epochs 1 -o out/detector.pt
lava-casc evaluate out/vgg9-L8.pt --data-dir data --study out/vgg9-L8 --samples 1 --steps 8
lava-casc evaluate out/vgg9-L16.pt --data-dir data --study out/vgg9-L16 --samples 1 --steps 8
lava-casc submit out/digits.net --data digits --samples 2 --no-dry-run
"""


def test_the_example_of_every_command_runs(stand_ins, tmp_path, monkeypatch, capsys):
    """docs/cli.md is made of the program, and so are its blocks."""
    for library in ("onnx", "onnx2torch", "sphinx", "torchvision"):
        pytest.importorskip(library)
    home = tmp_path / "home"
    shutil.copytree(stand_ins, home)
    (home / "VOC2007").symlink_to(home / "BCCD")
    monkeypatch.chdir(home)
    runpy.run_path(str(ROOT / "docs" / "conf.py"))["_commands"](tmp_path)
    torch.onnx.export(torch.nn.Sequential(torch.nn.Linear(4, 2)), (torch.zeros(1, 4),), "network.onnx")
    run_commands(monkeypatch, BEFORE_THE_EXAMPLES)
    examples = [text for kind, text in blocks(tmp_path / "cli.md") if kind == "console"]
    assert len(examples) > 10
    for text in examples:
        run_commands(monkeypatch, text)


def _wait_for(folder):
    from lava_casc.cluster import missing, open_folder

    for _ in range(240):
        if not missing(open_folder(folder)):
            return
        time.sleep(0.5)
    raise AssertionError(f"{folder}: not done in two minutes")


@pytest.mark.slow
def test_large_networks_as_a_page_has_them(monkeypatch, capfd):
    pytest.importorskip("torchvision")
    texts = [text for kind, text in blocks(PAGES["docs/networks.md"]) if kind == "console"]
    found = [words for text in texts for words in commands(text) if words[1] == "benchmarks/large_networks.py"]
    assert len(found) == 3
    for words in found:
        options = [word for word in words[2:] if word != "vgg16_bn"]
        run_script(monkeypatch, [*words[:2], "resnet18", "--size", "32", *options])
        assert "certified, equal" in capfd.readouterr().out


def test_what_is_run_elsewhere_is_on_a_page():
    texts = [text for path in PAGES.values() for kind, text in blocks(path) if kind == "console"]
    lines = [shlex.join(words) for text in texts for words in commands(text)]
    for beginning in ELSEWHERE:
        assert any(line.startswith(beginning) for line in lines), beginning


def test_every_block_is_of_a_kind_that_is_run():
    for name, path in PAGES.items():
        kinds = set(re.findall(r"^```(\S*)", path.read_text(encoding="utf-8"), re.M)) - {"", "python", "console"}
        # tests/loihi/test_microcode.py runs the program on that page; its other block is a path of yours.
        assert kinds <= {"{toctree}", "{eval-rst}", "{include}"} | ({"text"} if "microcode" in name else set()), name


def test_every_make_target_on_a_page_is_there():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    named = {name for path in PAGES.values() for name in re.findall(r"(?:`|^)make ([a-z-]+)", path.read_text(), re.M)}
    assert {"demo", "test", "docs", "bench", "verify"} <= named <= targets


def test_messages_that_a_page_explains_are_those_of_the_program():
    text = PAGES["docs/troubleshooting.md"].read_text(encoding="utf-8").split("## By what you see")[0]
    messages = re.findall(r"^\| `([^`]+)` \|", text, re.M)
    assert len(messages) > 15
    program = " ".join(path.read_text(encoding="utf-8") for path in (ROOT / "lava_casc").rglob("*.py"))
    assert [message for message in messages if message not in program] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    path = PAGES[page]
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if not link.startswith(("http", "#")):
            assert (path.parent / link.split("#")[0]).exists(), link


def _shown(picture):
    """Return the words of a picture of a terminal."""
    return html.unescape(re.sub(r"<style>.*?</style>|<[^>]+>", " ", picture, flags=re.S)).split()


def test_pictures_of_the_terminal_are_what_it_prints(tmp_path):
    draw = runpy.run_path(str(ROOT / "docs" / "terminal.py"))["draw"]
    for path in draw(tmp_path).values():
        stored = (ROOT / "docs" / "images" / path.name).read_text(encoding="utf-8")
        assert _shown(stored) == _shown(path.read_text(encoding="utf-8")), path.name
        assert "url(" not in stored.replace("url(#", "")  # nothing is fetched


@pytest.mark.parametrize("width", [40, 80, 300])
def test_a_table_that_is_too_wide_loses_no_character(width, monkeypatch):
    screen = Console(width=width, force_terminal=True, color_system=None, file=io.StringIO())
    monkeypatch.setattr(console, "out", screen)
    cells = ["layer", *(f"{1000 + i} of 131072" for i in range(5)), "the remedy in words"]
    console.table("title", [f"c{i}" for i in range(7)], [cells])
    rows = [line.split("\u2502")[1:-1] for line in screen.file.getvalue().splitlines() if "\u2502" in line]
    columns = ["".join(row[i] for row in rows).split() for i in range(7)]
    assert ["".join(column) for column in columns] == ["".join(cell.split()) for cell in cells]
