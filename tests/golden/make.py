"""Make the golden files of the present format version: ``python tests/golden/make.py``.

A file of a released version is never made again: a new version of the format gets a folder of its own, and those of
the versions before stay readable for ever.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent / "netx")]

import netx_networks as made  # noqa: E402

from lava_casc import netx  # noqa: E402
from lava_casc.reference import forward  # noqa: E402

NETWORKS = {"sequential": (made.small, "unary"), "graph": (made.small_graph, "graded")}


def main() -> None:
    folder = HERE / f"v{netx.VERSION}"
    folder.mkdir(exist_ok=True)
    for name, (make, mode) in NETWORKS.items():
        network = make()
        images = made.images(network, 4)
        netx.write(folder / f"{name}.net", network, network.schedule(mode))
        np.savez(folder / f"{name}.npz", images=images.astype(np.int16), logits=forward(network, images).logits)


if __name__ == "__main__":
    main()
