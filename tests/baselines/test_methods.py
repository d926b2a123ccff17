"""The registry: what each name prepares, that none of it certifies anything, and how a study keeps it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from random_networks import random_recurrent
from torch import nn

import lava_casc
from lava_casc.baselines import METHODS, Material, ParallelTimes, Rates, find, prepare
from lava_casc.baselines.registry import HALFWAY, IF, WITH_MEMORY
from lava_casc.dynamics import WHOLE
from lava_casc.errors import DataError, UnsupportedModelError
from lava_casc.frontend import Checkpoint, CQReLU, InputSpec, fold, load_checkpoint, trace
from lava_casc.frontend.fold import FloatNeurons, evaluate
from lava_casc.network import Neurons
from lava_casc.pipeline import Options, convert_checkpoint
from lava_casc.schedule import WakeSleepSchedule
from lava_casc.study import Ranks, measure, read_study, summary, write_layers, write_scores
from lava_casc.study.files import as_dict

MODEL = Path(__file__).parents[1] / "data/digits.pt"
STEPS = 9


@pytest.fixture(scope="module")
def material():
    checkpoint = load_checkpoint(MODEL)
    network = convert_checkpoint(checkpoint, Options(verify=0)).network
    return Material(checkpoint, network, checkpoint.examples[:24].astype(np.int64))


@pytest.fixture(scope="module")
def methods(material):
    return prepare(find("all"), material)


@pytest.fixture(scope="module")
def images():
    checkpoint = load_checkpoint(MODEL)
    return checkpoint.examples[24:].astype(np.int64)


def _study(material, methods, images, folder=None, **how):
    labels = lava_casc.forward(material.network, images).logits.argmax(1)
    schedule = material.network.schedule()
    how = {"steps": STEPS, "variants": (), "methods": methods, "folder": folder, **how}
    return measure(material.checkpoint.model, material.network, schedule, images, Ranks(labels), **how)


@pytest.fixture(scope="module")
def study(material, methods, images):
    return _study(material, methods, images)


def test_names_are_found_in_their_own_order():
    assert find("srp, qcfs") == ("qcfs", "srp")
    assert find("all") == tuple(METHODS)
    assert find("qcfs,all") == tuple(METHODS)
    for wrong, name in (("qcsf", "qcsf"), ("", ""), ("qcfs,,srp", ""), ("qcfs,IF", "IF")):
        with pytest.raises(DataError, match=f"--method: '{name}' is not known. Use all, or any of if-percentile, qcfs"):
            find(wrong)


def test_no_name_stands_for_two_things():
    assert not {*METHODS} & {"if", "if+wsc", "cif", "cif+wsc", "graded", "float", "integer", "all"}
    for baseline in METHODS.values():
        assert baseline.title
        assert baseline.limit
        assert any(word in baseline.paper for word in ("arXiv", "doi"))


def test_what_cannot_be_prepared_is_refused(material):
    recurrent = Material(material.checkpoint, random_recurrent(np.random.default_rng(0)), material.calibration)
    for name in METHODS:
        with pytest.raises(UnsupportedModelError, match=r"--method: these methods take all of their steps for one inp"):
            prepare([name], recurrent)
    bare = Material(material.checkpoint, material.network)
    for name, baseline in METHODS.items():
        if baseline.calibrates:
            with pytest.raises(DataError, match="there are none. Save the model with examples, or leave out if-percen"):
                prepare([name], bare)
        else:
            assert prepare([name], bare)
    assert [n for n, b in METHODS.items() if b.calibrates] == ["if-percentile", "opi", "snm", "calibrated"]


def test_each_method_is_a_configuration_of_its_own(material, methods, images):
    said = {}
    for name, method in methods.items():
        outputs, record = method.run(images[:8], 24)
        assert len(outputs) == len(method.points(24))
        said[name] = b"".join(o.tobytes() for (o,) in outputs)
        if record is not None:
            assert not record.certified.any()
            assert set(method.layers) == set(record.messages)
    assert len(set(said.values())) == len(METHODS)
    assert len({repr([np.asarray(p).tobytes() for p in m.parts]) for m in methods.values()}) == len(METHODS)


def test_each_name_stands_for_its_papers_neuron_and_thresholds(material, methods):
    trained, scaled = material.rates, material.scaled
    assert trained != scaled
    for name, network, variant, first in (
        ("if-percentile", scaled, IF, None),
        ("qcfs", trained, HALFWAY, None),
        ("opi", scaled, HALFWAY, None),
        ("snm", scaled, WITH_MEMORY, None),
        ("srp", trained, HALFWAY, 8),
    ):
        found = methods[name]
        assert (found.network, found.variant, found.silencing) == (network, variant, first), name
    assert (methods["calibrated"].variant, methods["calibrated"].silencing) == (HALFWAY, None)
    assert methods["calibrated"].network != trained


def test_outputs_are_the_mean_of_what_the_readout_hears(methods, material, images):
    method = methods["qcfs"]
    assert isinstance(method, Rates)
    distance = material.network.distances[material.network.readouts[0].name][0]
    outputs, _ = method.run(images[:5], distance + 7)
    logits = lava_casc.simulate(
        method.network, images[:5], WakeSleepSchedule(1, distance + 6), variant=method.variant
    ).logits
    scale = material.network.readouts[0].scale
    assert np.allclose(outputs[-1][0], logits * scale / 7, rtol=1e-12)
    # Many steps: the rates are the clipped activations, as exactly as steps allow, and the outputs near the float ones.
    (last,) = method.run(images[:5], 400)[0][-1]
    real = material.checkpoint.model(_scaled(material, images[:5])).detach().numpy()
    assert (last.argmax(1) == real.argmax(1)).all()
    assert np.abs(last - real).max() < 0.3 * np.abs(real).max()


def _scaled(material, images):
    return torch.tensor(images) * material.checkpoint.input.scale


class _Heads(nn.Module):
    """Two outputs, a layer apart, and levels that differ."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 9), nn.Linear(9, 7)
        self.acts = nn.ModuleList([CQReLU(4, 1.0, "round"), CQReLU(6, 1.5, "round")])
        self.near, self.far = nn.Linear(9, 3), nn.Linear(7, 2)

    def forward(self, x):
        x = self.acts[0](self.first(x))
        return {"near": self.near(x), "far": self.far(self.acts[1](self.second(x)))}


