"""Recurrence: CQRNN itself, its trace, its folding into memories, and integers and spikes exactly equal to it."""

from __future__ import annotations

import dataclasses
import itertools
import re

import numpy as np
import pytest
import torch
from models import Model, kinds, randomize
from random_models import by_channel
from torch import nn

import lava_casc
from lava_casc.errors import CheckpointError, UnsupportedModelError
from lava_casc.frontend import CQRNN, CQReLU, GraphModel, InputSpec, fold, quantize, trace
from lava_casc.frontend.checkpoint import Checkpoint, load_checkpoint, load_model, save_model
from lava_casc.frontend.fold import FloatNeurons, _check, evaluate
from lava_casc.frontend.trace import Graph
from lava_casc.hardware import read_hardware
from lava_casc.network import Memory, Tokens
from lava_casc.pipeline import Options, convert_checkpoint, with_levels
from lava_casc.reference import forward, simulate

PHASES, VOCABULARY = 6, 12


def mean_of(module_names):
    """Return a forward: the modules in order, the mean over the phases before the last one."""

    def run(self, x):
        for name in module_names[:-1]:
            x = getattr(self, name)(x)
        return getattr(self, module_names[-1])(x.mean(1))

    return run


def build(**parts):
    return Model(mean_of(list(parts)), **parts).eval()


