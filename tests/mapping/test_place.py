"""The partition against a count of every single connection: each neuron once, and no core over any limit."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from random_networks import random_graph, random_network, random_recurrent

from lava_casc.hardware import read_hardware
from lava_casc.linear import apply
from lava_casc.mapping import RESOURCES, Grid, place
from lava_casc.mapping.grid import cuttings, three_axes
from lava_casc.mapping.needs import needs, weight_bits, windows
from lava_casc.network import MaxPool

LOIHI2 = read_hardware()


def _target(**limits):
    """Return a target with other limits of a core."""
    core = LOIHI2.core
    changed = {name: getattr(core, name).model_copy(update={"value": n, "assumed": None}) for name, n in limits.items()}
    return LOIHI2.model_copy(update={"core": core.model_copy(update=changed)})


def _connections(network, layer):
    """Yield, for every synapse of a layer, its source, who reads whom (neurons, sources), and bits by channel."""
    shape = network.shapes[layer.name]
    if isinstance(layer, MaxPool):
        source = network.shapes[layer.source]
        kernel, stride, padding, dilation = layer.kernel, layer.stride, layer.padding, layer.dilation
        reads = np.zeros((math.prod(shape), math.prod(source)), bool)
        for c, y, x, i, j in itertools.product(*map(range, (*shape, *kernel))):
            row, column = y * stride[0] - padding[0] + i * dilation[0], x * stride[1] - padding[1] + j * dilation[1]
            if 0 <= row < source[1] and 0 <= column < source[2]:
                reads[np.ravel_multi_index((c, y, x), shape), np.ravel_multi_index((c, row, column), source)] = True
        yield layer.source, reads, kernel[0] * kernel[1]
        return
    for synapse in layer.synapses:
        source = network.shapes[synapse.source]
        units = torch.eye(math.prod(source), dtype=torch.float64).reshape(-1, *source)
        ones = torch.ones(synapse.weight.shape, dtype=torch.float64)
        reached = apply(synapse, units, ones).reshape(len(units), -1).numpy() > 0
        bits = max(
            2, *(int(w).bit_length() + 1 if w >= 0 else (-int(w) - 1).bit_length() + 1 for w in synapse.weight.flat)
        )
        yield synapse.source, reached.T, synapse.weight[0].size * bits


def _core_of(plan, shape):
    """Return the core of every neuron of a layer, counted from the layer's first, one neuron at a time."""
    grid = plan.grid
    found = -np.ones(grid.shape, int)
    blocks = itertools.product(*(range(n) for n in grid.cuts))
    for core, block in enumerate(blocks):
        box = tuple(slice(*grid.edges(axis)[piece : piece + 2]) for axis, piece in enumerate(block))
        assert (found[box] == -1).all()  # no neuron twice
        assert found[box].size
        found[box] = core
    assert (found >= 0).all()  # and none left out
    return found.reshape(math.prod(shape))


