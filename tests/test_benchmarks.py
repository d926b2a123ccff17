"""The benchmarks run, compare what comes out, and write their page; how long anything takes is tested nowhere."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import lava_casc
from lava_casc.errors import DataError

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "measuring")

Load = Callable[[str], Any]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Import a benchmark as its own script does, and forget it afterwards; on one thread."""
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before, threads = set(sys.modules), torch.get_num_threads()

    def imported(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield imported
    for name in {path.stem for path in FOLDER.glob("*.py")} & (set(sys.modules) - before):
        del sys.modules[name]
    torch.set_num_threads(threads)


def well_formed(rows: list[dict[str, Any]]) -> None:
    assert rows
    assert json.loads(json.dumps(rows)) == rows
    for row in rows:
        assert {"name", "ratio", "bar", "met", "equal", "note"} <= row.keys()
        assert (row["met"] is None) == (row["bar"] is None or row["ratio"] is None), row
        assert (row["equal"] is None) == row["note"].startswith("not run: "), row


@pytest.mark.parametrize("script", SCRIPTS)
def test_importing_does_nothing_and_help_says_how(
    load: Load, script: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if script == "lava_synapses":
        pytest.importorskip("lava")
    threads = torch.get_num_threads()
    benchmark = load(script)
    assert capfd.readouterr() == ("", "")
    assert torch.get_num_threads() == threads
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit, match="^0$"):
        benchmark.main()
    assert f"python benchmarks/{script}.py" in capfd.readouterr().out


def test_everyone_takes_turns(load: Load) -> None:
    said: list[str] = []
    found = load("measuring").medians({"ours": lambda: said.append("ours"), "theirs": lambda: said.append("theirs")}, 3)
    assert said == ["ours", "theirs"] * 3
    assert found.keys() == {"ours", "theirs"}


def test_a_bar_is_met_at_the_ratio_and_only_by_equal_results(load: Load) -> None:
    row = load("measuring").row
    faster = row("x", 2.0, 6.0, least=3)
    assert faster == {
        "name": "x", "ours_ms": 2.0, "theirs_ms": 6.0, "ratio": 3.0, "bar": "at least 3", "met": True, "equal": True,
        "note": "",
    }  # fmt: skip
    assert row("x", 2.0, 5.9, least=3)["met"] is False
    slower = row("x", 3.0, 2.0, unit="s", most=1.5)
    assert (slower["ratio"], slower["met"], slower["ours_s"]) == (1.5, True, 3.0)
    assert row("x", 3.1, 2.0, most=1.5)["met"] is False
    differs = row("x", 1.0, 9.0, least=3, equal=False, note="why")
    assert (differs["met"], differs["equal"], differs["note"]) == (False, False, "THE RESULTS DIFFER. why")
    assert row("x", 1.0, 4.0, part=True)["ratio"] == 0.25
    assert row("x", 1.0)["ratio"] is None


def test_the_floor_is_the_convolutions(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    measuring = load("measuring")
    model = measuring.vgg16(quick=True)
    floor = measuring.Floor(model, measuring.real(measuring.images(2)))
    shapes: list[tuple[int, ...]] = []
    convolve = torch.nn.functional.conv2d
    monkeypatch.setattr(
        torch.nn.functional, "conv2d", lambda x, *rest: (shapes.append(tuple(x.shape)), convolve(x, *rest))[1]
    )
    floor.run()
    channels, sizes = (3, 4, 4, 8, 8, 16, 16, 16, 32, 32, 32, 32, 32), (32, 32, 16, 16, 8, 8, 8, 4, 4, 4, 2, 2, 2)
    assert shapes == [(2, c, size, size) for c, size in zip(channels, sizes, strict=True)]
    assert floor.label.endswith("1 thread")


def test_the_network_is_awake_in_every_layer(load: Load) -> None:
    measuring = load("measuring")
    network = lava_casc.convert(measuring.vgg16(quick=True), (3, 32, 32))
    counts = lava_casc.forward(network, measuring.images(2)).counts
    assert len(counts) == 13
    assert all(count.any() for count in counts.values())


@pytest.mark.lava
def test_engines_agree(load: Load) -> None:
    rows = load("engines").measure(quick=True)
    well_formed(rows)
    assert all(row["equal"] for row in rows)
    assert [row["bar"] for row in rows] == [*["at most 1.5", "at most 1", None] * 2, "at least 20"]
    mean = rows[2]
    assert len(mean["steps_ms"]) == len(mean["activity"]) > 20
    assert max(mean["activity"]) > 0.25 > min(mean["activity"])


def test_engines_without_lava_say_so(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    engines = load("engines")
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    rows = engines.measure(quick=True)
    well_formed(rows)
    assert [row["note"] for row in rows if row["equal"] is None] == ["not run: Lava is not installed"] * 2


def test_simulator_agrees_and_names_absent_peers(load: Load, tmp_path: Path) -> None:
    simulator = load("simulator")
    rows = simulator.measure(quick=True, casc=tmp_path)
    well_formed(rows)
    assert not [row["name"] for row in rows if row["equal"] is False]
    by_name = {row["name"]: row for row in rows}
    assert by_name[simulator.CASC]["note"] == f"not run: {tmp_path} holds no checkout of github.com/Brain-Cog-Lab/casc"
    assert by_name[simulator.CASC]["bar"] == "at least 3"
    assert sum(row["equal"] is True for row in rows) >= 5


def test_wrong_answers_are_found(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    simulator, measuring = load("simulator"), load("measuring")
    network = lava_casc.convert(measuring.vgg16(quick=True), (3, 32, 32))
    samples = measuring.images(2)
    wrong = lava_casc.forward(network, samples).logits + 1
    rows = simulator.ways(network, samples, network.schedule(), wrong, 1, 1)
    assert rows
    assert all(row["equal"] is False and row["note"].startswith("THE RESULTS DIFFER") for row in rows)


def test_wrong_steps_are_found(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    engines, forward = load("engines"), lava_casc.forward

    def off_by_one(*given: Any) -> Any:
        truth = forward(*given)
        return dataclasses.replace(truth, logits=truth.logits + 1)

    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    monkeypatch.setattr(lava_casc, "forward", off_by_one)
    rows = [row for row in engines.against_floor(True, 1) if row["equal"] is not None]
    assert rows
    assert all(row["equal"] is False and not row["met"] for row in rows)


def test_all_weights_are_copied(load: Load) -> None:
    simulator, measuring = load("simulator"), load("measuring")
    model, other = measuring.vgg16(quick=True), lava_casc.training.build("vgg16", width=1 / 16, seed=1).eval()
    x = measuring.real(measuring.images(2))
    plain = simulator._with_relu(model)
    other = simulator._with_relu(other)
    assert not torch.equal(plain(x), other(x))
    simulator._copy(plain, other)
    assert torch.equal(plain(x), other(x))


def test_run_writes_table_picture_and_page(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    run = load("run")
    page, results = tmp_path / "page.md", tmp_path / "bench.json"
    (tmp_path / "images").mkdir()
    page.write_text(f"before\n{run.BEGIN}\nold\n{run.END}\nafter\n")
    given = ["run", "--quick", "--only", "growth", "--json", str(results), "--page", str(page)]
    monkeypatch.setattr(sys, "argv", given)
    with pytest.raises(SystemExit, match="^False$"):
        run.main()
    text = page.read_text()
    assert text.startswith(f"before\n{run.BEGIN}\n\n![")
    assert text.endswith(f"\n\n{run.END}\nafter\n")
    assert "old" not in text
    assert "torch" in text
    assert "NOT A MEASUREMENT --quick" in text
    assert (tmp_path / run.PICTURE).read_bytes().startswith(b"\x89PNG")
    found = json.loads(results.read_text())
    assert {row["panel"] for row in found["results"]["growth"]} == {"batch", "depth", "levels", "steps"}
    assert all(row["equal"] and row["reference_ms"] > 0 for row in found["results"]["growth"])


@pytest.mark.parametrize("page", ["nothing", "{begin}", "{end}{begin}", "{begin}{end}{end}", "{begin}{begin}{end}"])
def test_a_page_without_its_markers_is_refused_before_any_work(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    run, path = load("run"), tmp_path / "page.md"
    text = page.format(begin=run.BEGIN, end=run.END)
    path.write_text(text)
    monkeypatch.setattr(run, "run", lambda *_: pytest.fail("it ran"))
    monkeypatch.setattr(sys, "argv", ["run", "--page", str(path)])
    with pytest.raises(DataError, match="it has to hold .* each once"):
        run.main()
    assert path.read_text() == text


def test_rows_of_all_scripts_become_one_table(load: Load) -> None:
    run, row = load("run"), load("measuring").row
    synapse = {"case": "conv", "part": "circuit", "stock_ms": 20.0, "ours_ms": 2.0, "ratio": 10.0, "bar": 12}
    synapse |= {"met": False, "equal": True, "messages_ms": 1.0, "limit": 20.4}
    start = {"name": "help", "seconds": 0.4, "cpu_seconds": 0.3, "peak_gib": 0.5, "bar": "0.5 s", "met": True}
    ours = row("a|b", 1500.0, 3000.0, least=2, note="n")
    assert run.lines("synapses", [synapse]) == [
        ["conv, circuit", "2 ms", "20 ms", "10", "at least 12", "NOT MET", "a synapse that computes nothing: 20"]
    ]
    assert run.lines("export", [start]) == [["help", "0.4 s", "", "", "0.5 s", "met", "0.50 GiB at most"]]
    assert run.lines("growth", [ours]) == []
    text = run.markdown({"engines": [ours]}, {"cores": "2"}, 1.0)
    assert "| a\\|b | 1500 ms | 3000 ms | 2 | at least 2 | met | n |" in text
    assert text.endswith("Measured in one run of 1 s: cores 2.")


def test_a_script_that_fails_is_a_row(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = load("run")
    monkeypatch.setattr(run, "HERE", tmp_path)
    (tmp_path / "broken.py").write_text("raise SystemExit(3)")
    (row,) = run.run("broken.py", [], run.options().parse_args([]))
    assert (row["note"], row["equal"]) == ("not run: ended with exit code 3", False)


def test_the_page_has_its_markers_and_is_linked(load: Load) -> None:
    run, page = load("run"), FOLDER.parent / "docs" / "performance.md"
    assert run.replaced(page.read_text(encoding="utf-8"), "x").count("x") > 0
    assert "docs/performance.md" in (FOLDER.parent / "README.md").read_text(encoding="utf-8")


def test_make_bench_runs_everything() -> None:
    told = subprocess.run(
        ["make", "-n", "bench", "BENCH=--quick"], cwd=FOLDER.parent, capture_output=True, text=True, env=os.environ
    )
    assert "benchmarks/run.py --json out/bench.json --quick" in told.stdout
