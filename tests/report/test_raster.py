"""The picture of a run, by what it holds: one dash a spike, in its place, and the right words about silence."""

import dataclasses
import sys

import numpy as np
import pytest
import torch

from lava_casc.errors import DataError, MissingDependencyError
from lava_casc.network import Conv, Dense, Input, IntegerNetwork, MaxPool, Memory, Neurons, Readout, Tokens
from lava_casc.reference import simulate

pytest.importorskip("matplotlib")
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from lava_casc.report import plot_spikes, save_figure
from lava_casc.report.raster import LONGEST, NAME_LENGTH, NEGATIVE, POSITIVE, SHORTEST, SLEEP

LEVELS = 4


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _neurons(name, synapse, channels):
    threshold = np.full(channels, 7)
    return Neurons(name, (synapse,), np.arange(channels) + 2, threshold, threshold // 2, LEVELS, np.ones(channels))


@pytest.fixture(scope="module")
def network():
    rng = np.random.default_rng(3)

    def weights(*shape):
        return rng.integers(-9, 10, shape).astype(np.int32)

    return IntegerNetwork(
        (
            Input("input", (1, 6, 7), 0, 15),
            _neurons("stage.with.a.very.long.name.conv1", Conv("input", weights(5, 1, 3, 3)), 5),
            _neurons("conv2", Conv("stage.with.a.very.long.name.conv1", weights(3, 5, 1, 1)), 3),
            MaxPool("pool", "conv2", (2, 2), (2, 2)),
            _neurons("dense", Dense("pool", weights(8, 12)), 8),
            Readout("readout", (Dense("dense", weights(3, 8)),), np.zeros(3, int)),
        )
    )


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(4).integers(0, 16, (3, 1, 6, 7))


@pytest.fixture(scope="module")
def record(network, images):
    return simulate(network, images, network.schedule(), record=("spikes",))


@pytest.fixture(scope="module")
def graded(network, images):
    return simulate(network, images, network.schedule("graded"), record=("spikes",))


def _dashes(figure):
    """Return the ends of each dash of the raster, by layer and sign."""
    lines = [artist for artist in figure.axes[0].collections if isinstance(artist, LineCollection)]
    return {line.get_label(): np.array(line.get_segments()).reshape(-1, 2, 2) for line in lines}


def _texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts] + [text.get_text() for text in figure.texts]


def _legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize("sample", [0, 2])
def test_every_spike_is_one_dash_in_its_step(network, record, sample):
    dashes = _dashes(plot_spikes(network, record, sample))
    assert len(dashes) == 2 * 5
    assert sum(len(found) for found in dashes.values()) > 100
    for name, spikes in record.spikes.items():
        for sign in (1, -1):
            found = dashes[f"{name} {sign:+d}"]
            flat = spikes[sample].reshape(len(spikes[sample]), -1) * sign > 0
            assert len(found) == np.count_nonzero(flat)
            # It starts in the middle of its step and points to the right if positive, to the left if negative.
            np.testing.assert_array_equal(found[:, 0, 0], np.nonzero(flat)[0] + 1)
            assert (sign * (found[:, 1, 0] - found[:, 0, 0]) > 0).all()
            assert (found[:, 0, 1] == found[:, 1, 1]).all()
            if name != "input":
                np.testing.assert_allclose(abs(found[:, 1, 0] - found[:, 0, 0]), LONGEST)
    assert any(len(found) for label, found in dashes.items() if label.endswith("-1"))


def test_layers_stand_in_order_and_neurons_by_index(network, record):
    figure = plot_spikes(network, record)
    dashes = _dashes(figure)
    before = 0.0
    for name, spikes in record.spikes.items():
        rows = np.concatenate([dashes[f"{name} +1"], dashes[f"{name} -1"]])[:, 0, 1]
        assert rows.min() > before
        before = rows.max()
        at, neuron = np.nonzero(spikes[0].reshape(len(spikes[0]), -1) > 0)
        rows = dashes[f"{name} +1"][:, 0, 1]
        step = (rows.max() - rows.min()) / (neuron.max() - neuron.min())
        np.testing.assert_allclose(rows - rows.min(), (neuron - neuron.min()) * step)
    low, high = figure.axes[0].get_ylim()
    assert low > before > high == 0  # downwards


