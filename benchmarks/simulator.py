"""The reference simulator against its peers, and against itself in other ways: ratios of this very run.

    python benchmarks/simulator.py [--casc FOLDER] [--spikingjelly FOLDERS] [--json FILE]

VGG16 for 32x32 images, L = 8, unary, 32 samples, all engines up to the same step T: the first at which all our samples
are silent. Everyone has the same weights and gets its best number of threads, order of memory and mode.

The peers are not part of this repository. CASC is the published research code, a checkout of
github.com/Brain-Cog-Lab/casc: its loop convolves every sample in every step. SpikingJelly's ann2snn needs Python 3.11;
where it is not installed beside torch, --spikingjelly names the folders that hold it and what it imports, with ":"
between them. A peer that is absent is left out, and the table says so.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import logging
import os
import sys
import types
import warnings
from copy import deepcopy
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from measuring import (
    Floor,
    Row,
    Work,
    cores,
    fastest,
    images,
    left_out,
    medians,
    on_threads,
    parser,
    real,
    row,
    show,
    vgg16,
)
from torch import nn

LEVELS = 8
CASC, JELLY = "VGG16, a batch: simulate against the CASC research code", "VGG16, a batch: simulate against ann2snn"
CASC_BAR, JELLY_BAR = 3.0, 1.0
#: What a float32 network may differ from itself when its batch norms are folded, of logits of size 1.
FLOAT_ERROR = 1e-3


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--casc", type=Path, metavar="FOLDER", help="a checkout of github.com/Brain-Cog-Lab/casc")
    options.add_argument("--spikingjelly", metavar="FOLDERS", default="", help="where to import spikingjelly from")
    arguments = options.parse_args()
    rows = measure(arguments.quick, casc=arguments.casc, spikingjelly=arguments.spikingjelly)
    show("reference simulator", rows, arguments.json)


def measure(quick: bool = False, rounds: int = 3, casc: Path | None = None, spikingjelly: str = "") -> list[Row]:
    """Return the rows of the peers, of the other orders and kinds of arithmetic, and of CUDA.

    Parameters
    ----------
    quick : bool
    rounds : int
        Everyone runs so often; the median counts.
    casc : Path, optional
    spikingjelly : str
        Folders to import from, with `os.pathsep` between them.
    """
    import lava_casc
    from lava_casc.schedule import WakeSleepSchedule

    rounds, n = (1, 4) if quick else (rounds, 32)
    model, samples = vgg16(quick, LEVELS), images(n)
    network = lava_casc.convert(model, (3, 32, 32))
    truth = lava_casc.forward(network, samples).logits
    last = lava_casc.simulate(network, samples, record=()).last_spike.max()
    # The first silent step certifies.
    unary = network.schedule()
    schedule = WakeSleepSchedule(unary.wake_steps, max(int(last) + 1, network.last_event(unary)) - unary.wake_steps)
    steps = schedule.period
    about = f"T = {steps}, {n} samples, torch {torch.__version__}"

    same = {"equal": True}

    def ours(kind: str = "simulate") -> Work:
        def run() -> None:
            record = lava_casc.simulate(network, samples, schedule, record=())
            same["equal"] &= bool(record.all_certified and np.array_equal(record.logits, truth))

        return run

    work: dict[str, Work] = {}
    notes: dict[str, str] = {}
    missing: list[Row] = []
    work["ours"], notes["ours"] = _fastest({f"on {k} threads": on_threads(k, ours()) for k in _threads()})
    floor = Floor(model, real(samples))
    work["floor"] = lambda: [floor.run() for _ in range(steps)]
    try:
        work["casc"], notes["casc"] = casc_loop(model, samples, steps, casc)
    except LookupError as error:
        missing.append(left_out(CASC, str(error), f"at least {CASC_BAR:g}"))
    try:
        work["jelly"], notes["jelly"] = spikingjelly_loop(model, samples, steps, spikingjelly)
    except LookupError as error:
        missing.append(left_out(JELLY, str(error), f"at least {JELLY_BAR:g}"))
    took = medians(work, rounds)

    def compared(name: str, peer: str, bar: float | None) -> Row:
        note = f"{about}; ours: {notes['ours']}, theirs: {notes[peer]}"
        return row(name, took["ours"], took[peer], unit="s", least=bar, equal=same["equal"], note=note)

    notes["floor"] = f"{floor.label}, all samples convolved in all steps"
    threads = int(notes["ours"].split()[1])
    rows = [compared("VGG16, a batch: simulate against the dense floor", "floor", None)]
    if "casc" in work:
        rows.append(compared(CASC, "casc", CASC_BAR))
    if "jelly" in work:
        rows.append(compared(JELLY, "jelly", JELLY_BAR))
    return [
        *rows,
        *missing,
        *ways(network, samples, schedule, truth, rounds, threads),
        cuda(network, samples, schedule, truth),
    ]


def _threads() -> range:
    return range(1, cores() + 1)


def _fastest(trials: dict[str, Work], full: dict[str, Work] | None = None) -> tuple[Work, str]:
    """Return the work whose trial is the fastest, and its name."""
    label = fastest(trials)
    return (full or trials)[label], label.replace(" 1 threads", " 1 thread")


def casc_loop(model: nn.Sequential, samples: np.ndarray, steps: int, checkout: Path | None) -> tuple[Work, str]:
    """Return the published loop over `steps` steps with the weights of `model`, on its best number of threads."""
    if checkout is None:
        raise LookupError("--casc names no checkout of github.com/Brain-Cog-Lab/casc")
    if not (checkout / "src" / "convertor.py").is_file():
        raise LookupError(f"{checkout} holds no checkout of github.com/Brain-Cog-Lab/casc")
    modules = _casc_modules(checkout / "src")
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    with torch.random.fork_rng(devices=[]):
        arch, inputs = [], convolutions[0].in_channels
        for count in (2, 2, 3, 3, 3):
            outputs = convolutions[sum(block[0] for block in arch)].out_channels
            arch.append((count, inputs, outputs))
            inputs = outputs
        theirs = modules["model.vgg"].VGG16(pool="avg", arch=tuple(arch))
        theirs.fc = nn.Linear(inputs, 10)
    _copy(model, theirs)
    theirs = modules["clipquantization"].replace_relu_by_cqrelu(theirs, LEVELS).eval()
    with torch.inference_mode():
        x = _normalized(model, samples)
        expected = model(real(samples))
        if not torch.allclose(theirs(x), expected, atol=FLOAT_ERROR):
            raise RuntimeError("the CASC checkout's network is not ours")
    snn = modules["convertor"].CQConvertor(soft_mode=True, lipool=True, gamma=1, neg=True, sleep_time=[LEVELS, LEVELS])(
        theirs
    )
    awake = deepcopy(snn.state_dict())
    asleep = {key: torch.zeros_like(value) if key.endswith("bias") else value for key, value in awake.items()}

    def run(steps: int) -> torch.Tensor:
        snn.reset()
        snn.load_state_dict(awake)
        out: torch.Tensor | float = 0
        with torch.inference_mode():
            for t in range(steps):
                if t == LEVELS:
                    snn.change_sleep()
                    snn.load_state_dict(asleep)
                out = out + snn(x if t < LEVELS else torch.zeros_like(x))
        if steps > LEVELS:
            snn.change_sleep()  # it is a switch
        assert isinstance(out, torch.Tensor)
        return out / LEVELS

    def by_threads(steps: int) -> dict[str, Work]:
        return {f"on {k} threads": on_threads(k, lambda: run(steps)) for k in _threads()}

    return _fastest(by_threads(2), by_threads(steps))


def _casc_modules(source: Path) -> dict[str, types.ModuleType]:
    """Load what the loop needs of the checkout, without what it imports and does not use here."""
    absent = {name: types.ModuleType(name) for name in ("torchvision", "turtle", "pandas")}
    absent["turtle"].forward = absent["pandas"].DataFrame = None  # type: ignore[attr-defined]
    before = {name: sys.modules.get(name) for name in absent}
    package = types.ModuleType("casc_checkout")
    package.__path__ = [str(source)]
    sys.modules[package.__name__] = package
    sys.modules.update(absent)
    try:
        names = ("clipquantization", "convertor", "model.vgg")
        return {name: importlib.import_module(f"{package.__name__}.{name}") for name in names}
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def _normalized(model: nn.Sequential, samples: np.ndarray) -> torch.Tensor:
    """Return what the first layer of `model` makes of images; the peers have no such layer."""
    with torch.inference_mode():
        return model[0](real(samples))


def _copy(model: nn.Module, into: nn.Module) -> None:
    """Copy all weights, layer by layer; convolutions that have no bias get zeros."""
    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)
    pairs = zip(*([m for m in net.modules() if isinstance(m, kinds)] for net in (model, into)), strict=True)
    for mine, other in pairs:
        state = mine.state_dict()
        if "bias" not in state and other.bias is not None:
            state["bias"] = torch.zeros_like(other.bias)
        other.load_state_dict(state)


def spikingjelly_loop(model: nn.Sequential, samples: np.ndarray, steps: int, folders: str) -> tuple[Work, str]:
    """Return ann2snn's network over `steps` steps with the weights of `model`, in its fastest configuration."""
    sys.path += [folder for folder in folders.split(os.pathsep) if folder]
    if sys.version_info < (3, 11):
        raise LookupError("spikingjelly 2 needs Python 3.11")
    if find_spec("spikingjelly") is None:
        raise LookupError("spikingjelly is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from spikingjelly.activation_based import ann2snn, functional
    logging.getLogger("spikingjelly").setLevel(logging.ERROR)

    ann, x = _with_relu(deepcopy(model[1:])), _normalized(model, samples)
    recipe = ann2snn.RateCodingRecipe(dataloader=[(x, None)], mode="max")
    snn = ann2snn.Converter(recipe=recipe).convert(ann).eval()

    def run(mode: str, order: torch.memory_format, steps: int) -> torch.Tensor:
        snn.to(memory_format=order)
        functional.set_step_mode(snn, mode)
        functional.reset_net(snn)
        given = x.contiguous(memory_format=order)
        with torch.inference_mode():
            if mode == "m":
                return snn(given.expand(steps, *given.shape)).mean(0)
            total = snn(given)
            for _ in range(steps - 1):
                total += snn(given)
        return total / steps

    orders = {"NCHW": torch.contiguous_format, "channels last": torch.channels_last}
    modes = {"step by step": "s", "all steps at once": "m"}

    def in_all_ways(steps: int) -> dict[str, Work]:
        return {
            f"{mode}, {order}, on {k} threads": on_threads(k, partial(run, modes[mode], orders[order], steps))
            for mode, order, k in itertools.product(modes, orders, _threads())
        }

    return _fastest(in_all_ways(min(steps, LEVELS)), in_all_ways(steps))


def _with_relu(model: nn.Module) -> nn.Module:
    """Put ReLU, which is what ann2snn converts, in place of CQReLU."""
    from lava_casc.frontend import CQReLU

    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, CQReLU):
                setattr(parent, name, nn.ReLU())
    return model


