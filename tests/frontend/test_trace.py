"""Tracing: every supported form, every refusal, and a graph that computes what the model does."""

import math
import operator
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from models import Model, kinds, randomize
from torch import nn
from torch.nn.utils import prune

from lava_casc.errors import CascError, UnsupportedModelError
from lava_casc.frontend import CQReLU, GraphModel, InputSpec, Normalize, load_checkpoint, save_model, trace
from lava_casc.frontend.cqrnn import CQRNN
from lava_casc.frontend.trace import KINDS, Graph, Operation

IMAGE = (3, 4, 6)


def same(model, shape=IMAGE):
    """Trace; the graph's outputs must be the model's bit for bit. Return the kinds."""
    randomize(model)
    graph = trace(model, shape)
    x = torch.rand(3, *shape) * 2 - 1
    with torch.no_grad():
        wanted, found = model(x), GraphModel(graph).eval()(x)
    wanted = tuple(wanted.values()) if isinstance(wanted, dict) else wanted
    assert isinstance(found, tuple) == (isinstance(wanted, tuple | list) and len(wanted) > 1)
    pairs = zip(*(v if isinstance(v, tuple | list) else (v,) for v in (found, wanted)), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    return kinds(graph)


FORMS = {
    "avg positional": (lambda s, x: F.avg_pool2d(x, 2, 1), ["AvgPool2d"]),
    "avg keyword": (
        lambda s, x: F.avg_pool2d(x, kernel_size=(2, 3), stride=(1, 2), padding=1),
        ["AvgPool2d"],
    ),
    "avg all keyword": (lambda s, x: F.avg_pool2d(input=x, kernel_size=2), ["AvgPool2d"]),
    "avg ceil": (lambda s, x: F.avg_pool2d(x, 3, 2, 1, True, False), ["AvgPool2d"]),
    "avg divisor": (lambda s, x: F.avg_pool2d(x, 2, divisor_override=3), ["AvgPool2d"]),
    "max positional": (lambda s, x: F.max_pool2d(x, 2, 1), ["MaxPool2d"]),
    "max keyword": (lambda s, x: F.max_pool2d(x, kernel_size=3, padding=1, dilation=1), ["MaxPool2d"]),
    "max ceil, all the same": (lambda s, x: F.max_pool2d(x, (2, 3), (2, 1), ceil_mode=True), ["MaxPool2d"]),
    "adaptive": (lambda s, x: F.adaptive_avg_pool2d(x, (2, None)), ["AdaptiveAvgPool2d"]),
    "adaptive int": (lambda s, x: F.adaptive_avg_pool2d(x, output_size=1), ["AdaptiveAvgPool2d"]),
    "mean method": (lambda s, x: x.mean((2, 3)), ["AdaptiveAvgPool2d", "Flatten"]),
    "mean function": (lambda s, x: torch.mean(x, dim=[-1, -2]), ["AdaptiveAvgPool2d", "Flatten"]),
    "mean all keyword": (lambda s, x: torch.mean(input=x, dim=(2, 3)), ["AdaptiveAvgPool2d", "Flatten"]),
    "mean keepdim": (lambda s, x: x.mean(dim=(3, 2), keepdim=True), ["AdaptiveAvgPool2d"]),
    "flatten function": (lambda s, x: torch.flatten(x, 1), ["Flatten"]),
    "flatten keyword": (lambda s, x: torch.flatten(input=x, start_dim=1), ["Flatten"]),
    "flatten method": (lambda s, x: x.flatten(start_dim=1), ["Flatten"]),
    "view size": (lambda s, x: x.view(x.size(0), -1), ["Flatten"]),
    "view shape": (lambda s, x: x.view(x.shape[0], -1), ["Flatten"]),
    "reshape": (lambda s, x: x.reshape(-1, 72), ["Flatten"]),
    "reshape function": (lambda s, x: torch.reshape(x, (-1, 72)), ["Flatten"]),
    "add": (lambda s, x: s.conv(x) + x, ["Conv2d", "add"]),
    "operator.add": (lambda s, x: operator.add(x, s.conv(x)), ["Conv2d", "add"]),
    "torch.add": (lambda s, x: torch.add(s.conv(x), x), ["Conv2d", "add"]),
    "torch.add keyword": (lambda s, x: torch.add(input=s.conv(x), other=x), ["Conv2d", "add"]),
    "sum": (lambda s, x: sum([s.conv(x), x, s.conv(x)]), ["Conv2d", "Conv2d", "add", "add"]),
    "method add": (lambda s, x: s.conv(x).add(x), ["Conv2d", "add"]),
    "add to itself": (lambda s, x: x + x, ["add"]),
    "cat": (lambda s, x: torch.cat([s.conv(x), x], 1), ["Conv2d", "concatenate"]),
    "cat keyword": (lambda s, x: torch.cat(dim=1, tensors=(s.conv(x), x)), ["Conv2d", "concatenate"]),
    "cat axis": (lambda s, x: torch.cat((s.conv(x), x), axis=1), ["Conv2d", "concatenate"]),
    "cat along a size": (lambda s, x: torch.cat([x, s.conv(x)], x.dim() - 3), ["Conv2d", "concatenate"]),
    "windows of a size": (lambda s, x: F.max_pool2d(x, x.size(2)), ["MaxPool2d"]),
    "windows of a shape": (lambda s, x: F.avg_pool2d(x, x.shape[-2:]), ["AvgPool2d"]),
    "decided by a size": (lambda s, x: s.conv(x) if min(x.shape[2:]) < 5 and x.ndim == 4 else x, ["Conv2d"]),
    "asserted": (lambda s, x: (torch._assert(x.size(1) == 3, "three"), s.conv(x))[1], ["Conv2d"]),
    "F.conv2d": (lambda s, x: F.conv2d(x, s.conv.weight, None, 2, padding=(1, 0)), ["Conv2d"]),
    "F.conv2d by names": (lambda s, x: F.conv2d(input=x, weight=s.conv.weight[:1], groups=1), ["Conv2d"]),
    "F.conv2d, computed": (
        lambda s, x: F.conv2d(x, s.conv.weight - s.conv.weight.mean(), s.conv.bias.exp(), padding=1),
        ["Conv2d"],
    ),
    "F.conv2d, in groups": (lambda s, x: F.conv2d(x, s.conv.weight[:, :1], groups=3, dilation=(1, 2)), ["Conv2d"]),
    "F.linear": (lambda s, x: F.linear(x.flatten(1), s.fc.weight, s.fc.bias), ["Flatten", "Linear"]),
    "F.linear without bias": (lambda s, x: F.linear(x.flatten(1), weight=s.fc.weight), ["Flatten", "Linear"]),
    "F.batch_norm": (
        lambda s, x: F.batch_norm(
            x, s.norm.running_mean, s.norm.running_var, s.norm.weight, s.norm.bias, False, 0.1, 0.5
        ),
        ["BatchNorm2d"],
    ),
    "F.batch_norm of vectors": (
        lambda s, x: F.batch_norm(x.mean((2, 3)), s.norm.running_mean, s.norm.running_var),
        ["AdaptiveAvgPool2d", "Flatten", "BatchNorm1d"],
    ),
    "F.batch_norm, half": (
        lambda s, x: F.batch_norm(x, s.norm.running_mean, s.norm.running_var, bias=s.norm.bias),
        ["BatchNorm2d"],
    ),
    "concat": (lambda s, x: torch.concat([x, s.conv(x)], -3), ["Conv2d", "concatenate"]),
    "concatenate": (lambda s, x: torch.concatenate([x, s.conv(x), x], dim=-3), ["Conv2d", "concatenate"]),
    "cat of vectors": (lambda s, x: torch.cat([x.flatten(1), x.mean((2, 3))], -1), None),
    "cat of one": (lambda s, x: torch.cat([x], 1), ["concatenate"]),
    "cat of the same": (lambda s, x: torch.cat([x, x], 1), ["concatenate"]),
    "cat of cats": (lambda s, x: torch.cat([torch.cat([x, x], 1), x], 1), ["concatenate", "concatenate"]),
    "tuple": (lambda s, x: (s.conv(x), x.flatten(1)), ["Conv2d", "Flatten"]),
    "list": (lambda s, x: [s.conv(x), x], ["Conv2d"]),
    "tuple of one": (lambda s, x: (s.conv(x),), ["Conv2d"]),
    "dictionary": (lambda s, x: {"a": s.conv(x), "b": s.act(x)}, ["Conv2d", "CQReLU"]),
    "the same twice": (lambda s, x: (y := s.conv(x), y), ["Conv2d"]),
    "output read on": (lambda s, x: (y := s.conv(x), s.act(y)), ["Conv2d", "CQReLU"]),
    "an output last but one": (lambda s, x: (lambda y: (s.act(y), y))(s.conv(x)), ["Conv2d", "CQReLU"]),
    "F.relu": (lambda s, x: F.relu(s.conv(x)), ["Conv2d", "ReLU"]),
    "F.relu in place": (lambda s, x: F.relu(s.conv(x), inplace=True), ["Conv2d", "ReLU"]),
    "torch.relu": (lambda s, x: torch.relu(input=s.conv(x)), ["Conv2d", "ReLU"]),
    "x.relu": (lambda s, x: s.conv(x).relu(), ["Conv2d", "ReLU"]),
    "x.relu_": (lambda s, x: s.conv(x).relu_(), ["Conv2d", "ReLU"]),
    "nn.ReLU6": (lambda s, x: s.six(s.conv(x)), ["Conv2d", "Hardtanh"]),
    "F.relu6": (lambda s, x: F.relu6(s.conv(x)), ["Conv2d", "Hardtanh"]),
    "F.hardtanh": (lambda s, x: F.hardtanh(s.conv(x), 0, 0.5), ["Conv2d", "Hardtanh"]),
    "F.hardtanh by names": (lambda s, x: F.hardtanh(s.conv(x), max_val=2, min_val=0), ["Conv2d", "Hardtanh"]),
    "dropout function": (lambda s, x: F.dropout(s.conv(x), training=s.training), ["Conv2d"]),
    "dropout2d function": (lambda s, x: F.dropout2d(s.conv(x), 0.5, s.training), ["Conv2d"]),
    "module by keyword": (lambda s, x: s.conv(input=x), ["Conv2d"]),
    "module twice": (lambda s, x: s.conv(s.conv(x)), ["Conv2d", "Conv2d"]),
    "branches": (lambda s, x: s.act(s.conv(x)) + s.act(x), ["Conv2d", "CQReLU", "CQReLU", "add"]),
    "unused value": (lambda s, x: (s.act(x), s.conv(x))[1], ["Conv2d"]),
    "dropout last": (lambda s, x: F.dropout(s.conv(x), 0.1, False), ["Conv2d"]),
}


@pytest.mark.parametrize("form", FORMS)
def test_supported_form(form):
    run, wanted = FORMS[form]
    found = same(
        Model(
            run,
            conv=nn.Conv2d(3, 3, 3, padding=1),
            act=CQReLU(4),
            six=nn.ReLU6(),
            norm=nn.BatchNorm2d(3),
            fc=nn.Linear(72, 2),
        )
    )
    assert found == (wanted or ["Flatten", "AdaptiveAvgPool2d", "Flatten", "concatenate"])


def test_outputs_are_named_and_ordered_as_the_model_returns_them():
    conv, act = nn.Conv2d(3, 3, 1), CQReLU(4)
    graph = trace(Model(lambda s, x: (y := s.conv(x), s.act(y), x, y), conv=conv, act=act), IMAGE)
    assert (graph.outputs, graph.output_names) == (("conv", "act", "x", "conv"), ())
    graph = trace(Model(lambda s, x: {"b": s.act(x), "a": s.conv(x)}, conv=conv, act=act), IMAGE)
    assert (graph.outputs, graph.output_names) == (("act", "conv"), ("b", "a"))
    assert trace(GraphModel(graph), IMAGE).output_names == ("b", "a")
    assert trace(Model(lambda s, x: s.act(x), act=act), IMAGE).outputs == ("act",)


def test_in_place_sum():
    def run(self, x):
        y = self.conv(x)
        y += x
        return y

    assert same(Model(run, conv=nn.Conv2d(3, 3, 1))) == ["Conv2d", "add"]


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(3, 6, (2, 3), (1, 2), (1, 0), (2, 1), groups=3, bias=False),
        nn.Conv2d(3, 2, 3, padding="valid"),
        nn.BatchNorm2d(3),
        nn.BatchNorm2d(3, affine=False, eps=0.5),
        nn.AvgPool2d(2, (2, 1), 1, True, False, 3),
        nn.MaxPool2d(3, (2, 1), 1, 1),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.MaxPool2d(2, (2, 1), (1, 0), (1, 2), ceil_mode=True),
        nn.AdaptiveAvgPool2d((None, 2)),
        nn.Flatten(),
        CQReLU(3, 0.7, "round", True),
        CQReLU(3, [0.7, 0.2, 1.1], "round", True, [0.1, -0.2, 0.3]),
        CQReLU(3, 0.7, shift=[0.1, -0.2, 0.3]),
        nn.ReLU(),
        nn.ReLU(inplace=True),
        nn.Hardtanh(0, 0.7),
        Normalize([0.1, 0.2, 0.3], [1.0, 2.0, 3.0]),
        Normalize(0.1, 2.0),
    ],
)
def test_supported_module(module):
    assert same(module) == [type(module).__name__]
    assert same(nn.Sequential(nn.Identity(), nn.Sequential(module, nn.Dropout()))) == [type(module).__name__]


