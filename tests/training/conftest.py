"""What the tests of training share: one thread, and a data set that is learned in no time."""

import numpy as np
import pytest
import torch

from lava_casc.training import Dataset


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def toy():
    """Three classes of 4x5 images: a bright left, middle or right, on noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    images = rng.integers(0, 4, (120, 1, 4, 6)).astype(np.uint8)
    for i, label in enumerate(labels):
        images[i, :, :, 2 * label : 2 * label + 2] += 4
    return Dataset("toy", ("a", "b", "c"), images[:90], labels[:90], images[90:], labels[90:], 7, 1 / 7)