def ways(network, samples: np.ndarray, schedule, truth: np.ndarray, rounds: int, threads: int) -> list[Row]:
    """Return how long other ways of the same simulation take: other orders, another alphabet, other products."""
    import lava_casc
    from lava_casc.dynamics import Crew, Plan, Product, Stepper

    equal: dict[str, bool] = {}

    def checked(name: str, certified: np.ndarray, logits: np.ndarray) -> None:
        equal[name] = equal.get(name, True) and bool(certified.all() and np.array_equal(logits, truth))

    def layers(mode: str) -> Work:
        chosen = schedule if mode == "unary" else network.schedule(mode)

        def run() -> None:
            record = lava_casc.simulate(network, samples, chosen, record=())
            checked(f"layers {mode}", record.certified, record.logits)

        return run

    def steps(name: str, plan: Plan) -> Work:
        def run() -> None:
            stepper = Stepper(plan, network.encode(samples))
            while not stepper.step():
                pass
            checked(name, stepper.certified[0], stepper.logits[0])

        return run

    plan, exact = Plan(network, schedule), Plan(network, schedule)
    kinds = {product.kind for products in plan.operators.values() for product in products}
    for layer in (layer for layer in network if hasattr(layer, "synapses")):
        # Whatever 8 bits may hold, float32 may.
        exact.operators[layer.name] = tuple(
            Product(synapse, network.shapes[synapse.source], 0, 255, kind="float32") if p.kind == "int8" else p
            for synapse, p in zip(layer.synapses, exact.operators[layer.name], strict=True)
        )
    crew = Crew(network, schedule)

    def divided() -> None:
        torch.set_num_threads(1)
        crew.begin(network.encode(samples))
        while not crew.step():
            pass
        found = crew.result()
        checked("crew", found["certified", ""], found["logits", ""][:, 0])

    work = {
        "layers unary": on_threads(threads, layers("unary")),
        "layers graded": on_threads(threads, layers("graded")),
        "steps": on_threads(threads, steps("steps", plan)),
        "steps float32": on_threads(threads, steps("steps float32", exact)),
        "crew": divided,
    }
    took = medians(work, rounds)

    def compared(name: str, mine: str, other: str, note: str) -> Row:
        return row(name, took[mine], took[other], unit="s", equal=equal[mine] and equal[other], note=note)

    shared = f"on {threads} thread{'s' if threads > 1 else ''}"
    return [
        compared("layer after layer against step after step", "layers unary", "steps", shared),
        compared(
            "layer after layer against the samples divided among threads", "layers unary", "crew",
            f"{crew.threads} threads, one step after the other: the fused process without Lava",
        ),
        compared(
            "8-bit products against float32, step after step", "steps", "steps float32",
            f"{shared}; kinds here: {', '.join(sorted(kinds))}",
        ),
        compared("graded against unary, layer after layer", "layers graded", "layers unary", "both to silence"),
    ]  # fmt: skip