@pytest.mark.parametrize("module", [nn.Linear(5, 2), nn.BatchNorm1d(5), nn.Flatten(), CQReLU(2), Normalize(0.5, 0.5)])
def test_supported_flat_module(module):
    assert same(module, (5,)) == [type(module).__name__]


def test_all_kinds_have_been_traced_above():
    assert len(KINDS.keys() - {nn.Embedding, CQRNN}) == 12  # these two in test_cqrnn.py


@pytest.mark.parametrize("module", [nn.Identity(), nn.Dropout(), nn.Sequential()])
def test_nothing_at_all(module):
    assert same(module, (5,)) == []


def test_data_flow_and_not_declaration_orders():
    parts = {"c": nn.Linear(2, 4), "b": CQReLU(2), "a": nn.Linear(5, 2)}
    model = Model(lambda s, x: s.c(s.b(s.a(x))), **parts, unused=nn.LSTM(2, 3))
    assert same(model, (5,)) == ["Linear", "CQReLU", "Linear"]
    assert [op.path for op in trace(model, (5,)).operations[1:]] == ["a", "b", "c"]


def test_names_are_unique_and_paths_are_module_paths():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.flatten, self.x = nn.Flatten(), nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.flatten(self.x(self.x(x)).mean((2, 3)))

    # `mean.flatten` is a module here, and what x.mean(...) is split into elsewhere.
    model = Model(lambda s, x: s.mean(s.conv_1(s.conv(s.conv(s.x(x))))), mean=Pooled(), x=nn.Conv2d(3, 3, 1))
    model.conv, model.conv_1 = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
    graph = trace(model, IMAGE)
    same(model)
    names = [op.name for op in graph.operations]
    assert len(set(names)) == len(names)
    assert {"x", "conv", "conv_1", "mean.x", "mean.flatten"} <= {op.path for op in graph.operations}


