"""Files that onnxruntime's quantizer and Brevitas wrote, against onnxruntime's answers: data/make.py makes both."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lava_casc import forward, simulate
from lava_casc.frontend import fold, quantize
from lava_casc.hardware import read_hardware
from lava_casc.interchange.onnx_file import read_onnx
from lava_casc.pipeline import convert

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx2torch")

DATA = Path(__file__).parent / "data"
#: The levels of each activation, in order: of 2**bits, one less; of int8 with zero point 0, 127 behind a Relu.
LEVELS = {
    "brevitas-3-bits": [7, 7],
    "brevitas-4-bits-signed": [15, 15, 15],  # the second is signed, -8 .. 7
    "brevitas-8-bits-bias": [255, 255, 255],  # the first is the input's, with a scale that was learned
    "ort-plain-u8": [255, 255, 255],  # the last one is the output's
    "ort-residual-s8": [255] * 5,
    "ort-residual-u8": [255] * 5,
    "ort-symmetric-s8": [255, 127, 255, 127, 255],  # the input, a signed sum and its Relu, and so on
}


def of_output(path):
    """Return the step to which a file rounds its output, if it does."""
    graph = onnx.load(path).graph
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    last = next(node for node in graph.node if node.output[0] == graph.output[0].name)
    return float(held[last.input[1]]) if last.op_type == "DequantizeLinear" else None


def test_there_is_a_line_for_every_file():
    assert sorted(LEVELS) == sorted(path.stem for path in DATA.glob("*.onnx"))


@pytest.mark.parametrize("name", LEVELS)
def test_a_file_of_a_tool_is_read_as_onnxruntime_reads_it(name):
    model, spec = read_onnx(DATA / f"{name}.onnx")
    kinds = [op for op in model.graph.operations if op.kind in ("ReLU", "Hardtanh", "CQReLU")]
    assert [op.arguments.get("levels") for op in kinds] == LEVELS[name]
    with np.load(DATA / f"{name}.npz") as answers:
        images, theirs = answers["x"], answers["y"]
    with torch.no_grad():
        ours = model(torch.tensor((images / 255).astype(np.float32))).numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    step = of_output(DATA / f"{name}.onnx")
    assert (step is None) == name.startswith("brevitas")
    if step is not None:
        assert (np.rint(ours / step) == np.rint(theirs / step)).all()
        assert len(np.unique(np.rint(ours / step))) > 3
    network = convert(model, spec.shape, input_range=(0, 255), input_scale=1 / 255)
    record = simulate(network, images[:1].astype(int), network.schedule("graded"))
    assert record.certified.all()
    assert (record.logits == forward(network, images[:1].astype(int)).logits).all()


@pytest.mark.parametrize("name", ["brevitas-3-bits", "brevitas-4-bits-signed"])
def test_weights_of_few_bits_keep_their_proportions(name):
    model, spec = read_onnx(DATA / f"{name}.onnx")
    _, report = quantize(fold(model.graph), spec, read_hardware())
    alone = [layer.weight_error for layer in report.layers if len(layer.branches) == 1]
    assert len(alone) >= 2
    assert max(alone) < 2e-4  # of a threshold that is an integer
