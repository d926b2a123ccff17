"""CQReLU against its formula in exact fractions, its gradient, and the replacement of ReLU modules."""

import math
from fractions import Fraction

import pytest
import torch
from torch import nn

from lava_casc.frontend import CQReLU, Normalize, replace_relu, trace


def formula(z, levels, threshold, phase):
    """clip(floor(L z / lambda + phase), 0, L), in fractions."""
    steps = math.floor(levels * Fraction(z) / Fraction(threshold) + phase)
    return min(max(steps, 0), levels)


@pytest.mark.parametrize("rounding", ["floor", "round"])
@pytest.mark.parametrize("threshold", [0.25, 0.75, 1.0, 1.5, 3.0])
@pytest.mark.parametrize("levels", [1, 2, 3, 4, 7, 8, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_levels_are_the_formula_on_a_grid(levels, threshold, rounding, dtype):
    # Every multiple of a 64th, and the number just below it: all steps that are dyadic lie on it.
    grid = torch.arange(-64, 4 * 64, dtype=dtype) / 64
    z = torch.cat([grid, torch.nextafter(grid, torch.tensor(-9, dtype=dtype))])
    found = CQReLU(levels, threshold, rounding)(z) * levels / threshold
    phase = Fraction(1, 2) if rounding == "round" else 0
    wanted = [formula(float(v), levels, threshold, phase) for v in z]
    exact = [Fraction(float(v)) * levels / Fraction(threshold) + phase for v in z]
    eps = Fraction(float(torch.finfo(dtype).eps))
    for level, right, x in zip(found.tolist(), wanted, exact, strict=True):
        near = x.denominator > 1 and abs(x - round(x)) <= abs(x) * eps  # not representable: a hair from a step
        assert round(level) == right or near
        assert level == pytest.approx(round(level), abs=1e-5)


@pytest.mark.parametrize("threshold", [0.75, 1.0, 6.0])
@pytest.mark.parametrize("levels", [3, 8, 12])
def test_every_step_that_can_be_written_is_reached(levels, threshold):
    steps = [k for k in range(levels + 1) if Fraction(threshold) * k / levels == Fraction(threshold * k / levels)]
    assert len(steps) > 1
    z = torch.tensor([threshold * k / levels for k in steps], dtype=torch.float64)
    assert torch.equal((CQReLU(levels, threshold)(z) * levels / threshold).round(), torch.tensor(steps).double())


@pytest.mark.parametrize("value", [-math.inf, math.inf, -1e30, 1e30])
def test_extremes_saturate(value):
    z = torch.tensor([value])
    assert CQReLU(4, 2.0)(z).item() == (2.0 if value > 0 else 0.0)


def test_nan_stays_nan():
    assert CQReLU(4)(torch.tensor([math.nan])).isnan().all()


@pytest.mark.parametrize("rounding", ["floor", "round"])
def test_gradient_is_straight_through(rounding):
    threshold, levels = 0.5, 4
    act = CQReLU(levels, threshold, rounding, learnable=True).double()
    z = torch.tensor([-1, -1e-9, 0, 0.06, 0.3, 0.49, 0.5, 0.51, 7], dtype=torch.float64, requires_grad=True)
    a = act(z)
    for i in range(len(z)):
        dz, dt = torch.autograd.grad(a[i], (z, act.threshold), retain_graph=True)
        inside = 0 <= z[i] <= threshold
        assert dz[i] == (1.0 if inside else 0.0)
        assert dz.count_nonzero() <= 1
        assert dt.item() == pytest.approx(((a[i] - z[i] * inside) / threshold).item(), abs=1e-12)


def test_gradient_of_a_threshold_is_that_of_lsq_summed():
    act = CQReLU(8, 1.3, learnable=True)
    z = torch.linspace(-1, 3, 50)
    act(z).sum().backward()
    inside = (z >= 0) & (z <= 1.3)
    wanted = ((act(z) - z * inside) / 1.3).sum()
    assert act.threshold.grad.item() == pytest.approx(wanted.item(), abs=1e-5)


def test_buffer_has_no_gradient():
    act = CQReLU(4, 2.0)
    assert not list(act.parameters())
    assert [name for name, _ in act.named_buffers()] == ["threshold"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_is_kept(dtype):
    z = torch.tensor([-1, 0.25, 0.5, 2], dtype=dtype)
    for learnable in (False, True):
        a = CQReLU(4, 1.0, learnable=learnable)(z)
        assert a.dtype == dtype
        assert a.tolist() == [0, 0.25, 0.5, 1]


def test_state_dict_carries_the_threshold():
    one, other = CQReLU(4, 2.5, learnable=True), CQReLU(4, 1.0, learnable=True)
    other.load_state_dict(one.state_dict())
    assert other.threshold.item() == 2.5
    assert isinstance(other.threshold, nn.Parameter)
    assert "threshold=2.5" in repr(other)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": 0}, "levels"),
        ({"levels": -1}, "levels"),
        ({"levels": 2.0}, "levels"),
        ({"levels": True}, "levels"),
        ({"levels": "4"}, "levels"),
        ({"levels": 4, "threshold": 0.0}, "threshold"),
        ({"levels": 4, "threshold": -1.0}, "threshold"),
        ({"levels": 4, "threshold": math.nan}, "threshold"),
        ({"levels": 4, "threshold": math.inf}, "threshold"),
        ({"levels": 4, "rounding": "ceil"}, "rounding"),
    ],
)
def test_invalid_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        CQReLU(**arguments)


# Normalize


@pytest.mark.parametrize("shape", [(3,), (3, 4, 5)])
@pytest.mark.parametrize(("mean", "std"), [(0.5, 2.0), ([0.1, 0.2, 0.3], [1.0, 2.0, 4.0]), ([0.1, 0.2, 0.3], 0.5)])
def test_normalize(shape, mean, std):
    x = torch.rand(2, *shape)
    columns = (1, 3, *(1,) * (len(shape) - 1))
    wide = [torch.tensor(v).expand(3).reshape(columns) for v in (mean, std)]
    assert torch.equal(Normalize(mean, std)(x), (x - wide[0]) / wide[1])


@pytest.mark.parametrize("std", [0.0, -1.0, [1.0, 0.0], math.nan])
def test_normalize_refuses(std):
    with pytest.raises(ValueError, match="std must be greater than 0"):
        Normalize(0.0, std)


# replace_relu


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.inner = nn.ModuleDict({"six": nn.ReLU6(), "clip": nn.Hardtanh(0.0, 2.5)})

    def forward(self, x):
        return self.inner["clip"](self.inner["six"](self.relu(x)))


def relus(model):
    return [m for m in model.modules() if isinstance(m, nn.ReLU | nn.Hardtanh)]


def test_replace_goes_everywhere_and_leaves_the_original():
    model = nn.Sequential(nn.Linear(4, 3), nn.Sequential(Block(), nn.ReLU()))
    new = replace_relu(model, 8, threshold=1.5, rounding="round", learnable=True)
    assert len(relus(model)) == 4
    assert not relus(new)
    made = [m for m in new.modules() if isinstance(m, CQReLU)]
    assert [m.threshold.item() for m in made] == [1.5, 6.0, 2.5, 1.5]
    assert all((m.levels, m.rounding, m.learnable) == (8, "round", True) for m in made)
    assert torch.equal(new[0].weight, model[0].weight)
    assert new[0].weight is not model[0].weight


def test_a_relu_that_stands_twice_beside_itself_is_replaced_twice():
    relu = nn.ReLU()
    new = replace_relu(nn.Sequential(nn.Linear(4, 4), relu, nn.Linear(4, 4), relu), 4)
    assert not relus(new)
    assert new[1] is new[3]
    assert [op.kind for op in trace(new, (4,)).operations].count("CQReLU") == 2


def test_a_relu_in_two_modules_becomes_one():
    relu = nn.ReLU()
    new = replace_relu(nn.ModuleList([nn.Sequential(relu), nn.Sequential(relu)]), 4)
    assert new[0][0] is new[1][0]


def test_a_bare_relu():
    relu = nn.ReLU6()
    new = replace_relu(relu, 4)
    assert isinstance(new, CQReLU)
    assert new.threshold.item() == 6.0
    assert isinstance(relu, nn.ReLU6)


@pytest.mark.parametrize("module", [nn.Linear(2, 2), nn.LeakyReLU(), nn.Hardtanh(), nn.PReLU(), CQReLU(4)])
def test_nothing_to_replace(module):
    with pytest.raises(ValueError, match="no ReLU module"):
        replace_relu(nn.Sequential(module), 4)


def test_replace_passes_on_bad_arguments():
    with pytest.raises(ValueError, match="levels"):
        replace_relu(nn.ReLU(), 0)


# Thresholds and shifts of channels


@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 4, 2), (5, 4, 3)])
@pytest.mark.parametrize("shift", [None, 0.25, [0.1, -0.3, 2.0]])
@pytest.mark.parametrize("threshold", [0.7, [0.5, 1.3, 6.0]])
def test_each_channel_is_a_cqrelu_of_its_own(shape, threshold, shift):
    z = torch.randn(shape) * 2
    found = CQReLU(4, threshold, "round", shift=shift)(z)
    dim = 2 if z.dim() == 3 else 1  # of a sequence (N, P, F) the features
    for c in range(3):
        own = [v[c] if isinstance(v, list) else v for v in (threshold, shift)]
        alone = CQReLU(4, own[0], "round")(z.select(dim, c) + (own[1] or 0))
        assert torch.equal(found.select(dim, c), alone)


