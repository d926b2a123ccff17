"""The picture with sliders: what a browser draws and says for every case and step is what the run recorded."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from browser import answer_of
from random_networks import random_network

import lava_casc
from lava_casc.errors import DataError
from lava_casc.network import Neurons
from lava_casc.report import explore, explore_layer

NOTEBOOK = Path(__file__).parents[2] / "notebooks/02_how_casc_works.ipynb"

#: Moves every slider to every place (the last one in strides, from its end), and writes down what is seen.
DRIVE = """
<script>
let heard = 0;
document.addEventListener("keydown", () => heard++);  // as JupyterLab does
const found = [...document.querySelectorAll("[data-explorer]")].map(root => {
  const sliders = [...root.querySelectorAll("input")], seen = [];
  const move = depth => {
    if (depth === sliders.length) {
      const count = (figure, what) => figure.querySelectorAll(what).length;
      const now = "g:last-child ", fill = (figure, colour) => count(figure, `${now}.spike[fill="${colour}"]`);
      seen.push({
        places: sliders.map(slider => Number(slider.value)),
        shown: [...root.querySelectorAll("output")].map(output => output.textContent),
        neurons: [...root.querySelectorAll("figure")].map(figure => ({
          said: figure.querySelector("figcaption").innerText,
          up: fill(figure, "#0072B2"), down: fill(figure, "#D55E00"), bars: count(figure, now + ".received"),
          later: count(figure, ".later .spike"), wrong: count(figure, ".wrong"),
        })),
      });
      return;
    }
    const stride = depth === sliders.length - 1 ? STRIDE : 1;
    for (let place = sliders[depth].max; place >= 0; place -= stride) {
      sliders[depth].value = place;
      sliders[depth].dispatchEvent(new Event("input"));
      move(depth + 1);
    }
  };
  const first = sliders.map(slider => Number(slider.value));
  move(0);
  sliders[0].dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft", bubbles: true }));
  return { first, seen, heard, still: root.querySelectorAll(".still").length,
           wide: root.scrollWidth > root.clientWidth, labels: sliders.map(slider => slider.labels[0].innerText) };
});
document.body.innerHTML = '<pre id="answer"></pre>';
document.getElementById("answer").textContent = JSON.stringify(found);
</script>
"""


def drive(html, folder, stride=1):
    script = DRIVE.replace("STRIDE", str(stride))
    return answer_of(f'<!DOCTYPE html><meta charset="utf-8"><body style="width: 360px">{html}{script}', folder)


def cases(seed=0, choices=(3, 2), names=2, steps=7):
    """Return currents, spikes of any kind, thresholds and first potentials: the picture must not mend them."""
    rng = np.random.default_rng(seed)
    shape = (*choices, names, steps)
    return {
        "received": rng.integers(-15, 16, shape),
        "spikes": rng.integers(-1, 2, shape),
        "threshold": rng.integers(1, 12, shape[:-1]),
        "initial": rng.integers(0, 6, shape[:-1]),
    }


CHOICES = {"a <b> & c": ["x", "</script>", "z"], "of two": [-5, 5]}


def test_every_case_and_step_says_what_was_given(tmp_path):
    given = cases()
    page = explore(**given, choices=CHOICES, names=["one", "two"], levels=3, at=(2, 1)).html
    (found,) = drive(page, tmp_path)
    assert (found["first"], found["still"], found["wide"]) == ([2, 1, 6], 0, False)  # the last step is shown first
    assert found["heard"] == 0  # arrow keys are for the sliders alone
    assert [label.splitlines()[0] for label in found["labels"]] == [*CHOICES, "step"]
    assert len(found["seen"]) == 3 * 2 * 7
    stable = 0
    for seen in found["seen"]:
        i, j, last = seen["places"]
        assert seen["shown"] == [["x", "</script>", "z"][i], ["\u22125", "5"][j], str(last + 1)]
        for k, drawn in enumerate(seen["neurons"]):
            received, spikes = given["received"][i, j, k], given["spikes"][i, j, k]
            theta, initial = int(given["threshold"][i, j, k]), int(given["initial"][i, j, k])
            S, y, spike = int(received[: last + 1].sum()), int(spikes[: last + 1].sum()), int(spikes[last])
            target, u = int(np.clip((initial + S) // theta, 0, 3)), initial + S - theta * y
            rests = y == target  # which is the theorem: the page decides it by potential and count
            stable += rests
            told = f"{['one', 'two'][k]}: count {y}, target {target}, {'at' if rests else 'not at'} its stable point\n"
            told += f"step {last + 1}: receives {received[last]}, {S} in all; potential {u + theta * spike}"
            told += f", spike {spike:+d}, then {u}" if spike else ", silent"
            assert drawn["said"].replace("\u2212", "-") == told
            assert drawn["wrong"] == (not rests)
            until = spikes[: last + 1]
            assert (drawn["up"], drawn["down"]) == ((until > 0).sum(), (until < 0).sum())
            assert drawn["later"] == np.count_nonzero(spikes[last + 1 :])
            assert drawn["bars"] == np.count_nonzero(received[: last + 1])
    assert 0 < stable < len(found["seen"]) * 2


def test_a_page_may_hold_several_and_the_same_one_twice(tmp_path):
    given = cases(seed=1, choices=(2,), names=1, steps=3)
    one = explore(**given, choices={"case": "ab"}, names=["n"], levels=3).html
    other = explore(**cases(seed=2, choices=(), names=1, steps=2), choices={}, names=["n"], levels=3).html
    found = drive(one + one + other, tmp_path)
    assert [len(each["seen"]) for each in found] == [6, 6, 2]
    assert found[0] == found[1] != found[2]


def test_it_fetches_nothing_and_is_the_same_each_time():
    page = explore(**cases(), choices=CHOICES, names=["one", "two"], levels=3).html
    assert page == explore(**cases(), choices=CHOICES, names=["one", "two"], levels=3)._repr_html_()
    assert not re.findall(r"(?:src|href)\s*=|url\(|https?:|@import|fetch\(", page)
    assert page.count("</script>") == 1  # a name cannot end it


def data_of(explorer):
    return json.loads(re.search(r"const data = (\{.*\});", explorer.html)[1])


@pytest.mark.parametrize("seed", range(6))
def test_a_layer_receives_what_its_synapses_bring(seed):
    rng = np.random.default_rng(seed)
    network = random_network(rng)
    images = rng.integers(network.input.low, network.input.high + 1, (3, *network.input.shape))
    record = lava_casc.simulate(network, images, record=("spikes", "potentials", "counts"))
    assert record.all_certified
    for layer in network:
        if not isinstance(layer, Neurons):
            continue
        size = int(np.prod(network.shapes[layer.name]))
        neurons = list(range(size))[::-1]
        data = data_of(explore_layer(network, record, layer.name, [2, 0], neurons))
        counts = record.counts[layer.name].reshape(3, -1)[[2, 0]][:, neurons]
        said = np.array(data["spikes"]).sum(1).reshape(counts.shape)
        assert (said == counts).all()
        # All that came, and what a neuron started with, makes the integer network's level.
        total = np.array(data["initial"]) + np.array(data["received"]).sum(1)
        level = np.clip(total // np.array(data["threshold"]), 0, layer.levels).reshape(counts.shape)
        assert (level == counts).all()
        channel = np.unravel_index(neurons, network.shapes[layer.name])[0]
        assert data["threshold"] == [*np.broadcast_to(layer.threshold, network.shapes[layer.name][0])[channel]] * 2
        assert data["choices"] == [["sample", ["2", "0"]], ["neuron", [str(n) for n in neurons]]]
        assert data["asleep"] == network.timing(record.schedule)[layer.name].bias_stop


def test_a_layer_that_was_not_recorded_is_refused():
    network = random_network(np.random.default_rng(0))
    images = np.zeros((2, *network.input.shape), int)
    record = lava_casc.simulate(network, images, record=("spikes", "potentials"))
    name = next(layer.name for layer in network if isinstance(layer, Neurons))
    assert explore_layer(network, record, name, [1], [0]).html
    for layer in ("nowhere", network.input.name):
        with pytest.raises(DataError, match=f"{layer}: not a layer of neurons in a network without phases"):
            explore_layer(network, record, layer, [0], [0])
    for samples, neurons, what in (([2], [0], "sample [2]"), ([0], [-1, 0], "neuron [-1]"), ([], [0], "sample none")):
        with pytest.raises(DataError, match=re.escape(f"{what} is not in the record of")):
            explore_layer(network, record, name, samples, neurons)
    with pytest.raises(DataError, match="not in the record. Run with record="):
        explore_layer(network, lava_casc.simulate(network, images, record=("spikes",)), name, [0], [0])


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"spikes": np.zeros((3, 2, 2, 6), int)}, "must both be (3, 2, 2, steps)"),
        ({"names": ["one"]}, "must both be (3, 2, 1, steps)"),
        ({"choices": {"one": range(4), "two": range(2)}}, "must both be (4, 2, 2, steps)"),
        ({"received": np.zeros((3, 2, 2, 7))}, "received must hold integers, not float64"),
        ({"threshold": 2.0}, "threshold must hold integers, not float64"),
        ({"threshold": 0}, "threshold (0) and levels (3) must be at least 1"),
        ({"levels": 0}, "and levels (0) must be at least 1"),
        ({"initial": np.zeros(5, int)}, "threshold or initial does not fit (3, 2, 2)"),
        ({"at": (0,)}, "at ([0]) must be a place from 0 on for each of [3, 2] choices"),
        ({"at": (0, 2)}, "at ([0, 2]) must be a place"),
    ],
)
def test_what_does_not_fit_is_refused(change, what):
    given = {**cases(), "choices": CHOICES, "names": ["one", "two"], "levels": 3}
    assert explore(**given).html
    with pytest.raises(DataError, match=re.escape(what)):
        explore(**{**given, **change})


def test_more_than_a_page_holds_is_refused():
    for steps in (0, 500_001):
        nothing = np.zeros((1, steps), int)
        with pytest.raises(DataError, match=f"{steps} values, and a page holds 1 to 500000. Choose fewer"):
            explore(nothing, nothing, {}, ["n"], threshold=1, levels=1)


def test_the_notebooks_pictures_move(tmp_path):
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    shown = [
        o["data"]["text/html"] for cell in cells for o in cell.get("outputs", ()) if "text/html" in o.get("data", ())
    ]
    found = drive("".join("".join(part) for part in shown), tmp_path, stride=12)
    assert [len(each["first"]) for each in found] == [4, 3, 3]
    for each in found:
        settled = [seen for seen in each["seen"] if seen["places"][-1] == each["first"][-1]]
        assert not any(seen["neurons"][-1]["wrong"] for seen in settled)  # CIF, in the end, is always right
    assert any(seen["neurons"][0]["wrong"] for seen in found[0]["seen"])