def test_colours_tell_the_sign(network, record):
    for line in plot_spikes(network, record).axes[0].collections:
        expected = POSITIVE if line.get_label().endswith("+1") else NEGATIVE
        assert to_hex(line.get_color()[0]) == expected.lower()


def test_length_is_the_size_of_a_graded_spike(network, graded):
    assert all(spikes.min() >= 0 for spikes in graded.spikes.values())
    dashes = _dashes(plot_spikes(network, graded))
    for name, spikes in graded.spikes.items():
        sizes = spikes[0][spikes[0] > 0] / (15 if name == "input" else LEVELS)
        found = dashes[f"{name} +1"]
        np.testing.assert_allclose(found[:, 1, 0] - found[:, 0, 0], np.maximum(2 * LONGEST * sizes, SHORTEST))
        assert len(np.unique(sizes)) > 1
        assert len(dashes[f"{name} -1"]) == 0


def test_labels_name_layers_and_count_neurons(network, record):
    texts = _texts(plot_spikes(network, record))
    for words in (
        "input",
        "42 inputs",
        "100 neurons",
        "conv2",
        "60 neurons",
        "pool",
        "12 neurons",
        "dense",
        "8 neurons",
    ):
        assert words in texts
    (shortened,) = (text for text in texts if text.startswith("\N{HORIZONTAL ELLIPSIS}"))
    assert "stage.with.a.very.long.name.conv1".endswith(shortened[1:])
    assert len(shortened) == NAME_LENGTH


def test_white_is_the_wake_shifted_by_depth(network, record):
    boxes = [patch for patch in plot_spikes(network, record).axes[0].patches if isinstance(patch, Rectangle)]
    white = [box for box in boxes if to_hex(box.get_facecolor()) == "#ffffff" and box.get_facecolor()[3]]
    asleep = [box for box in boxes if to_hex(box.get_facecolor()) == SLEEP.lower()]
    assert [(box.get_x(), box.get_width()) for box in white] == [(0.5 + depth, LEVELS) for depth in range(5)]
    assert len(asleep) == 5


def test_silence_is_marked_where_it_begins(network, record):
    last = int(record.last_spike[0])
    figure = plot_spikes(network, record)
    assert f"silent after step {last}: certified" in _texts(figure)
    assert f"proven silent after step {network.silence_bound(record.schedule)}" in _texts(figure)
    assert [line.get_xdata()[0] for line in figure.axes[0].lines] == [last + 0.5]
    assert last < figure.axes[0].get_xlim()[1] < record.schedule.period  # not drawn to the end of a long sleep


def test_run_that_was_cut_is_not_called_certified(network, images):
    cut = simulate(network, images, network.schedule(sleep_steps=2), record=("spikes",))
    assert not cut.certified.any()
    texts = _texts(plot_spikes(network, cut))
    assert f"stopped after step {LEVELS + 2}: not certified" in texts
    assert not any(text.endswith(": certified") for text in texts)


def test_quiet_run_without_a_certificate_is_drawn_to_its_end(network, record):
    cut = dataclasses.replace(record, certified=np.zeros(3, bool))
    period = record.schedule.period
    assert record.last_spike[0] < period - 3
    figure = plot_spikes(network, cut)
    assert f"stopped after step {period}: not certified" in _texts(figure)
    assert figure.axes[0].get_xlim()[1] == period + 0.5


def test_input_that_goes_on_after_the_last_neuron_is_not_called_silent(network, record):
    quiet = {name: spikes * (name == "input") for name, spikes in record.spikes.items()}
    still = dataclasses.replace(record, spikes=quiet, last_spike=np.zeros(3, np.int64))
    assert f"silent after step {LEVELS}: certified" in _texts(plot_spikes(network, still))


def test_bars_below_count_spikes(network, record):
    figure = plot_spikes(network, record)
    activity = figure.axes[1]
    heights = np.array([bar.get_height() for bar in activity.patches]).reshape(2, -1)
    steps = heights.shape[1]
    for row, sign in zip(heights, (1, -1), strict=True):
        expected = sum((s[0].reshape(len(s[0]), -1)[:steps] * sign > 0).sum(1) for s in record.spikes.values())
        np.testing.assert_array_equal(row, sign * expected)


