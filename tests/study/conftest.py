"""One study of the digits' network on random images, with random labels."""

from pathlib import Path

import numpy as np
import pytest

from lava_casc.frontend import fold, load_checkpoint
from lava_casc.pipeline import Options, convert_checkpoint
from lava_casc.study import Ranks, measure, quantization_errors

MODEL = Path(__file__).parents[1] / "data/digits.pt"
STEPS = 24


@pytest.fixture(scope="session")
def digits():
    """Return model, network, images and labels."""
    checkpoint = load_checkpoint(MODEL)
    network = convert_checkpoint(checkpoint, Options(verify=0)).network
    rng = np.random.default_rng(0)
    images = rng.integers(0, network.input.high + 1, (40, *checkpoint.input.shape))
    return checkpoint.model, network, images, rng.integers(0, 10, 40)


@pytest.fixture(scope="session")
def whole(digits):
    """Return the study of all forty."""
    model, network, images, labels = digits
    errors = quantization_errors(fold(load_checkpoint(MODEL).graph), network, images[:10])
    about = {"name": "digits", "mode": "unary", "diagnosed": 10, "data": "noise & <b>more</b>", "command": "casc x"}
    return measure(
        model, network, network.schedule(), images, Ranks(labels), steps=STEPS, about=about, quantization=errors
    )
