"""Layout and arithmetic of the synapses: the fast models, Lava's own, and torch's."""

import numpy as np
import pytest
import torch
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.conv.models import PyConvModelFixed, PyConvModelFloat
from lava.proc.conv.process import Conv as LavaConv
from lava.proc.dense.models import PyDenseModelBitAcc, PyDenseModelFloat
from lava.proc.dense.process import Dense as LavaDense
from lava.utils.weightutils import SignMode
from loihi_models import started, step
from threadpoolctl import threadpool_info

from lava_casc.linear import apply
from lava_casc.loihi import layout
from lava_casc.loihi.build import make_synapse
from lava_casc.loihi.fast_synapse import FastConvFixed, FastConvFloat, FastDenseFixed, FastDenseFloat
from lava_casc.loihi.fast_synapse.models import CACHED, UNWRAPPED, Product, peak
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
    for loudest in (30, 30, 0, 0, 1, 30, 1, 30):  # silence between, and each of the two precisions anew
        spikes = rng.integers(-loudest, loudest + 1, (5, 6, 2))
        assert (step(fast, s_in=spikes)["a_out"] == step(stock, s_in=spikes)["a_out"]).all()
    assert set(fast.windows) == ({np.float32, np.float64} if num_message_bits else {np.float32})
    unwrapped = fast.convolve(*(spikes, 30) if num_message_bits else (spikes.astype(bool), 1))
    assert num_message_bits == 0 or np.abs(unwrapped).max() >= UNWRAPPED


@pytest.mark.parametrize("weight", [UNWRAPPED - 1, UNWRAPPED, -UNWRAPPED, -UNWRAPPED - 1, 1 - (1 << 31)])
def test_a_convolution_wraps_from_the_first_number_on_that_24_bits_do_not_hold(weight):
    process = LavaConv(weight=np.full((1, 1, 1, 1), weight), input_shape=(1, 1, 1), num_message_bits=8)
    for spike in (1, -1):
        sent = []
        for model in (FastConvFixed, PyConvModelFixed):
            made = started(process, model)
            step(made, s_in=np.full((1, 1, 1), spike))
            sent.append(step(made, s_in=np.zeros((1, 1, 1), int))["a_out"].item())
        assert sent[0] == sent[1] == (weight * spike + UNWRAPPED) % (2 * UNWRAPPED) - UNWRAPPED


def test_windows_of_one_element_are_the_image_itself():
    for kernel, stride, padding, copied in (
        ((1, 1), 1, 0, False),
        ((1, 1), 2, 0, True),
        ((1, 1), 1, 1, False),
        ((2, 1), 1, 0, True),
    ):
        weight = np.arange(6 * 3 * kernel[0]).reshape(6, *kernel, 3) - 9
        process = LavaConv(weight=weight, input_shape=(4, 5, 3), stride=stride, padding=padding, num_message_bits=8)
        fast, stock = started(process, FastConvFixed), started(process, PyConvModelFixed)
        for spike in (3, 0, -2, 1):
            spikes = np.full((4, 5, 3), spike)
            assert (step(fast, s_in=spikes)["a_out"] == step(stock, s_in=spikes)["a_out"]).all()
        assert fast.windows[np.float32][0].copied is copied


#: The weights of a large Dense, and the type in which they are read where few inputs spike.
SPANS = {"int8": (-64, 63), "int16": (-128, 127), "uint8": (0, 255), "below": (-255, 0)}


@pytest.mark.parametrize("kind", SPANS)
def test_a_large_dense_reads_the_weights_of_the_spikes_alone_where_they_are_few(kind):
    rng = np.random.default_rng(5)
    low, high = SPANS[kind]
    weights = rng.integers(low, high + 1, (600, 1000)) * (2 if low and high else 1)
    process = LavaDense(weights=weights, num_message_bits=8)
    fast, stock = started(process, FastDenseFixed), started(process, PyDenseModelBitAcc)
    assert weights.size > CACHED
    for active in (0.001, 0.2, 0.0, 0.499, 1.0, 0.6, 0.3):
        spikes = rng.integers(-9, 10, 1000) * (np.arange(1000) < 1000 * active)
        assert (step(fast, s_in=spikes)["a_out"] == step(stock, s_in=spikes)["a_out"]).all()
    assert step(fast, s_in=spikes)["a_out"].any()
    smallest = np.dtype("int16" if kind == "below" else kind)
    assert set(fast.product.copies) == {smallest, np.dtype(np.float32)}