def test_gradients_of_channels_are_those_of_each_alone():
    z = torch.randn(50, 3, 2, dtype=torch.float64).unsqueeze(3).requires_grad_()
    act = CQReLU(4, [0.5, 1.3, 6.0], "round", True, [0.1, -0.3, 2.0]).double()
    weight = torch.randn(z.shape, dtype=torch.float64)
    (act(z) * weight).sum().backward()
    for c in range(3):
        x = (z.detach()[:, c] + act.shift[c].detach()).requires_grad_()
        alone = CQReLU(4, act.threshold[c].item(), "round", learnable=True).double()
        (alone(x) * weight[:, c]).sum().backward()
        assert torch.equal(z.grad[:, c], x.grad)
        torch.testing.assert_close(act.threshold.grad[c], alone.threshold.grad, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(act.shift.grad[c], x.grad.sum(), rtol=1e-12, atol=1e-12)
    assert act.threshold.grad.shape == act.shift.grad.shape == (3,)


def test_state_dict_of_channels():
    assert list(CQReLU(4, [1.0, 2.0]).state_dict()) == ["threshold"]
    assert list(CQReLU(4, learnable=True).state_dict()) == ["threshold"]
    act = CQReLU(4, [1.0, 2.0], learnable=True, shift=0.5)
    assert list(act.state_dict()) == ["threshold", "shift"]
    assert {name for name, _ in act.named_parameters()} == {"threshold", "shift"}
    assert not list(CQReLU(4, [1.0, 2.0], shift=0.5).parameters())
    assert "threshold=1..2 of 2 channels, shift=0.5" in repr(act)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": [1.0, 0.0]}, "threshold must be finite and greater than 0, one for all or one a channel"),
        ({"threshold": []}, "threshold"),
        ({"threshold": [[1.0]]}, "threshold"),
        ({"threshold": [1.0, math.inf]}, "threshold"),
        ({"shift": math.nan}, "shift must be finite, one for all or one a channel"),
        ({"shift": [0.0, -math.inf]}, "shift"),
        ({"shift": [[0.0]]}, "shift"),
    ],
)
def test_invalid_channels(arguments, message):
    with pytest.raises(ValueError, match=message):
        CQReLU(4, **arguments)


@pytest.mark.parametrize("arguments", [{"threshold": [1.0, 2.0]}, {"shift": [0.5]}])
@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 2, 2), (5, 2, 3), (5, 1), (5,)])
def test_channels_of_another_number(arguments, shape):
    if shape == (5, 1) and "shift" in arguments:
        assert CQReLU(4, **arguments)(torch.zeros(shape)).shape == shape
        return
    with pytest.raises(ValueError, match=r"CQReLU of \d channels on an input of shape \(5,"):
        CQReLU(4, **arguments)(torch.zeros(shape))
