"""The loop: schedule, optimizer, what it measures, resumption bit for bit, and errors."""

import math
import re

import pytest
import torch
from torch import nn

from lava_casc.errors import CheckpointError, UnsupportedModelError
from lava_casc.frontend import CQReLU
from lava_casc.training import fit
from lava_casc.training.loop import parameter_groups

STEPS = 5


class Recording(torch.optim.SGD):
    """SGD that writes its learning rates down."""

    def __init__(self, groups, learning_rate):
        super().__init__(groups, learning_rate)
        self.rates = []

    def step(self, closure=None):
        """Take a step."""
        self.rates.append([group["lr"] for group in self.param_groups])
        return super().step(closure)


def _model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8), nn.Dropout(0.2), CQReLU(4, learnable=True), nn.Linear(8, 3)
        )


def _batches(epoch):
    for _ in range(STEPS):
        x = torch.randn(16, 4)
        yield x, x[:, :3].argmax(1)


def _loss(model, batch):
    logits = model(batch[0])
    return {
        "loss": nn.functional.cross_entropy(logits.float(), batch[1]),
        "accuracy": (logits.argmax(1) == batch[1]).float().mean(),
    }


def _fit(model, **changes):
    settings = {"epochs": 4, "steps_per_epoch": STEPS, "learning_rate": 0.1, "seed": 3}
    return fit(model, _batches, _loss, **{**settings, **changes})


