"""The loop that every training goes through, whatever is trained: images, boxes or words.

It owns the optimizer, the learning rate, the random state, progress, and resumption after a kill. What a batch is
and what its loss is are the caller's: `fit` is called with two functions.
"""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from lava_casc.errors import CheckpointError, UnsupportedModelError, first_line
from lava_casc.files import replacing
from lava_casc.frontend.cqrelu import CQReLU

MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
#: A threshold's gradient is a sum over all neurons of its layer; at the rate of the weights it overshoots, and turns
#: negative. Learned step size quantization (arXiv 1902.08153) divides it by the root of neurons times levels.
THRESHOLD_SHARE = 0.1
FORMAT, VERSION = "lava_casc.partial", 1

Batch = TypeVar("Batch")
MakeOptimizer = Callable[[list[dict[str, Any]], float], torch.optim.Optimizer]


@dataclass(frozen=True)
class Epoch:
    """What one epoch of training measured.

    Attributes
    ----------
    measured : dict of str to float
        The mean over the steps of the epoch of everything that the loss function returned; ``loss`` is among it.
    learning_rate : float
        Of the epoch's first step.
    seconds : float
    """

    measured: dict[str, float]
    learning_rate: float
    seconds: float

    @property
    def loss(self) -> float:
        """The mean of what was minimised, label smoothing and augmentation included."""
        return self.measured["loss"]


