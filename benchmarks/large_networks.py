"""The paper's ImageNet networks at 224x224, from torchvision to certified silence: seconds and memory of every step.

    python benchmarks/large_networks.py                         all four, random weights, one image
    python benchmarks/large_networks.py vgg16_bn --batch 8      one of them, eight images at a time
    python benchmarks/large_networks.py --train-steps 20        weights after so many steps of training

Each network runs in a process of its own, so that its peak of memory is its own. There are no images in here: training
is on random coloured rectangles, whose colour is the class; it gives weights, thresholds and statistics that hang
together, and no accuracy that would mean anything. Without it the batch norms see a few of these images, because a
network with random weights and no statistics is silent from the middle on, and proves nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

NETWORKS = ("vgg16_bn", "resnet34", "resnext50_32x4d", "regnet_x_8gf")
CLASSES = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(NETWORKS), help="classification networks of torchvision")
    parser.add_argument("--batch", type=int, default=1, help="images, simulated together")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--levels", type=int, default=8)
    parser.add_argument("--mode", choices=["unary", "graded"], default="graded")
    parser.add_argument("--train-steps", type=int, default=0)
    parser.add_argument("--train-batch", type=int, default=8)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.names[0], arguments)))
        return
    found = []
    for name in arguments.names:
        shared = [
            f"--{key.replace('_', '-')}={value}" for key, value in vars(arguments).items() if value and key in _SHARED
        ]
        output = subprocess.run(
            [sys.executable, __file__, name, "--child", *shared], check=True, stdout=subprocess.PIPE
        )
        found.append(json.loads(output.stdout))
        print(_line(found[-1]), flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(found, indent=2) + "\n")


_SHARED = ("batch", "size", "levels", "mode", "train_steps", "train_batch")


def measure(name: str, arguments: argparse.Namespace) -> dict:
    """Take one network the whole way and return what it took."""
    import torchvision

    import lava_casc
    from lava_casc import netx, pipeline
    from lava_casc.frontend import InputSpec, save_model

    torch.manual_seed(0)
    shape = (3, arguments.size, arguments.size)
    seconds: dict[str, float] = {}
    model = lava_casc.replace_relu(torchvision.models.get_model(name, num_classes=CLASSES), arguments.levels)
    with _timed(seconds, "train"):
        _train(model, arguments)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, file = Path(folder) / "model.pt", Path(folder) / "model.net"
        with _timed(seconds, "trace"):
            save_model(checkpoint, model, InputSpec(shape))
        del model
        after_training = _peak()
        with _timed(seconds, "export"):
            conversion = pipeline.export(checkpoint, file, pipeline.Options(mode=arguments.mode, verify=0))
        converted = _peak()
        del conversion
        with _timed(seconds, "read"):
            network = netx.read(file)
        images = _images(np.random.default_rng(1), arguments.batch, arguments.size)[0]
        with _timed(seconds, "forward"):
            truth = lava_casc.forward(network, images, batch_size=arguments.batch)
        with _timed(seconds, "simulate"):
            record = lava_casc.simulate(network, images, network.schedule(arguments.mode), batch_size=arguments.batch)
    equal = np.array_equal(record.logits, truth.logits) and all(
        np.array_equal(record.counts[layer], counts) for layer, counts in truth.counts.items()
    )
    return {
        "network": name,
        "size": arguments.size,
        "levels": arguments.levels,
        "mode": arguments.mode,
        "train_steps": arguments.train_steps,
        "images": arguments.batch,
        "certified": int(record.certified.sum()),
        "equal": equal,
        "last_spike": int(record.last_spike.max()),
        "active": float(np.mean([(counts != 0).mean() for counts in truth.counts.values()])),
        "least_active": float(np.min([(counts != 0).mean() for counts in truth.counts.values()])),
        "seconds": {step: round(spent, 1) for step, spent in seconds.items()},
        "cpu_seconds": round(time.process_time(), 1),
        "peak_gib": {"before": after_training, "converted": converted, "simulated": _peak()},
        "torch": str(torch.__version__),
        "cores": os.cpu_count(),
    }


def _train(model: torch.nn.Module, arguments: argparse.Namespace) -> None:
    rng = np.random.default_rng(0)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)
    model.train()
    with torch.no_grad():
        for _ in range(4):
            model(torch.tensor(_images(rng, arguments.train_batch, arguments.size)[0], dtype=torch.float32) / 255)
    for _ in range(arguments.train_steps):
        images, labels = _images(rng, arguments.train_batch, arguments.size)
        logits = model(torch.tensor(images, dtype=torch.float32) / 255)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, torch.tensor(labels)).backward()
        # A deep network's first steps are its wildest.
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()


def _images(rng: np.random.Generator, n: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images of noise with a rectangle in the colour of the class."""
    colours = np.random.default_rng(7).integers(0, 256, (CLASSES, 3))
    images, labels = rng.integers(0, 256, (n, 3, size, size)), rng.integers(0, CLASSES, n)
    for image, label in zip(images, labels, strict=True):
        top, left = rng.integers(0, size // 2, 2)
        height, width = rng.integers(size // 4, size // 2, 2)
        image[:, top : top + height, left : left + width] = colours[label][:, None, None]
    return images, labels


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[step] = time.perf_counter() - start


def _peak() -> float:
    """Return the greatest memory so far, in GiB (Linux counts it in KiB, macOS in bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30, 2)


def _line(found: dict) -> str:
    steps = ", ".join(f"{step} {seconds} s" for step, seconds in found["seconds"].items())
    peaks = ", ".join(f"{step} {gib} GiB" for step, gib in found["peak_gib"].items())
    verdict = "equal" if found["equal"] else "NOT EQUAL"
    return (
        f"{found['network']} at {found['size']}, {found['mode']}: {found['certified']} of {found['images']} certified, "
        f"{verdict}, last spike in step {found['last_spike']}, {found['active']:.1%} of neurons active "
        f"({found['least_active']:.1%} in the quietest layer); "
        f"{steps}; peak {peaks}"
    )


if __name__ == "__main__":
    main()