def test_title_and_legend_say_what_is_there(network, record, graded):
    total = sum(np.count_nonzero(spikes[0]) for spikes in record.spikes.values())
    figure = plot_spikes(network, record)
    assert f"reference, unary: {total:,} spikes" in _texts(figure)
    assert _legend(figure) == ["+ spike", "\N{MINUS SIGN} spike", "asleep", "length: size"]
    assert _legend(plot_spikes(network, graded)) == ["+ spike", "asleep", "length: size"]
    assert "my title" in _texts(plot_spikes(network, record, title="my title"))


def test_logits_and_image_stand_at_the_side(network, record, images):
    figure = plot_spikes(network, record, 1, image=images[1])
    picture, answer = figure.axes[2:]
    np.testing.assert_array_equal(picture.images[0].get_array(), images[1, 0])
    np.testing.assert_array_equal([bar.get_height() for bar in answer.patches], record.logits[1])
    bold = [label.get_text() for label in answer.get_xticklabels() if label.get_fontweight() == "bold"]
    assert bold == [str(record.predictions[1])]
    assert not plot_spikes(network, record).axes[2].images


def test_colour_images_keep_their_colours(network, record):
    image = np.zeros((3, 4, 5), np.uint8)
    image[1] = 200
    shown = plot_spikes(network, record, image=image).axes[2].images[0].get_array()
    assert shown.shape == (4, 5, 3)
    assert (shown == [0, 1, 0]).all()


def test_layers_that_were_not_recorded_are_left_out(network, record):
    some = dataclasses.replace(record, spikes={name: record.spikes[name] for name in ("dense", "conv2")})
    labels = list(_dashes(plot_spikes(network, some)))
    assert labels == ["conv2 +1", "conv2 -1", "dense +1", "dense -1"]


def test_silent_sample_can_be_drawn(network, record):
    silent = {name: spikes * 0 for name, spikes in record.spikes.items()}
    still = dataclasses.replace(record, spikes=silent, last_spike=np.zeros(3, np.int64))
    figure = plot_spikes(network, still)
    assert sum(len(found) for found in _dashes(figure).values()) == 0
    assert "silent after step 0: certified" in _texts(figure)


