"""Make the golden files of the present format version: ``python tests/golden/make.py``.

Each release of the format has a folder, with a network of every kind that it brought or that had no file yet; a file's
own version is the first one that can say its network. A file that is there is never made again: it stays readable for
ever.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent / "netx")]

import netx_networks as made  # noqa: E402

from lava_casc import netx  # noqa: E402

NETWORKS = {
    "max-pool": (made.pooled, 3, "graded"),
    "residual": (made.residual, 5, "unary"),
    "concatenation": (made.concatenated, 7, "graded"),
    "readouts": (made.several, 6, "unary"),
    "tokens": (made.recurrent, 7, "graded"),
    "sequence": (made.film, 8, "unary"),
}


def main() -> None:
    folder = HERE / f"v{netx.VERSION}"
    folder.mkdir(exist_ok=True)
    for name, (make, seed, mode) in NETWORKS.items():
        path = folder / f"{name}.net"
        if path.exists():
            continue
        network = make(seed)
        samples = made.samples(network, 4)
        netx.write(path, network, network.schedule(mode))
        np.savez(path.with_suffix(".npz"), samples=samples.astype(np.int16), **made.meaning(network, samples))


if __name__ == "__main__":
    main()
