"""The pictures of a study: accuracy, silence, errors, activity and cost over time, and where studies stand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lava_casc.report.raster import FAINT, INK, NEGATIVE, POSITIVE, RULE, new_figure
from lava_casc.report.svg import GREEN, GREY, OLIVE, ORANGE, PURPLE, SKY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Inches; on a telephone a figure of this width keeps letters that can be read.
WIDTH, HEIGHT = 4.6, 3.0
LETTERS = 8.0
#: Colour and dashes of each run; the dashes tell the lines apart in grey.
STYLES: dict[str, tuple[str, Any]] = {
    "if": (GREY, ":"),
    "if+wsc": (ORANGE, "-."),
    "cif": (SKY, "--"),
    "cif+wsc": (POSITIVE, "-"),
    "graded": (GREEN, (0, (5, 1, 1, 1))),
    "if-percentile": (GREY, ":"),
    "opi": (ORANGE, "-."),
    "snm": (NEGATIVE, (0, (3, 1, 1, 1, 1, 1))),
    "qcfs": (SKY, "--"),
    "srp": (PURPLE, "-"),
    "calibrated": (INK, (0, (2, 1))),
    "parallel": (OLIVE, ":"),
}
#: What stands at T = 1, 2, 4, ... on the curves of other methods.
MARKERS = {"if-percentile": "o", "opi": "^", "snm": "v", "qcfs": "s", "srp": "D", "calibrated": "P", "parallel": "X"}
#: The runs in which the paper's errors show.
ABLATIONS = ("if", "if+wsc", "cif", "cif+wsc")


def plot_scores(data: dict[str, Any], score: str) -> Figure:
    """Draw a score after every step with its interval of 95 %, float and integers as lines across.

    Other methods have a panel of their own, beside the network whole and graded; T counts there from when the input has
    reached the outputs, and doubles from mark to mark.
    """
    methods = [name for name in data["runs"] if name in MARKERS]
    figure, panels = _figure(2 * HEIGHT + 1.2 if methods else HEIGHT, 2 if methods else 1)
    axes, end = panels[0], data["steps"]
    for name, run in data["runs"].items():
        if name in methods:
            continue
        points, (values, low, high) = np.array(run["points"]), _percent(data, name, score)
        _line(axes, name, points, values, end)
        axes.fill_between(points, low, high, color=STYLES[name][0], alpha=0.18, linewidth=0)
    _across(axes, data, score)
    axes.set_ylabel(f"{score} (%)")
    _finish(axes, data)
    if methods:
        _methods(panels[1], data, score, methods)
        axes.legend(**_above(4))
    else:
        axes.legend(loc="lower right", ncols=2, **_legend())
    return figure


def _methods(axes: Axes, data: dict[str, Any], score: str, methods: Sequence[str]) -> None:
    """Draw other methods, and the network whole and graded, over the steps that the outputs have heard."""
    distance = max(layer["distance"] for layer in data["network"]["layers"] if layer["type"] == "Readout")
    end = max(1, *(data["runs"][name]["steps"] - distance for name in methods))
    ticks = [1 << k for k in range(end.bit_length())]
    for name in [*methods, *(name for name in ("cif+wsc", "graded") if name in data["runs"])]:
        heard, (values, low, high) = np.array(data["runs"][name]["points"]) - distance, _percent(data, name, score)
        kept = (heard >= 1) & (heard <= end)
        heard, values, low, high = heard[kept], values[kept], low[kept], high[kept]
        if len(heard) and sum(data["runs"][name]["silent"]) == data["samples"] and heard[-1] < end:  # it is settled
            heard = np.append(heard, end)
            values, low, high = (np.append(each, each[-1]) for each in (values, low, high))
        colour, dashes = STYLES[name]
        marked = [i for i, t in enumerate(heard) if t in ticks]
        axes.plot(
            heard, values, color=colour, linestyle=dashes, linewidth=1.3 if name in methods else 2.2, label=name,
            marker=MARKERS.get(name), markevery=marked, markersize=4.5, zorder=2 if name in methods else 3,
        )  # fmt: skip
        axes.fill_between(heard, low, high, color=colour, alpha=0.07, linewidth=0)
    handles = axes.get_legend_handles_labels()[0]  # float and integers are named in the panel above
    _across(axes, data, score)
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()
    axes.set_xlim(0.93, end * 1.07)
    axes.set_xlabel("T, steps since the input has reached the outputs")
    axes.set_ylabel(f"{score} (%)")
    _clean(axes)
    axes.legend(handles=handles, **_above(3))


def _percent(data: dict[str, Any], name: str, score: str) -> tuple[NDArray, NDArray, NDArray]:
    """Return a run's scores, and the ends of their intervals."""
    low, middle, high = (100 * np.array([p[i] for p in data["scores"][name][score]], float) for i in (1, 0, 2))
    return middle, low, high


