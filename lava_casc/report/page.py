"""A study, or several side by side, as one page of HTML that needs nothing else: no network, no scripts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lava_casc.energy import EnergyTable
from lava_casc.errors import DataError
from lava_casc.files import replacing
from lava_casc.report import figures
from lava_casc.report.svg import as_svg, embedded

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: What the ways to compute an answer are called.
NAMES = {
    "ANN": "ANN, before conversion",
    "float": "float network",
    "integer": "integer network",
    "if": "IF: integrate and fire",
    "if+wsc": "IF + wake and sleep",
    "cif": "CIF: takes spikes back",
    "cif+wsc": "CIF + wake and sleep",
    "graded": "the same, graded spikes",
    "if-percentile": "IF, thresholds at a percentile",
    "qcfs": "QCFS",
    "opi": "optimized initial potential",
    "snm": "signed neuron with memory",
    "srp": "SRP, its second stage",
    "calibrated": "QCFS, calibrated biases",
    "parallel": "parallel neurons",
}


def study_page(
    data: dict[str, Any],
    tables: Sequence[EnergyTable],
    step_us: float | None = None,
    rasters: Sequence[tuple[str, str]] = (),
) -> str:
    """Return the page of one study.

    Parameters
    ----------
    data : dict
        As `lava_casc.study.read_study` returns it.
    tables : sequence of EnergyTable
    step_us : float, optional
        How long a step takes, in microseconds; without it latency is told in steps alone.
    rasters : sequence of (str, str)
        A caption and the text of an SVG file each, as `as_svg` made it.

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    """
    scores = tuple(figures.score_names(data))
    return _render(
        "study.html.j2",
        title=f"{data['about'].get('name', 'study')}: accuracy, silence, cost",
        data=data,
        found=data["summary"],
        scores=scores[:3],
        others=any(name in figures.MARKERS for name in data["runs"]),
        plots=[_plot(*plot) for plot in _plots(data, scores)],
        layers=_layer_rows(data),
        costs=_cost_rows(data, tables, step_us),
        tables=tables,
        step_us=step_us,
        rasters=[
            (caption, Markup(embedded(text, f"spikes{i}", f"Every spike over time. {caption}")))
            for i, (caption, text) in enumerate(rasters)
        ],
        about={key: value for key, value in data["about"].items() if key not in ("command", "versions", "name")},
    )


def comparison_page(
    rows: Sequence[dict[str, Any]],
    studies: Sequence[dict[str, Any]],
    tables: Sequence[EnergyTable],
    step_us: float | None = None,
) -> str:
    """Return the page of several studies side by side.

    Parameters
    ----------
    rows : sequence of dict
        As `lava_casc.study.compare` returns them.
    studies : sequence of dict
        The studies themselves, in the same order.
    tables, step_us
        As for `study_page`.
    """
    score = next(iter(figures.score_names(studies[0])))
    plots = [
        (
            "pareto", "Accuracy against time and against work", figures.plot_pareto(rows, score),
            "Numbers are the rows of the table; a filled point has no other at as high a score for no more.",
        ),
        (
            "compared", "Accuracy after every step", figures.plot_compared_scores(studies, score),
            "CIF with wake and sleep; numbers are the rows of the table.",
        ),
    ]  # fmt: skip
    energies = [[_picojoule(table.energy_pj(row["cost"]["events"])) for table in tables] for row in rows]
    return _render(
        "comparison.html.j2",
        title=f"{len(rows)} networks compared",
        rows=rows,
        score=score,
        energies=energies,
        tables=tables,
        step_us=step_us,
        plots=[_plot(*plot) for plot in plots],
        commands=[study["about"].get("command", "") for study in studies],
    )


def save_page(page: str, path: Path) -> None:
    """Write a page, whole or not at all."""
    with replacing(path, DataError) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _plots(data: dict[str, Any], scores: Sequence[str]) -> list[tuple[str, str, Figure, str]]:
    score = scores[0]
    found = [
        (
            "scores", f"{score} after every step", figures.plot_scores(data, score),
            "Bands: intervals of 95 %. The thin upright line marks the end of the wake."
            + (
                " Below, methods of the literature: none of them certifies an answer. SRP has a stage before the steps "
                "that are shown, and parallel neurons wait for all T steps in every layer."
                if any(name in figures.MARKERS for name in data["runs"])
                else ""
            ),
        ),
        ("silence", "Certified silent", figures.plot_silence(data), "Samples whose answer is proven by each step."),
        (
            "wrong", "More and fewer spikes", figures.plot_wrong_counts(data),
            "Neurons of all layers whose count is off by one or more, against the integer network; without a sleep "
            "against what its rate makes of the time.",
        ),
        (
            "relative", "Deviation by layer", figures.plot_relative_errors(data),
            "Sum of all deviations over the sum of all counts; the first layer light, the last one dark.",
        ),
        (
            "outputs", "Error of the outputs", figures.plot_output_errors(data),
            "Mean squared difference from the float network, relative to its outputs' mean square. What stays of CIF "
            "with wake and sleep is the quantization's.",
        ),
        (
            "activity", "Who spikes when", figures.plot_activity(data),
            "Share of each layer's neurons that send a spike in a step; spikes that take back stand below.",
        ),
        (
            "synops", "Work", figures.plot_synops(data),
            "Synaptic operations of a sample up to a step, the input's included.",
        ),
    ]  # fmt: skip
    quantization = figures.plot_quantization(data)
    if quantization is not None:
        found.append(
            (
                "quantization", "Where integers differ", quantization,
                f"Against the float network, {data['about'].get('diagnosed', 'some')} samples. Its own: what would "
                "differ if all that the layer reads were right.",
            )
        )  # fmt: skip
    return found


def _plot(name: str, title: str, figure: Figure, caption: str) -> dict[str, Any]:
    return {"title": title, "caption": caption, "svg": Markup(embedded(as_svg(figure), name, f"{title}. {caption}"))}


def _layer_rows(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the page's table says of each layer, under the network's own schedule."""
    run, n = data["runs"]["cif+wsc"], data["samples"] * data["phases"]
    rows = []
    for layer in data["network"]["layers"]:
        sums = run["layers"].get(layer["name"])
        row = {**layer, "spikes": None, "synops": None, "wrong": None, "back": None}
        if sums is not None:
            row |= {
                "spikes": sum(sums["messages"]) / n / layer["neurons"],
                "back": sum(sums["negatives"]) / max(1, sum(sums["messages"])),
                "synops": sum(sums["synops"]) / n,
            }
            if "excess" in sums:
                row["wrong"] = (sums["excess"][-1] + sums["deficit"][-1]) / n / layer["neurons"]
        rows.append(row)
    return rows


