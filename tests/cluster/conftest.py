"""A network, its inputs, and a cluster of one machine."""

import os
from pathlib import Path

import numpy as np
import pytest
from slurm_local import slurm

pytest.importorskip("h5py")

from lava_casc.frontend import load_checkpoint
from lava_casc.pipeline import Options, convert_checkpoint

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def digits():
    """Return the digits' network and forty random images."""
    network = convert_checkpoint(load_checkpoint(ROOT / "tests/data/digits.pt"), Options(verify=0)).network
    return network, np.random.default_rng(0).integers(0, 17, (40, 1, 8, 8))


@pytest.fixture(scope="module")
def cluster():
    """Start SLURM for the tests of a module, and let its commands find it."""
    before = {name: os.environ.get(name) for name in ("PATH", "SLURM_CONF")}
    with slurm() as environment:
        os.environ.update({name: environment[name] for name in before})
        try:
            yield environment
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