def _check(network, hardware):
    """Count everything again, neuron by neuron; return how many problems there were."""
    found = place(network, hardware)
    cores = {plan.name: _core_of(plan, network.shapes[plan.name]) for plan in found.layers}
    assert [plan.name for plan in found.layers] == [layer.name for layer in network.computed]
    assert [plan.first_core for plan in found.layers] == list(np.cumsum([0, *(p.cores for p in found.layers)])[:-1])
    counted = {plan.name: {resource: np.zeros(plan.cores, int) for resource in RESOURCES} for plan in found.layers}
    single = {plan.name: dict.fromkeys(RESOURCES, 0) for plan in found.layers}
    a_chip = hardware.chip.cores.number
    pairs = set()
    for plan in found.layers:
        name, layer = plan.name, network[plan.name]
        shape = three_axes(network.shapes[name])
        counted[name]["neurons"] = np.bincount(cores[name], minlength=plan.cores)
        single[name]["neurons"] = 1
        channel = np.arange(math.prod(shape)) // (shape[1] * shape[2])
        memory, one = np.zeros(plan.cores, int), 0
        for source, reads, bits in _connections(network, layer):
            one += bits
            for core in range(plan.cores):
                mine = cores[name] == core
                memory[core] += bits * len(set(channel[mine]))
                counted[name]["axons_in"][core] += reads[mine].any(0).sum()
            single[name]["axons_in"] += reads.sum(1)
            if source in cores:
                targets = np.stack([reads[cores[name] == core].any(0) for core in range(plan.cores)])
                np.add.at(counted[source]["axons_out"], cores[source], targets.sum(0))
                single[source]["axons_out"] += targets.sum(0)
                first = {p.name: p.first_core for p in found.layers}
                for core, neuron in zip(*np.nonzero(targets), strict=True):
                    pairs.add((first[source] + cores[source][neuron], first[name] + core))
        counted[name]["synaptic_memory"] = -(-memory // 8)
        single[name]["synaptic_memory"] = -(-one // 8)
    assert found.traffic == (len(pairs), sum(a // a_chip != b // a_chip for a, b in pairs))
    over = {(p.layer, p.resource): p for p in found.problems if p.layer}
    for plan in found.layers:
        for resource in RESOURCES:
            limit = found.limits[resource]
            assert (plan.needs[resource] == counted[plan.name][resource]).all(), (plan.name, resource)
            most = int(np.max(single[plan.name][resource]))
            assert ((plan.name, resource) in over) == (most > limit)
            if (plan.name, resource) in over:
                assert over[plan.name, resource].used == most
            elif not any(name == plan.name for name, _ in over):
                assert counted[plan.name][resource].max() <= limit
    used = [core for plan in found.layers for core in range(plan.cores)]
    assert len(found.utilization()) == len(used) == found.cores
    assert found.chips == math.ceil(found.cores / a_chip)
    return len(over)


def _random_target(rng):
    return _target(
        neurons=int(rng.integers(1, 60)),
        synaptic_memory=int(2 ** rng.uniform(2, 12)),
        axons_in=int(2 ** rng.uniform(1, 9)),
        axons_out=int(2 ** rng.uniform(1, 9)),
    )


def _many(seeds):
    problems = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        make = (random_network, random_graph, random_recurrent)[seed % 3]
        problems.append(_check(make(rng), _random_target(rng)))
    assert 0 < np.mean(np.array(problems) == 0) < 1  # some fit, and some do not


def test_every_neuron_has_one_core_and_no_core_is_over_a_limit():
    _many(range(150))


@pytest.mark.slow
@pytest.mark.parametrize("start", range(1000, 4000, 500))
def test_thousands_of_networks(start):
    _many(range(start, start + 500))


def test_no_cut_has_fewer_cores():
    compared = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        network, hardware = random_network(rng), _random_target(rng)
        found = place(network, hardware)
        plans = {plan.name: plan for plan in found.layers}
        for layer in network.computed:
            if any(problem.layer == layer.name for problem in found.problems):
                continue
            readers = [
                (window, plans[reader.name].grid)
                for reader in network.computed
                for window in windows(network, reader)
                if window.source == layer.name
            ]
            shape = three_axes(network.shapes[layer.name])
            reads = list(windows(network, layer))
            best = math.inf
            for cuts in itertools.product(*(range(1, size + 1) for size in shape)):
                grid = Grid(shape, cuts)
                if grid.blocks < best:
                    needed = needs(grid, reads, readers)
                    if all(needed[resource].max() <= found.limits[resource] for resource in RESOURCES):
                        best = grid.blocks
            if len(reads) == 1 and len(readers) <= 1:
                assert plans[layer.name].cores == best
                compared += 1
            else:
                assert plans[layer.name].cores >= best
    assert compared > 60


@pytest.mark.parametrize("size", [1, 2, 7, 16, 33, 64, 65, 200])
def test_pieces_are_worth_trying_where_the_longest_one_shrinks(size):
    longest = {n: max(Grid((size, 1, 1), (n, 1, 1)).sizes(0)) for n in range(1, size + 1)}
    for length in set(longest.values()):
        assert min(n for n in longest if longest[n] <= length) in cuttings(size)


def test_the_limit_is_reached_and_one_less_is_refused():
    network = random_network(np.random.default_rng(2))
    found = place(network, LOIHI2)
    assert not found.problems
    for resource in RESOURCES:
        # A layer whose single neurons need that much: with less than one of them nothing helps.
        finest = {layer.name: needs(Grid(p.grid.shape, p.grid.shape), list(windows(network, layer)), [])
                  for layer, p in zip(network.computed, found.layers, strict=True)}  # fmt: skip
        most = max(int(values[resource].max()) for values in finest.values())
        if resource == "axons_out" or most < 2:
            continue
        assert not [p for p in place(network, _target(**{resource: most})).problems if p.resource == resource]
        problems = [p for p in place(network, _target(**{resource: most - 1})).problems if p.resource == resource]
        assert problems
        assert problems[0].used == most
        assert f"({most:,}) exceed those of a core of loihi2_oheo_gulch ({most - 1:,})" in problems[0].message


def test_too_many_cores_are_told_with_the_chips_that_they_need():
    network = random_network(np.random.default_rng(2))
    tight = _target(neurons=1)
    chip = tight.chip.model_copy(update={"cores": tight.chip.cores.model_copy(update={"value": 2})})
    found = place(network, tight.model_copy(update={"chip": chip}))
    (problem,) = (p for p in found.problems if p.resource == "cores")
    assert problem.used == found.cores == sum(math.prod(network.shapes[layer.name]) for layer in network.computed)
    assert problem.limit == 2
    assert f"1 of the {found.chips} chips that it needs" in problem.message


def test_a_weight_takes_the_bits_of_the_greatest():
    network = random_network(np.random.default_rng(0))
    for layer in network.computed:
        for synapse in getattr(layer, "synapses", ()):
            bits = weight_bits(synapse)
            assert synapse.weight.max() < 2 ** (bits - 1)
            assert synapse.weight.min() >= -(2 ** (bits - 1))
            smaller = 2 ** (bits - 2)
            assert bits == 2 or synapse.weight.max() >= smaller or synapse.weight.min() < -smaller