def sgd(groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
    """Return stochastic gradient descent with Nesterov momentum: the optimizer unless `fit` is given another."""
    return torch.optim.SGD(groups, learning_rate, MOMENTUM, nesterov=True)


def fit(
    model: nn.Module,
    batches: Callable[[int], Iterable[Batch]],
    loss: Callable[[nn.Module, Batch], Mapping[str, torch.Tensor]],
    *,
    epochs: int,
    steps_per_epoch: int,
    learning_rate: float,
    weight_decay: float = WEIGHT_DECAY,
    warmup: int = 0,
    clip_norm: float | None = None,
    seed: int = 0,
    bfloat16: bool = False,
    optimizer: MakeOptimizer = sgd,
    partial: Path | None = None,
    resume: bool = False,
    settings: Mapping[str, str | int | float | bool | None] | None = None,
    progress: Callable[[float], None] | None = None,
    on_epoch: Callable[[int, int, Epoch], None] | None = None,
) -> tuple[Epoch, ...]:
    r"""Train `model` in place on the device where it lies, and leave it in evaluation mode.

    The learning rate of step :math:`k` of :math:`K` is that of the start times
    :math:`\tfrac12 (1 + \cos(\pi k / K))`. Nothing outside of the model changes, torch's random state included: each
    epoch begins with a state of its own, made of `seed` and its number, so that a training which goes on after a
    kill gives bit for bit the network of one that was never interrupted, on the same machine with the same number of
    threads. An interruption (Ctrl-C) goes through to the caller and leaves a model that works, as far as it had got.

    Parameters
    ----------
    model : torch.nn.Module
    batches : callable
        ``batches(epoch)`` yields the `steps_per_epoch` batches of an epoch (0, 1, ...), of any type, on the model's
        device. All chance in it comes from torch's global generator, which is seeded for each epoch, in this thread.
    loss : callable
        ``loss(model, batch)`` returns scalars by name: ``loss`` is minimised, the others (an accuracy, parts of the
        loss) are only averaged for the history.
    epochs, steps_per_epoch : int
        At least 1.
    learning_rate : float
        The greatest one.
    weight_decay : float
        Of weights; biases, batch norm and thresholds do not decay.
    warmup : int
        Steps in which the learning rate rises linearly before it follows the cosine.
    clip_norm : float, optional
        The greatest norm of the gradient of all parameters.
    seed : int
    bfloat16 : bool
        Compute layers in bfloat16 (torch.autocast); weights stay float32. 1.5 to 1.8 times as fast on a CPU with
        AVX-512 BF16, slow on one without.
    optimizer : callable
        Makes the optimizer of parameter groups and a learning rate; all of its state is in its state_dict.
    partial : Path, optional
        Where the state of the training is kept after each epoch, in whole or not at all. The caller removes it when
        the result is safe.
    resume : bool
        Go on from `partial`; where there is no such file, begin.
    settings : dict, optional
        What else decides the result. Kept in `partial`; to go on with others is refused.
    progress : callable, optional
        Called after every step with the share that is done, the last time with 1.
    on_epoch : callable, optional
        Called after every epoch with the number of epochs that are done, that of all, and its `Epoch`.

    Returns
    -------
    tuple of Epoch
        One an epoch, those before a resumption included.

    Raises
    ------
    CheckpointError
        `partial` exists and `resume` is false, is damaged, belongs to another training, or cannot be written.
    UnsupportedModelError
        The training diverged: the loss is not finite.
    """
    if min(epochs, steps_per_epoch) < 1:
        raise ValueError(f"epochs ({epochs}) and steps_per_epoch ({steps_per_epoch}) must be at least 1")
    device = next(model.parameters()).device
    making = optimizer(parameter_groups(model, weight_decay), learning_rate)
    fixed = {
        **(settings or {}),
        "epochs": epochs,
        "steps_per_epoch": steps_per_epoch,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "warmup": warmup,
        "clip_norm": clip_norm,
        "seed": seed,
        "bfloat16": bfloat16,
    }
    history = [] if partial is None else _restore(partial, resume, model, making, fixed)
    steps = epochs * steps_per_epoch
    done = len(history) * steps_per_epoch
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            for epoch in range(len(history), epochs):
                torch.manual_seed(seed * 1_000_003 + epoch)
                model.train()
                start, sums = time.perf_counter(), dict[str, torch.Tensor]()
                for batch in batches(epoch):
                    rate = learning_rate * _share(done, steps, warmup)
                    for group in making.param_groups:
                        group["lr"] = rate * group["share"]
                    with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                        measured = loss(model, batch)
                    making.zero_grad()
                    measured["loss"].backward()
                    if clip_norm is not None:
                        nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
                    making.step()
                    for name, value in measured.items():
                        sums[name] = sums.get(name, torch.zeros((), device=device)) + value.detach().float()
                    done += 1
                    if progress is not None:
                        progress(done / steps)
                if done != (epoch + 1) * steps_per_epoch:
                    raise ValueError(f"epoch {epoch} had not {steps_per_epoch} batches")
                _check_thresholds(model, epoch + 1)
                means = {name: value.item() / steps_per_epoch for name, value in sums.items()}
                if not math.isfinite(means["loss"]):
                    raise UnsupportedModelError(
                        f"training: the loss ({means['loss']}) of epoch {epoch + 1} is not finite. "
                        "Train with a smaller learning rate."
                    )
                rate = learning_rate * _share(epoch * steps_per_epoch, steps, warmup)
                history.append(Epoch(means, rate, time.perf_counter() - start))
                if partial is not None:
                    _keep(partial, model, making, history, fixed)
                if on_epoch is not None:
                    on_epoch(epoch + 1, epochs, history[-1])
    finally:
        model.eval()
    return tuple(history)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return parameters by how they are trained: weights decay, biases and batch norm do not, thresholds learn slowly.

    Weights are told apart from biases by their dimensions, at least two; the shifts of a CQReLU are biases. ``share``
    is a group's part of the learning rate.
    """
    thresholds = {module.threshold for module in model.modules() if isinstance(module, CQReLU)}
    parameters = [p for p in model.parameters() if p not in thresholds]
    slow = [p for p in model.parameters() if p in thresholds]
    return [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay, "share": 1.0},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0, "share": 1.0},
        {"params": slow, "weight_decay": 0.0, "share": THRESHOLD_SHARE},
    ]


def _check_thresholds(model: nn.Module, epoch: int) -> None:
    for path, module in model.named_modules():
        if isinstance(module, CQReLU) and not bool((module.threshold > 0).all()):
            raise UnsupportedModelError(
                f"{path}: its threshold ({module.threshold.min():.3g}) is not positive after epoch {epoch}. "
                "Train with a smaller learning rate."
            )


def refuse_to_begin_anew(partial: Path, resume: bool) -> None:
    """Raise a `CheckpointError` where a training would write over the state of one that was cut short."""
    if partial.exists() and not resume:
        raise CheckpointError(
            f"{partial}: holds a training that was cut short. Give --resume to go on, or remove the file."
        )


def _share(step: int, steps: int, warmup: int) -> float:
    rising = min(1.0, (step + 1) / warmup) if warmup else 1.0
    return rising * (1 + math.cos(math.pi * step / steps)) / 2


def _keep(
    partial: Path, model: nn.Module, optimizer: torch.optim.Optimizer, history: list[Epoch], fixed: dict[str, Any]
) -> None:
    content = {
        "format": FORMAT,
        "version": VERSION,
        "settings": fixed,
        "history": [asdict(epoch) for epoch in history],
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    with replacing(partial, CheckpointError) as temporary:
        torch.save(content, temporary)


def _restore(
    partial: Path, resume: bool, model: nn.Module, optimizer: torch.optim.Optimizer, fixed: dict[str, Any]
) -> list[Epoch]:
    """Return the history of the training in `partial`, with its state put into model and optimizer."""
    refuse_to_begin_anew(partial, resume)
    if not partial.exists():
        return []
    try:
        content = torch.load(partial, map_location="cpu", weights_only=True)
        if (content["format"], content["version"]) != (FORMAT, VERSION):
            raise pickle.UnpicklingError(f"format {content['format']} {content['version']}")
        kept = content["settings"]
        changed = sorted(name for name in {**kept, **fixed} if kept.get(name) != fixed.get(name))
        if not changed:
            history = [Epoch(**epoch) for epoch in content["history"]]
            model.load_state_dict(content["model"])
            optimizer.load_state_dict(content["optimizer"])
            return history
    except Exception as error:  # torch.load raises almost anything on a damaged file
        raise CheckpointError(
            f"{partial}: damaged, or not the state of a training ({first_line(error)}). Remove it and train anew."
        ) from error
    name = changed[0]
    raise CheckpointError(
        f"{partial}: holds a training with {name} {kept.get(name)}, which cannot go on with {fixed.get(name)}. "
        f"Give the {name} that it began with, or remove the file and train anew."
    )
