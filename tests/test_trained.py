"""The spine: trained networks, real images, every form of the network equal to every other, on every neuron.

integer forward pass == reference simulator at silence == Lava in fixed point == the network read back from its file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import pictures

import lava_casc
from lava_casc.frontend import load_checkpoint
from lava_casc.network import IntegerNetwork, MaxPool
from lava_casc.record import SpikeRecord
from lava_casc.reference.forward import Activations

DATA = Path(__file__).parent / "data"
MODES = ("unary", "graded")


@dataclass(frozen=True, eq=False)
class Case:
    """A trained network and images for it, with the truth about them."""

    network: IntegerNetwork
    images: NDArray
    truth: Activations


def case(name: str, images: NDArray | None = None) -> Case:
    checkpoint = load_checkpoint(DATA / f"{name}.pt")
    network = lava_casc.convert(checkpoint)
    images = pictures(16, network.input.shape, network.input.high) if images is None else images
    return Case(network, images, lava_casc.forward(network, images))


def every_digit() -> NDArray:
    datasets = pytest.importorskip("sklearn.datasets")
    return datasets.load_digits().images.astype(np.uint8)[:, None]


def fashion_images() -> NDArray:
    folder = os.environ.get("LAVA_CASC_DATA")
    if not folder:
        pytest.skip("LAVA_CASC_DATA does not name a folder with FashionMNIST/raw")
    from lava_casc.training import load_dataset

    return load_dataset("fashion-mnist", folder).test_images[:1000]


def check(case: Case, record: SpikeRecord, mode: str) -> None:
    """Check that every sample is certified within the bound and equals the integer network in every neuron."""
    assert record.certified.all()
    assert record.last_spike.max() <= case.network.silence_bound(case.network.schedule(mode))
    assert np.array_equal(record.logits, case.truth.logits)
    assert record.counts.keys() == case.truth.counts.keys()
    for name, counts in case.truth.counts.items():
        assert np.array_equal(record.counts[name], counts), name


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["digits", "fashion"])
def test_reference_equals_the_integer_network(name: str, mode: str) -> None:
    found = case(name)
    check(found, lava_casc.simulate(found.network, found.images, found.network.schedule(mode)), mode)


@pytest.mark.parametrize("name", ["digits", "fashion"])
def test_the_file_gives_the_network_back(name: str, tmp_path: Path) -> None:
    network = case(name).network
    lava_casc.write(tmp_path / "x.net", network)
    assert lava_casc.read(tmp_path / "x.net") == network


def test_the_networks_hold_the_whole_mathematics() -> None:
    for name in ("digits", "fashion"):
        network = case(name).network
        assert any(isinstance(layer, MaxPool) for layer in network)
        assert any(len(layer.sources) > 1 for layer in network)
        assert not network.is_sequential


def test_the_demos_network_loses_at_most_half_a_point_to_8_bits() -> None:
    pytest.importorskip("sklearn")
    from lava_casc.training import evaluate, load_dataset

    checkpoint, dataset = load_checkpoint(DATA / "digits.pt"), load_dataset("digits")
    in_float = evaluate(checkpoint.model, dataset.test_images, dataset.test_labels, dataset.scale)
    logits = lava_casc.forward(lava_casc.convert(checkpoint), dataset.test_images).logits
    assert in_float > 0.98
    assert float((logits.argmax(1) == dataset.test_labels).mean()) >= in_float - 0.005


#: Both engines of Lava, and what they call themselves.
ENGINES = [("fused", "lava fused fixed_pt"), ("graph", "lava fixed_pt")]


@pytest.mark.lava
@pytest.mark.parametrize(("engine", "called"), ENGINES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["digits", "fashion"])
def test_lava_equals_the_reference_spike_by_spike(name: str, mode: str, engine: str, called: str) -> None:
    found = case(name)
    images, schedule = found.images[:4], found.network.schedule(mode)
    reference = lava_casc.simulate(found.network, images, schedule, record=("counts", "spikes"))
    record = lava_casc.loihi.run(found.network, images, schedule, record=("counts", "spikes"), engine=engine)
    check(Case(found.network, images, lava_casc.forward(found.network, images)), record, mode)
    assert record.engine == called
    assert reference.spikes.keys() == record.spikes.keys()
    for layer, spikes in reference.spikes.items():
        assert np.array_equal(record.spikes[layer], spikes), layer
    assert np.array_equal(record.last_spike, reference.last_spike)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("name", "images"), [("digits", every_digit), ("fashion", fashion_images)])
def test_every_image_is_exact_in_the_reference(name: str, images, mode: str) -> None:
    found = case(name, images())
    check(found, lava_casc.simulate(found.network, found.images, found.network.schedule(mode)), mode)


@pytest.mark.lava
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("engine", "called"), ENGINES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("name", "images"), [("digits", every_digit), ("fashion", fashion_images)])
def test_every_image_is_exact_on_lava(name: str, images, mode: str, engine: str, called: str) -> None:
    found = case(name, images())
    schedule = found.network.schedule(mode)
    record = lava_casc.loihi.run(found.network, found.images, schedule, record=("counts",), engine=engine)
    check(found, record, mode)
    assert record.engine == called
