"""Layout and arithmetic of the synapses: the fast models, Lava's own, and torch's."""

import numpy as np
import pytest
import torch
from lava.proc.conv.models import PyConvModelFixed, PyConvModelFloat
from lava.proc.conv.process import Conv as LavaConv
from lava.proc.dense.models import PyDenseModelBitAcc, PyDenseModelFloat
from lava.proc.dense.process import Dense as LavaDense
from lava.utils.weightutils import SignMode
from loihi_models import started, step

from lava_casc.linear import apply
from lava_casc.loihi import layout
from lava_casc.loihi.build import make_synapse
from lava_casc.loihi.fast_synapse import FastConvFixed, FastConvFloat, FastDenseFixed, FastDenseFloat
from lava_casc.loihi.fast_synapse.models import Product
from lava_casc.network import Conv, Dense

CONVS = [
    # channels, out, kernel, stride, padding, dilation, groups
    (1, 1, (1, 1), (1, 1), (0, 0), (1, 1), 1),
    (3, 4, (3, 2), (1, 2), (1, 0), (1, 1), 1),
    (4, 6, (2, 3), (2, 1), (0, 2), (2, 1), 2),
    (4, 4, (3, 3), (1, 1), (1, 1), (1, 1), 4),
    (6, 3, (1, 3), (3, 2), (0, 1), (1, 2), 3),
]


def _delivered(synapse, shape, spikes, model, floating):
    process = make_synapse(synapse, shape, "synapse", 9, None, floating)
    made = started(process, model)
    arriving = (
        layout.lava_images(spikes[None])[0]
        if isinstance(synapse, Conv)
        else layout.lava_images(spikes[None])[0].ravel()
    )
    assert not step(made, s_in=arriving)["a_out"].any(), "a synapse delays by one step"
    sent = step(made, s_in=np.zeros_like(arriving))["a_out"]
    assert not step(made, s_in=np.zeros_like(arriving))["a_out"].any()
    return layout.torch_images(sent.ravel(), synapse.output_shape(shape))


def _expected(synapse, spikes):
    return apply(synapse, torch.tensor(spikes[None], dtype=torch.float64))[0].numpy()


@pytest.mark.parametrize("exponent", [0, 3])
@pytest.mark.parametrize("case", CONVS)
def test_convolutions_deliver_what_torch_computes(case, exponent):
    channels, out, kernel, stride, padding, dilation, groups = case
    rng = np.random.default_rng(1)
    weight = rng.integers(-128, 128, (out, channels // groups, *kernel)).astype(np.int32)
    synapse = Conv("input", weight, stride, padding, dilation, groups, exponent)
    spikes = rng.integers(-128, 128, (channels, 7, 9))
    expected = _expected(synapse, spikes)
    assert np.abs(expected).max() > 100
    for model, floating in (
        (FastConvFixed, False),
        (PyConvModelFixed, False),
        (FastConvFloat, True),
        (PyConvModelFloat, True),
    ):
        assert (_delivered(synapse, (channels, 7, 9), spikes, model, floating) == expected).all(), model


MATRICES = {
    "mixed": (-128, 128),
    "positive": (0, 128),
    "negative": (-128, 1),
    "all -128": (-128, -127),
    "all 127": (127, 128),
    "zero": (0, 1),
    "odd": (-1, 2),
}


@pytest.mark.parametrize("exponent", [0, 1, 5])
@pytest.mark.parametrize("shape", [(24,), (2, 3, 4)])
@pytest.mark.parametrize("kind", MATRICES)
def test_dense_synapses_deliver_what_torch_computes(kind, shape, exponent):
    rng = np.random.default_rng(2)
    synapse = Dense("input", rng.integers(*MATRICES[kind], (5, 24)).astype(np.int32), exponent)
    spikes = rng.integers(-8, 9, shape)
    expected = _expected(synapse, spikes)
    for model, floating in (
        (FastDenseFixed, False),
        (PyDenseModelBitAcc, False),
        (FastDenseFloat, True),
        (PyDenseModelFloat, True),
    ):
        assert (_delivered(synapse, shape, spikes, model, floating) == expected).all(), model


@pytest.mark.parametrize("num_message_bits", [0, 8])
@pytest.mark.parametrize("sign_mode", [None, SignMode.MIXED, SignMode.EXCITATORY, SignMode.INHIBITORY])
@pytest.mark.parametrize("weight_exp", [-3, 0, 2])
def test_the_fast_dense_is_a_drop_in_for_lavas(num_message_bits, sign_mode, weight_exp):
    rng = np.random.default_rng(3)
    how = {"weight_exp": weight_exp, "num_weight_bits": 6, "num_message_bits": num_message_bits}
    how |= {} if sign_mode is None else {"sign_mode": sign_mode}
    process = LavaDense(weights=rng.integers(-300, 300, (6, 40)), **how)
    fast, stock = started(process, FastDenseFixed), started(process, PyDenseModelBitAcc)
    for _ in range(4):
        spikes = rng.integers(-3, 4, 40)
        assert (step(fast, s_in=spikes)["a_out"] == step(stock, s_in=spikes)["a_out"]).all()
    assert fast.a_buff.any()


@pytest.mark.parametrize("num_message_bits", [0, 8])
def test_the_fast_convolution_is_a_drop_in_for_lavas_and_wraps_like_it(num_message_bits):
    rng = np.random.default_rng(4)
    weight = rng.integers(-(1 << 20), 1 << 20, (2, 3, 2, 2))
    process = LavaConv(weight=weight, input_shape=(5, 6, 2), num_message_bits=num_message_bits)
    fast, stock = started(process, FastConvFixed), started(process, PyConvModelFixed)
    for _ in range(4):
        spikes = rng.integers(-30, 31, (5, 6, 2))
        assert (step(fast, s_in=spikes)["a_out"] == step(stock, s_in=spikes)["a_out"]).all()
    unwrapped = fast.convolve(spikes if num_message_bits else spikes.astype(bool))
    assert num_message_bits == 0 or np.abs(unwrapped).max() >= 1 << 23


@pytest.mark.parametrize(("peak", "dtype"), [(15, np.float32), (16, np.float64)])
def test_float32_is_used_below_its_limit_only(peak, dtype):
    product = Product(np.full((1, 1 << 13, 1), 1 << 7))  # 2**20 in all
    assert product.dtype(np.array([0, -peak])) is dtype
    assert product.dtype(np.array([0.0, peak])) is np.float64
    assert Product(np.full((1, 1, 1), 0.5)).dtype(np.array([1])) is np.float64


def test_layouts_are_turned_and_turned_back():
    images = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    lava = layout.lava_images(images)
    assert lava.shape == (2, 5, 4, 3) == (2, *layout.lava_shape((3, 4, 5)))
    assert lava[1, 4, 2, 0] == images[1, 0, 2, 4]
    assert (layout.torch_images(lava.reshape(2, -1), (3, 4, 5)) == images).all()
    assert (layout.lava_values(images[0]) == lava[0]).all()
    assert (layout.lava_matrix(images.reshape(2, -1), (3, 4, 5)) == lava.reshape(2, -1)).all()