def test_outputs_at_several_distances_each_have_a_t_of_their_own():
    torch.manual_seed(3)
    checkpoint = Checkpoint(trace(_Heads().eval(), (6,)), InputSpec((6,), 0, 9, 0.2))
    network = convert_checkpoint(checkpoint, Options(verify=0)).network
    samples = np.random.default_rng(0).integers(0, 10, (12, 6))
    methods = prepare(find("all"), Material(checkpoint, network, samples))
    distances = {readout.name: network.distances[readout.name][0] for readout in network.readouts}
    assert distances == {"near": 2, "far": 3}
    real = checkpoint.model(torch.tensor(samples) * 0.2)
    for name, method in methods.items():
        outputs, _ = method.run(samples, 3 + 64)
        assert [output.shape for output in outputs[-1]] == [(12, 3), (12, 2)]
        for found, wanted in zip(outputs[-1], real, strict=True):
            if name in ("qcfs", "parallel"):  # 64 steps: near the network that is clipped and not quantized
                assert np.abs(found - wanted.detach().numpy()).max() < 0.2
    qcfs = methods["qcfs"]
    assert isinstance(qcfs, Rates)
    by_step = lava_casc.simulate(
        qcfs.network, samples, WakeSleepSchedule(1, 9), record=("logits",), variant=qcfs.variant
    ).logits_by_step
    for step, found in zip(qcfs.points(10), qcfs.run(samples, 10)[0], strict=True):
        for output, (name, values) in zip(found, network.outputs(by_step[:, step - 1]).items(), strict=True):
            assert np.allclose(output, values / max(1, step - distances[name]), rtol=1e-12)


def test_parallel_neurons_at_t_of_l_are_the_network_itself(methods, material, images):
    method = methods["parallel"]
    assert isinstance(method, ParallelTimes)
    assert method.network_of(8) == material.network  # trained with rounding, 8 levels
    truth = lava_casc.forward(material.network, images)
    found = method.spikes(images, 8)
    assert (found.logits == truth.logits).all()
    assert all((found.spikes[name].sum(1) == truth.counts[name]).all() for name in truth.counts)
    distance = method.distance
    for steps, times in ((distance, []), (distance + 1, [1]), (distance + 7, [1, 2, 4]), (distance + 8, [1, 2, 4, 8])):
        assert method.points(steps) == [distance + t for t in times]
    for times in (1, 2, 4):
        network = method.network_of(times)
        (found,) = method.run(images, distance + times)[0][-1]
        (wanted,) = network.outputs(lava_casc.forward(network, images).logits).values()
        assert (found == wanted).all()
        assert {layer.levels for layer in network if isinstance(layer, Neurons)} == {times}


def test_calibration_brings_each_layers_mean_error_down(methods, material):
    samples, folded = material.samples, fold(material.checkpoint.graph)
    before, after = methods["qcfs"], methods["calibrated"]
    real = evaluate(folded, _scaled(material, samples).double())
    for layer in folded.layers:
        if not isinstance(layer, FloatNeurons):
            continue
        wanted = real[layer.name].transpose(0, 1).flatten(1).mean(1).numpy() / layer.threshold
        off = []
        for rates in (before, after):
            found = rates.counts(samples, layer.name, 8) / 8
            off.append(np.abs(found.swapaxes(0, 1).reshape(len(wanted), -1).mean(1) - wanted).mean())
        assert off[1] < 0.75 * off[0], (layer.name, off)
    changed = [
        name for name in after.network.shapes
        if isinstance(after.network[name], Neurons) and (after.network[name].bias != before.network[name].bias).any()
    ]  # fmt: skip
    assert changed
    weights = [layer.synapses for layer in after.network.computed if hasattr(layer, "synapses")]
    assert weights == [layer.synapses for layer in before.network.computed if hasattr(layer, "synapses")]


