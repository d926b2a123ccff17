"""ONNX files: every operation against onnx's own interpreter, quantized activations level by level, and refusals."""

import numpy as np
import pytest
import torch
from torch import nn

from lava_casc import simulate
from lava_casc.errors import CheckpointError, UnsupportedModelError
from lava_casc.frontend import load_model, save_model
from lava_casc.interchange import common, import_model, onnx_file
from lava_casc.interchange.onnx_file import read_onnx
from lava_casc.pipeline import convert

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx2torch")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

node = helper.make_node
RNG = np.random.default_rng(0)
SHAPE = (3, 6, 8)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def write(
    path,
    nodes,
    constants=None,
    *,
    batch="n",
    shape=SHAPE,
    opset=19,
    outputs=("y",),
    kind=TensorProto.FLOAT,
    results=TensorProto.FLOAT,
):
    """Write an ONNX file of input x, and return its path."""
    constants = {
        name: value if isinstance(value, TensorProto) else numpy_helper.from_array(np.asarray(value), name)
        for name, value in (constants or {}).items()
    }
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", kind, (batch, *shape))],
        [helper.make_tensor_value_info(name, results, [None]) for name in outputs],
        list(constants.values()),
    )
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    for value in model.graph.output:  # a file has to name a shape, if an open one
        value.type.tensor_type.shape.SetInParent()
    path.write_bytes(model.SerializeToString())
    return path


def run(model, x):
    with torch.no_grad():
        return model(torch.tensor(x)).numpy()


def expected(path, x):
    return ReferenceEvaluator(str(path)).run(None, {"x": x.astype(np.float32)})