def _cost_rows(data: dict[str, Any], tables: Sequence[EnergyTable], step_us: float | None) -> list[dict[str, Any]]:
    rows = []
    for row in data["summary"]["costs"]:
        steps = row.get("steps")
        rows.append(
            {
                **{key: row.get(key) for key in ("macs", "steps", "last_step", "input_synops", "synops", "messages")},
                "name": NAMES[row["name"]],
                "negatives": row.get("negatives"),
                "latency_us": None if steps is None or step_us is None else steps * step_us * data["phases"],
                "energies": [_picojoule(table.energy_pj(row["events"])) for table in tables],
            }
        )
    return rows


def _picojoule(energy: float | None) -> str:
    """Return an energy in the unit that suits it."""
    if energy is None:
        return "\N{EN DASH}"
    for factor, unit in ((1e9, "mJ"), (1e6, "\N{MICRO SIGN}J"), (1e3, "nJ")):
        if energy >= factor:
            return f"{energy / factor:.3g} {unit}"
    return f"{energy:.3g} pJ"


def _share(value: float | None) -> str:
    return "\N{EN DASH}" if value is None else f"{100 * value:.2f}\N{NO-BREAK SPACE}%"


def _number(value: float | None) -> str:
    """Return a number with as many digits as anybody reads."""
    if value is None:
        return "\N{EN DASH}"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _interval(value: Sequence[float | None]) -> str:
    """Return a score with its interval."""
    share, low, high = value
    if low is None or high is None:
        return _share(share)
    return f"{_share(share)} ({100 * low:.2f}\N{EN DASH}{100 * high:.2f})"


def _render(template: str, **values: Any) -> str:
    environment = Environment(
        loader=PackageLoader("lava_casc", "report/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(share=_share, number=_number, interval=_interval)
    return environment.get_template(template).render(names=NAMES, **values)
