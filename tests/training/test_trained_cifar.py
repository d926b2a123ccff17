"""Small networks that were trained on CIFAR-10: silent is certified, and certified is the integer network."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from pictures import pictures

import lava_casc
from lava_casc.frontend import load_checkpoint
from lava_casc.training import Dataset, evaluate, load_dataset

DATA = Path(__file__).parents[1] / "data"
NETWORKS = ("cifar-resnet20", "cifar-vgg9")
MODES = ("unary", "graded")


@cache
def checkpoint(name):
    return load_checkpoint(DATA / f"{name}.pt")


@cache
def network(name):
    return lava_casc.convert(checkpoint(name))


def cifar() -> Dataset:
    folder = Path(os.environ.get("LAVA_CASC_DATA", "nowhere"))
    if not (folder / "cifar10.npz").is_file() and not (folder / "cifar-10-batches-py").is_dir():
        pytest.skip("LAVA_CASC_DATA does not name a folder with cifar10.npz or cifar-10-batches-py")
    return load_dataset("cifar10", folder)


def check(name, images, mode):
    integers = network(name)
    truth = lava_casc.forward(integers, images)
    record = lava_casc.simulate(integers, images, integers.schedule(mode))
    assert record.certified.all()
    assert record.last_spike.max() <= integers.silence_bound(integers.schedule(mode))
    assert np.array_equal(record.logits, truth.logits)
    assert record.counts.keys() == truth.counts.keys()
    for layer, counts in truth.counts.items():
        assert np.array_equal(record.counts[layer], counts), layer
    assert all(counts.any() for counts in truth.counts.values())  # no layer is dead


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NETWORKS)
def test_pictures_are_certified_and_exact(name, mode):
    check(name, pictures(4, (3, 32, 32)), mode)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_file_gives_the_network_back(name, tmp_path):
    lava_casc.write(tmp_path / "x.net", network(name))
    assert lava_casc.read(tmp_path / "x.net") == network(name)


def test_all_checkpoints_of_the_repository_are_small():
    assert sum(file.stat().st_size for file in DATA.iterdir()) < 2 * 2**20


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NETWORKS)
def test_test_images_are_certified_and_exact(name, mode):
    images = cifar().test_images[:300]
    for start in range(0, len(images), 100):
        check(name, images[start : start + 100], mode)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", NETWORKS)
def test_accuracy_is_what_the_checkpoint_says_and_8_bits_lose_at_most_a_point(name):
    data = cifar()
    in_float = evaluate(checkpoint(name).model, data.test_images, data.test_labels, data.scale)
    assert in_float == pytest.approx(checkpoint(name).about["test_accuracy"], abs=1e-3)  # threads change the last bits
    images, labels = data.test_images[:2000], data.test_labels[:2000]
    in_float = evaluate(checkpoint(name).model, images, labels, data.scale)
    logits = lava_casc.forward(network(name), images).logits
    assert float((logits.argmax(1) == labels).mean()) >= in_float - 0.01
