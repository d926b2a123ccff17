"""A recurrent classifier of texts as spikes: the standard conversion and ours, over the steps a word takes.

    lava-casc train --task text --data-dir ag_news_csv -o out/news.pt
    python benchmarks/recurrent.py out/news.pt --data-dir ag_news_csv -o out/recurrent.json --picture out/recurrent.png

The pattern of table 6 of CASC (arXiv 2406.05371). The standard conversion is an integrate-and-fire neuron with soft
reset, without negative spikes and without a sleep: a word is there for T steps, a neuron starts at half a threshold
where the network rounds, and what it says is ``threshold * spikes / T``. There are two, by how the next word gets that:
``rates`` as a constant current through its T steps, ``spikes`` as the same spikes once more. By rates, a first layer at
T = L is CQReLU itself, because the spikes under a constant current are the floor of the charge. Both compute in float32
with the float weights, and are compared with the float RNN. Ours is the integer network of 8-bit weights, and is
compared with that: awake for L steps and then asleep, awake for one step, or graded.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from lava_casc.errors import CascError
from lava_casc.frontend import fold, load_checkpoint
from lava_casc.frontend.fold import FloatReadout
from lava_casc.pipeline import Options, convert_checkpoint, write_json
from lava_casc.reference import forward, simulate
from lava_casc.schedule import WakeSleepSchedule
from lava_casc.study import interval
from lava_casc.text import encoding_of, read_texts


def baseline(network, tokens, states, steps, replayed, batch=2000):
    """Return the classes (N,) by the standard conversion of a folded network, `steps` a word.

    Also how far its hidden values are from the RNN's `states`, (N, P, H) by layer: the mean difference, in levels.
    """
    weights = {
        (layer.name, synapse.source): torch.tensor(synapse.weight, dtype=torch.float32)
        for layer in network.layers
        for synapse in layer.synapses
    }
    bias = {layer.name: torch.tensor(layer.bias, dtype=torch.float32) for layer in network.layers}
    source = {memory.name: memory.source for memory in network.memories}
    neurons = {layer.name: layer for layer in network.layers if layer.name in source.values()}
    found, errors = [], []
    for start in range(0, len(tokens), batch):
        part = torch.tensor(tokens[start : start + batch])
        # What each layer said in each step of the word before, in real values.
        before = {name: torch.zeros(steps, len(part), *network.shapes[name]) for name in source.values()}
        logits = torch.zeros(())
        for phase, words in enumerate(part.T):
            potential = {n.name: n.phase * n.threshold for n in network.layers if not isinstance(n, FloatReadout)}
            said = {name: [] for name in before}
            memory = {m: before[n] if replayed else before[n].mean(0).expand_as(before[n]) for m, n in source.items()}
            # The parts of a current that are the same through the word.
            fixed = {}
            for layer in network.layers:
                fixed[layer.name] = bias[layer.name]
                for synapse in layer.synapses:
                    weight = weights[layer.name, synapse.source]
                    if synapse.source == "input":
                        fixed[layer.name] = fixed[layer.name] + weight.T[words]
                    elif synapse.source in memory and not replayed:
                        fixed[layer.name] = fixed[layer.name] + memory[synapse.source][0] @ weight.T
            for step in range(steps):
                now = {m: values[step] for m, values in memory.items()} if replayed else {}
                for layer in network.layers:
                    current = fixed[layer.name]
                    for synapse in layer.synapses:
                        if synapse.source in now:
                            current = current + now[synapse.source] @ weights[layer.name, synapse.source].T
                    if isinstance(layer, FloatReadout):
                        logits = logits + current
                        continue
                    charged = potential[layer.name] + current
                    now[layer.name] = torch.where(charged >= layer.threshold, layer.threshold, 0.0)
                    potential[layer.name] = charged - now[layer.name]
                    if layer.name in said:
                        said[layer.name].append(now[layer.name])
            before = {name: torch.stack(values) for name, values in said.items()}
            for name, n in neurons.items():
                difference = before[name].mean(0) - states[name][start : start + batch, phase]
                errors.append(difference.abs().mean(1) * n.levels / n.threshold)
        found.append(logits.argmax(1))
    return torch.cat(found).numpy(), float(torch.cat(errors).mean())


def measure(model, folder, samples, baseline_steps):
    """Return everything as plain data."""
    checkpoint = load_checkpoint(model)
    encoding = encoding_of(checkpoint.about)
    texts = read_texts(folder, "test", encoding.classes).first(samples)
    tokens, labels = encoding.encode(texts.texts), texts.labels
    network = convert_checkpoint(checkpoint, Options(verify=0)).network
    folded = fold(checkpoint.graph)
    truth = forward(network, tokens)
    exact = truth.logits.argmax(1)
    rows = []

    def add(method, steps, predicted, wanted, **more):
        accuracy = float((predicted == labels).mean())
        differing = float((predicted != wanted).mean())
        rows.append({"method": method, "steps": steps, "accuracy": accuracy, "differing": differing, **more})
        rows[-1]["interval"] = list(interval(int((predicted == labels).sum()), len(labels)))
        print(f"{method:16} T={steps or '-':>3} {accuracy:7.2%}  another class than the RNN: {differing:6.2%}", end="")
        print("".join(f"  {name}: {value:.3g}" for name, value in more.items() if name in ("error", "certified")))

    with torch.no_grad():
        values = checkpoint.model.values(torch.tensor(tokens))
    states = {layer.name: values[layer.activation] for layer in folded.layers if not isinstance(layer, FloatReadout)}
    real = values[checkpoint.graph.outputs[0]].argmax(1).numpy()
    add("float", None, real, real)
    add("integers", None, exact, real)
    for replayed in (False, True):
        for steps in baseline_steps:
            predicted, error = baseline(folded, tokens, states, steps, replayed)
            add("IF, spikes" if replayed else "IF, rates", steps, predicted, real, error=error)
    full = network.schedule()
    cut = [WakeSleepSchedule(full.wake_steps, sleep) for sleep in (0, 2, 4, 6) if sleep < full.sleep_steps]
    ours = [("WSC+CIF", schedule) for schedule in (*cut, full)]
    ours += [("one step awake", network.schedule(wake_steps=1)), ("graded", network.schedule("graded"))]
    for method, schedule in ours:
        record = simulate(network, tokens, schedule)
        sure, phases = record.certified, record.phases_certified
        differences = {name: np.abs(record.counts[name] - counts) for name, counts in truth.counts.items()}
        # What a certified word read were the words before it, so that its counts are right where those were certified.
        proven = np.logical_and.accumulate(phases, 1)
        if any(d[proven].any() for d in differences.values()) or (record.logits != truth.logits)[sure].any():
            raise AssertionError("something certified differs from the integer network; this is a bug in lava_casc")
        error = float(np.mean([d.mean() for d in differences.values()]))
        certified = {"certified": float(sure.mean()), "certified_words": float(phases.mean())}
        timing = {"wake_steps": schedule.wake_steps, "sleep_steps": schedule.sleep_steps}
        add(method, schedule.period, record.predictions, exact, error=error, **certified, **timing)
    return {
        "model": Path(model).name,
        "texts": len(labels),
        "words_a_text": encoding.length,
        "vocabulary": len(encoding.words),
        "about": {key: value for key, value in checkpoint.about.items() if key not in ("vocabulary",)},
        "silence_bound": network.silence_bound(full),
        "rows": rows,
    }


def draw(result, path):
    """Draw accuracy, and the error of hidden values, over the steps a word."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Colours of Okabe and Ito.
    styles = {
        "IF, rates": ("#D55E00", "o", "-"),
        "IF, spikes": ("#CC79A7", "s", "-"),
        "WSC+CIF": ("#0072B2", "D", "-"),
        "one step awake": ("#009E73", "^", "none"),
        "graded": ("#222222", "v", "none"),
    }
    figure = Figure(figsize=(9, 3.8), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    accuracy, error = figure.subplots(1, 2)
    rnn = {row["method"]: row for row in result["rows"]}
    accuracy.axhspan(*(100 * bound for bound in rnn["float"]["interval"]), color="#222222", alpha=0.1, linewidth=0)
    accuracy.axhline(100 * rnn["float"]["accuracy"], color="#777777", linestyle=":", label="RNN, float")
    accuracy.axhline(100 * rnn["integers"]["accuracy"], color="#222222", linewidth=1, label="RNN, integers")
    for method, (color, marker, line) in styles.items():
        rows = [row for row in result["rows"] if row["method"] == method]
        style = {"color": color, "marker": marker, "linestyle": line, "label": method}
        for axes, key, factor in ((accuracy, "accuracy", 100), (error, "error", 1)):
            axes.plot([row["steps"] for row in rows], [factor * row[key] for row in rows], **style)
            if not (sure := [row for row in rows if row.get("certified") == 1]):
                continue
            ring = {"s": 170, "facecolors": "none", "edgecolors": color, "clip_on": False, "zorder": 3}
            axes.scatter([row["steps"] for row in sure], [factor * row[key] for row in sure], **ring)
    accuracy.set_ylabel("accuracy, %")
    accuracy.set_title(f"{result['texts']:,} test texts; grey: 95 % interval of the RNN", fontsize=9.5)
    # A run that is cut off long before silence is far below, and says no more than that.
    accuracy.set_ylim(100 * rnn["float"]["accuracy"] - 8, 100 * rnn["float"]["accuracy"] + 2)
    error.set_ylabel("mean error of a hidden value, levels")
    error.set_title("rings: every word of every text certified", fontsize=9.5)
    error.set_yscale("symlog", linthresh=0.01)
    error.set_ylim(bottom=0)
    exact = {row["steps"] for row in result["rows"] if row.get("certified") == 1}
    others = {row["steps"] for row in result["rows"] if row["method"].startswith("IF")}
    ticks = sorted(exact | {t for t in others if all(abs(t - e) > 0.1 * t for e in exact)})  # with room for each
    for axes in (accuracy, error):
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [str(tick) for tick in ticks], fontsize=8)
        axes.minorticks_off()
        axes.set_xlabel("steps a word, T")
        axes.grid(alpha=0.3)
    accuracy.legend(fontsize=8, loc="lower right")
    figure.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a checkpoint of lava-casc train --task text")
    parser.add_argument("--data-dir", required=True, help="a folder with test.csv")
    parser.add_argument("--samples", type=int, help="only the first so many texts")
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32], help="T of the standard conversion"
    )
    parser.add_argument("-o", "--output", help="write everything as JSON")
    parser.add_argument("--picture", help="write a picture (PNG or SVG)")
    options = parser.parse_args()
    try:
        result = measure(options.model, options.data_dir, options.samples, options.steps)
        if options.output:
            write_json(options.output, result)
        if options.picture:
            draw(result, options.picture)
    except CascError as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