def cuda(network, samples: np.ndarray, schedule, truth: np.ndarray) -> Row:
    """Return how many samples a second a GPU simulates, and what part of its own peak in float32 that is."""
    import lava_casc

    name = "VGG16, a batch on CUDA"
    if not torch.cuda.is_available():
        return left_out(name, "there is no CUDA device")
    done: list[bool] = []

    def simulated() -> None:
        record = lava_casc.simulate(network, samples, schedule, record=(), device="cuda")
        done.append(bool(record.all_certified and np.array_equal(record.logits, truth)))

    size = 8192
    torch.backends.cuda.matmul.allow_tf32 = False
    a = torch.rand(size, size, device="cuda")

    def multiplied() -> None:
        a @ a
        torch.cuda.synchronize()

    work = {"simulated": simulated, "multiplied": multiplied}
    medians(work, 2)
    took = medians(work, 5)
    peak = 2 * size**3 / took["multiplied"]
    rate = 2 * _products(network, samples, schedule) / took["simulated"]
    note = (
        f"{torch.cuda.get_device_name()}: {len(samples) / took['simulated']:.0f} samples a second, {rate / peak:.1%} "
        f"of its peak in float32 ({peak / 1e12:.1f} TFLOPS, measured)"
    )
    return row(name, took["simulated"], unit="s", equal=all(done), note=note)


def _products(network, samples: np.ndarray, schedule) -> int:
    """Return how many products of weight and count a run takes: all of a layer's, where anything arrives in a step."""
    import lava_casc

    messages = lava_casc.simulate(network, samples, schedule, record=("messages",)).messages
    total = 0
    for layer in network.spiking:
        for synapse in getattr(layer, "synapses", ()):
            per_position = synapse.weight.size // len(synapse.weight)
            total += int((messages[synapse.source] > 0).sum()) * int(np.prod(network.shapes[layer.name])) * per_position
    return total


if __name__ == "__main__":
    main()