REFUSED = {
    "sigmoid": (lambda s, x: s.part(x), nn.Sigmoid(), "part: Sigmoid is not supported: of activations only ReLU"),
    "leaky relu function": (
        lambda s, x: F.leaky_relu(x),
        None,
        r"leaky_relu\(\) is not supported: of activations only",
    ),
    "leaky relu": (lambda s, x: s.part(x), nn.LeakyReLU(), "part: LeakyReLU is not supported"),
    "hardtanh": (lambda s, x: s.part(x), nn.Hardtanh(), r"part: Hardtanh with limits -1 and 1. Use Hardtanh\(0, a\)"),
    "F.hardtanh": (lambda s, x: F.hardtanh(x), None, r"hardtanh: hardtanh\(\) with limits -1.0 and 1.0. Give 0"),
    "F.hardtanh by names": (lambda s, x: F.hardtanh(x, max_val=2, min_val=1), None, "limits 1 and 2. Give 0 and a num"),
    "transposed": (
        lambda s, x: s.part(x),
        nn.ConvTranspose2d(3, 3, 2),
        "part: ConvTranspose2d is not supported",
    ),
    "group norm": (lambda s, x: s.part(x), nn.GroupNorm(1, 3), "part: GroupNorm is not supported: only a batch norm"),
    "lstm": (lambda s, x: s.part(x.mean(2))[0], nn.LSTM(6, 3), r"mean: mean\(\) is not supported"),
    "sequence": (lambda s, x: s.part(x[:, 0])[0], nn.LSTM(6, 3), r"getitem: getitem\(\) is not supported"),
    "heads": (lambda s, x: s.part(x, x, x)[0], nn.LSTM(6, 3), "cannot be traced|does not run"),
    "tuple": (lambda s, x: s.part(x.flatten(1))[0], nn.LSTM(72, 3), "part: LSTM is not supported"),
    "relu in place of what is read again": (
        lambda s, x: (lambda y: F.relu(y, inplace=True) + y)(s.part(x)),
        nn.Conv2d(3, 3, 1),
        "does something that torch.fx cannot see",
    ),
    "cat of rows": (lambda s, x: torch.cat([x, x], 2), None, r"^cat: cat\(\) along dimension 2 .* dimension 1"),
    "cat of columns": (lambda s, x: torch.cat([x, x], -1), None, r"^cat: cat\(\) along dimension -1"),
    "cat of vectors": (
        lambda s, x: torch.cat([s.part(x), s.part(x)], -2),
        nn.Flatten(),
        r"^cat: cat\(\) along dimension -2",
    ),
    "cat of batches": (lambda s, x: torch.concat([x, x]), None, r"^concat: concat\(\) along dimension 0"),
    "cat of what does not fit": (lambda s, x: torch.cat([x, s.part(x)], 1), nn.AvgPool2d(2), "does not run on an inp"),
    "split": (lambda s, x: x.split(1, 1)[0], None, r"split: split\(\) is not supported: no value is taken apart"),
    "reflect": (
        lambda s, x: s.part(x),
        nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"),
        "part: .*'reflect'",
    ),
    "same": (lambda s, x: s.part(x), nn.Conv2d(3, 3, 3, padding="same"), "part: Conv2d with padding 'same'"),
    "max ceil": (lambda s, x: s.part(x), nn.MaxPool2d(3, 2, ceil_mode=True), "part: MaxPool2d with ceil_mode"),
    "F.max ceil": (
        lambda s, x: F.max_pool2d(x, 4, ceil_mode=True),
        None,
        "max_pool2d: MaxPool2d with ceil_mode .* beyond the image. Use floor mode",
    ),
    "indices": (lambda s, x: s.part(x)[0], nn.MaxPool2d(2, return_indices=True), "part: .*return_indices"),
    "ceil, indices": (lambda s, x: s.part(x)[0], nn.MaxPool2d(2, 2, 0, 1, True, True), "part: .*return_indices|ceil"),
    "no statistics": (
        lambda s, x: s.part(x),
        nn.BatchNorm2d(3, track_running_stats=False),
        "part: .*running stat",
    ),
    "alpha": (lambda s, x: torch.add(x, x, alpha=2), None, "add: .*anything but two tensors"),
    "plus one": (lambda s, x: x + 1, None, "add: .*anything but two tensors"),
    "one plus": (lambda s, x: 1 + x, None, "add: .*anything but two tensors"),
    "times two": (lambda s, x: x * 2, None, r"mul: mul\(\) is not supported"),
    "minus": (lambda s, x: s.part(x) - x, nn.Conv2d(3, 3, 1), r"sub: sub\(\) is not supported"),
    "broadcast": (lambda s, x: x + s.part(x), nn.AdaptiveAvgPool2d(1), r"an addition of shapes \(3, 4, 6\)"),
    "own tensor": (
        lambda s, x: x + s.part,
        nn.Parameter(torch.ones(1, 3, 4, 6)),
        r"^add: add\(\) of a tensor of the model's own \(part\) is not supported",
    ),
    "own buffer": (
        lambda s, x: x + s.part.bias.sum(),
        nn.Conv2d(3, 3, 1),
        r"of a tensor of the model's own \(part.bias\)",
    ),
    "tensor made in forward": (lambda s, x: x + torch.ones(2, 3, 4, 6), None, "of a tensor of the model's own"),
    "nest": (lambda s, x: (x, [s.part(x)]), nn.Flatten(), "returns something other than tensors. Return one"),
    "None": (lambda s, x: (x, None), None, "returns something other than tensors. Return one"),
    "nothing": (lambda s, x: (), None, "returns something other than tensors. Return one"),
    "size": (lambda s, x: (x, x.size(1)), None, "returns something other than tensors. Return one"),
    "keys": (lambda s, x: {1: s.part(x)}, nn.Flatten(), "keys that are no names. Use strings"),
    "empty key": (lambda s, x: {"": s.part(x)}, nn.Flatten(), "keys that are no names. Use strings"),
    "split output": (lambda s, x: x.split(1, 1), None, r"split: split\(\) is not supported"),
    "control flow": (
        lambda s, x: x if x.sum() > 0 else s.part(x),
        nn.Flatten(),
        "cannot be traced .*control flow",
    ),
    "loop": (lambda s, x: [s.part(row) for row in x][0], nn.Flatten(), "cannot be traced"),
    "flatten all": (lambda s, x: torch.flatten(x), None, r"flatten: a reshape from \(3, 4, 6\) to \(\)"),
    "flatten part": (lambda s, x: s.part(x), nn.Flatten(2), r"part: a reshape from \(3, 4, 6\) to \(3, 24\)"),
    "view": (lambda s, x: x.view(x.size(0), 6, 4, 3), None, r"view: a reshape .* to \(6, 4, 3\)"),
    "permute": (
        lambda s, x: x.permute(0, 2, 3, 1).flatten(1),
        None,
        r"permute: permute\(\) is not supported",
    ),
    "mean channels": (lambda s, x: x.mean(1), None, r"mean: mean\(\) is not supported"),
    "mean of all": (lambda s, x: x.mean(), None, r"mean: mean\(\) is not supported"),
    "dropout": (lambda s, x: F.dropout(x, 0.3), None, "dropout: .*drops in evaluation"),
    "dropout true": (lambda s, x: F.dropout2d(x, training=True), None, "dropout2d: .*drops in evaluation"),
    "channels": (
        lambda s, x: s.part(x),
        nn.Conv2d(4, 3, 1),
        r"does not run on an input of shape \(3, 4, 6\)",
    ),
    "normalize": (
        lambda s, x: s.part(x.mean((2, 3))),
        Normalize([0.0] * 2, [1.0] * 2),
        "does not run on an input",
    ),
    "linear": (lambda s, x: s.part(x), nn.Linear(5, 3), "does not run on an input"),
    "weights of the input": (
        lambda s, x: F.linear(s.part(x), F.relu(s.part(x))),
        nn.Flatten(),
        r"^linear: linear\(\) with weights that depend on the input",
    ),
    "statistics of the batch": (
        lambda s, x: F.batch_norm(x, s.part.running_mean, s.part.running_var, training=True),
        nn.BatchNorm2d(3),
        r"batch_norm: batch_norm\(\) by the statistics of the batch. Train with track",
    ),
    "no statistics in a function": (
        lambda s, x: F.batch_norm(x, None, None, s.part.weight, s.part.bias),
        nn.BatchNorm2d(3),
        "does not run|by the statistics of the batch",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    run, part, message = REFUSED[case]
    model = Model(run, part=part) if part is not None else Model(run)
    with pytest.raises(UnsupportedModelError, match=message) as caught:
        trace(model, IMAGE)
    assert "\n" not in str(caught.value)


class NormAct(nn.BatchNorm2d):
    """A batch norm with its activation inside, as timm has it."""

    def __init__(self, channels):
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), nn.ReLU(inplace=True)

    def forward(self, x):
        torch._assert(x.ndim == 4, "expected 4 dimensions")
        x = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training, 0.1, self.eps)
        return self.act(self.drop(x))