def random_text_model(rng):
    """Return a random model for words: one to three recurrent layers, with what may stand between them."""
    width = int(rng.integers(1, 6))
    parts = {"embed": nn.Embedding(VOCABULARY, width, padding_idx=[None, 0][rng.integers(2)]), "drop": nn.Dropout(0.5)}
    for i in range(int(rng.integers(1, 4))):
        if rng.random() < 0.3:
            parts[f"linear{i}"] = nn.Linear(width, width)
        if rng.random() < 0.3:
            parts[f"act{i}"] = CQReLU(int(rng.integers(1, 9)), float(rng.uniform(0.3, 1)))
        hidden, levels = int(rng.integers(1, 8)), int(rng.integers(1, 9))
        rounding = str(rng.choice(["floor", "round"]))
        parts[f"rnn{i}"] = CQRNN(width, hidden, levels, float(rng.uniform(0.3, 2)), rounding, bool(rng.integers(2)))
        width = hidden
    if rng.random() < 0.3:
        parts["head"] = nn.Sequential(nn.BatchNorm1d(width), nn.Linear(width, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    else:
        parts["head"] = nn.Linear(width, 3)
    model = build(**parts)
    for module in model.modules():
        if isinstance(module, CQRNN):  # so that all levels occur, and the past matters
            module.weight_ih.data *= 2
            module.weight_hh.data = torch.tensor(rng.normal(0, 1, module.weight_hh.shape), dtype=torch.float32)
            module.bias.data += 0.2
    return randomize(model)


def dyadic_text_model(rng, levels, recurrent_layers=2):
    """Return a model whose quantization is exact: all weights are integers times a power of two, 127 at most."""
    size, embedding = 5, 4
    # Each neuron has a weight of 127 from token 1, and of 90 at most from the others.
    table = rng.integers(-1, 2, (VOCABULARY, embedding)) * (np.arange(embedding) > 0)
    table[1] = np.arange(embedding) == 0
    parts = {"embed": nn.Embedding(VOCABULARY, embedding)}
    parts["embed"].weight = nn.Parameter(torch.tensor(table, dtype=torch.float64))

    def integers(rows, columns, greatest):
        weight = rng.integers(-greatest, greatest + 1, (rows, columns)).astype(np.float64)
        weight[:, 0] = 127
        return weight

    width, unit = embedding, 1.0
    for i in range(recurrent_layers):
        rnn = CQRNN(width, size, levels, 1.0, str(rng.choice(["floor", "round"]))).double()
        grid = 2.0**-7 / levels  # a threshold of 128 a level, where the sums are of 80 a level and more
        rnn.weight_ih = nn.Parameter(torch.tensor(integers(size, width, 127 if i else 30) * grid / unit))
        rnn.weight_hh = nn.Parameter(torch.tensor(integers(size, size, 127) * grid * levels))
        rnn.bias = nn.Parameter(torch.tensor(rng.integers(-60 * levels, 61 * levels, size) * grid))
        parts[f"rnn{i}"], width, unit = rnn, size, 1 / levels
    parts["head"] = nn.Linear(width, 3)
    parts["head"].weight = nn.Parameter(torch.tensor(integers(3, width, 127) * levels / 64))
    parts["head"].bias = nn.Parameter(torch.tensor(rng.integers(-100, 100, 3) / 64))
    return build(**parts).double()


def spec_of(phases=PHASES, vocabulary=VOCABULARY):
    return InputSpec((phases,), 0, vocabulary - 1, 1)


def by_python_integers(network, tokens):
    """Return the counts of every phase by layer, and the logits, of one sequence: only Python's integers."""
    held = {memory.name: [0] * memory.shape[0] for memory in network.memories}
    counts, logits = {layer.name: [] for layer in network.spiking}, [0] * network.shapes[network.readouts[0].name][0]
    for token in tokens:
        values = {"input": [int(i == token) for i in range(network.input.vocabulary)], **held}
        for layer in network.computed:
            sums = []
            for n, bias in enumerate(layer.bias.tolist()):
                for synapse in layer.synapses:
                    row = synapse.weight[n].tolist()
                    bias += sum(w * v for w, v in zip(row, values[synapse.source], strict=True)) << synapse.exponent
                sums.append(bias)
            if layer in network.readouts:
                logits = [a + b for a, b in zip(logits, sums, strict=True)]
                continue
            starts, thresholds = layer.initial.tolist(), layer.threshold.tolist()
            values[layer.name] = [
                min(max((x + start) // threshold, 0), layer.levels)
                for x, start, threshold in zip(sums, starts, thresholds, strict=True)
            ]
            counts[layer.name].append(values[layer.name])
        held = {memory.name: values[memory.source] for memory in network.memories}
    return counts, logits


def assert_spikes_are_exact(network, tokens):
    truth = forward(network, tokens)
    for mode in ("unary", "graded"):
        record = simulate(network, tokens, network.schedule(mode))
        assert record.phases_certified.all()
        assert np.array_equal(record.logits, truth.logits)
        assert record.counts.keys() == truth.counts.keys()
        assert all(np.array_equal(record.counts[name], counts) for name, counts in truth.counts.items())
    return truth


# The module.


@pytest.mark.parametrize("rounding", ["floor", "round"])
def test_the_states_are_those_of_a_loop(rounding):
    rnn = CQRNN(3, 4, 5, 1.5, rounding).double()
    x = torch.randn(7, 9, 3, dtype=torch.float64) * 3
    state, phase = torch.zeros(7, 4, dtype=torch.float64), 0.5 * (rounding == "round")
    found = rnn(x)
    for p in range(9):
        z = x[:, p] @ rnn.weight_ih.T + state @ rnn.weight_hh.T + rnn.bias
        state = 1.5 / 5 * torch.clamp(torch.floor(z * 5 / 1.5 + phase), 0, 5)
        torch.testing.assert_close(found[:, p], state, rtol=1e-12, atol=1e-12)
    assert found.unique().numel() == 6
    torch.testing.assert_close(rnn.activation(rnn.received(x, found)), found, rtol=1e-12, atol=1e-12)


def test_every_parameter_learns_through_the_phases():
    rnn = CQRNN(3, 4, 8, learnable=True)
    rnn.bias.data += 0.4
    x = torch.rand(16, 5, 3, requires_grad=True)
    rnn(x)[:, -1].sum().backward()
    assert x.grad[:, 0].abs().sum() > 0
    assert sorted(name for name, _ in rnn.named_parameters()) == [
        "activation.threshold", "bias", "weight_hh", "weight_ih",
    ]  # fmt: skip
    assert all(p.grad.abs().sum() > 0 for p in rnn.parameters())
    assert "3, 4" in repr(rnn)
    assert (rnn.levels, rnn.rounding, rnn.learnable) == (8, "floor", True)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0, 4, 8), "input_size must be an int of at least 1, not 0"),
        ((3, True, 8), "hidden_size must be an int of at least 1, not True"),
        ((3, 4, 0), "levels must be an int of at least 1, not 0"),
    ],
)
def test_sizes_are_checked(sizes, message):
    with pytest.raises(ValueError, match=message):
        CQRNN(*sizes)