def _same(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_learning_rate_follows_the_cosine_after_the_warmup():
    made = []

    def optimizer(groups, learning_rate):
        made.append(Recording(groups, learning_rate))
        return made[0]

    history = _fit(_model(), optimizer=optimizer, warmup=4)
    cosine = [0.1 * (1 + math.cos(math.pi * k / 20)) / 2 for k in range(20)]
    expected = [rate * min(1, (k + 1) / 4) for k, rate in enumerate(cosine)]
    for rates, rate in zip(made[0].rates, expected, strict=True):
        assert rates == pytest.approx([rate, rate, 0.1 * rate])
    assert [epoch.learning_rate for epoch in history] == pytest.approx(expected[::STEPS])


def test_history_holds_the_means_of_what_was_measured():
    seen = []

    def loss(model, batch):
        value = _loss(model, batch)
        seen.append(value["loss"].item())
        return {**value, "steps": torch.tensor(float(len(seen)))}

    history = fit(_model(), _batches, loss, epochs=2, steps_per_epoch=STEPS, learning_rate=0.1)
    assert [epoch.loss for epoch in history] == pytest.approx([sum(seen[:5]) / 5, sum(seen[5:]) / 5])
    assert [epoch.measured["steps"] for epoch in history] == [3, 8]
    assert all(epoch.seconds > 0 for epoch in history)
    assert history[1].measured["accuracy"] > history[0].measured["accuracy"]


def test_every_step_and_every_epoch_is_told():
    shares, epochs = [], []
    history = _fit(_model(), progress=shares.append, on_epoch=lambda *told: epochs.append(told))
    assert shares == [i / 20 for i in range(1, 21)]
    assert epochs == [(i + 1, 4, epoch) for i, epoch in enumerate(history)]


def test_weights_alone_decay_and_thresholds_learn_slowly():
    model = _model()
    groups = parameter_groups(model, 0.3)
    assert [[tuple(p.shape) for p in group["params"]] for group in groups] == [
        [(8, 4), (3, 8)],
        [(8,), (8,), (3,)],
        [()],
    ]
    assert groups[2]["params"][0] is model[3].threshold
    assert [group["weight_decay"] for group in groups] == [0.3, 0, 0]
    assert [group["share"] for group in groups] == [1, 1, 0.1]


def test_gradients_are_clipped_to_a_norm():
    norms = []

    class Norm(Recording):
        def step(self, closure=None):
            norms.append(math.hypot(*(p.grad.norm().item() for g in self.param_groups for p in g["params"])))

    _fit(_model(), optimizer=Norm, clip_norm=0.01, epochs=1)
    assert max(norms) <= 0.0101
    norms.clear()
    _fit(_model(), optimizer=Norm, epochs=1)
    assert min(norms) > 0.0101


def test_layers_compute_in_bfloat16_and_weights_stay_in_float32():
    kinds = set()

    def loss(model, batch):
        value = _loss(model, batch)
        kinds.add(model(batch[0]).dtype)
        return value

    for bfloat16, expected in ((True, torch.bfloat16), (False, torch.float32)):
        model = _model()
        kinds.clear()
        fit(model, _batches, loss, epochs=1, steps_per_epoch=STEPS, learning_rate=0.1, bfloat16=bfloat16)
        assert kinds == {expected}
        assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_random_state_of_the_caller_plays_no_part_and_is_not_disturbed():
    one, other, another = _model(), _model(), _model()
    _fit(one)
    torch.manual_seed(9)
    before = torch.random.get_rng_state()
    _fit(other)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert _same(one, other)
    _fit(another, seed=4)
    assert not _same(one, another)


def _cut_short(path, after, **changes):
    """Train up to an interruption in the middle of the epoch `after` + 1."""

    def interrupt(share):
        if share * 4 > after + 0.5:
            raise KeyboardInterrupt

    model = _model()
    with pytest.raises(KeyboardInterrupt):
        _fit(model, partial=path, progress=interrupt, **changes)
    assert not model.training


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("after", [1, 3])
def test_resumed_training_is_bit_for_bit_the_uninterrupted_one(tmp_path, after, bfloat16):
    whole, resumed, path = _model(), _model(), tmp_path / "x.partial"
    history = _fit(whole, bfloat16=bfloat16)
    _cut_short(path, after, bfloat16=bfloat16)
    shares = []
    again = _fit(resumed, partial=path, resume=True, progress=shares.append, bfloat16=bfloat16)
    assert _same(whole, resumed)
    assert [epoch.measured for epoch in again] == [epoch.measured for epoch in history]
    assert shares == [i / 20 for i in range(STEPS * after + 1, 21)]
    # What is kept after the last epoch is the whole training: nothing is left to do.
    finished = _model()
    assert _fit(finished, partial=path, resume=True, bfloat16=bfloat16) == again
    assert _same(whole, finished)


def test_resuming_what_has_not_begun_begins(tmp_path):
    whole, begun = _model(), _model()
    _fit(whole)
    _fit(begun, partial=tmp_path / "x.partial", resume=True)
    assert _same(whole, begun)
    assert [file.name for file in tmp_path.iterdir()] == ["x.partial"]


def test_training_that_was_cut_short_is_not_written_over(tmp_path):
    path = tmp_path / "x.partial"
    _cut_short(path, 1)
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=r"x.partial: holds a training that was cut short. Give --resume to go"):
        _fit(_model(), partial=path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 5}, "with epochs 4, which cannot go on with 5. Give the epochs that it began with"),
        ({"learning_rate": 0.2}, "with learning_rate 0.1, which cannot go on with 0.2"),
        ({"weight_decay": 0.0}, "with weight_decay 0.0005, which"),
        ({"warmup": 1}, "with warmup 0, which"),
        ({"clip_norm": 1.0}, "with clip_norm None, which"),
        ({"seed": 4}, "with seed 3, which"),
        ({"bfloat16": True}, "with bfloat16 False, which"),
        ({"settings": {"levels": 8}}, "with levels 4, which cannot go on with 8"),
        ({"settings": {}}, "with levels 4, which cannot go on with None"),
    ],
)
def test_other_settings_cannot_go_on(tmp_path, changes, message):
    path = tmp_path / "x.partial"
    _cut_short(path, 1, settings={"levels": 4})
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=re.escape(f"{path}: holds a training ") + message):
        _fit(_model(), **{"partial": path, "resume": True, "settings": {"levels": 4}, **changes})
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "checkpoint", "version", "model"])
def test_damaged_state_is_refused_in_one_line(tmp_path, damage):
    path = tmp_path / "x.partial"
    _cut_short(path, 1)
    model = _model()
    if damage == "model":
        model = nn.Linear(4, 3)
    elif damage in ("checkpoint", "version"):
        content = torch.load(path, weights_only=True)
        torch.save({**content, "version": 0} if damage == "version" else {"a": 1}, path)
    else:
        content = path.read_bytes()
        path.write_bytes({"truncated": content[: len(content) // 2], "garbage": b"no", "empty": b""}[damage])
    with pytest.raises(
        CheckpointError, match=r"x.partial: damaged, or not the state of a training \(.+\). Remove"
    ) as e:
        _fit(model, partial=path, resume=True)
    assert "\n" not in str(e.value)


def test_state_that_cannot_be_written_is_said(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be written"):
        _fit(_model(), partial=tmp_path / "nowhere" / "x.partial")


def test_diverged_training_is_said_and_not_kept(tmp_path):
    message = r"training: the loss \((nan|inf)\) of epoch \d is not finite. Train with a smaller learning rate."
    path = tmp_path / "x.partial"
    with pytest.raises(UnsupportedModelError, match=message):
        fit(
            nn.Linear(4, 3),
            _batches,
            lambda model, batch: {"loss": model(batch[0]).square().mean()},
            epochs=40,
            steps_per_epoch=STEPS,
            learning_rate=1e6,
            partial=path,
        )
    assert not path.exists() or all(
        math.isfinite(epoch["measured"]["loss"]) for epoch in torch.load(path, weights_only=True)["history"]
    )


def test_thresholds_of_channels_learn_slowly_and_their_shifts_as_biases():
    model = _model()
    model[3] = CQReLU(4, torch.linspace(0.5, 2, 8), "round", True, torch.linspace(-0.1, 0.1, 8))
    groups = parameter_groups(model, 0.3)
    assert [len(group["params"]) for group in groups] == [2, 4, 1]
    assert groups[2]["params"][0] is model[3].threshold
    assert any(p is model[3].shift for p in groups[1]["params"])
    before = model[3].threshold.detach().clone(), model[3].shift.detach().clone()
    fit(model, _batches, _loss, epochs=2, steps_per_epoch=STEPS, learning_rate=0.1)
    assert bool((model[3].threshold != before[0]).all())
    assert bool((model[3].shift != before[1]).all())


def test_one_threshold_of_many_that_turns_negative_is_said():
    model = _model()
    model[3] = CQReLU(4, torch.linspace(0.5, 2, 8), "round", True)

    def loss(model, batch):
        return {"loss": _loss(model, batch)["loss"] + 1e3 * model[3].threshold[5]}

    with pytest.raises(UnsupportedModelError, match=r"3: its threshold \(-.+\) is not positive after epoch 1"):
        fit(model, _batches, loss, epochs=2, steps_per_epoch=STEPS, learning_rate=0.1)


def test_a_threshold_that_turns_negative_is_said_at_once():
    def loss(model, batch):
        return {"loss": _loss(model, batch)["loss"] + 1e3 * model[3].threshold}

    with pytest.raises(
        UnsupportedModelError, match=r"3: its threshold \(-.+\) is not positive after epoch 1. Train wi"
    ):
        fit(_model(), _batches, loss, epochs=2, steps_per_epoch=STEPS, learning_rate=0.1)


@pytest.mark.parametrize("steps", [STEPS - 1, STEPS + 1])
def test_wrong_number_of_batches_is_a_bug_of_the_caller(steps):
    with pytest.raises(ValueError, match=f"epoch 0 had not {steps} batches"):
        _fit(_model(), steps_per_epoch=steps)


@pytest.mark.parametrize("changes", [{"epochs": 0}, {"steps_per_epoch": 0}])
def test_no_step_to_take_is_refused(changes):
    with pytest.raises(ValueError, match="must be at least 1"):
        _fit(_model(), **changes)