class Conv(nn.Conv2d):
    """Nothing but another name."""


class Standardized(nn.Conv2d):
    """A convolution whose weights are computed of its own."""

    def forward(self, x):
        mean, deviation = self.weight.mean((1, 2, 3), keepdim=True), self.weight.std((1, 2, 3), keepdim=True)
        return F.conv2d(x, (self.weight - mean) / deviation, self.bias, self.stride, self.padding)


class Head(nn.Module):
    """A head in timm's manner, which asks how large its input is."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Conv2d(3, 5, 7)

    def forward(self, x):
        if x.shape[-2] < 7 or x.shape[-1] < 7:
            x = F.adaptive_avg_pool2d(x, (max(7, x.shape[-2]), max(7, x.shape[-1])))
        return self.fc(x).flatten(1)


def test_a_class_of_ones_own_is_followed_inside():
    assert same(nn.Sequential(Conv(3, 3, 1), NormAct(3))) == ["Conv2d", "BatchNorm2d", "ReLU"]
    assert same(Standardized(3, 2, 3, padding=1)) == ["Conv2d"]
    assert same(Head()) == ["AdaptiveAvgPool2d", "Conv2d", "Flatten"]
    graph = trace(nn.Sequential(nn.Sequential(NormAct(3))), IMAGE)
    assert [op.path for op in graph.operations[1:]] == ["0.0.batch_norm", "0.0.act"]


def test_what_forward_takes_besides_its_input_has_its_default():
    def run(self, x, mask=None, features=False, times=2):
        x = self.conv(x) if mask is None and not features else -x
        return x + x if times == 2 else x

    assert same(Model(run, conv=nn.Conv2d(3, 2, 1))) == ["Conv2d", "add"]
    with pytest.raises(UnsupportedModelError, match=r"^mask: does not run .* \(the model takes mask besides its input"):
        trace(Model(lambda s, x, mask: x + mask), IMAGE)


def test_tensors_that_forward_makes_are_not_left_on_the_model():
    model = nn.Sequential(Model(lambda s, x: F.linear(x, torch.eye(5))))
    before = set(vars(model))
    assert same(model, (5,)) == ["Linear"]
    assert set(vars(model)) == before


def test_what_cannot_be_traced_or_run_is_named_by_its_module():
    branch = Model(lambda s, x: x if x.sum() > 0 else -x)
    with pytest.raises(UnsupportedModelError, match=r"^0\.1: cannot be traced \(TraceError"):
        trace(nn.Sequential(nn.Sequential(nn.ReLU(), branch)), IMAGE)
    with pytest.raises(UnsupportedModelError, match=r"^0\.1: does not run on an input of shape \(3, 4, 6\)"):
        trace(nn.Sequential(nn.Sequential(nn.ReLU(), nn.Linear(5, 2))), IMAGE)


def test_a_refusal_names_the_path_of_what_is_nested():
    inner = Model(lambda s, x: F.elu(s.fc(x)), fc=nn.Linear(5, 5))
    with pytest.raises(UnsupportedModelError, match=r"^body\.1\.elu: elu\(\) is not supported"):
        trace(Model(lambda s, x: s.body(x), body=nn.Sequential(nn.Identity(), inner)), (5,))
    with pytest.raises(UnsupportedModelError, match=r"^0\.1: Tanh is not supported"):
        trace(nn.Sequential(nn.Sequential(nn.Linear(5, 5), nn.Tanh())), (5,))


@pytest.mark.parametrize("shape", [(5, 4, 5), (4, 4, 4), (1, 1, 1)])
@pytest.mark.parametrize("dims", [(1, 2), (1, 3), (0, 1), 2, (1, 2, 3)])
def test_a_mean_over_other_axes_is_refused_whatever_its_shape(shape, dims):
    with pytest.raises(UnsupportedModelError, match="mean"):
        trace(Model(lambda s, x: x.mean(dims)), shape)


@pytest.mark.parametrize("shape", [(), (3, 4), (2, 3, 4, 5)])
def test_input_shape_is_an_image_or_a_vector(shape):
    with pytest.raises(UnsupportedModelError, match=r"neither \(C, H, W\) nor \(N,\)"):
        trace(nn.Identity(), shape)


def test_normalize_must_not_widen_the_image():
    with pytest.raises(UnsupportedModelError, match="0: Normalize of 3 channels on an input of shape"):
        trace(nn.Sequential(Normalize([0.0] * 3, 1.0)), (1, 4, 5))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("module", "name"),
    [
        *((nn.Conv2d(3, 3, 1), name) for name in ("weight", "bias")),
        *((nn.BatchNorm2d(3), name) for name in ("weight", "bias", "running_mean", "running_var")),
        *((nn.Sequential(nn.Flatten(), nn.Linear(72, 2)), name) for name in ("1.weight", "1.bias")),
        *((Normalize([0.0] * 3, [1.0] * 3), name) for name in ("mean", "std")),
    ],
)
def test_nan_and_infinity_are_refused_in_every_tensor(module, name, bad):
    before = module.state_dict()[name].clone()
    module.state_dict()[name].view(-1)[-1] = bad
    try:
        with pytest.raises(UnsupportedModelError, match=f"its {name.split('.')[-1]} holds NaN or infinity"):
            trace(module, IMAGE)
    finally:
        module.state_dict()[name].copy_(before)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, -1.0])
def test_a_learned_threshold_must_be_positive_and_finite(bad):
    act = CQReLU(4, learnable=True)
    act.threshold.data.fill_(bad)
    with pytest.raises(UnsupportedModelError, match=r"0: (CQReLU with threshold|its threshold holds NaN or inf)"):
        trace(nn.Sequential(act), (5,))


# What torch.fx cannot see


def test_in_place_addition_to_what_is_used_again():
    def run(self, x):
        y = z = self.conv(x)
        y += x
        return self.act(y) + z

    with pytest.raises(UnsupportedModelError, match="something that torch.fx cannot see"):
        trace(Model(run, conv=nn.Conv2d(3, 3, 1), act=CQReLU(4)), IMAGE)


@pytest.mark.parametrize("first", [False, True])
def test_a_hook_that_changes_one_output(first):
    model = Model(lambda s, x: (s.a(x), s.b(x)), a=nn.Linear(5, 3), b=nn.Linear(5, 2))
    (model.a if first else model.b).register_forward_hook(lambda module, args, output: output * 2)
    with pytest.raises(UnsupportedModelError, match="something that torch.fx cannot see"):
        trace(model, (5,))


@pytest.mark.parametrize("inside", [False, True])
def test_a_hook_that_changes_the_output(inside):
    model = nn.Sequential(nn.Linear(5, 3))
    (model[0] if inside else model).register_forward_hook(lambda module, args, output: output * 2)
    with pytest.raises(UnsupportedModelError, match="something that torch.fx cannot see"):
        trace(model, (5,))


def test_a_hook_that_looks_on_is_fine():
    seen = []
    model = nn.Sequential(nn.Linear(5, 3))
    model[0].register_forward_hook(lambda module, args, output: seen.append(output.shape))
    assert same(model, (5,)) == ["Linear"]
    assert seen


def test_a_batch_size_in_forward():
    with pytest.raises(UnsupportedModelError, match="does not run on a batch of 4"):
        trace(Model(lambda s, x: x.view(2, -1)), IMAGE)


@pytest.mark.filterwarnings("ignore:torch.nn.utils.weight_norm is deprecated:UserWarning", "ignore::FutureWarning")
def test_weights_that_are_computed():
    with pytest.raises(UnsupportedModelError, match="0: Conv2d computes its weights from .*weight_g"):
        trace(nn.Sequential(nn.utils.weight_norm(nn.Conv2d(3, 3, 1))), IMAGE)
    pruned = nn.Linear(5, 2)
    prune.random_unstructured(pruned, "weight", 0.5)
    with pytest.raises(UnsupportedModelError, match="0: Linear computes its weights from .*weight_mask"):
        trace(nn.Sequential(pruned), (5,))
    prune.remove(pruned, "weight")
    assert same(pruned, (5,)) == ["Linear"]
    # What torch.fx follows to the weight itself is computed once.
    normed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 1)))
    assert same(normed) == ["Conv2d"]
    normed[0].parametrizations.weight.original0.data *= 2
    (conv,) = trace(normed, IMAGE).operations[1:]
    assert torch.equal(conv.tensors["weight"], normed[0].weight)


# What tracing leaves behind


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(fails):
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Sigmoid() if fails else CQReLU(4))
    model.train()
    model[1].eval()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    modes, state = [m.training for m in model.modules()], torch.get_rng_state()
    if fails:
        with pytest.raises(UnsupportedModelError):
            trace(model, (5,))
    else:
        GraphModel(trace(model, (5,)))
        assert torch.equal(torch.get_rng_state(), state)  # nor does the training's random sequence move on
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_graph_keeps_the_dtype(dtype):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), CQReLU(4, 0.7), nn.Flatten(), nn.Linear(32, 2))
    model = randomize(model).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.rand_like(parameter) / 3  # values that float32 cannot hold
    graph = trace(model, IMAGE)
    x = torch.rand(3, *IMAGE, dtype=dtype)
    with torch.no_grad():
        assert torch.equal(GraphModel(graph).eval()(x), model(x))


def test_a_graph_model_without_tensors_of_its_own_reads_the_graphs_and_leaves_them_as_they_are():
    graph = trace(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), CQReLU(4, learnable=True), nn.Flatten()), IMAGE)
    # A file may hold parameters, too.
    conv = replace(graph.operations[1], tensors={k: nn.Parameter(t) for k, t in graph.operations[1].tensors.items()})
    graph = replace(graph, operations=(graph.operations[0], conv, *graph.operations[2:]))
    held = {t.data_ptr() for op in graph.operations for t in op.tensors.values()}
    shared = GraphModel(graph, own=False)
    assert held <= {t.data_ptr() for t in shared.state_dict().values()}
    assert not held & {t.data_ptr() for t in GraphModel(graph).state_dict().values()}
    x = torch.rand(2, *IMAGE)
    before = GraphModel(graph).eval()(x)
    assert torch.equal(shared.eval()(x), before)
    shared.double()
    assert {t.dtype for op in graph.operations for t in op.tensors.values()} == {torch.float32}
    assert torch.equal(GraphModel(graph).eval()(x), before)


def test_a_graph_model_trains_on_and_gives_its_graph_back(tmp_path):
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), CQReLU(4, learnable=True), nn.Linear(4, 2))
    graph = trace(model, (5,))
    copied = {op.name: {k: t.clone() for k, t in op.tensors.items()} for op in graph.operations}
    trained = GraphModel(graph).train()
    assert len(list(trained.parameters())) == len(list(model.parameters()))
    optimizer = torch.optim.SGD(trained.parameters(), 1e-3)
    for _ in range(3):
        loss = trained(torch.rand(8, 5)).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(torch.equal(t, copied[op.name][k]) for op in graph.operations for k, t in op.tensors.items())
    after = trained.graph_with_weights()
    changed = {
        (op.kind, k) for op in after.operations for k, t in op.tensors.items() if (t != copied[op.name][k]).any()
    }
    assert {("Linear", "weight"), ("BatchNorm1d", "running_mean"), ("CQReLU", "threshold")} <= changed
    save_model(tmp_path / "model.pt", trained, InputSpec((5,)))
    x = torch.rand(3, 5)
    with torch.no_grad():
        assert torch.equal(load_checkpoint(tmp_path / "model.pt").model(x), trained.eval()(x))


def test_a_graph_model_that_diverged_is_refused():
    model = GraphModel(trace(nn.Sequential(nn.Linear(5, 4), CQReLU(4, learnable=True)), (5,)))
    model.operations["op2"].threshold.data.fill_(-1)
    with pytest.raises(UnsupportedModelError, match="1: CQReLU with threshold -1"):
        trace(model, (5,))
    model.operations["op1"].weight.data.fill_(math.nan)
    with pytest.raises(UnsupportedModelError, match="0: its weight holds NaN"):
        trace(model, (5,))


def test_tracing_a_graph_model_checks_its_shape():
    model = GraphModel(trace(nn.Linear(5, 2), (5,)))
    assert kinds(trace(model, (5,))) == ["Linear"]
    with pytest.raises(UnsupportedModelError, match=r"\(6,\) is not \(5,\)"):
        trace(model, (6,))


def test_numpy_numbers_become_pythons_own():
    graph = trace(nn.Conv2d(np.int64(3), np.int32(2), (np.int64(2), 3), stride=np.int64(1)), IMAGE)
    arguments = graph.operations[1].arguments
    flat = [n for value in arguments.values() for n in (value if isinstance(value, tuple) else (value,))]
    assert {type(n) for n in flat} == {int}


# A graph validates itself


X = Operation("x", "input", "x")
ADD = Operation("a", "add", "a", ("x", "x"))


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        ((), "without operations"),
        ((ADD,), "does not stand first"),
        ((X, X), "stands twice"),
        ((X, Operation("y", "input", "y")), "first and alone"),
        ((X, ADD, ADD), "stands twice"),
        ((X, Operation("a", "Sigmoid", "a", ("x",))), "unknown kind 'Sigmoid'"),
        ((X, Operation("a", "add", "a", ("x",))), "cannot read x"),
        ((X, Operation("a", "add", "a", ("x", "x", "x"))), "cannot read x, x, x"),
        ((X, Operation("a", "Flatten", "a")), "cannot read nothing"),
        ((X, Operation("a", "Flatten", "a", ("a",))), "cannot read a"),
        (
            (X, Operation("a", "Flatten", "a", ("b",)), Operation("b", "Flatten", "b", ("a",))),
            "cannot read b",
        ),
        ((X, Operation("a", "concatenate", "a")), "cannot read nothing"),
        ((X, Operation("a", "concatenate", "a", ("x", "b"))), "cannot read x, b"),
    ],
)
def test_graph_refuses(operations, message):
    with pytest.raises(ValueError, match=message):
        Graph(operations, (5,))
    assert Graph((X, ADD), (5,)).operations[1] is ADD
    assert not issubclass(ValueError, CascError)


@pytest.mark.parametrize(
    ("outputs", "names", "message"),
    [
        (("a", "b"), (), "no operation computes the outputs a, b"),
        (("a", 1), (), "no operation computes the outputs a, 1"),
        (("a", "x"), ("one",), "one do not name 2 outputs"),
        (("a",), ("one", "two"), "one, two do not name 1 outputs"),
        (("a", "x"), ("one", "one"), "one, one do not name 2 outputs"),
        (("a", "x"), ("one", ""), "one,  do not name 2 outputs"),
    ],
)
def test_graph_refuses_outputs(outputs, names, message):
    with pytest.raises(ValueError, match=message):
        Graph((X, ADD), (5,), outputs, names)
    assert Graph((X, ADD), (5,)).outputs == ("a",)
    assert Graph((X, ADD), (5,), ("x", "a", "x"), ("one", "two", "three")).outputs == ("x", "a", "x")
