"""The picture of accuracy against time: every variant, float and integers, and when samples fell silent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lava_casc.report.raster import FAINT, INK, LARGE, RULE, SMALL, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Of Okabe and Ito, as in the raster; the dashes tell the lines apart in grey.
STYLES = {
    "if": ("#999999", ":"),
    "if+wsc": ("#E69F00", "-."),
    "cif": ("#56B4E9", "--"),
    "cif+wsc": ("#0072B2", "-"),
}
HEIGHT = 5.4


def plot_curves(data: dict[str, Any], rank: str = "top1", title: str | None = None) -> Figure:
    """Draw accuracy after every step, with 95 % confidence intervals, above the share of samples certified by then.

    Parameters
    ----------
    data : dict
        As `lava_casc.curves.Curves.as_dict` returns it.
    rank : {"top1", "top5"}
    title : str, optional

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    """
    figure = new_figure(HEIGHT)
    figure.set_layout_engine("constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    n, steps = data["samples"], np.arange(1, data["steps"] + 1)
    for name, sums in data["variants"].items():
        colour, dashes = STYLES[name]
        shares = np.array(sums[rank]) / max(1, n)
        low, high = np.array(data["summary"]["bands"][name][rank]).T
        upper.fill_between(steps, 100 * low, 100 * high, color=colour, alpha=0.18, linewidth=0)
        upper.plot(steps, 100 * shares, color=colour, linestyle=dashes, linewidth=1.8, label=name)
    for name, pattern in (("float", (1, 1)), ("integer", (4, 2))):
        share = data["reference"][name][rank] / max(1, n)
        upper.axhline(100 * share, color=INK, linestyle=(0, pattern), linewidth=1, label=name)
    upper.set_ylabel(f"{rank} accuracy (%)", fontsize=SMALL)
    upper.legend(fontsize=SMALL, frameon=False, ncols=3, loc="lower right")
    silent = np.zeros(len(steps))
    counted = np.cumsum(data["silent"])[: len(steps)]
    silent[: len(counted)] = counted
    silent[len(counted) :] = counted[-1] if len(counted) else 0
    lower.step(steps, 100 * silent / max(1, n), where="post", color=STYLES["cif+wsc"][0], linewidth=1.8)
    lower.set_ylabel("certified (%)", fontsize=SMALL)
    lower.set_ylim(-4, 104)
    lower.set_xlabel("step T", fontsize=SMALL)
    for axes in (upper, lower):
        axes.axvline(data["wake_steps"], color=RULE, linewidth=1, zorder=0)
        axes.tick_params(labelsize=SMALL, colors=INK)
        axes.grid(color=RULE, alpha=0.35, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    upper.annotate(
        "wake ends", (data["wake_steps"], 1), xycoords=("data", "axes fraction"), xytext=(4, -10),
        textcoords="offset points", fontsize=SMALL, color=FAINT,
    )  # fmt: skip
    done = f"{int(counted[-1]) if len(counted) else 0:,} of them certified"
    upper.set_title(title or f"{n:,} samples, {done}", fontsize=LARGE, loc="left", color=INK)
    return figure