@pytest.mark.parametrize("shape", [(2, 3), (2, 5, 4), (2, 0, 3), (1, 2, 5, 3)])
def test_an_input_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"is not \(N, P, 3\) with P at least 1"):
        CQRNN(3, 4, 8)(torch.zeros(shape))


# Its trace.


def test_a_model_of_words_is_traced_for_any_number_of_phases():
    model = build(
        embed=nn.Embedding(VOCABULARY, 3, padding_idx=0), drop=nn.Dropout(0.5), first=CQRNN(3, 4, 8),
        linear=nn.Linear(4, 4), act=CQReLU(3), second=CQRNN(4, 5, 2), head=nn.Linear(5, 2),
    )  # fmt: skip
    graph = trace(model, (PHASES,))
    assert kinds(graph) == ["Embedding", "CQRNN", "Linear", "CQReLU", "CQRNN", "mean", "Linear"]
    assert graph.vocabulary == VOCABULARY
    assert graph.operations[1].arguments["padding_idx"] == 0
    for phases in (1, 3, PHASES, 11):
        x = graph.random_inputs(4, torch.Generator(), phases)
        assert x.shape == (4, phases)
        assert torch.equal(GraphModel(graph).eval()(x), model(x))
    assert trace(GraphModel(graph), (PHASES,)) is not graph


def test_the_mean_may_be_written_in_several_ways():
    ways = [
        lambda self, x: self.h(self.r(self.e(x)).mean(1)),
        lambda self, x: self.h(self.r(self.e(x)).mean(dim=-2)),
        lambda self, x: self.h(torch.mean(self.r(self.e(x)), dim=[1])),
        lambda self, x: self.h(self.r(self.e(x)) + self.r(self.e(x))).mean(1),
    ]
    for way in ways:
        model = Model(way, e=nn.Embedding(5, 3), r=CQRNN(3, 3, 4), h=nn.Linear(3, 2)).eval()
        assert kinds(trace(model, (4,))).count("mean") == 1
        fold(trace(model, (4,)))


def refused(run, message, shape=(4,), **parts):
    parts = {"e": nn.Embedding(5, 3), "r": CQRNN(3, 3, 4), "h": nn.Linear(3, 2)} | parts
    with pytest.raises(UnsupportedModelError, match=message):
        trace(Model(run, **parts), shape)


REFUSED = [
    (lambda self, x: self.h(self.r(self.e(x))[:, -1]), r"getitem\(\) is not supported: of a sequence only x.mean\(1\)"),
    (lambda self, x: self.h(self.r(self.e(x)).amax(1)), r"amax\(\) is not supported: of a sequence only x.mean\(1\)"),
    (lambda self, x: self.r(self.e(x)).mean(2), r"mean\(\) is not supported: of a sequence only x.mean\(1\)"),
    (lambda self, x: self.r(self.e(x)).mean(1, keepdim=True), r"mean\(\) is not supported: of a sequence"),
    (lambda self, x: self.r(self.e(x)).mean((1, 2)), r"mean\(\) is not supported: of a sequence"),
    (lambda self, x: self.a(self.r(self.e(x)).mean(1)), "a: CQReLU of the mean over a sequence is not supported. O"),
    (lambda self, x: torch.relu(self.r(self.e(x))).mean(1), "relu: ReLU of a sequence is not supported. Each"),
    (lambda self, x: self.n(self.r(self.e(x))).mean(1), "n: BatchNorm1d of a sequence is not supported. Each"),
    (lambda self, x: self.r(self.e(x)).flatten(1), "flatten: Flatten of a sequence is not supported"),
    (lambda self, x: torch.cat([self.e(x), self.e(x)], 1).mean(1), "cat: concatenate of a sequence is not supported"),
    (lambda self, x: self.r(self.e(x)), "r: an output of every phase. Return something linear in x.mean"),
    (lambda self, x: self.h(self.e(x).mean(1)), "a model of words without any CQRNN. Put one behind"),
    (lambda self, x: self.g(self.e(x))[0].mean(1), "g: GRU is not supported: its activations are no CQReLU. Use"),
    (lambda self, x: self.h(self.r(self.m(x)).mean(1)), "m: Embedding with max_norm. Train without"),
    (lambda self, x: self.h(self.r(self.e(x)).mean(1) + self.e(x).mean(1) * 2), r"mul\(\) is not supported. Supported"),
]  # fmt: skip