def _across(axes: Axes, data: dict[str, Any], score: str) -> None:
    """Draw float and integers as lines across."""
    for name, dots in (("float", (1, 1)), ("integer", (4, 2))):
        value = data["scores"][name][score][0][0]
        if value is not None:
            axes.axhline(100 * value, color=INK, linestyle=(0, dots), linewidth=1, label=name)


def plot_silence(data: dict[str, Any]) -> Figure:
    """Draw the share of samples that are certified by each step."""
    figure, (axes,) = _figure()
    end = data["steps"]
    for run in data["runs"].values():
        if run["silent"]:
            end = max(end, max((i for i, n in enumerate(run["silent"], 1) if n), default=1))
    for name, run in data["runs"].items():
        if run["silent"]:
            share = np.cumsum(run["silent"]) / data["samples"]
            share = np.concatenate([share, np.full(max(0, end - len(share)), share[-1])])[:end]
            colour, dashes = STYLES[name]
            axes.step(
                np.arange(1, end + 1),
                100 * share,
                where="post",
                color=colour,
                linestyle=dashes,
                linewidth=1.8,
                label=name,
            )
    axes.set_ylabel("certified samples (%)")
    axes.set_ylim(-4, 104)
    _finish(axes, data, end)
    axes.legend(loc="lower right", **_legend())
    return figure


def plot_wrong_counts(data: dict[str, Any]) -> Figure:
    """Draw the share of neurons with more and with fewer spikes than they should have (figure 4 of CASC)."""
    figure, panels = _panels(data)
    neurons = sum(layer["neurons"] for layer in data["network"]["layers"] if layer["type"] == "Neurons")
    scale = 100 / (neurons * data["samples"] * data["phases"])
    for axes, (name, run) in panels:
        for kind, label, colour, dashes in (
            ("excess", "more", NEGATIVE, "-"), ("deficit", "fewer", POSITIVE, "--"),
        ):  # fmt: skip
            values = scale * np.sum([sums[kind] for sums in run["layers"].values() if kind in sums], 0)[: data["steps"]]
            axes.plot(np.arange(1, len(values) + 1), values, color=colour, linestyle=dashes, linewidth=1.6, label=label)
        axes.set_title(name, fontsize=LETTERS, color=INK, loc="left")
        _finish(axes, data)
        axes.label_outer()
    panels[0][0].legend(loc="upper right", **_legend())
    figure.supylabel("neurons with a wrong count (%)", fontsize=LETTERS, color=INK)
    return figure


def plot_relative_errors(data: dict[str, Any]) -> Figure:
    """Draw by layer how far the counts are from the integer network's, relative to them (figure 5 of CASC)."""
    figure, panels = _panels(data)
    distances = {layer["name"]: layer["distance"] for layer in data["network"]["layers"]}
    for axes, (name, run) in panels:
        for (layer, sums), colour in zip(_neurons(data, run), _shades(len(_neurons(data, run))), strict=True):
            off = np.array(sums["deviation"][: data["steps"]])
            step = np.arange(1, len(off) + 1)
            heard = np.maximum(step - distances[layer], 0) / run["wake_steps"]
            expected = data["expected"][layer] * (np.ones(len(off)) if name.endswith("wsc") else heard)
            share = np.divide(100 * off, expected, out=np.full(len(off), np.nan), where=expected > 0)
            axes.plot(step, share, color=colour, linewidth=1.2)
        axes.set_title(name, fontsize=LETTERS, color=INK, loc="left")
        _finish(axes, data)
        axes.label_outer()
    figure.supylabel("deviation from the integer network (%)", fontsize=LETTERS, color=INK)
    return figure


def plot_output_errors(data: dict[str, Any]) -> Figure:
    """Draw the squared error of the outputs against the float network, relative to their mean square (figure 4d)."""
    figure, (axes,) = _figure()
    for name, run in _ours(data):
        values = np.array(run["squares"]) / max(data["logit_squares"], 1e-300)
        _line(axes, name, np.array(run["points"]), values, data["steps"])
    axes.set_yscale("log")
    axes.set_ylabel("squared error of the outputs")
    _finish(axes, data)
    axes.legend(loc="best", **_legend())
    return figure


