"""Products of integers in floating point and in 8 bits: equal to the same sums in float64, whatever the geometry."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from naive import edges, flat

from lava_casc.dynamics import product
from lava_casc.dynamics.product import Product, has_int8, kinds
from lava_casc.errors import InvalidNetworkError
from lava_casc.network import Conv, Dense

CPU = torch.device("cpu")
KINDS = ("int8", "float32", "float64")


def _conv(rng):
    """Return a convolution of any geometry, and the shape of an image that it can read."""
    while True:
        groups = int(rng.choice([1, 1, 2, 3, 4]))
        channels, out = groups * int(rng.integers(1, 5)), groups * int(rng.integers(1, 5))
        size, kernel = rng.integers(1, 10, 2), rng.integers(1, 6, 2)
        stride, padding, dilation = (tuple(int(v) for v in rng.integers(*ends, 2)) for ends in ((1, 4), (0, 5), (1, 4)))
        if rng.random() < 0.5:
            padding = tuple(int(d * (k - 1) // 2) for d, k in zip(dilation, kernel, strict=True))
        weight = np.zeros((out, channels // groups, *(int(k) for k in kernel)), np.int32)
        synapse = Conv("source", weight, stride, padding, dilation, groups)
        shape = (channels, *(int(n) for n in size))
        try:
            synapse.output_shape(shape)
        except InvalidNetworkError:
            continue
        return synapse, shape


def _dense(rng):
    shape = tuple(int(n) for n in rng.integers(1, 7, int(rng.choice([1, 3]))))
    return Dense("source", np.zeros((int(rng.integers(1, 20)), int(np.prod(shape))), np.int32)), shape


def _weighted(rng, synapse, greatest):
    """Return a synapse with random weights, all of them extreme now and then, and an exponent."""
    extreme = rng.choice([-greatest, greatest], synapse.weight.shape)
    weight = rng.integers(-greatest, greatest + 1, synapse.weight.shape)
    weight = [weight, extreme, np.abs(extreme)][rng.choice(3, p=[0.6, 0.2, 0.2])]
    return dataclasses.replace(synapse, weight=weight.astype(np.int32), exponent=int(rng.integers(3)))


def _counts(rng, n, shape, low, high):
    counts = rng.integers(low, high + 1, (n, *shape))
    return [counts, np.full_like(counts, high), np.full_like(counts, low)][rng.choice(3, p=[0.7, 0.2, 0.1])]


def _as_given(counts, dtype=torch.int64):
    """Return counts (N, C, H, W) as layers keep them."""
    counts = torch.tensor(counts, dtype=dtype)
    return counts.permute(0, 2, 3, 1).contiguous() if counts.ndim == 4 else counts


def _expected(synapse, counts):
    """Return the same sums by torch in float64, where they are exact, with channels last."""
    x, weight = torch.tensor(counts, dtype=torch.float64), torch.tensor(synapse.weight, dtype=torch.float64)
    if isinstance(synapse, Dense):
        found = x.flatten(1) @ weight.T
    else:
        geometry = synapse.stride, synapse.padding, synapse.dilation, synapse.groups
        found = torch.nn.functional.conv2d(x, weight, None, *geometry).permute(0, 2, 3, 1)
    return found * 2**synapse.exponent


def _wrong(operator, counts, expected, dtype=torch.int64):
    """Return whether an operator gives anything else than what is expected, or in another form."""
    found = operator(_as_given(counts, dtype))
    whole = found.is_contiguous() and found.dtype == operator.dtype and found.shape == expected.shape
    return not (whole and torch.equal(found.double(), expected))


ROADS = [(kind, False) for kind in KINDS] + [(kind, True) for kind in KINDS[1:]]


def _cases(seeds, make):
    for seed in seeds:
        rng = np.random.default_rng(seed)
        synapse, shape = make(rng)
        low, high = [(0, 1), (0, 8), (0, 127), (0, 129), (0, 255), (-8, 7), (-128, 127), (0, 999)][rng.integers(8)]
        synapse = _weighted(rng, synapse, int(rng.choice([1, 7, 64, 127])))
        counts = _counts(rng, int(rng.integers(1, 10)), shape, low, high)
        yield seed, synapse, shape, low, high, counts


@pytest.mark.parametrize("make", [_conv, _dense])
@pytest.mark.parametrize("block", range(3))
def test_every_kind_and_every_road_give_the_same_sums(make, block):
    seen = dict.fromkeys(ROADS, 0)
    for seed, synapse, shape, low, high, counts in _cases(range(100 * block, 100 * block + 100), make):
        expected = _expected(synapse, counts)
        possible = kinds(synapse, shape, low, high, CPU)
        assert Product(synapse, shape, low, high).kind == possible[0]
        dtype = torch.int8 if low >= -128 and high <= 127 and seed % 2 else torch.int64
        for kind, gathers in ROADS:
            if kind in possible:
                seen[kind, gathers] += 1
                operator = Product(synapse, shape, low, high, kind=kind, gathers=gathers)
                assert operator.kind == kind
                assert not _wrong(operator, counts, expected, dtype), (seed, kind, gathers)
    assert all(n > 12 for (kind, _), n in seen.items() if kind != "int8" or has_int8()), seen


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_ten_thousand_random_convolutions_are_exact_as_they_are_chosen(block):
    for seed, synapse, shape, low, high, counts in _cases(range(10_000 + 1000 * block, 11_000 + 1000 * block), _conv):
        assert not _wrong(Product(synapse, shape, low, high), counts, _expected(synapse, counts)), seed


@pytest.mark.parametrize("make", [_conv, _dense])
def test_sums_agree_with_loops_over_python_ints(make):
    for seed, synapse, shape, low, high, counts in _cases(range(1000, 1012), make):
        found = Product(synapse, shape, low, high)(_as_given(counts[:2]))
        found = found.permute(0, 3, 1, 2) if found.ndim == 4 else found
        for sample, result in zip(counts[:2], found, strict=True):
            sums, sources = [0] * result.numel(), flat(sample)
            for target, source, weight in edges(synapse, shape):
                sums[target] += weight * sources[source]
            assert result.flatten().tolist() == sums, seed


@pytest.mark.parametrize("seed", range(20))
def test_depthwise_single_channel_and_far_padded_convolutions_are_exact(seed):
    rng = np.random.default_rng(seed)
    channels = int(rng.integers(1, 9))
    shape = (channels, *(int(n) for n in rng.integers(2, 9, 2)))
    weights = rng.integers(-127, 128, (channels, 1, 3, 2)).astype(np.int32)
    alone = Conv("source", weights[:1], padding=(5, 7), dilation=(2, 3), stride=(2, 1))
    depthwise = Conv("source", weights, padding=(1, 0), groups=channels)
    for synapse, size in ((alone, (1, *shape[1:])), (depthwise, shape)):
        counts = _counts(rng, 4, size, 0, 16)
        for gathers in (False, True):
            operator = Product(synapse, size, 0, 16, gathers=gathers)
            assert operator.kind == "float32", "8 bits are not trusted with one channel a group"
            assert not _wrong(operator, counts, _expected(synapse, counts)), gathers


@pytest.mark.parametrize(("size", "trusted"), [((6, 4), True), ((6, 2), False), ((2, 6), False), ((2, 2), False)])
def test_images_of_one_row_or_column_are_left_to_float32(size, trusted):
    rng = np.random.default_rng(0)
    synapse = Conv("source", rng.integers(-9, 10, (4, 3, 2, 2)).astype(np.int32), stride=(2, 2))
    operator = Product(synapse, (3, *size), 0, 8)
    assert operator.kind == ("int8" if trusted and has_int8() else "float32")
    counts = _counts(rng, 3, (3, *size), 0, 8)
    assert not _wrong(operator, counts, _expected(synapse, counts))


def _one(weight, exponent=0, inputs=2):
    return Dense("source", np.full((3, inputs), weight, np.int32), exponent)


LIMITS = [
    # Two products stay within 16 bits, 2 * 127 * 129 = 32766.
    (_one(127), 0, 129, "int8"),
    (_one(127), 0, 130, "float32"),
    (_one(-127), 0, 129, "int8"),
    (_one(-127), 0, 130, "float32"),
    (_one(-128), 0, 1, "float32"),
    (_one(128), 0, 1, "float32"),
    (_one(64), 0, 255, "int8"),
    (_one(1), 0, 256, "float32"),
    (_one(1), -1, 1, "float32"),
    # 3 * 5 * 17 * 65793 = 2**24 - 1.
    (_one(65793, inputs=1), 0, 255, "float32"),
    (_one(65793, inputs=1), -255, 0, "float32"),
    (_one(-65793, inputs=1), 0, 255, "float32"),
    (_one(65536, inputs=1), 0, 256, "float64"),
    (_one(65536, inputs=1), -256, 0, "float64"),
    (_one(1, exponent=16, inputs=1), 0, 255, "int8"),
    (_one(1, exponent=16, inputs=1), 0, 256, "float64"),
    (_one(127, exponent=1, inputs=512), 0, 129, "int8"),
    (_one(127, exponent=1, inputs=516), 0, 128, "int8"),
    (_one(127, exponent=1, inputs=517), 0, 128, "float64"),
]


@pytest.mark.parametrize(("synapse", "low", "high", "kind"), LIMITS)
def test_each_kind_goes_to_its_limit_and_no_further(synapse, low, high, kind):
    if kind == "int8" and not has_int8():
        kind = "float32"
    shape = synapse.weight.shape[1:]
    operator = Product(synapse, shape, low, high)
    assert operator.kind == kind
    for value in (low, high):
        counts = np.full((2, *shape), value)
        assert not _wrong(operator, counts, _expected(synapse, counts))


def _small(rng=None):
    """Return a convolution that 8 bits can do, and counts for it."""
    rng = rng or np.random.default_rng(5)
    synapse = Conv("source", rng.integers(-127, 128, (6, 4, 3, 3)).astype(np.int32), padding=(1, 1), exponent=1)
    return synapse, (4, 5, 7), rng.integers(0, 9, (3, 4, 5, 7))


def test_without_8_bits_float32_gives_the_same(monkeypatch):
    synapse, shape, counts = _small()
    monkeypatch.setattr(product, "has_int8", lambda: False)
    operator = Product(synapse, shape, 0, 8)
    assert operator.kind == "float32"
    assert not _wrong(operator, counts, _expected(synapse, counts), torch.int8)


@pytest.mark.parametrize("make", [_small, lambda: (_one(7), (2,), np.array([[8, 3], [0, 1], [5, 5]]))])
def test_8_bits_that_are_wrong_are_not_trusted(monkeypatch, make):
    synapse, shape, counts = make()
    monkeypatch.setattr(product, "has_int8", lambda: True)
    monkeypatch.setattr(Product, "_prepare_int8", lambda *_: None)
    monkeypatch.setattr(
        Product, "_int8", lambda self, counts: Product(synapse, shape, 0, 8, kind="float32")(counts) + 1
    )
    operator = Product(synapse, shape, 0, 8)
    assert operator.kind == "float32"
    assert not _wrong(operator, counts, _expected(synapse, counts), torch.int8)


class _Library:
    """A library whose 8-bit sums saturate as soon as they leave 16 bits."""

    def qlinear_prepack(self, weight, _):
        return weight

    def qlinear_pointwise(self, counts, _scale, _zero, packed, *_):
        return (counts.short() @ packed.short().T).float()


@pytest.mark.parametrize("library", [_Library(), object()])
def test_8_bits_are_there_only_where_the_library_adds_in_32(monkeypatch, library):
    monkeypatch.setattr(product, "_onednn", library)
    monkeypatch.setattr(product.platform, "machine", lambda: "x86_64")
    assert not has_int8.__wrapped__()


def test_8_bits_are_there_on_x86_alone(monkeypatch):
    monkeypatch.setattr(product.platform, "machine", lambda: "aarch64")
    assert not has_int8.__wrapped__()


def test_autocast_changes_nothing():
    for make in (_conv, _dense):
        for seed, synapse, shape, low, high, counts in _cases(range(20), make):
            for kind, gathers in ROADS:
                if kind in kinds(synapse, shape, low, high, CPU):
                    operator = Product(synapse, shape, low, high, kind=kind, gathers=gathers)
                    with torch.autocast("cpu", dtype=torch.bfloat16):
                        assert not _wrong(operator, counts, _expected(synapse, counts)), (seed, kind)


def test_what_was_given_stays_as_it_was():
    synapse, shape, counts = _small()
    for kind in kinds(synapse, shape, 0, 8, CPU):
        given = _as_given(counts, torch.int8)
        Product(synapse, shape, 0, 8, kind=kind)(given)
        assert torch.equal(given, _as_given(counts, torch.int8))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("make", [_conv, _dense])
def test_a_gpu_gives_the_same_sums(make):
    for seed, synapse, shape, low, high, counts in _cases(range(100), make):
        operator = Product(synapse, shape, low, high, "cuda")
        assert operator.kind == kinds(synapse, shape, low, high, torch.device("cuda"))[0] != "int8"
        found = operator(_as_given(counts).cuda()).cpu()
        assert torch.equal(found.double(), _expected(synapse, counts)), seed


def _blocky(rng):
    """Return a convolution with equal weights within k x k blocks, as a folded average pool leaves it, and k."""
    while True:
        synapse, shape = _conv(rng)
        k = int(rng.integers(2, 4))
        weight = _weighted(rng, synapse, int(rng.choice([7, 31, 127]))).weight.repeat(k, 2).repeat(k, 3)
        stride, padding = (tuple(k * v for v in pair) for pair in (synapse.stride, synapse.padding))
        shape = (shape[0], *(k * n + int(rng.integers(k)) for n in shape[1:]))
        synapse = dataclasses.replace(
            synapse, weight=weight, stride=stride, padding=padding, dilation=(1, 1), exponent=int(rng.integers(3))
        )
        try:
            synapse.output_shape(shape)
        except InvalidNetworkError:
            continue
        return synapse, shape, k


@pytest.mark.parametrize("gathers", [False, True])
def test_blocks_of_equal_weights_are_applied_to_sums(gathers):
    kinds_seen = set()
    for seed in range(150):
        rng = np.random.default_rng(seed)
        synapse, shape, k = _blocky(rng)
        high = int(rng.choice([1, 8, 14, 28, 127, 255]))
        counts = _counts(rng, int(rng.integers(1, 5)), shape, 0, high)
        operator = Product(synapse, shape, 0, high, gathers=gathers)
        assert operator.block % k == 0
        kinds_seen.add(operator.kind)
        assert not _wrong(operator, counts, _expected(synapse, counts)), seed
        assert not _wrong(Product(synapse, shape, 0, high, blocks=False), counts, _expected(synapse, counts)), seed
        negative = Product(synapse, shape, -high, high, gathers=gathers)
        assert not _wrong(negative, -counts, _expected(synapse, -counts)), seed
    assert kinds_seen >= ({"int8", "float32"} if has_int8() else {"float32"})


def test_blocks_that_a_window_divides_or_that_differ_are_no_blocks():
    weight = np.arange(4, dtype=np.int32).reshape(1, 1, 2, 2).repeat(2, 2).repeat(2, 3)
    whole = Conv("source", weight, (2, 4), (2, 0))
    assert product.block_of(whole) == 2
    for change in ({"stride": (1, 2)}, {"padding": (1, 0)}, {"dilation": (2, 1)}):
        assert product.block_of(dataclasses.replace(whole, **change)) == 1
    for place in np.ndindex(weight.shape):
        other = weight.copy()
        other[place] += 1
        assert product.block_of(dataclasses.replace(whole, weight=other)) == 1
    for axis in (2, 3):  # alike within a block's rows alone, or its columns
        alike = np.arange(8, dtype=np.int32).reshape((1, 1, 2, 4) if axis == 2 else (1, 1, 4, 2)).repeat(2, axis)
        assert product.block_of(dataclasses.replace(whole, weight=alike)) == 1
    assert product.block_of(Dense("source", np.ones((2, 4), np.int32))) == 1


@pytest.mark.parametrize("n", [1, 4, 37])
def test_a_single_channel_is_convolved_right(n):
    """With the strides that such an image has when its channels come last, oneDNN was seen to give wrong sums."""
    rng = np.random.default_rng(0)
    synapse = Conv("source", rng.integers(2, 16, (2, 1, 4, 4)).astype(np.int32), (1, 2), (0, 1))
    counts = rng.integers(0, 5, (n, 1, 5, 2))
    for kind in ("float32", "float64"):
        assert not _wrong(Product(synapse, (1, 5, 2), 0, 4, kind=kind), counts, _expected(synapse, counts), torch.int8)