@pytest.mark.parametrize(("run", "message"), REFUSED)
def test_what_has_no_phases_is_refused(run, message):
    parts = {"a": CQReLU(4), "n": nn.BatchNorm1d(4), "g": nn.GRU(3, 3, batch_first=True)}
    refused(run, message, **parts, m=nn.Embedding(5, 3, max_norm=1.0))


def test_words_need_an_embedding_and_one_dimension():
    words = r"does not run on an input of shape \(2, 3, 4\) \(an input of shape \(2, 2, 3, 4, 3\) is not \(N, P, 3"
    refused(lambda self, x: self.h(self.r(self.e(x)).mean(1)), words, (2, 3, 4))
    operations = trace(build(e=nn.Embedding(5, 3), r=CQRNN(3, 3, 4), h=nn.Linear(3, 2)), (4,)).operations
    without = (operations[0], dataclasses.replace(operations[2], inputs=(operations[0].name,)), *operations[3:])
    with pytest.raises(UnsupportedModelError, match="r: CQRNN of something other than words. Let an nn.Embedding"):
        Graph(without, (3,))
    with pytest.raises(UnsupportedModelError, match="h: Linear of tokens is not supported. An nn.Embedding has to"):
        Graph((*operations, dataclasses.replace(operations[-1], name="y", inputs=(operations[0].name,))), (4,))
    with pytest.raises(UnsupportedModelError, match=r"an input of shape \(1, 2, 3\) for words. Give \(P,\), the phas"):
        Graph(operations, (1, 2, 3))


# Folding.