def test_a_study_has_them_as_runs_that_certify_nothing(study, methods, material, images):
    distance = material.network.distances[material.network.readouts[0].name][0]
    assert study.methods == list(METHODS)
    assert list(study.runs) == ["cif+wsc", "graded", *METHODS]
    assert study.whole.certified == len(images)
    labels = lava_casc.forward(material.network, images).logits.argmax(1)
    for name, method in methods.items():
        run = study.runs[name]
        assert (run.silent, run.last_spike, run.certified) == ([], [], 0)
        assert run.steps == STEPS + distance
        assert run.points == method.points(run.steps)
        outputs, record = method.run(images, run.steps)
        for place, (output,) in enumerate(outputs):
            assert study.scores[name]["top1"][place][0] == (output.argmax(1) == labels).mean()
        if record is not None:
            for layer, sums in run.layers.items():
                assert set(sums) == {"messages", "negatives", "synops"}
                assert sums["messages"] == record.messages[layer].sum(0).tolist()
                assert sums["synops"] == record.synops[layer].sum(0).tolist()
    assert any(sum(sums["negatives"]) for sums in study.runs["snm"].layers.values())
    assert not any(sum(sums["negatives"]) for sums in study.runs["qcfs"].layers.values())
    assert not any(method.variant == WHOLE for method in methods.values() if isinstance(method, Rates))
    assert summary(study)["certified"] == len(images)


def test_files_with_methods_have_a_version_of_their_own(study, material, images, tmp_path):
    assert as_dict(study)["version"] == 2
    assert as_dict(_study(material, {}, images[:2]))["version"] == 1
    (tmp_path / "study.json").write_text(json.dumps(as_dict(study)))
    assert read_study(tmp_path)["runs"]["srp"]["points"] == study.runs["srp"].points
    write_scores(study, tmp_path / "scores.csv")
    write_layers(study, tmp_path / "layers.csv")
    header, *rows = [line.split(",") for line in (tmp_path / "scores.csv").read_text().splitlines()]
    column = header.index("qcfs top1")
    assert [float(v) for v in rows[11][column : column + 3]] == [*study.scores["qcfs"]["top1"][11]]
    filled = [int(row[0]) for row in rows if row[header.index("parallel top1")]]
    assert filled == study.runs["parallel"].points
    assert any(line.startswith("snm,") for line in (tmp_path / "layers.csv").read_text().splitlines())


def test_a_study_with_methods_goes_on_where_it_was_interrupted(material, study, images, tmp_path, monkeypatch):
    monkeypatch.setattr("lava_casc.study.measuring.CHUNK", 16)

    def stop(done):
        if done == 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _study(material, prepare(find("all"), material), images, tmp_path, progress=stop)
    told: list[int] = []
    found = _study(material, prepare(find("all"), material), images, tmp_path, progress=told.append)
    assert told[0] == 16
    assert found.scores == study.scores
    other = Material(material.checkpoint, material.network, material.samples[:5])
    for methods in ({}, prepare(["qcfs"], material), prepare(find("all"), other)):
        with pytest.raises(DataError, match="is of another network, schedule or data"):
            _study(material, methods, images, tmp_path)


def test_the_pictures_and_the_page_have_all_of_them(study):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    from lava_casc.report import figures
    from lava_casc.report.page import NAMES, study_page

    data = json.loads(json.dumps(as_dict(study)))
    above, below = figures.plot_scores(data, "top1").axes
    assert [text.get_text() for text in below.get_legend().get_texts()] == [*METHODS, "cif+wsc", "graded"]
    drawn = {line.get_label(): line for line in below.get_lines()}
    assert drawn["qcfs"].get_xdata().tolist() == list(range(1, STEPS + 1))
    assert drawn["parallel"].get_xdata().tolist() == [1, 2, 4, 8]
    assert drawn["cif+wsc"].get_xdata()[-1] == STEPS
    assert drawn["graded"].get_ydata().tolist() == [100] * 2
    styles = [(line.get_color(), str(line.get_linestyle()), line.get_marker()) for line in drawn.values()]
    assert len({colour for colour, *_ in styles[: len(METHODS) + 2]}) == len(METHODS) + 2
    assert set(METHODS) == set(figures.MARKERS) <= set(NAMES)
    figure = below.get_figure()
    figure.canvas.draw()
    for axes in (above, below):  # no legend over the curves
        assert not axes.get_legend().get_window_extent().overlaps(axes.get_window_extent())
    page = study_page(data, [])
    assert all(NAMES[name] in page for name in METHODS)
    assert "Methods of the literature certify nothing" in page
    plain = {**data, "runs": {k: v for k, v in data["runs"].items() if k not in METHODS}}
    assert len(figures.plot_scores(plain, "top1").axes) == 1