def plot_activity(data: dict[str, Any], name: str = "cif+wsc") -> Figure:
    """Draw by layer the share of neurons that spike in each step, those that take back below (figure 6 of CASC)."""
    figure, (axes,) = _figure()
    run = data["runs"][name]
    layers = _neurons(data, run)
    size = {layer["name"]: layer["neurons"] for layer in data["network"]["layers"]}
    last = 1
    for (layer, sums), colour in zip(layers, _shades(len(layers)), strict=True):
        share = 100 / (size[layer] * data["samples"] * data["phases"])
        negative = np.array(sums["negatives"], float)
        positive = np.array(sums["messages"], float) - negative
        last = max([last, *np.flatnonzero(positive + negative)[-1:] + 2])
        for values, dashes in ((positive, "-"), (-negative, "--")):
            axes.plot(np.arange(1, len(values) + 1), share * values, color=colour, linestyle=dashes, linewidth=1.2)
    axes.axhline(0, color=RULE, linewidth=0.8)
    axes.set_ylabel("neurons that spike (%)")
    axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    _finish(axes, data, min(last, run["steps"]))
    _depth_legend(axes, [layer for layer, _ in layers])
    return figure


def plot_synops(data: dict[str, Any]) -> Figure:
    """Draw the synaptic operations of a sample up to each step, relative to the float network's MACs."""
    figure, (axes,) = _figure()
    for name, run in _ours(data):
        sums = np.sum([sums["synops"] for sums in run["layers"].values()], 0)
        values = np.cumsum(sums) / (data["samples"] * max(1, data["network"]["macs"]))
        _line(axes, name, np.arange(1, len(values) + 1), values, data["steps"])
    axes.axhline(1, color=INK, linestyle=(0, (1, 1)), linewidth=1, label="ANN")
    axes.set_ylabel("synaptic operations / MACs of the ANN")
    _finish(axes, data)
    axes.legend(loc="upper left", ncols=2, **_legend())
    return figure


