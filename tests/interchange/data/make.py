"""Make the files of this folder with the tools that people quantize with: small networks of random weights.

    pip install onnxruntime==1.23.2 brevitas==0.13.4 onnxoptimizer onnx
    python tests/interchange/data/make.py

Beside each NAME.onnx stands NAME.npz: integers `x` of images, and `y`, what onnxruntime answers to them divided by 255.
Averages are taken over 3x3 places, so that none of them is a tie.
"""

from pathlib import Path

import brevitas.nn as qnn
import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from brevitas.export import export_onnx_qcdq
from brevitas.quant import Int8ActPerTensorFloat, Int8WeightPerChannelFloat, Int32Bias, Uint8ActPerTensorFloat
from onnx import version_converter
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import nn

HERE = Path(__file__).parent
IMAGE = (1, 6, 6)
RNG = np.random.default_rng(0)


class Images(CalibrationDataReader):
    """A few batches to calibrate on."""

    def __init__(self):
        self.batches = iter([{"x": (RNG.integers(0, 256, (8, *IMAGE)) / 255).astype(np.float32)} for _ in range(8)])

    def get_next(self):
        return next(self.batches, None)


class Plain(nn.Module):
    """Two convolutions, batch norm, ReLU, ReLU6."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)
        self.second, self.last = nn.Conv2d(3, 4, 3, stride=2), nn.Linear(16, 3)

    def forward(self, x):
        x = F.relu(self.norm(self.first(x)))
        return self.last(F.relu6(self.second(x)).flatten(1))


class Residual(nn.Module):
    """An addition, a max pool and a global average."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.last = nn.Linear(3, 3)

    def forward(self, x):
        x = F.relu(self.first(x))
        x = F.max_pool2d(F.relu(x + self.second(x)), 2)
        return self.last(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Brevitas(nn.Module):
    """Activations and weights of few bits; a residual whose branch is quantized with a sign."""

    def __init__(self, bits, weight_bits, signed, bias):
        super().__init__()
        given = {"weight_bit_width": weight_bits, "weight_quant": Int8WeightPerChannelFloat, "bias_quant": bias}
        keeps = bias is not None
        self.entry = (
            qnn.QuantIdentity(act_quant=Uint8ActPerTensorFloat, return_quant_tensor=True) if keeps else nn.Identity()
        )
        self.first = qnn.QuantConv2d(1, 3, 3, padding=1, **given)
        self.relu = qnn.QuantReLU(bit_width=bits, return_quant_tensor=keeps)
        self.second, self.norm = qnn.QuantConv2d(3, 3, 3, padding=1, **given), nn.BatchNorm2d(3)
        self.branch = qnn.QuantIdentity(bit_width=bits, act_quant=Int8ActPerTensorFloat) if signed else nn.Identity()
        self.both, self.last = qnn.QuantReLU(bit_width=bits), qnn.QuantLinear(27, 3, bias=True, weight_bit_width=4)
        self.norm.running_var.fill_(0.1)

    def forward(self, x):
        x = self.relu(self.first(self.entry(x)))
        y = self.branch(self.norm(self.second(x)))
        y = y + getattr(x, "value", x)
        return self.last(F.max_pool2d(self.both(y), 2).flatten(1))


def finish(name, model):
    """Write a file without the paths of its maker, and what onnxruntime says of it."""
    for part in (model, model.graph, *model.graph.node):
        part.doc_string = ""
        del part.metadata_props[:]
    onnx.save(model, HERE / f"{name}.onnx")
    x = RNG.integers(0, 256, (32, *IMAGE))
    options = onnxruntime.SessionOptions()  # what the file says, and no faster approximation of it
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(HERE / f"{name}.onnx", options)
    (y,) = session.run(None, {"x": (x / 255).astype(np.float32)})
    np.savez_compressed(HERE / f"{name}.npz", x=x.astype(np.uint8), y=y)


def by_onnxruntime(name, network, kind, opset, **options):
    """Quantize after training, in the QDQ form."""
    source, target = HERE / "float.onnx", HERE / "quantized.onnx"
    given = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": {"x": {0: "n"}}}
    torch.onnx.export(network.eval(), (torch.zeros(2, *IMAGE),), source, opset_version=min(opset, 17), **given)
    if opset > 17:
        onnx.save(version_converter.convert_version(onnx.load(source), opset), source)
    per_channel = options.pop("per_channel", False)
    quantize_static(
        source,
        target,
        Images(),
        quant_format=QuantFormat.QDQ,
        activation_type=kind,
        weight_type=QuantType.QInt8,
        per_channel=per_channel,
        extra_options=options,
    )
    finish(name, onnx.load(target))
    source.unlink()
    target.unlink()


def by_brevitas(name, opset, *arguments):
    """Quantize in training, in the QCDQ form: a Clip between the two where there are less than 8 bits."""
    network, target = Brevitas(*arguments).train(), HERE / "quantized.onnx"
    for batch in Images().batches:
        network(torch.tensor(batch["x"]))
    given = {"input_names": ["x"], "dynamic_axes": {"x": {0: "n"}}, "opset_version": opset}
    export_onnx_qcdq(network.eval(), args=torch.zeros(2, *IMAGE), export_path=target, **given)
    finish(name, onnx.load(target))
    target.unlink()


if __name__ == "__main__":
    torch.manual_seed(0)
    by_onnxruntime("ort-plain-u8", Plain(), QuantType.QUInt8, 13)
    by_onnxruntime("ort-residual-u8", Residual(), QuantType.QUInt8, 17, per_channel=True)
    by_onnxruntime("ort-residual-s8", Residual(), QuantType.QInt8, 21)
    by_onnxruntime("ort-symmetric-s8", Plain(), QuantType.QInt8, 17, ActivationSymmetric=True, per_channel=True)
    by_brevitas("brevitas-3-bits", 13, 3, 4, False, None)
    by_brevitas("brevitas-4-bits-signed", 17, 4, 4, True, None)
    by_brevitas("brevitas-8-bits-bias", 17, 8, 8, False, Int32Bias)