def test_a_dense_synapse_wraps_like_lavas_where_float64_is_not_exact():
    rng = np.random.default_rng(6)
    process = LavaDense(weights=rng.integers(-255, 0, (3, 1 << 16)), num_message_bits=24, weight_exp=-1)
    fast, stock = started(process, FastDenseFixed), started(process, PyDenseModelBitAcc)
    for low in (1 << 30, 1 << 10):
        spikes = rng.integers(low, 2 * low, 1 << 16).astype(np.int32)
        step(fast, s_in=spikes), step(stock, s_in=spikes)
        ours, theirs = (step(made, s_in=0 * spikes)["a_out"] for made in (fast, stock))
        assert (ours == theirs).all()
        assert ours.dtype == theirs.dtype == np.int32
        assert ours.any()
    assert set(fast.product.copies) == {np.dtype(np.int64), np.dtype(np.float64)}


@pytest.mark.parametrize("precision", ["fixed", "float"])
@pytest.mark.parametrize("replaced", [False, True])
def test_weights_that_are_set_take_effect_as_with_lavas(precision, replaced):
    rng = np.random.default_rng(7)
    fixed = precision == "fixed"
    conv = LavaConv(weight=rng.integers(-9, 10, (2, 3, 3, 2)), input_shape=(5, 6, 2), num_message_bits=8)
    dense = LavaDense(weights=rng.integers(-9, 10, (4, 7)), num_message_bits=8)
    for process, name, models in (
        (conv, "weight", (FastConvFixed, PyConvModelFixed) if fixed else (FastConvFloat, PyConvModelFloat)),
        (dense, "weights", (FastDenseFixed, PyDenseModelBitAcc) if fixed else (FastDenseFloat, PyDenseModelFloat)),
    ):
        sent = {model: [] for model in models}
        for model in models:
            made = started(process, model)
            spikes = np.arange(np.prod(process.s_in.shape)).reshape(process.s_in.shape) % 5 - 2
            for change in (0, 301, 0):  # beyond Dense's 8 bits: what is set later is no longer clipped
                weights = getattr(made, name)
                if change and replaced:  # as a port that refers to the variable does
                    setattr(made, name, weights + change)
                elif change:  # as Var.set does
                    weights += change
                    made.on_var_update()
                sent[model].append(step(made, s_in=spikes)["a_out"])
            sent[model].append(getattr(made, name))
        for ours, theirs in zip(*sent.values(), strict=True):
            assert (ours == theirs).all()
        assert (sent[models[0]][1] != sent[models[0]][2]).any()


class ThreadsOfADense(FastDenseFixed):
    """A dense synapse that delivers how many threads its BLAS has."""

    def run_spk(self):
        """Send the number, whatever arrives."""
        super().run_spk()
        threads = [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]
        self.a_buff[...] = max(threads)


def test_a_synapse_in_lava_has_one_thread():
    dense = LavaDense(weights=np.ones((1, 1)))
    config = Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map={LavaDense: ThreadsOfADense})
    try:
        dense.run(RunSteps(1), config)
        assert dense.a_buff.get().item() == 1
    finally:
        dense.stop()


def test_the_peak_is_the_largest_magnitude_and_nought_in_silence():
    assert peak(np.array([3, -7, 2], np.int32)) == 7
    assert peak(np.array([-(1 << 31), 5], np.int32)) == 1 << 31
    assert peak(np.array([[False, True]])) == 1
    assert peak(np.array([0.5, -0.25])) == 0.5
    for silent in (np.zeros(3, np.int32), np.zeros(3, bool), np.zeros(0)):
        assert peak(silent) == 0
    assert peak(np.array([0.0, np.nan]))


def test_the_type_of_a_product_is_the_smallest_that_is_exact():
    weights = np.full((1, 1 << 13, 1), 1 << 7)  # 2**20 in all
    product = Product(weights, weights)
    for loudest, dtype in ((15, np.float32), (16, np.float64), ((1 << 33) - 1, np.float64), (1 << 33, np.int64)):
        assert product.dtype(loudest) is dtype
    assert product.dtype(15.0) is np.float64
    lowest = np.full((1, 1, 1), -(1 << 31), np.int32)
    assert Product(lowest, lowest).dtype(1) is np.float64
    half = np.full((1, 1, 1), 0.5)
    assert Product(half, half).dtype(1) is np.float64


def test_layouts_are_turned_and_turned_back():
    images = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    lava = layout.lava_images(images)
    assert lava.shape == (2, 5, 4, 3) == (2, *layout.lava_shape((3, 4, 5)))
    assert lava[1, 4, 2, 0] == images[1, 0, 2, 4]
    assert (layout.torch_images(lava.reshape(2, -1), (3, 4, 5)) == images).all()
    assert (layout.lava_values(images[0]) == lava[0]).all()
    assert (layout.lava_matrix(images.reshape(2, -1), (3, 4, 5)) == lava.reshape(2, -1)).all()