def test_an_embedding_is_nothing_but_weights():
    model = build(e=nn.Embedding(VOCABULARY, 3), l=nn.Linear(3, 4), r=CQRNN(4, 5, 8), h=nn.Linear(5, 2)).double()
    network = fold(trace(model, (PHASES,)))
    rnn, head = network.layers
    matrix = model.r.weight_ih @ model.l.weight @ model.e.weight.T
    np.testing.assert_allclose(rnn.synapses[0].weight, matrix.detach().numpy(), rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(rnn.synapses[1].weight, model.r.weight_hh.detach().numpy())
    np.testing.assert_allclose(rnn.bias, (model.r.weight_ih @ model.l.bias + model.r.bias).detach().numpy(), rtol=1e-12)
    assert [s.source for s in rnn.synapses] == ["input", "r.memory"]
    assert network.memories == (Memory("r.memory", "r", (5,), 8),)
    assert (network.vocabulary, network.shapes["input"], network.input_shape) == (VOCABULARY, (VOCABULARY,), (PHASES,))
    assert head.name == "h"


@pytest.mark.parametrize("seed", range(20))
def test_a_folded_network_computes_what_the_model_does(seed):
    model = random_text_model(np.random.default_rng(seed)).double()
    graph = trace(model, (PHASES,))
    network = fold(graph)
    x = graph.random_inputs(5, torch.Generator().manual_seed(seed), 8)
    found, truth = evaluate(network, x), GraphModel(graph).double().eval().values(x)
    for layer in network.layers:
        wanted = truth[layer.activation if isinstance(layer, FloatNeurons) else layer.preactivation]
        torch.testing.assert_close(found[layer.name], wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("break_it", ["recurrent weights", "input weights", "bias", "memory of another", "readout"])
def test_the_check_of_folding_sees_a_wrong_recurrence(break_it):
    parts = {"e": nn.Embedding(VOCABULARY, 3), "r": CQRNN(3, 4, 8), "q": CQRNN(4, 4, 8), "h": nn.Linear(4, 2)}
    model = build(**parts)
    for rnn in (model.r, model.q):
        rnn.bias.data += 0.3
    graph = trace(model, (PHASES,))
    network = fold(graph)
    layers, memories = list(network.layers), list(network.memories)
    if break_it == "memory of another":
        memories[0] = dataclasses.replace(memories[0], source="q")
    elif break_it == "bias":
        layers[0] = dataclasses.replace(layers[0], bias=layers[0].bias + 1e-6)
    else:
        i, j = {"recurrent weights": (0, 1), "input weights": (0, 0), "readout": (2, 0)}[break_it]
        synapses = list(layers[i].synapses)
        synapses[j] = dataclasses.replace(synapses[j], weight=synapses[j].weight + 1e-6)
        layers[i] = dataclasses.replace(layers[i], synapses=tuple(synapses))
    changed = dataclasses.replace(network, layers=tuple(layers), memories=tuple(memories))
    with pytest.raises(AssertionError, match="folding changed the function"):
        _check(changed, graph, 2)


# Integers and spikes.


@pytest.mark.parametrize("levels", [1, 2, 8, 16])
@pytest.mark.parametrize("seed", range(4))
def test_a_dyadic_model_is_exact_on_every_neuron_of_every_phase(seed, levels):
    rng = np.random.default_rng([seed, levels])
    model = dyadic_text_model(rng, levels)
    graph = trace(model, (PHASES,))
    network, report = quantize(fold(graph), spec_of(), read_hardware())
    assert all(layer.weight_error == 0 and layer.bits_given_up == 0 for layer in report.layers)
    tokens = rng.integers(0, VOCABULARY, (40, 9))
    truth = assert_spikes_are_exact(network, tokens)
    with torch.no_grad():
        real = GraphModel(graph).double().eval().values(torch.tensor(tokens))
    assert all(np.array_equal(counts, real[name].numpy() * levels) for name, counts in truth.counts.items())
    seen = {int(y) for counts in truth.counts.values() for y in counts.ravel()}
    assert len(seen) > levels / 3
    total = real["head"].numpy() * 9
    np.testing.assert_allclose(network.outputs(truth.logits, 9)["head"] * 9, total, rtol=1e-12, atol=1e-12)
    assert np.array_equal(np.rint(total / network.readouts[0].scale), truth.logits)


@pytest.mark.parametrize("seed", range(12))
def test_thresholds_and_shifts_of_channels(seed, tmp_path):
    """Those of a recurrent layer scale what it receives of its own past, too."""
    rng = np.random.default_rng(500 + seed)
    model = by_channel(random_text_model(rng), (PHASES,), rng)
    assert any(m.activation.threshold.dim() or m.activation.shift is not None for m in rnns(model))
    save_model(tmp_path / "words.pt", model, spec_of())
    graph = load_checkpoint(tmp_path / "words.pt").graph
    x = graph.random_inputs(5, torch.Generator().manual_seed(seed), 8)
    with torch.no_grad():
        assert torch.equal(GraphModel(graph).eval()(x), model(x))
        truth = GraphModel(graph).double().eval()(x)
    network = fold(graph)
    found = evaluate(network, x)
    torch.testing.assert_close(found[network.layers[-1].name], truth, rtol=1e-9, atol=1e-9)
    integers, _ = quantize(network, spec_of(), read_hardware())
    assert_spikes_are_exact(integers, rng.integers(0, VOCABULARY, (3, 7)))


def rnns(model):
    return [module for module in model.modules() if isinstance(module, CQRNN)]


@pytest.mark.parametrize("seed", range(24))
def test_a_random_model_is_exact_in_spikes(seed):
    rng = np.random.default_rng(100 + seed)
    graph = trace(random_text_model(rng), (PHASES,))
    bits, per_channel = int(rng.integers(4, 9)), bool(rng.integers(2))
    network, _ = quantize(fold(graph), spec_of(), read_hardware(), weight_bits=bits, per_channel=per_channel)
    assert isinstance(network.input, Tokens)
    tokens = rng.integers(0, VOCABULARY, (3, 7))
    truth = assert_spikes_are_exact(network, tokens)
    for n, sequence in enumerate(tokens.tolist()):
        counts, logits = by_python_integers(network, sequence)
        assert {name: found[n].tolist() for name, found in truth.counts.items()} == counts
        assert truth.logits[n].tolist() == logits


@pytest.mark.parametrize("seed", range(5))
def test_integers_stay_near_the_floats(seed):
    """The scale of a memory is its source's: another one would leave next to nothing of the logits."""
    model = random_text_model(np.random.default_rng(300 + seed))
    network = lava_casc.convert(model, (PHASES,))
    tokens = np.random.default_rng(seed).integers(0, VOCABULARY, (60, 8))
    found = network.outputs(forward(network, tokens).logits, 8)[network.readouts[0].name]
    with torch.no_grad():
        wanted = model(torch.tensor(tokens)).numpy()
    assert np.median(np.abs(found - wanted).max(1)) < 0.05 * np.abs(wanted).max()


def test_the_comparison_sees_one_unit():
    """Sabotage: one unit in the weights of a memory must turn the dyadic test red."""
    rng = np.random.default_rng(5)
    network, _ = quantize(fold(trace(dyadic_text_model(rng, 8), (PHASES,))), spec_of(), read_hardware())
    tokens = rng.integers(0, VOCABULARY, (40, 9))
    truth = forward(network, tokens)
    rnn = network["rnn0"]
    weight = rnn.synapses[1].weight.copy()
    weight[0, 0] += 1
    changed = dataclasses.replace(rnn, synapses=(rnn.synapses[0], dataclasses.replace(rnn.synapses[1], weight=weight)))
    layers = tuple(changed if layer is rnn else layer for layer in network)
    found = forward(dataclasses.replace(network, layers=layers), tokens)
    assert not np.array_equal(found.counts["rnn0"], truth.counts["rnn0"])
    assert np.array_equal(found.counts["rnn0"][:, 0], truth.counts["rnn0"][:, 0])  # nothing is remembered at first


def test_a_network_that_forgets_computes_something_else():
    rng = np.random.default_rng(6)
    network, _ = quantize(fold(trace(dyadic_text_model(rng, 8), (PHASES,))), spec_of(), read_hardware())
    tokens = rng.integers(0, VOCABULARY, (40, 6))
    whole = forward(network, tokens).counts["rnn0"]
    alone = np.concatenate([forward(network, tokens[:, [p]]).counts["rnn0"] for p in range(6)], 1)
    assert np.array_equal(whole[:, 0], alone[:, 0])
    assert (whole[:, 1:] != alone[:, 1:]).mean() > 0.2
    swapped = forward(network, tokens[:, ::-1]).logits
    assert not np.array_equal(swapped, forward(network, tokens).logits)  # the order of the words matters


# Checkpoints and the pipeline.


def saved(path, **arguments):
    model = random_text_model(np.random.default_rng(1))
    save_model(path, model, spec_of(), **arguments)
    return model


def test_a_checkpoint_keeps_the_recurrence(tmp_path):
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, (5, PHASES))
    model = saved(tmp_path / "model.pt", examples=tokens, about={"vocabulary": "a b c"})
    found = load_checkpoint(tmp_path / "model.pt")
    assert np.array_equal(found.examples, tokens)
    assert found.examples.dtype == np.int64
    assert found.about == {"vocabulary": "a b c"}
    x = torch.randint(VOCABULARY, (4, 9))
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "model.pt")(x), model(x))
    learned = {name for name, _ in model.named_parameters()}
    assert len(list(found.model.parameters())) == len(learned)
    rnn = next(m for m in found.model.modules() if isinstance(m, CQRNN))
    assert (rnn.levels, rnn.rounding, rnn.learnable) == (model.rnn0.levels, model.rnn0.rounding, model.rnn0.learnable)
    conversion = convert_checkpoint(found, Options(verify=5))
    assert (conversion.verification.source, conversion.verification.certified) == ("examples", 5)