#: Nodes from x to y, and their constants.
OPERATIONS = {
    "conv": ([node("Conv", ["x", "w", "b"], ["y"], pads=[1, 0, 1, 0], strides=[2, 1])], {"w": (4, 3, 3, 1), "b": (4,)}),
    "conv, groups, dilated": ([node("Conv", ["x", "w"], ["y"], group=3, dilations=[2, 2])], {"w": (6, 1, 2, 2)}),
    "conv, same": ([node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER")], {"w": (4, 3, 3, 5)}),
    "conv, valid": ([node("Conv", ["x", "w"], ["y"], auto_pad="VALID")], {"w": (4, 3, 3, 3)}),
    "batch norm": (
        [node("BatchNormalization", ["x", "g", "b", "m", "v"], ["y"], epsilon=0.01)],
        {"g": (3,), "b": (3,), "m": (3,), "v": np.array([0.5, 1, 2], np.float32)},
    ),
    "relu": ([node("Relu", ["x"], ["y"])], {}),
    "clip": ([node("Clip", ["x", "lo", "hi"], ["y"])], {"lo": np.float32(0), "hi": np.float32(0.25)}),
    "clip, open": ([node("Clip", ["x", "lo"], ["y"])], {"lo": np.float32(0)}),
    "clip of nothing": ([node("Clip", ["x"], ["z"]), node("Relu", ["z"], ["y"])], {}),
    "max pool": ([node("Relu", ["x"], ["r"]), node("MaxPool", ["r"], ["y"], kernel_shape=[2, 2], strides=[2, 2])], {}),
    "average pool": (
        [node("AveragePool", ["x"], ["y"], kernel_shape=[3, 2], pads=[1, 0, 1, 0], count_include_pad=1)],
        {},
    ),
    "average pool without padding": ([node("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])], {}),
    "global pool": ([node("GlobalAveragePool", ["x"], ["y"])], {}),
    "mean": ([node("ReduceMean", ["x", "a"], ["y"], keepdims=0)], {"a": np.array([-1, 2])}),
    "add": ([node("Relu", ["x"], ["r"]), node("Add", ["r", "x"], ["y"])], {}),
    "sum": ([node("Relu", ["x"], ["r"]), node("Sum", ["r", "x", "r"], ["y"])], {}),
    "concat": ([node("Relu", ["x"], ["r"]), node("Concat", ["x", "r"], ["y"], axis=-3)], {}),
    "flatten": ([node("Flatten", ["x"], ["y"])], {}),
    "reshape": ([node("Reshape", ["x", "to"], ["y"])], {"to": np.array([0, -1])}),
    "reshape by the shape": (
        [
            node("Shape", ["x"], ["s"]),
            node("Gather", ["s", "first"], ["n"]),
            node("Unsqueeze", ["n", "axes"], ["n1"]),
            node("Concat", ["n1", "rest"], ["to"], axis=0),
            node("Reshape", ["x", "to"], ["y"]),
        ],
        {"first": np.array(0), "axes": np.array([0]), "rest": np.array([-1])},
    ),
    "gemm": (
        [node("Flatten", ["x"], ["f"]), node("Gemm", ["f", "w", "c"], ["y"], transB=1, alpha=0.5, beta=2.0)],
        {"w": (5, 144), "c": (1, 5)},
    ),
    "matmul": (
        [node("Flatten", ["x"], ["f"]), node("MatMul", ["f", "w"], ["m"]), node("Add", ["m", "c"], ["y"])],
        {"w": (144, 5), "c": (5,)},
    ),
    "dropout and identity": (
        [node("Dropout", ["x"], ["d"]), node("Identity", ["d"], ["i"]), node("Relu", ["i"], ["y"])],
        {},
    ),
    "normalized": (
        [node("Sub", ["x", "m"], ["c"]), node("Div", ["c", "s"], ["y"])],
        {"m": np.array([0.1, 0.2, 0.3], np.float32).reshape(3, 1, 1), "s": np.float32(0.25)},
    ),
    "scaled": (
        [node("Mul", ["s", "x"], ["c"]), node("Add", ["m", "c"], ["y"])],
        {"m": np.array([[0.1, 0.2, 0.3]], np.float32).reshape(1, 3, 1, 1), "s": np.float32(0.25)},
    ),
    "computed constants": (
        [
            node("Constant", [], ["one"], value=numpy_helper.from_array(np.array([1], np.int64))),
            node("Transpose", ["w"], ["wt"], perm=[1, 0, 2, 3]),
            node("Conv", ["x", "wt"], ["y"]),
        ],
        {"w": (3, 4, 3, 3)},
    ),
    "dequantized weights": (
        [
            node("DequantizeLinear", ["w8", "s", "z"], ["w"], axis=0),
            node("DequantizeLinear", ["b32", "t"], ["b"]),
            node("Conv", ["x", "w", "b"], ["y"]),
        ],
        {
            "w8": np.arange(-54, 54, dtype=np.int8).reshape(4, 3, 3, 3),
            "s": np.array([0.5, 0.25, 1, 2], np.float32),
            "z": np.zeros(4, np.int8),
            "b32": np.array([1, -2, 3, 4], np.int32),
            "t": np.float32(0.125),
        },
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("batch", ["n", 2])
def test_every_operation_computes_what_onnx_does(name, batch, tmp_path):
    nodes, constants = OPERATIONS[name]
    constants = {key: normal(*value) if isinstance(value, tuple) else value for key, value in constants.items()}
    path = write(tmp_path / "one.onnx", nodes, constants, batch=batch)
    model, spec = read_onnx(path)
    assert (spec.shape, spec.low, spec.high) == (SHAPE, 0, 255)
    x = normal(2, *SHAPE)
    (theirs,) = expected(path, x)
    ours = run(model, x)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("opset", [11, 13, 17, 18, 21, 22, 24])
def test_files_of_old_and_new_versions_are_read(opset, tmp_path):
    mean = node("ReduceMean", ["p"], ["m"], axes=[2, 3], keepdims=0)
    constants = {"w": normal(4, 3, 3, 3), "g": np.float32([1, 2, 3, 4]), "b": normal(4), "f": normal(4, 5)}
    if opset >= 18:
        mean, constants["axes"] = node("ReduceMean", ["p", "axes"], ["m"], keepdims=0), np.array([2, 3])
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("BatchNormalization", ["c", "g", "b", "b", "g"], ["n"]),
        node("Relu", ["n"], ["r"]),
        node("AveragePool", ["r"], ["p"], kernel_shape=[2, 2]),
        mean,
        node("Gemm", ["m", "f"], ["y"]),
    ]
    path = write(tmp_path / "version.onnx", nodes, constants, opset=opset)
    model, _ = read_onnx(path)
    reference = write(tmp_path / "17.onnx", [*nodes[:4], node("ReduceMean", ["p"], ["m"], axes=[2, 3], keepdims=0),
                                             nodes[-1]], constants)  # fmt: skip
    x = normal(2, *SHAPE)
    np.testing.assert_allclose(run(model, x), expected(reference, x)[0], rtol=1e-4, atol=1e-5)


def test_what_torch_exports_is_read(everything, tmp_path):
    x = torch.randn(2, 3, 8, 8)
    for i, given in enumerate(({}, {"input_names": ["x"], "dynamic_axes": {"x": {0: "n"}}})):
        path = tmp_path / f"torch{i}.onnx"
        try:
            torch.onnx.export(everything, (x,), path, opset_version=17, **given)
        except Exception as error:  # newer torch needs onnxscript
            pytest.skip(f"torch.onnx.export: {error}")
        model, spec = import_model(path)
        assert torch.allclose(model(x), everything(x), atol=1e-5)
        save_model(tmp_path / "torch.pt", model, spec)
        assert torch.equal(load_model(tmp_path / "torch.pt")(x), model(x))


# Quantized activations -------------------------------------------------------------------------------------------


def quantized(path, before=(), kind=np.uint8, zero=0, scale=0.25, between=(), constants=None, **given):
    source = "x" if not before else before[-1].output[0]
    held = "q" if not between else between[-1].output[0]
    nodes = [
        *before,
        node("QuantizeLinear", [source, "s", "z"], ["q"]),
        *between,
        node("DequantizeLinear", [held, "s", "z"], ["y"], name="after"),
    ]
    z = zero if isinstance(zero, TensorProto) else np.array(zero, kind)
    return write(path, nodes, {"s": np.float32(scale), "z": z, **(constants or {})}, **given)


def activation(model):
    (found,) = [op for op in model.graph.operations if op.kind == "CQReLU"]
    return found.arguments["levels"], float(found.tensors["threshold"]), found.arguments["rounding"]


CLIP = node("Clip", ["x", "lo", "hi"], ["c"])
ENDS = {"lo": np.float32(0), "hi": np.float32(3.1)}
FOUR_BITS = helper.make_tensor("z", TensorProto.UINT4, [], [0])


@pytest.mark.parametrize(
    ("given", "levels"),
    [
        ({}, 255),
        ({"before": (node("Relu", ["x"], ["r"]),)}, 255),
        ({"before": (node("Relu", ["x"], ["r"]),), "kind": np.int8}, 127),
        ({"kind": np.int8, "zero": -128}, 255),
        ({"kind": np.int8, "zero": -100, "before": (node("Relu", ["x"], ["r"]),)}, 227),
        ({"before": (CLIP,), "constants": ENDS}, 12),  # 3.1 / 0.25 = 12.4
        ({"kind": np.uint16, "opset": 21}, 65535),
        ({"zero": FOUR_BITS, "opset": 21}, 15),
        (
            {
                "between": (node("Clip", ["q", "lo", "hi"], ["k"]),),
                "constants": {"lo": np.uint8(0), "hi": np.uint8(15)},
            },
            15,
        ),
    ],
)
def test_a_quantized_activation_becomes_cqrelu(given, levels, tmp_path):
    path = quantized(tmp_path / "q.onnx", **given)
    model, _ = read_onnx(path, high=127, scale=1 / 8)
    assert activation(model) == (levels, levels * 0.25, "round")
    # The grid of a sixteenth of a step, from below 0 to above the top: but for ties, level by level the same.
    top = min(levels, 600)
    steps = np.arange(-40, 16 * top + 40)
    steps = steps[steps % 16 != 8]
    x = np.resize((steps / 16 * 0.25).astype(np.float32), (-(-len(steps) // 144), *SHAPE))
    (theirs,) = expected(path, x)
    assert (np.round(run(model, x) / 0.25) == np.round(theirs / 0.25)).all()
    np.testing.assert_allclose(run(model, x), theirs, rtol=1e-5)


@pytest.mark.parametrize(
    ("given", "low", "high"),
    [
        ({"kind": np.int8}, -128, 127),
        ({"kind": np.uint8, "zero": 127}, -127, 128),
        ({"kind": np.int8, "zero": 23}, -151, 104),
        (
            {
                "kind": np.int8,
                "between": (node("Clip", ["q", "lo", "hi"], ["k"]),),
                "constants": {"lo": np.int8(-8), "hi": np.int8(7)},
            },
            -8,
            7,
        ),
        (
            {
                "between": (node("Clip", ["q", "lo", "hi"], ["k"]),),
                "constants": {"lo": np.uint8(3), "hi": np.uint8(9)},
            },
            3,
            9,
        ),
    ],
)
def test_a_signed_activation_is_counted_from_its_least_level(given, low, high, tmp_path):
    path = quantized(tmp_path / "q.onnx", **given)
    model, _ = read_onnx(path, high=127, scale=1 / 8)
    assert activation(model) == (high - low, (high - low) * 0.25, "round")
    steps = np.arange(16 * low - 40, 16 * high + 40)
    steps = steps[steps % 16 != 8]
    x = np.resize((steps / 16 * 0.25).astype(np.float32), (-(-len(steps) // 144), *SHAPE))
    (theirs,) = expected(path, x)
    ours = run(model, x) / 0.25
    assert (ours == theirs / 0.25).all()
    assert (ours.min(), ours.max()) == (low, high)


def test_signed_activations_keep_their_borders_and_go_to_spikes(tmp_path):
    pair = [node("QuantizeLinear", ["a", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["d"])]
    nodes = [
        node("Conv", ["x", "v"], ["a"], pads=[1, 1, 1, 1]),
        *pair,
        node("Conv", ["d", "w"], ["c"], pads=[1, 1, 1, 1]),  # of zeros around levels that are counted from -10
        node("Relu", ["c"], ["r"]),
        node("QuantizeLinear", ["r", "s"], ["q2"]),
        node("DequantizeLinear", ["q2", "s"], ["d2"]),
        node("GlobalAveragePool", ["d2"], ["y"]),
    ]
    constants = {"s": np.float32(0.0625), "z": np.uint8(10), "v": normal(4, 3, 3, 3) / 4, "w": normal(4, 4, 3, 3) / 8}
    path = write(tmp_path / "signed.onnx", nodes, constants)
    model, spec = read_onnx(path)
    images = RNG.integers(0, 256, (4, *SHAPE))
    x = (images / 255).astype(np.float32)
    np.testing.assert_allclose(run(model, x), expected(path, x)[0], atol=2e-3)  # a tie in hundreds
    network = convert(model, spec.shape, input_range=(spec.low, spec.high), input_scale=spec.scale)
    record = simulate(network, images[:1])
    assert record.certified.all()
    (found,) = network.outputs(record.logits).values()
    np.testing.assert_allclose(found, expected(path, x[:1])[0], atol=0.05)


@pytest.mark.parametrize(("kind", "kinds"), [(np.uint8, 2), (np.int8, 1), (np.int16, 1)])
def test_a_signed_grid_is_quantized_again_only_to_less(kind, kinds, tmp_path):
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("QuantizeLinear", ["d", "s", "z2"], ["q2"]),
        node("DequantizeLinear", ["q2", "s", "z2"], ["y"]),
    ]
    constants = {"s": np.float32(0.25), "z": np.int8(0), "z2": np.array(0, kind)}
    path = write(tmp_path / "twice.onnx", nodes, constants, opset=21)
    model, _ = read_onnx(path, scale=1 / 8)
    assert [op.kind for op in model.graph.operations].count("CQReLU") == kinds
    x = normal(2, *SHAPE) * 30
    assert (run(model, x) == expected(path, x)[0]).all()


def test_a_relu_behind_signed_levels_takes_what_is_below_off_the_same_levels(tmp_path):
    path = quantized(tmp_path / "q.onnx", kind=np.int8)
    nodes = list(onnx.load(path).graph.node)
    nodes[-1].output[0] = "d"
    path = write(tmp_path / "r.onnx", [*nodes, node("Relu", ["d"], ["y"])], {"s": np.float32(0.25), "z": np.int8(0)})
    model, _ = read_onnx(path)
    assert [op.kind for op in model.graph.operations] == ["input", "CQReLU"]
    assert activation(model) == (127, 127 * 0.25, "round")
    x = normal(2, *SHAPE) * 20
    np.testing.assert_allclose(run(model, x), expected(path, x)[0], rtol=1e-6)


@pytest.mark.parametrize("scale", [0.25, 0.9, 0.0071])
def test_averages_of_levels_fall_on_ties_and_are_read_all_the_same(scale, tmp_path, monkeypatch):
    pair = [node("QuantizeLinear", ["a", "s"], ["q"]), node("DequantizeLinear", ["q", "s"], ["y"])]
    pool = node("AveragePool", ["d"], ["a"], kernel_shape=[2, 2], strides=[2, 2])
    first = [node("QuantizeLinear", ["x", "s"], ["p"]), node("DequantizeLinear", ["p", "s"], ["d"])]
    path = write(tmp_path / "ties.onnx", [*first, pool, *pair], {"s": np.float32(scale)})
    model, _ = read_onnx(path, high=12, scale=scale)
    x = (RNG.integers(0, 13, (8, *SHAPE)) * scale).astype(np.float32)
    difference = np.rint(np.abs(run(model, x) - expected(path, x)[0]) / scale)
    assert set(np.unique(difference)) == {0, 1}  # on every image, at ties
    for module in (common, onnx_file):
        monkeypatch.setattr(module, "OFF_TIES", 0.0)
    with pytest.raises(UnsupportedModelError, match="differs from the file"):
        read_onnx(path, high=12, scale=scale)


def test_ties_go_to_the_even_level_in_onnx_and_up_in_cqrelu(tmp_path):
    path = quantized(tmp_path / "q.onnx")
    model, _ = read_onnx(path)
    ties = np.arange(144) + 0.5
    x = (ties * 0.25).astype(np.float32).reshape(1, *SHAPE)
    theirs, ours = (np.ravel(y) / 0.25 for y in (expected(path, x)[0], run(model, x)))
    assert (ours == np.arange(144) + 1).all()
    assert (theirs == np.round(ties)).all()
    assert ((ours != theirs) == (np.arange(144) % 2 == 0)).all()


def test_what_is_on_its_grid_already_is_not_quantized_again(tmp_path):
    def pair(source, i):
        return (
            node("QuantizeLinear", [source, "s", "z"], [f"q{i}"]),
            node("DequantizeLinear", [f"q{i}", "s", "z"], [f"d{i}"]),
        )

    nodes = [
        node("QuantizeLinear", ["x", "si", "z"], ["qx"]),
        node("DequantizeLinear", ["qx", "si", "z"], ["dx"]),
        node("Conv", ["dx", "w"], ["c"]),
        node("Relu", ["c"], ["r"]),
        *pair("r", 0),
        node("MaxPool", ["d0"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        *pair("m", 1),
        node("Flatten", ["d1"], ["f"]),
        *pair("f", 2),
        node("Gemm", ["d2", "g"], ["y"]),
    ]
    constants = {"s": np.float32(0.01), "si": np.float32(1 / 255), "z": np.uint8(0)}
    constants |= {"w": normal(4, 3, 3, 3) / 4, "g": normal(24, 5)}
    path = write(tmp_path / "grid.onnx", nodes, constants)
    model, spec = read_onnx(path)
    kinds = [op.kind for op in model.graph.operations]
    assert kinds == ["input", "Conv2d", "CQReLU", "MaxPool2d", "Flatten", "Linear"]
    # Trained on other integers, the input is not on the grid that it is quantized to.
    model, _ = read_onnx(path, scale=1 / 100)
    assert [op.kind for op in model.graph.operations].count("CQReLU") == 2
    network = convert(read_onnx(path)[0], spec.shape, input_range=(spec.low, spec.high), input_scale=spec.scale)
    assert network.levels == 255


# Refusals ----------------------------------------------------------------------------------------------------------

SOFT = node("Softmax", ["x"], ["y"], name="the_end")


@pytest.mark.parametrize(
    ("nodes", "constants", "message"),
    [
        ([SOFT], {}, "the_end: Softmax is not supported. Export the network up to its logits"),
        ([node("Sigmoid", ["x"], ["y"])], {}, "y: Sigmoid is not supported. Supported are Conv"),
        ([node("Clip", ["x", "a", "b"], ["y"])], {"a": np.float32(-1), "b": np.float32(1)}, r"Clip to \[-1, 1\]"),
        ([node("Mul", ["x", "x"], ["y"])], {}, "Mul of two values that are computed"),
        ([node("Mul", ["x", "c"], ["y"])], {"c": np.float32(-1)}, "Mul with a constant is not supported but"),
        ([node("Sub", ["c", "x"], ["y"])], {"c": np.float32(1)}, "Sub with a constant is not supported but"),
        ([node("Add", ["x", "c"], ["y"])], {"c": normal(3, 6, 8)}, "Add with a constant is not supported but"),
        ([node("Concat", ["x", "x"], ["y"], axis=2)], {}, "Concat along axis 2"),
        ([node("ReduceMean", ["x", "a"], ["y"])], {"a": np.array([1])}, r"ReduceMean over axes \[1\]"),
        ([node("Transpose", ["x"], ["y"], perm=[0, 2, 3, 1])], {}, "y: Transpose is not supported"),
        ([node("Reshape", ["x", "c"], ["y"])], {"c": np.array([0, 3, 48])}, "Reshape from .* is not supported"),
        ([node("Conv", ["x", "w"], ["y"], pads=[1, 1, 0, 0])], {"w": normal(4, 3, 3, 3)}, "padding .* differs"),
        ([node("Conv", ["x", "w"], ["y"], auto_pad="SAME_LOWER")], {"w": normal(4, 3, 2, 2)}, "padding .* differs"),
        ([node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER")], {"w": normal(4, 3, 2, 2)}, "padding .* differs"),
        (
            [node("Relu", ["w"], ["r"]), node("Sub", ["x", "x"], ["s"]), node("Conv", ["x", "s"], ["y"])],
            {"w": normal(1)},
            "Sub of two values",
        ),
        ([node("Dropout", ["x", "r", "t"], ["y"])], {"r": np.float32(0.5), "t": np.array(True)}, "in training"),
        (
            [node("BatchNormalization", ["x", "a", "a", "a", "a"], ["y", "m", "v"], training_mode=1)],
            {"a": normal(3)},
            "BatchNormalization in training",
        ),
        ([node("Cast", ["x"], ["h"], to=10), node("Cast", ["h"], ["y"], to=1)], {}, "Cast to another type"),
        (
            [node("QuantizeLinear", ["x", "s"], ["q"]), node("QLinearAdd", ["q", "q"], ["y"], domain="com.microsoft")],
            {"s": np.float32(1)},
            r"y: QLinearAdd of com.microsoft is not supported. Export the quantized network as pairs",
        ),
        (
            [node("QuantizeLinear", ["x", "s"], ["q"], domain="com.microsoft", name="wide"),
             node("DequantizeLinear", ["q", "s"], ["y"], domain="com.microsoft")],
            {"s": np.float32(1)},
            r"wide: QuantizeLinear of com.microsoft is not supported. Quantize to 8 bits, or export operator set 21",
        ),
        (
            [node("QuantizeLinear", ["x", "s"], ["q"], axis=1), node("DequantizeLinear", ["q", "s"], ["y"], axis=1)],
            {"s": np.float32([1, 2, 3])},
            "a scale for every channel",
        ),
        (
            [node("QuantizeLinear", ["x", "s"], ["q"]), node("DequantizeLinear", ["q", "t"], ["y"])],
            {"s": np.float32(1), "t": np.float32(2)},
            "with another scale or zero point",
        ),
        (
            [node("QuantizeLinear", ["x", "s"], ["q"]), node("Flatten", ["q"], ["f"]),
             node("DequantizeLinear", ["f", "s"], ["y"])],
            {"s": np.float32(1)},
            r"Flatten: it computes with quantized integers. Export .* \(QDQ\)",
        ),
        (
            [node("QuantizeLinear", ["x", "s"], ["q"]), node("DequantizeLinear", ["q", "s"], ["y"])],
            {"s": np.float32(0)},
            "a scale of 0",
        ),
        (
            [node("Clip", ["x", "lo", "hi"], ["c"]), node("QuantizeLinear", ["c", "s"], ["q"]),
             node("DequantizeLinear", ["q", "s"], ["y"])],
            {"lo": np.float32(0), "hi": np.float32(0.1), "s": np.float32(1)},
            "quantized to 0 .. 0 steps",
        ),
    ],
)  # fmt: skip
def test_what_does_not_map_is_refused_by_name(nodes, constants, message, tmp_path):
    path = write(tmp_path / "bad.onnx", nodes, constants)
    with pytest.raises(UnsupportedModelError, match=message) as caught:
        read_onnx(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_inputs_that_are_no_images_or_vectors_are_refused(tmp_path):
    path = write(tmp_path / "a.onnx", [node("Relu", ["x"], ["y"])], shape=(3, 4))
    with pytest.raises(UnsupportedModelError, match="has 3 dimensions"):
        read_onnx(path)
    path = write(tmp_path / "b.onnx", [node("Cast", ["x"], ["y"], to=1)], kind=TensorProto.UINT8)
    with pytest.raises(UnsupportedModelError, match="x is of type UINT8. Export one of float"):
        read_onnx(path)
    path = write(tmp_path / "c.onnx", [node("Relu", ["x"], ["y"]), node("Identity", ["x"], ["z"])], outputs=("y", "z"))
    with pytest.raises(UnsupportedModelError, match="its output z is none of what"):
        read_onnx(path)
    path = write(tmp_path / "d.onnx", [node("QuantizeLinear", ["x", "s"], ["y"])], {"s": np.float32(1)}, results=2)
    with pytest.raises(UnsupportedModelError, match="its output y is none of what"):
        read_onnx(path)


def test_a_network_of_doubles_is_read(tmp_path):
    nodes = [node("Conv", ["x", "w"], ["c"]), node("Cast", ["c"], ["d"], to=TensorProto.DOUBLE)]
    path = write(tmp_path / "a.onnx", nodes, {"w": RNG.normal(size=(2, 3, 3, 3))}, kind=11, results=11, outputs=("d",))
    model, _ = read_onnx(path)
    x = normal(2, *SHAPE)
    (theirs,) = ReferenceEvaluator(str(path)).run(None, {"x": x.astype(np.float64)})
    np.testing.assert_allclose(run(model, x), theirs, rtol=1e-4, atol=1e-5)


def test_an_open_shape_has_to_be_given(tmp_path):
    path = write(tmp_path / "open.onnx", [node("GlobalAveragePool", ["x"], ["y"])], shape=(3, "h", "w"))
    with pytest.raises(CheckpointError, match=r"leaves the shape of its input open \(3,\?,\?\). Give --input-shape"):
        read_onnx(path)
    with pytest.raises(CheckpointError, match=r"takes inputs of shape 3,\?,\?, not 1,4,5"):
        read_onnx(path, (1, 4, 5))
    assert read_onnx(path, (3, 4, 5))[1].shape == (3, 4, 5)


def test_several_outputs_stay_in_order(tmp_path):
    nodes = [node("Relu", ["x"], ["r"]), node("GlobalAveragePool", ["r"], ["b"]), node("Flatten", ["x"], ["a"])]
    path = write(tmp_path / "two.onnx", nodes, outputs=("b", "a"))
    model, _ = read_onnx(path)
    x = normal(2, *SHAPE)
    for ours, theirs in zip(model(torch.tensor(x)), expected(path, x), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-5)


def test_a_reader_that_reads_something_else_is_noticed(tmp_path, monkeypatch):
    path = write(tmp_path / "r.onnx", [node("Relu", ["x"], ["r"]), node("Flatten", ["r"], ["y"])])
    import onnx2torch

    real = onnx2torch.convert

    def wrong(model):
        module = real(model)
        module.r = nn.Hardtanh(0.0, 0.5)
        return module

    monkeypatch.setattr(onnx2torch, "convert", wrong)
    with pytest.raises(UnsupportedModelError, match="what was read differs from the file by 0.5.* on 8 of 8"):
        read_onnx(path)


def test_damaged_files_are_refused(tmp_path):
    path = write(tmp_path / "a.onnx", [node("Relu", ["x"], ["y"])])
    whole = path.read_bytes()
    for content in (b"", b"nothing of the kind", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="damaged, or not an ONNX file"):
            read_onnx(path)
    with pytest.raises(CheckpointError, match="no such file"):
        read_onnx(tmp_path / "none.onnx")
    path = write(tmp_path / "b.onnx", [node("Conv", ["x", "w"], ["y"])], {"w": normal(4, 2, 3, 3)})
    with pytest.raises(UnsupportedModelError, match="b.onnx: "):
        read_onnx(path)
