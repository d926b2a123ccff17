"""Texts on the command line: train, export, run and evaluate, and what each refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
from csv_folder import make_texts
from typer.testing import CliRunner

from lava_casc import cli
from lava_casc.frontend import load_checkpoint
from lava_casc.text import encoding_of, read_texts


def casc(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments], catch_exceptions=False)


def done(*arguments):
    found = casc(*arguments)
    assert found.exit_code == 0, found.output
    return found


def refused(*arguments):
    """Return the one line that a command says when it refuses."""
    found = casc(*arguments)
    assert found.exit_code == 2, found.output
    return [line for line in found.output.splitlines() if line.startswith("error: ")][-1]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder of texts with a trained classifier of them, ``news.pt`` and ``news.net``."""
    pytest.importorskip("h5py")
    folder = make_texts(tmp_path_factory.mktemp("news"))
    options = ("--words", 7, "--vocabulary", 15, "--levels", 4, "--epochs", 12, "--batch-size", 8)
    found = done("train", "--task", "text", "--data-dir", folder, *options, "-o", folder / "news.pt")
    assert "% of 30 test texts right, in float with CQReLU of 4 levels" in found.output
    assert "epoch 12/12: loss" in found.output
    done("export", folder / "news.pt", "-o", folder / "news.net", "--verify", 8)
    return folder


def test_options_reach_the_network(home):
    checkpoint = load_checkpoint(home / "news.pt")
    assert checkpoint.input.shape == (7,)
    assert checkpoint.graph.vocabulary == 15
    assert {op.arguments["levels"] for op in checkpoint.graph.operations if "levels" in op.arguments} == {4}


@pytest.mark.parametrize("mode", ["unary", "graded"])
def test_the_test_texts_are_run(home, mode, tmp_path):
    texts = ("--model", home / "news.pt", "--data-dir", home)
    output = ("-o", tmp_path / "run.json", "--engine", "reference", "--mode", mode)
    done("run", home / "news.net", *texts, *output)
    found = json.loads((tmp_path / "run.json").read_text())
    assert (found["samples"], found["certified_samples"], found["mismatched_logits"]) == (30, 30, 0)
    assert found["accuracy"] == found["integer_accuracy"] > 0.7
    encoding = encoding_of(load_checkpoint(home / "news.pt").about)
    np.save(tmp_path / "tokens.npy", encoding.encode(read_texts(home, "test", encoding.classes).texts)[:9])
    done("run", home / "news.net", "--images", tmp_path / "tokens.npy", *output)
    few = json.loads((tmp_path / "run.json").read_text())
    assert (few["samples"], few["accuracy"], few["logits"]) == (9, None, found["logits"][:9])


def test_a_run_draws_the_first_word(home, tmp_path):
    pytest.importorskip("matplotlib")
    texts = ("--model", home / "news.pt", "--data-dir", home, "--samples", 2, "--engine", "reference")
    done("run", home / "news.net", *texts, "--picture", tmp_path / "run.png")
    assert (tmp_path / "run.png").stat().st_size > 10_000


@pytest.mark.parametrize("given", [False, True])
def test_the_three_forms_are_scored(home, given, tmp_path):
    network = ("--network", home / "news.net") if given else ()
    done("evaluate", home / "news.pt", "--data-dir", home, *network, "-o", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    about = load_checkpoint(home / "news.pt").about
    assert found["scores"]["float"] == {"accuracy": about["test_accuracy"]}
    assert found["scores"]["spikes"] == found["scores"]["integer"]
    assert (found["certified_samples"], found["mismatched_outputs"], found["samples"]) == (30, 0, 30)
    done("evaluate", home / "news.pt", "--data-dir", home, "--split", "train", "--samples", 5, "--sleep-steps", 0)


@pytest.mark.lava
def test_both_engines_of_lava_give_what_the_reference_gives(home, tmp_path):
    texts = ("--data-dir", home, "--samples", 5)
    found = {}
    for engine in ("reference", "fused", "graph"):
        options = (*texts, "--engine", engine, "-o", tmp_path / "found.json")
        done("run", home / "news.net", "--model", home / "news.pt", *options)
        ran = json.loads((tmp_path / "found.json").read_text())
        done("evaluate", home / "news.pt", "--network", home / "news.net", *options)
        scored = json.loads((tmp_path / "found.json").read_text())
        assert scored["engine"] == engine
        assert (scored["certified_samples"], scored["mismatched_outputs"], scored["samples"]) == (5, 0, 5)
        assert (ran["certified_samples"], ran["mismatched_logits"]) == (5, 0)
        found[engine] = (
            *(ran[key] for key in ("logits", "certified", "last_spike", "accuracy")),
            *(scored[key] for key in ("scores", "certified", "last_spike")),
        )
    assert found["reference"] == found["fused"] == found["graph"]


def test_wrong_options_are_one_line(home, tmp_path):
    train = ("train", "-o", tmp_path / "x.pt", "--task", "text")
    assert "text needs --data-dir FOLDER with train.csv and test.csv" in refused(*train)
    assert "--image-size is no option of --task text. Leave it out" in refused(*train, "--image-size", 8)
    assert "--data is no option of --task text" in refused(*train, "--data", "digits")
    assert "--words is no option of --task classification" in refused("train", "-o", tmp_path / "x.pt", "--words", 3)
    line = refused("train", "-o", tmp_path / "x.pt", "--task", "detection", "--vocabulary", 3)
    assert "--vocabulary is no option of --task detection" in line
    line = "--model is for texts: give --data-dir FOLDER with test.csv, and neither --data nor --images"
    run = ("run", home / "news.net", "--engine", "reference", "--model", home / "news.pt")
    for more in ((), ("--data-dir", home, "--data", "digits"), ("--data-dir", home, "--images", "x.npy")):
        assert line in refused(*run, *more)
    line = "news.pt: a classifier of texts. Give --data-dir FOLDER with test.csv, and no --data"
    assert line in refused("evaluate", home / "news.pt")
    assert line in refused("evaluate", home / "news.pt", "--data-dir", home, "--data", "digits")
    assert list(tmp_path.iterdir()) == []


def test_damaged_folders_and_foreign_networks_are_named(home, tmp_path):
    evaluate = ("evaluate", home / "news.pt", "--data-dir", tmp_path)
    assert "test.csv: no such file. Give --data-dir a folder with" in refused(*evaluate)
    (tmp_path / "test.csv").write_text("1,a,b\n4,a,b\n")
    assert "test.csv, line 2: class 4 is none of 1 .. 3" in refused(*evaluate)
    train = ("train", "--task", "text", "--data-dir", tmp_path, "-o", tmp_path / "x.pt")
    assert "train.csv: no such file" in refused(*train)
    np.save(tmp_path / "tokens.npy", np.full((2, 7), 15))
    run = ("run", home / "news.net", "--engine", "reference", "--images", tmp_path / "tokens.npy")
    assert "input: tokens span [15, 15], outside the vocabulary [0, 14]" in refused(*run)
    small = ("--words", 7, "--vocabulary", 14, "--epochs", 1)
    done("train", "--task", "text", "--data-dir", home, *small, "-o", tmp_path / "other.pt")
    line = refused("evaluate", tmp_path / "other.pt", "--network", home / "news.net", "--data-dir", home)
    assert "news.net: its input is not that of the checkpoint. Export the checkpoint again" in line