def test_without_examples_random_tokens_verify_a_conversion(tmp_path):
    saved(tmp_path / "model.pt")
    conversion = convert_checkpoint(load_checkpoint(tmp_path / "model.pt"), Options(verify=4, mode="graded"))
    found = conversion.verification
    assert (found.source, found.samples, found.certified) == ("random", 4, 4)
    assert found.logit_error < 0.2
    assert found.same_class is not None


@pytest.mark.parametrize(
    "spec", [InputSpec((PHASES,)), InputSpec((PHASES,), 0, VOCABULARY, 1), InputSpec((PHASES,), 0, VOCABULARY - 1, 0.5)]
)
def test_tokens_mean_themselves(tmp_path, spec):
    with pytest.raises(CheckpointError, match=r"vocabulary of 12 tokens. Give InputSpec\(\(6,\), 0, 11, 1\)"):
        save_model(tmp_path / "model.pt", random_text_model(np.random.default_rng(1)), spec)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        (np.full((2, PHASES), VOCABULARY), r"examples span \[12, 12\], outside the input range \[0, 11\]"),
        (np.zeros((2, PHASES + 1), int), r"examples of shape \(7,\) and int64 do not fit"),
        (np.zeros((2, PHASES)), r"examples of shape \(6,\) and float64 do not fit"),
    ],
)
def test_examples_are_checked(tmp_path, examples, message):
    with pytest.raises(CheckpointError, match=message):
        saved(tmp_path / "model.pt", examples=examples)


