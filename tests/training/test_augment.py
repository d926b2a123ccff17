"""The augmentation: what may happen to an image, that all of it does, and that it never leaves its batch."""

import sys

import numpy as np
import pytest
import torch

from lava_casc.errors import MissingDependencyError
from lava_casc.training import Augmentation
from lava_casc.training.augment import BATCHES_IN_A_DRAW, _autoaugmented, _cut_out, _flipped, _shifted, augmented

GREY = torch.tensor([7, 8], dtype=torch.uint8)


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture
def images():
    """Two images of two channels, 3 pixels high and 4 wide, each pixel with a value of its own, never 0."""
    return torch.arange(1, 2 * 2 * 3 * 4 + 1, dtype=torch.uint8).reshape(2, 2, 3, 4)


def test_shifts_move_whole_images_and_fill_with_zeros(images):
    moved = _shifted(images.repeat(40, 1, 1, 1), 1).reshape(40, 2, 2, 3, 4)
    seen = set()
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            expected = torch.zeros_like(images)
            ys, xs = (slice(max(0, d), n + min(0, d)) for d, n in ((down, 3), (right, 4)))
            from_ys, from_xs = (slice(max(0, -d), n + min(0, -d)) for d, n in ((down, 3), (right, 4)))
            expected[:, :, ys, xs] = images[:, :, from_ys, from_xs]
            for i in range(40):
                seen |= {(down, right, i, k) for k in range(2) if torch.equal(moved[i, k], expected[k])}
    assert len({entry[2:] for entry in seen}) == 80  # each image is one of the nine
    assert len({entry[:2] for entry in seen}) == 9  # and all nine occur
    assert torch.equal(_shifted(images, 0), images)


def test_half_of_the_images_are_mirrored(images):
    many = images.repeat(100, 1, 1, 1)
    found = _flipped(many)
    mirrored = (found == many.flip(-1)).flatten(1).all(1)
    assert ((found == many).flatten(1).all(1) ^ mirrored).all()
    assert 60 < mirrored.sum() < 140


def test_cutouts_are_squares_of_one_colour_with_their_centre_anywhere(images):
    many = images.repeat(300, 1, 1, 1)
    cut = _cut_out(many, 2, GREY)
    hidden = (cut != many).any(1)
    assert torch.equal(cut, torch.where(hidden[:, None], GREY[:, None, None], many))
    # A square of 2 with its centre at (y, x) covers rows y - 1 and y, columns x - 1 and x, as far as they exist.
    places = {tuple(place.flatten().tolist()) for place in hidden}
    expected = set()
    for y in range(3):
        for x in range(4):
            square = np.zeros((3, 4), bool)
            square[max(0, y - 1) : y + 1, max(0, x - 1) : x + 1] = True
            expected.add(tuple(square.ravel().tolist()))
    assert places <= expected | {place for place in places if sum(place) < 4}  # a pixel may have the colour already
    assert expected <= places
    assert torch.equal(_cut_out(images, 0, GREY), images)


def test_batches_come_in_order_and_in_their_sizes(images):
    order = torch.tensor([1, 0, 1, 1, 0])
    batches = list(augmented(images, order, 2, Augmentation(), GREY))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert torch.equal(torch.cat(batches), images[order])


def test_every_kind_of_augmentation_reaches_the_batches(images):
    order = torch.zeros(40, dtype=torch.int64)
    for kind in ({"shift": 1}, {"flip": True}, {"cutout": 2}):
        found = torch.cat(list(augmented(images, order, 8, Augmentation(**kind), GREY)))
        assert found.dtype == torch.uint8
        assert not torch.equal(found, images[order])


def test_autoaugment_draws_for_each_image_of_a_batch_on_its_own():
    pytest.importorskip("torchvision")
    image = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8)
    batch_size = 40
    found = _autoaugmented(image.repeat(3 * batch_size - 5, 1, 1, 1), batch_size)
    assert found.shape == (115, 3, 16, 16)
    assert found.dtype == torch.uint8
    first = {tuple(one.flatten().tolist()) for one in found[:batch_size]}
    assert len(first) > 8  # some policies leave noise as it is
    # Images at the same place of several batches share their policy.
    assert torch.equal(found[batch_size : 2 * batch_size], found[:batch_size])
    assert torch.equal(found[2 * batch_size :], found[: batch_size - 5])


def test_autoaugment_reaches_the_batches():
    pytest.importorskip("torchvision")
    image = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8)
    order = torch.zeros(2 * BATCHES_IN_A_DRAW * 4 + 3, dtype=torch.int64)
    batches = list(augmented(image, order, 4, Augmentation(autoaugment=True), GREY))
    assert [len(batch) for batch in batches] == [4] * 16 + [3]
    assert len({tuple(one.flatten().tolist()) for batch in batches for one in batch}) > 3


def test_autoaugment_needs_torchvision(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.transforms.v2", None)
    with pytest.raises(MissingDependencyError, match="AutoAugment: torchvision is not installed. Install it with pip"):
        Augmentation(autoaugment=True)