def plot_quantization(data: dict[str, Any]) -> Figure | None:
    """Draw by layer the share of neurons whose level the integers changed; None where that was not measured."""
    rows = [layer for layer in data["network"]["layers"] if layer["quantization"]]
    if not rows:
        return None
    figure, (axes,) = _figure(0.9 + 0.19 * max(4, len(rows)))
    at = np.arange(len(rows))
    for key, label, colour, offset in (("changed", "in all", SKY, -0.2), ("own", "by its own weights", POSITIVE, 0.2)):
        values = [100 * row["quantization"][key] for row in rows]
        axes.barh(at + offset, values, 0.38, color=colour, label=label)
    axes.set_yticks(at, [_shortened(row["name"]) for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("neurons at another level than in float (%)")
    _clean(axes)
    axes.legend(loc="best", **_legend())
    return figure


def plot_pareto(rows: Sequence[dict[str, Any]], score: str) -> Figure:
    """Draw studies as points: a score against steps, and against synaptic operations a multiply-accumulate.

    Filled: no other study has as high a score at no higher a cost.
    """
    figure, panels = _figure(HEIGHT + 0.4, 1, 2)
    costs: tuple[tuple[str, Callable[[dict[str, Any]], float]], ...] = (
        ("steps (mean)", lambda row: row["cost"]["steps"]),
        ("synaptic operations / MACs", lambda row: _operations(row)),
    )
    for axes, (label, cost) in zip(panels, costs, strict=True):
        x = np.array([cost(row) for row in rows])
        y, low, high = (np.array([row["accuracy"]["cif+wsc"][score][i] for row in rows], float) for i in range(3))
        best = [not np.any((x <= a) & (y >= b) & ((x < a) | (y > b))) for a, b in zip(x, y, strict=True)]
        known = np.isfinite(low)
        axes.errorbar(
            x[known], 100 * y[known], 100 * np.stack([y - low, high - y])[:, known],
            fmt="none", ecolor=RULE, elinewidth=1, zorder=0,
        )  # fmt: skip
        for i, (a, b) in enumerate(zip(x, y, strict=True)):
            axes.plot(a, 100 * b, "o", color=POSITIVE, markerfacecolor=POSITIVE if best[i] else "none", markersize=6)
            axes.annotate(
                str(i + 1), (a, 100 * b), xytext=(5, 4), textcoords="offset points", fontsize=LETTERS, color=INK
            )
        axes.set_xlabel(label, fontsize=LETTERS, color=INK)
        axes.set_xlim(left=0)
        _clean(axes)
    panels[0].set_ylabel(f"{score} (%)", fontsize=LETTERS, color=INK)
    return figure


def plot_compared_scores(studies: Sequence[dict[str, Any]], score: str) -> Figure:
    """Draw the score of each study, run whole, after every step."""
    figure, (axes,) = _figure()
    end = max(study["steps"] for study in studies)
    for i, (study, colour) in enumerate(zip(studies, _shades(len(studies)), strict=True)):
        points = study["runs"]["cif+wsc"]["points"]
        values = [100 * value[0] for value in study["scores"]["cif+wsc"][score]]
        kept = [(p, v) for p, v in zip(points, values, strict=True) if p <= end]
        axes.plot(*zip(*kept, strict=True), color=colour, linewidth=1.6, label=str(i + 1))
    axes.set_ylabel(f"{score} (%)")
    axes.set_xlabel("step T")
    _clean(axes)
    axes.legend(loc="lower right", ncols=2, **_legend())
    return figure


def _operations(row: dict[str, Any]) -> float:
    return float((row["cost"]["synops"] + row["cost"]["input_synops"]) / max(1, row["ann"]["macs"]))


def _figure(height: float = HEIGHT, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, list[Axes]]:
    figure = new_figure(height, WIDTH)
    figure.set_layout_engine("constrained")
    return figure, list(np.atleast_1d(figure.subplots(rows, columns, **options)).flat)


def _ours(data: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the runs of this network, those of other methods left out."""
    return [(name, run) for name, run in data["runs"].items() if name not in MARKERS]


def _panels(data: dict[str, Any]) -> tuple[Figure, list[tuple[Axes, tuple[str, dict[str, Any]]]]]:
    """Return a figure with a panel for each ablation that was run."""
    runs = [(name, data["runs"][name]) for name in ABLATIONS if name in data["runs"]]
    rows = -(-len(runs) // 2)
    figure, axes = _figure(0.6 + 1.7 * rows, rows, min(2, len(runs)), sharex=True, sharey=True)
    for spare in axes[len(runs) :]:
        spare.set_axis_off()
    return figure, list(zip(axes, runs, strict=False))


def _line(axes: Axes, name: str, steps: NDArray, values: NDArray, end: int) -> None:
    """Draw a run up to `end`; what is settled before goes on as it is."""
    kept = steps <= end
    steps, values = steps[kept], values[kept]
    if name == "graded" and len(steps) and steps[-1] < end:
        steps, values = np.append(steps, end), np.append(values, values[-1])
    colour, dashes = STYLES[name]
    axes.plot(steps, values, color=colour, linestyle=dashes, linewidth=1.8, label=name)


def _neurons(data: dict[str, Any], run: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the layers of neurons and their sums, from the input on."""
    names = [layer["name"] for layer in data["network"]["layers"] if layer["type"] == "Neurons"]
    return [(name, run["layers"][name]) for name in names]


def _shades(number: int) -> list[Any]:
    """Return colours from light to dark in which order shows, readable on white and on black."""
    from matplotlib import colormaps

    return [colormaps["viridis"](0.9 - 0.55 * i / max(1, number - 1)) for i in range(number)]


def _depth_legend(axes: Axes, names: Sequence[str]) -> None:
    """Name the first and the last layer, and say what is above and below."""
    from matplotlib.lines import Line2D

    shades = _shades(len(names))
    entries = [(names[0], shades[0], "-")] + ([(names[-1], shades[-1], "-")] if len(names) > 1 else [])
    handles = [Line2D([], [], color=c, linestyle=d, linewidth=1.4, label=_shortened(n)) for n, c, d in entries]
    handles.append(Line2D([], [], color=FAINT, linestyle="--", linewidth=1.2, label="taken back"))
    axes.legend(handles=handles, loc="upper right", **_legend())


def _legend() -> dict[str, Any]:
    return {"fontsize": LETTERS, "frameon": False, "labelcolor": INK}


def _above(columns: int) -> dict[str, Any]:
    """Return where a legend stands that would hide curves: over the axes, as wide as they are."""
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1.01, 1, 0.1), "mode": "expand", "borderaxespad": 0}
    return {**_legend(), **place, "ncols": columns, "handlelength": 2.8, "columnspacing": 0.8}


def _finish(axes: Axes, data: dict[str, Any], end: int | None = None) -> None:
    """Label the steps, and mark where the wake ends."""
    wake = data["runs"]["cif+wsc"]["wake_steps"]
    axes.axvline(wake, color=RULE, linewidth=1, zorder=0)
    axes.set_xlim(0.5, (data["steps"] if end is None else end) + 0.5)
    axes.set_xlabel("step T" if data["phases"] == 1 else "step T of a phase")
    _clean(axes)


def _clean(axes: Axes) -> None:
    axes.tick_params(labelsize=LETTERS, labelcolor=INK, color=RULE)
    axes.xaxis.label.set(size=LETTERS, color=INK)
    axes.yaxis.label.set(size=LETTERS, color=INK)
    axes.grid(color=RULE, alpha=0.35, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)


def _shortened(name: str) -> str:
    return name if len(name) <= 18 else f"\N{HORIZONTAL ELLIPSIS}{name[-17:]}"


def score_names(data: dict[str, Any]) -> Iterable[str]:
    """Return the names of the scores, the first one the most important."""
    return tuple(data["scores"]["float"])