DAMAGES = {
    "a recurrence without its weights": lambda op: op["tensors"].pop("weight_hh"),
    "weights of another shape": lambda op: op["tensors"].update(weight_hh=torch.zeros(2, 3)),
    "another argument": lambda op: op["arguments"].update(proj_size=3),
    "no number": lambda op: op["arguments"].update(hidden_size="4"),
    "a threshold of 0": lambda op: op["tensors"].update({"activation.threshold": torch.tensor(0.0)}),
    "a size beyond all memory": lambda op: op["arguments"].update(hidden_size=1 << 40),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused(tmp_path, damage):
    saved(tmp_path / "model.pt")
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    DAMAGES[damage](next(op for op in content["operations"] if op["kind"] == "CQRNN"))
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path / "model.pt")) + ": damaged"):
        load_checkpoint(tmp_path / "model.pt")


def test_two_embeddings_share_the_tokens_that_both_have():
    def run(self, x):
        return self.h((self.r(self.a(x)) + self.q(self.b(x))).mean(1))

    parts = {"a": nn.Embedding(7, 3), "b": nn.Embedding(5, 3), "r": CQRNN(3, 4, 8), "q": CQRNN(3, 4, 8)}
    model = Model(run, **parts, h=nn.Linear(4, 2)).eval()
    network = lava_casc.convert(model, (4,))
    assert network.input == Tokens("input", 5)
    assert_spikes_are_exact(network, np.random.default_rng(0).integers(0, 5, (4, 6)))


def test_other_levels_are_for_recurrent_layers_too():
    graph = with_levels(trace(random_text_model(np.random.default_rng(2)), (PHASES,)), 5)
    levels = [op.arguments["levels"] for op in graph.operations if "levels" in op.arguments]
    assert levels
    assert set(levels) == {5}
    network = fold(graph)
    assert {memory.levels for memory in network.memories} == {5}
    assert Checkpoint(graph, spec_of()).model(torch.zeros(1, 3, dtype=torch.int64)).shape == (1, 3)


def test_convert_knows_the_range_of_tokens():
    model = random_text_model(np.random.default_rng(3))
    for network in (lava_casc.convert(model, (PHASES,)), lava_casc.convert(GraphModel(trace(model, (4,))), (4,))):
        assert (network.input.low, network.input.high, network.input.scale) == (0, VOCABULARY - 1, 1.0)
        names = [layer.name for layer in itertools.islice(network, 1 + len(network.memories))]
        assert names == ["input", *(memory.name for memory in network.memories)]
