"""What goes into the fused network and comes out of it comes back as it was."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from loihi_networks import heads, loop, loop_words, small
from random_networks import random_graph, random_recurrent, random_sequences

from lava_casc.errors import DataError
from lava_casc.loihi.messages import TRAILER, Messages

RECORDS = [frozenset(), frozenset({"counts"}), frozenset({"messages", "spikes"})]


def _result(rng, messages, n):
    """Return a result of `n` samples in which every number is another one."""
    sizes = {key: n * messages.phases * int(np.prod(shape)) for key, shape in messages.fields.items()}
    numbers = iter(np.split(rng.permutation(sum(sizes.values())) - 99, np.cumsum([*sizes.values()])))
    return {key: next(numbers).reshape(n, messages.phases, *shape) for key, shape in messages.fields.items()}


@pytest.mark.parametrize("record", RECORDS)
@pytest.mark.parametrize("make", [random_graph, random_recurrent])
@pytest.mark.parametrize("seed", range(3))
def test_samples_and_results_come_back_as_they_were(seed, make, record):
    rng = np.random.default_rng(seed)
    network = make(rng)
    samples = network.encode(random_sequences(rng, network, 5))
    phases = samples.shape[1] if network.is_recurrent else 1
    messages = Messages(network, network.schedule(), 5, phases, record)
    for n in (5, 3, 1):
        sent = messages.pack_samples(samples[:n])
        assert (sent.shape, sent.dtype, sent[0]) == ((messages.input_size,), np.int32, n)
        back = messages.unpack_samples(sent)
        assert (back.shape, back.dtype) == (samples[:n].shape, np.int64)
        assert (back == samples[:n]).all()
        result = _result(rng, messages, n)
        answer = messages.pack_result(dict(reversed(result.items())))
        assert (answer.shape, answer.dtype) == ((messages.result_size,), np.int32)
        found = messages.unpack_result(answer, n)
        assert found.keys() == result.keys()
        for key, values in result.items():
            assert (found[key].shape, found[key].dtype) == (values.shape, np.int64)
            assert (found[key] == values).all(), key


def test_a_message_is_as_long_as_what_it_holds():
    network = small()
    schedule = network.schedule()
    of = {"messages": schedule.period, "spikes": schedule.period}
    neurons = {name: int(np.prod(shape)) for name, shape in network.shapes.items() if name != "readout"}
    for record, size in (
        ((), 4 + TRAILER),
        (("counts",), 4 + TRAILER + sum(neurons.values()) - neurons["input"]),
        (("messages",), 4 + TRAILER + of["messages"] * len(neurons)),
        (("spikes",), 4 + TRAILER + of["spikes"] * sum(neurons.values())),
    ):
        messages = Messages(network, schedule, 7, 1, frozenset(record))
        assert messages.input_size == 1 + 7 * 60
        assert messages.result_size == 7 * size


def test_a_word_is_a_single_number_and_all_readouts_are_one_row():
    messages = Messages(loop(), loop().schedule(), 3, 4, frozenset({"spikes"}))
    assert messages.sample_shape == loop_words(1)[0].shape == (4,)
    assert messages.input_size == 1 + 3 * 4
    assert messages.fields["spikes", "words"] == (loop().schedule().period, 6)
    assert messages.result_size == 3 * 4 * (3 + TRAILER + loop().schedule().period * (6 + 4 + 3 + 4 + 3))
    assert Messages(heads(), heads().schedule(), 1, 1, frozenset()).fields["logits", ""] == (20 + 3 + 60,)


@pytest.mark.parametrize("phases", [1, 3])
def test_no_samples_are_a_message_too(phases):
    messages = Messages(loop(), loop().schedule(), 2, phases, frozenset({"counts"}))
    assert messages.unpack_samples(messages.pack_samples(loop_words(0, phases))).shape == (0, phases)
    found = messages.unpack_result(np.zeros(0, np.int32), 0)
    assert found["logits", ""].shape == (0, phases, 3)
    assert found["counts", "second"].shape == (0, phases, 3)


@pytest.mark.parametrize("shape", [(3, 2, 5, 6), (2, 5, 6, 2), (2, 60)])
def test_samples_that_do_not_fit_a_message_are_refused(shape):
    messages = Messages(small(), small().schedule(), 2, 1, frozenset())
    with pytest.raises(
        DataError, match=r"input: samples of shape .* exceed a message of 2 of shape \(2, 5, 6\). Pack enc"
    ):
        messages.pack_samples(np.zeros(shape, np.int64))


def test_the_greatest_and_the_least_of_24_bits_come_back():
    network = dataclasses.replace(
        small(), layers=(dataclasses.replace(small().input, low=-(2**23), high=2**23 - 1), *small().layers[1:])
    )
    messages = Messages(network, network.schedule(), 1, 1, frozenset())
    samples = np.full((1, 2, 5, 6), 2**23 - 1)
    samples[0, 0] = -(2**23)
    assert (messages.unpack_samples(messages.pack_samples(samples)) == samples).all()