def test_png_is_the_same_every_time_and_bound_to_no_window(network, record, images, tmp_path):
    pyplot_was_loaded = "matplotlib.pyplot" in sys.modules
    for name in ("a.png", "b.png"):
        save_figure(plot_spikes(network, record, image=images[0]), tmp_path / name)
    content = (tmp_path / "a.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert content == (tmp_path / "b.png").read_bytes()
    assert ("matplotlib.pyplot" in sys.modules) == pyplot_was_loaded
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_failed_write_leaves_the_old_picture_alone(network, record, tmp_path, monkeypatch):
    figure = plot_spikes(network, record)
    path = tmp_path / "spikes.png"
    path.write_bytes(b"old")

    def fail(target, **options):
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(DataError, match="spikes.png: cannot be written .No space left"):
        save_figure(figure, path)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["spikes.png"]


def test_what_cannot_be_drawn_is_refused(network, record):
    with pytest.raises(DataError, match=r"the record holds no spikes to draw. Run with record=\(\"spikes\",\)"):
        plot_spikes(network, dataclasses.replace(record, spikes={}))
    for sample in (3, -1):
        with pytest.raises(DataError, match=rf"sample {sample} is not in a record of 3"):
            plot_spikes(network, record, sample)
    foreign = dataclasses.replace(record, spikes={"conv9": record.spikes["conv2"]})
    with pytest.raises(DataError, match="conv9: the record has this layer and the network has not"):
        plot_spikes(network, foreign)


def test_missing_matplotlib_is_named(network, record, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"matplotlib is not installed.*lava-casc\[plot\]"):
        plot_spikes(network, record)


# Several readouts, and sequences.


def test_several_readouts_are_drawn_without_a_winner(network, images):
    stem = network.layers[1].name
    boxes = Readout("boxes", (Conv(stem, np.ones((2, 5, 1, 1), np.int32)),), np.array([1, 2]))
    both = IntegerNetwork((*network.layers, boxes))
    found = simulate(both, images, both.schedule(), record=("spikes",))
    axes = plot_spikes(both, found).axes[3]
    assert axes.get_xlabel() == f"{found.logits.shape[1]} outputs" == "43 outputs"
    assert not axes.patches
    (area,) = axes.collections
    low, high = area.get_datalim(axes.transData).intervaly
    assert (low, high) == (min(0, found.logits[0].min()), max(0, found.logits[0].max()))


@pytest.fixture(scope="module")
def loop():
    rng = np.random.default_rng(0)
    first, held = (
        Dense(name, rng.integers(-9, 10, (6, n)).astype(np.int32)) for name, n in (("words", 5), ("held", 6))
    )
    cell = _neurons("cell", first, 6)
    cell = dataclasses.replace(cell, synapses=(first, held))
    read = Readout("fc", (Dense("cell", rng.integers(-9, 10, (3, 6)).astype(np.int32)),), np.zeros(3, int))
    return IntegerNetwork((Tokens("words", 5), Memory("held", "cell", (6,), LEVELS), cell, read))


@pytest.fixture(scope="module")
def sentences(loop):
    return simulate(loop, np.random.default_rng(1).integers(0, 5, (2, 3)), record=("spikes",))


@pytest.mark.parametrize("phase", [0, 2])
def test_one_phase_of_a_sequence_is_drawn(loop, sentences, phase):
    figure = plot_spikes(loop, sentences, 1, phase=phase)
    dashes = _dashes(figure)
    for name, spikes in sentences.spikes.items():
        for sign in (1, -1):
            assert len(dashes[f"{name} {sign:+d}"]) == np.count_nonzero(spikes[1, phase] * sign > 0)
    total = sum(np.count_nonzero(spikes[1, phase]) for spikes in sentences.spikes.values())
    assert f"reference, unary, phase {phase + 1} of 3: {total} spikes" in _texts(figure)
    active = np.flatnonzero(np.concatenate([s[1, phase] for s in sentences.spikes.values()], -1).any(-1))
    assert f"silent after step {active[-1] + 1}: certified" in _texts(figure)
    assert figure.axes[3].get_xlabel() == "logits of all phases"
    words = _texts(figure)
    assert [words.count(text) for text in ("5 inputs", "6 inputs", "6 neurons")] == [1, 1, 1]


def test_a_memory_is_awake_like_an_input_and_a_word_is_one_unit(loop, sentences):
    figure = plot_spikes(loop, sentences, phase=1)
    boxes = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    white = [box for box in boxes if to_hex(box.get_facecolor()) == "#ffffff" and box.get_facecolor()[3]]
    assert [(box.get_x(), box.get_width()) for box in white] == [(0.5, LEVELS), (0.5, LEVELS), (1.5, LEVELS)]
    (word,) = _dashes(figure)["words +1"]
    # Its whole step, or half of it where the other half is for the negative spikes.
    assert word[1, 0] - word[0, 0] in (pytest.approx(LONGEST), pytest.approx(2 * LONGEST))
    assert (sentences.spikes["held"][0, 1] > 0).any()


def test_the_certificate_of_a_phase_is_its_own(loop):
    schedule = loop.schedule(sleep_steps=2)
    words = np.random.default_rng(2).integers(0, 5, (40, 4))
    found = simulate(loop, words, schedule, record=("spikes",))
    n, p = np.argwhere(found.phases_certified & ~found.certified[:, None])[0]
    assert any(text.endswith(": certified") for text in _texts(plot_spikes(loop, found, n, phase=p)))
    n, p = np.argwhere(~found.phases_certified)[0]
    assert f"stopped after step {schedule.period}: not certified" in _texts(plot_spikes(loop, found, n, phase=p))


def test_a_phase_that_is_not_there_is_refused(network, record, loop, sentences):
    for phase in (3, -1):
        with pytest.raises(DataError, match=rf"phase {phase} is not in a sample of 3. Choose one from 0 on"):
            plot_spikes(loop, sentences, phase=phase)
    with pytest.raises(DataError, match="phase 1 is not in a sample of 1"):
        plot_spikes(network, record, phase=1)
