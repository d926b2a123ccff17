"""A classifier of texts from CSV files to certified spikes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from csv_folder import make_texts

from lava_casc.errors import CheckpointError, DataError
from lava_casc.frontend import load_checkpoint
from lava_casc.network import Tokens
from lava_casc.pipeline import Options, convert_checkpoint
from lava_casc.reference import forward, simulate
from lava_casc.text import TASK, TextClassifier, classify, encoding_of, read_texts, train_text
from lava_casc.text.train import WORD_DROPOUT, batches

SMALL = {"length": 8, "embedding": 8, "hidden": 12, "epochs": 8, "batch_size": 8, "learning_rate": 0.02}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = make_texts(tmp_path_factory.mktemp("texts"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    path = folder / "model.pt"
    result = train_text(path, folder, layers=2, **SMALL)
    torch.set_num_threads(threads)
    return folder, path, result


def test_a_training_learns_and_writes_what_it_takes_to_read_texts(trained):
    folder, path, result = trained
    assert result.accuracy > 0.9
    assert (result.texts, len(result.history)) == (30, 8)
    assert result.history[-1].loss < result.history[0].loss
    checkpoint = load_checkpoint(path)
    encoding = encoding_of(checkpoint.about)
    assert (encoding.length, encoding.classes) == (8, ("1", "2", "3"))
    assert len(encoding.words) == 2 + 9 + 7
    assert (checkpoint.about["task"], checkpoint.about["layers"]) == (TASK, 2)
    test = read_texts(folder, "test", encoding.classes)
    found = classify(checkpoint.model, encoding.encode(test.texts))
    assert (found == test.labels).mean() == result.accuracy == checkpoint.about["test_accuracy"]
    assert checkpoint.examples.shape == (64, 8)
    assert not path.with_name("model.pt.partial").exists()


def test_the_trained_network_is_exact_in_spikes(trained):
    folder, path, _ = trained
    checkpoint = load_checkpoint(path)
    conversion = convert_checkpoint(checkpoint, Options(verify=16))
    assert conversion.verification.certified == conversion.verification.samples
    network, encoding = conversion.network, encoding_of(checkpoint.about)
    assert network.input == Tokens("input", len(encoding.words))
    test = read_texts(folder, "test", encoding.classes)
    tokens = encoding.encode(test.texts)
    truth = forward(network, tokens)
    for mode in ("unary", "graded"):
        record = simulate(network, tokens, network.schedule(mode))
        assert record.phases_certified.shape == (30, 8)
        assert record.phases_certified.all()
        assert np.array_equal(record.logits, truth.logits)
        assert all(np.array_equal(record.counts[name], counts) for name, counts in truth.counts.items())
    assert (truth.logits.argmax(1) == test.labels).mean() > 0.9
    last = truth.counts["recurrent.1"]
    assert (last[:, 1:] != last[:, :-1]).any()
    assert len(set(last.ravel())) > 4


def test_the_same_seed_gives_the_same_network(tmp_path):
    folder = make_texts(tmp_path, train=24)
    settings = {**SMALL, "epochs": 2}
    state = torch.random.get_rng_state()
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        train_text(tmp_path / name, folder, seed=seed, **settings)
    assert torch.equal(torch.random.get_rng_state(), state)
    a, b, c = (load_checkpoint(tmp_path / name).model.state_dict() for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


def test_a_training_that_was_cut_short_goes_on(tmp_path):
    folder, settings = make_texts(tmp_path, train=24), {**SMALL, "epochs": 3}
    train_text(tmp_path / "whole.pt", folder, **settings)

    def stop(done, epochs, epoch):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_text(tmp_path / "cut.pt", folder, **settings, on_epoch=stop)
    with pytest.raises(CheckpointError, match=r"cut.pt.partial: holds a training that was cut short"):
        train_text(tmp_path / "cut.pt", folder, **settings)
    with pytest.raises(CheckpointError, match=r"cut.pt.partial: holds a training with hidden 12, which cannot go on"):
        train_text(tmp_path / "cut.pt", folder, **{**settings, "hidden": 13}, resume=True)
    train_text(tmp_path / "cut.pt", folder, **settings, resume=True)
    whole, cut = (load_checkpoint(tmp_path / name).model.state_dict() for name in ("whole.pt", "cut.pt"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_words_are_dropped_but_padding_is_not():
    torch.manual_seed(0)
    tokens = torch.full((400, 10), 5)
    tokens[:, 6:] = 0
    found = list(batches(tokens, torch.arange(400), 64))
    assert [len(labels) for _, labels in found] == [64] * 6 + [16]
    texts = torch.cat([texts for texts, _ in found])
    assert sorted(torch.cat([labels for _, labels in found]).tolist()) == list(range(400))
    assert (texts[:, 6:] == 0).all()
    assert set(texts[:, :6].unique().tolist()) == {1, 5}
    assert abs((texts[:, :6] == 1).float().mean() - WORD_DROPOUT) < 0.05


def test_a_folder_is_checked_before_anything_is_trained(tmp_path):
    make_texts(tmp_path, train=6)
    (tmp_path / "test.csv").write_text("7,a,b\n")
    with pytest.raises(DataError, match=r"test.csv, line 1: class 7 is none of 1 .. 3"):
        train_text(tmp_path / "model.pt", tmp_path, **SMALL)
    assert not list(tmp_path.glob("model*"))


def test_the_network_is_what_it_is_said_to_be():
    model = TextClassifier(9, 4, embedding=3, hidden=5, layers=2, levels=7, rounding="floor").eval()
    assert model(torch.zeros(2, 6, dtype=torch.int64)).shape == (2, 4)
    assert [(m.input_size, m.hidden_size, m.levels, m.rounding, m.learnable) for m in model.recurrent] == [
        (3, 5, 7, "floor", True), (5, 5, 7, "floor", True),
    ]  # fmt: skip
    assert not model.embedding.weight[0].any()
