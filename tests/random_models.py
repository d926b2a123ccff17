"""Random torch models with CQReLU: branches, pools, groups, random batch norms; and dyadic ones."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

from lava_casc.frontend import CQReLU, Normalize


class Residual(nn.Module):
    """act(main(x) + skip(x)), the skip an identity or a convolution."""

    def __init__(self, main: nn.Module, skip: nn.Module, act: nn.Module):
        super().__init__()
        # Declared against the flow of data.
        self.act, self.skip, self.main = act, skip, main

    def forward(self, x):
        return self.act(self.main(x) + self.skip(x))


class Concatenation(nn.Module):
    """The results of all branches side by side, with x itself or without."""

    def __init__(self, branches: list[nn.Module], with_input: bool):
        super().__init__()
        self.branches, self.with_input = nn.ModuleList(branches), with_input

    def forward(self, x):
        found = [branch(x) for branch in self.branches]
        return torch.cat([x, *found] if self.with_input else found, 1)


class Ends(nn.Module):
    """Several outputs, one of each end behind the body; flat on demand."""

    def __init__(self, body: nn.Module, ends: list[nn.Module], as_dictionary: bool):
        super().__init__()
        self.body, self.ends, self.as_dictionary = body, nn.ModuleList(ends), as_dictionary
        self.flat = False

    def forward(self, x):
        x = self.body(x)
        found = [end(x).flatten(1) if self.flat else end(x) for end in self.ends]
        return {f"output {i}": y for i, y in enumerate(found)} if self.as_dictionary else found


def random_model(rng: np.random.Generator) -> tuple[nn.Module, tuple[int, ...]]:
    """Return a random model in evaluation and its input shape, H != W != C."""
    while True:
        torch.manual_seed(int(rng.integers(1 << 30)))
        model, shape = _build(rng)
        _randomize(rng, model)
        try:
            with torch.no_grad():
                model.eval()(torch.zeros(1, *shape))
        except RuntimeError:  # an image has become too small for a window
            continue
        return model.eval(), shape


def dyadic_model(rng: np.random.Generator, levels: int = 8) -> tuple[nn.Module, tuple[int, ...]]:
    """Return a model on integers whose quantization is exact: weights w * 2**-k with max |w| = 127."""
    shape = (2, 5, 7)
    conv = nn.Conv2d(2, 4, 3, (2, 1), (1, 0), groups=int(rng.choice([1, 2])))
    second = nn.Conv2d(4, 4, 3, padding=1, groups=int(rng.choice([1, 4])))
    acts = [CQReLU(levels, 1.0, str(rng.choice(["floor", "round"]))) for _ in range(3)]
    body = nn.Sequential(second, acts[1])
    model = nn.Sequential(conv, acts[0], body, nn.MaxPool2d(2, 1), nn.Flatten())
    with torch.no_grad():
        width = model(torch.zeros(1, *shape)).shape[1]
    model.append(nn.Linear(width, 5)).append(acts[2]).append(nn.Linear(5, 3))
    unit = 1.0  # the real value of one unit of the source
    for layer in (conv, second, model[5], model[7]):
        weight = rng.integers(-127, 128, layer.weight.shape).astype(np.float64)
        weight.reshape(len(weight), -1)[:, 0] = 127
        # step / grid = 2**shift is the integer threshold: near the sum's spread, so that all levels occur.
        spread = 73 * (147 if unit == 1.0 else levels / 2) * np.sqrt(weight[0].size)
        shift = int(np.clip(np.log2(2 * spread / levels), 1, 16))
        grid = (1.0 / levels) * 2.0**-shift
        bias = rng.integers(-200, 200, len(weight)) * grid
        layer.weight = nn.Parameter(torch.tensor(weight * grid / unit))
        layer.bias = nn.Parameter(torch.tensor(bias))
        unit = 1.0 / levels
    return model.double().eval(), shape


def by_channel(model: nn.Module, shape: tuple[int, ...], rng: np.random.Generator) -> nn.Module:
    """Return a copy in which every CQReLU has thresholds or shifts of channels, or both."""
    model = copy.deepcopy(model)
    channels: dict[nn.Module, int] = {}
    for module in model.modules():
        if isinstance(module, CQReLU):
            module.register_forward_hook(lambda m, inputs, _: channels.update({m: _width(inputs[0])}))
    words = any(isinstance(module, nn.Embedding) for module in model.modules())
    with torch.no_grad():
        model(torch.zeros(1, *shape, dtype=torch.int64 if words else next(model.parameters()).dtype))
    for act, n in channels.items():
        act._forward_hooks.clear()
        which = rng.integers(1, 4)
        if which & 1:
            factors = torch.as_tensor(rng.uniform(0.1, 2, n), dtype=act.threshold.dtype)
            act.threshold.data = act.threshold.data * factors
        if which & 2:
            set_shift(act, rng.normal(0, 0.3, n))
    return model


def _width(x: torch.Tensor) -> int:
    return x.shape[2 if x.dim() == 3 else 1]


def set_shift(act: CQReLU, shift: np.ndarray) -> None:
    """Give a CQReLU without shifts those of its channels."""
    del act.shift
    act.register_buffer("shift", torch.as_tensor(shift, dtype=act.threshold.dtype))


def rescaled(model: nn.Module, rng: np.random.Generator) -> nn.Module:
    """Return a dyadic model that computes the same with thresholds and shifts of channels, powers of two and dyadic.

    What a channel receives is multiplied by a factor, less a shift, and so is its threshold; what reads it is divided.
    """
    model = copy.deepcopy(model)
    first, act0, (second, act1), _, _, dense, act2, last = model
    with torch.no_grad():
        for layer, act, reader in ((first, act0, second), (second, act1, dense), (dense, act2, last)):
            factors = torch.as_tensor(2.0 ** rng.integers(-3, 1, len(layer.weight)))
            factors[0] = 1
            shift = rng.integers(-9, 10, len(factors)) / 64
            layer.weight *= factors.reshape(-1, *(1,) * (layer.weight.dim() - 1))
            layer.bias.mul_(factors).sub_(torch.as_tensor(shift))
            act.threshold.data = act.threshold.data * factors
            set_shift(act, shift)
            if isinstance(reader, nn.Conv2d) and reader.groups > 1:
                reader.weight /= factors.reshape(-1, 1, 1, 1)
            else:
                shares = factors.repeat_interleave(reader.weight.shape[1] // len(factors))
                reader.weight /= shares.reshape(1, -1, *(1,) * (reader.weight.dim() - 2))
    return model


def _build(rng: np.random.Generator) -> tuple[nn.Module, tuple[int, ...]]:
    if rng.random() < 0.15:
        return _mlp(rng)
    height, width = (int(n) for n in rng.choice(np.arange(5, 10), 2, replace=False))
    channels = int(rng.choice([1, 2, 3, 4]))
    shape = (channels, height, width)
    layers: list[nn.Module] = []
    if rng.random() < 0.4:
        layers.append(Normalize(rng.uniform(0.1, 0.9, channels).tolist(), rng.uniform(0.2, 2, channels).tolist()))
    if rng.random() < 0.2:
        layers.append(nn.BatchNorm2d(channels))
    for _ in range(int(rng.integers(1, 4))):
        kind = rng.choice(["plain", "pooled", "residual", "three", "wide"], p=[0.3, 0.2, 0.15, 0.1, 0.25])
        if kind == "plain" or not layers:
            conv, channels = _conv(rng, channels)
            layers += [conv, *_norm(rng, channels), _act(rng)]
        elif kind == "pooled":
            conv, channels = _conv(rng, channels)
            layers += [conv, *_norm(rng, channels), *_pool_and_act(rng)]
        elif kind == "residual":
            skip: nn.Module = nn.Identity() if rng.random() < 0.5 else nn.Conv2d(channels, channels, 1)
            layers.append(Residual(_same(rng, channels), skip, _act(rng)))
        elif kind == "wide":
            added, channels = _concatenation(rng, channels)
            layers += [*added, *_norm(rng, channels), *([_act(rng)] if rng.random() < 0.6 else [])]
        else:
            inner = Residual(_same(rng, channels), nn.Identity(), nn.Identity())
            layers.append(Residual(inner, nn.BatchNorm2d(channels), _act(rng)))
    if rng.random() < 0.25:
        ends: list[nn.Module] = [nn.Sequential(_act(rng)), _conv(rng, channels)[0], nn.BatchNorm2d(channels)]
        ends += [nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 2))]
        chosen = rng.permutation(len(ends))[: int(rng.integers(1, len(ends) + 1))]
        return Ends(nn.Sequential(*layers), [ends[i] for i in chosen], bool(rng.random() < 0.5)), shape
    layers += _head(rng, channels)
    body = nn.Sequential(*layers)
    with torch.no_grad():
        try:
            width = body.eval()(torch.zeros(1, *shape)).shape[1]
        except RuntimeError:
            return _build(rng)
    hidden = int(rng.integers(2, 7))
    tail = [nn.Linear(width, hidden), *([nn.BatchNorm1d(hidden)] if rng.random() < 0.5 else []), _act(rng)]
    if rng.random() < 0.5:
        tail, hidden = [], width
    return nn.Sequential(*body, nn.Dropout(), *tail, nn.Linear(hidden, 3)), shape


def _mlp(rng: np.random.Generator) -> tuple[nn.Module, tuple[int, ...]]:
    sizes = [int(n) for n in rng.integers(2, 12, int(rng.integers(2, 5)))]
    layers: list[nn.Module] = []
    for before, after in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(before, after, bias=bool(rng.random() < 0.7))]
        layers += [nn.BatchNorm1d(after)] if rng.random() < 0.4 else []
        layers += [_act(rng)]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 3)), (sizes[0],)


def _conv(rng: np.random.Generator, channels: int) -> tuple[nn.Conv2d, int]:
    groups = int(rng.choice([g for g in (1, 2, 3, 4) if channels % g == 0]))
    out = groups * int(rng.integers(1, 4))
    kernel, stride, padding, dilation = (
        (int(a), int(b)) for a, b in (rng.integers(1, 4, 2), rng.integers(1, 3, 2), rng.integers(0, 3, 2), (1, 2))
    )
    dilation = dilation if rng.random() < 0.3 else (1, 1)
    bias = bool(rng.random() < 0.6)
    return nn.Conv2d(channels, out, kernel, stride, padding, dilation, groups, bias), out


def _concatenation(rng: np.random.Generator, channels: int) -> tuple[list[nn.Module], int]:
    """Return branches of the same size side by side: convolutions, max pools and sums, activated or not."""
    branches: list[nn.Module] = [nn.Sequential(_act(rng), nn.MaxPool2d(3, 1, 1)), nn.AvgPool2d((1, 3), 1, (0, 1))]
    widths = [channels, channels]
    for kernel in ((1, 1), (3, 1), (1, 3)):
        widths.append(int(rng.integers(1, 4)))
        conv = nn.Conv2d(channels, widths[-1], kernel, padding=(kernel[0] // 2, kernel[1] // 2))
        branches.append(nn.Sequential(conv, _act(rng)) if rng.random() < 0.6 else conv)
    chosen = rng.permutation(len(branches))[: int(rng.integers(1, 4))]
    with_input = bool(rng.random() < 0.5)
    total = sum(widths[i] for i in chosen) + channels * with_input
    wide = Concatenation([branches[i] for i in chosen], with_input)
    if rng.random() < 0.3:  # two concatenations of different splits meet
        return [Residual(wide, nn.Conv2d(channels, total, 1), _act(rng))], total
    return [wide], total


def _same(rng: np.random.Generator, channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, channels, (3, 1), padding=(1, 0), bias=False),
        nn.BatchNorm2d(channels),
        _act(rng),
        nn.Conv2d(channels, channels, (1, 3), padding=(0, 1)),
    )


def _norm(rng: np.random.Generator, channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels, affine=bool(rng.random() < 0.7))] if rng.random() < 0.6 else []


def _pool_and_act(rng: np.random.Generator) -> list[nn.Module]:
    average = nn.AvgPool2d((2, 3), (int(rng.integers(1, 3)), 2), (1, 0), count_include_pad=bool(rng.random() < 0.5))
    maximum = nn.MaxPool2d((2, 3), (int(rng.integers(1, 3)), 2), (0, 1))
    pool = average if rng.random() < 0.5 else maximum
    return [pool, _act(rng)] if rng.random() < 0.5 else [_act(rng), pool]


def _head(rng: np.random.Generator, channels: int) -> list[nn.Module]:
    kind = rng.integers(4)
    if kind == 0:
        return [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if kind == 1:
        return [nn.AdaptiveAvgPool2d((2, 1)), nn.Flatten()]
    if kind == 2:
        return [nn.Flatten(), _act(rng)]
    return [nn.Flatten()]


def _act(rng: np.random.Generator) -> CQReLU:
    rounding = str(rng.choice(["floor", "round"]))
    return CQReLU(int(rng.choice([1, 2, 4, 8])), float(rng.uniform(0.3, 2)), rounding, bool(rng.random() < 0.3))


def _randomize(rng: np.random.Generator, model: nn.Module) -> None:
    """Give every batch norm statistics of its own, negative and tiny factors among them."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            n = module.num_features
            module.running_mean = torch.tensor(rng.normal(0, 0.3, n), dtype=torch.float32)
            module.running_var = torch.tensor(rng.uniform(0.1, 2, n), dtype=torch.float32)
            if module.affine:
                module.weight.data = torch.tensor(rng.normal(0.5, 0.7, n), dtype=torch.float32)
                module.bias.data = torch.tensor(rng.normal(0, 0.3, n), dtype=torch.float32)
