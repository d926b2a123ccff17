"""The picture of a run: every spike of one sample over time, layer by layer, until silence certifies the answer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lava_casc.errors import DataError, MissingDependencyError
from lava_casc.files import replacing
from lava_casc.network import Entry, IntegerNetwork
from lava_casc.record import SpikeRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Blue and vermillion of Okabe and Ito: told apart with every kind of colour vision, and in grey.
POSITIVE, NEGATIVE = "#0072B2", "#D55E00"
INK, FAINT, RULE, SLEEP = "#222222", "#777777", "#BBBBBB", "#ECECEC"

#: At 900 pixels of width, which is 100 of them an inch, the smallest letters are 10 pixels high.
WIDTH, HEIGHT, DPI = 9.0, 6.2, 200
TINY, SMALL, LARGE = 7.5, 8.5, 11

#: Steps shown after silence.
AFTERMATH = 3
#: The greatest spike that a layer can emit is drawn so long to one side, in steps, and the smallest at least so long.
LONGEST, SHORTEST = 0.42, 0.06
#: Of a layer with more neurons than this, every k-th is drawn: there are fewer pixels than that.
MOST = 2000
#: Longer names of layers lose their beginning.
NAME_LENGTH = 18


def plot_spikes(
    network: IntegerNetwork,
    record: SpikeRecord,
    sample: int = 0,
    image: ArrayLike | None = None,
    title: str | None = None,
    phase: int = 0,
) -> Figure:
    """Draw every spike of a sample, or of one phase of a sequence, layers from the input downwards, time to the right.

    A dash is a spike: a positive one is blue and points to the right, a negative one is vermillion and points to the
    left; its length is its size, relative to the greatest that the layer can emit. White is a layer's wake,
    which is shifted by its depth, and grey its sleep. Below stands the number of spikes of all layers.

    Parameters
    ----------
    network : IntegerNetwork
    record : SpikeRecord
        With the `spikes` of the input or of any layers; those that are not recorded are left out.
    sample : int
        Which of the record's samples.
    image : (C, H, W) or (H, W) array, optional
        Shown at the side; three channels are colours.
    title : str, optional
        By default what ran, in which mode, and the number of spikes.
    phase : int
        Which phase of a sequence, by a recurrent network.

    Returns
    -------
    matplotlib.figure.Figure
        Bound to no window and to no global state.

    Raises
    ------
    DataError
        The record holds no spikes, not this sample or not this phase.
    MissingDependencyError
        matplotlib is not installed.
    """
    view = _View(network, record, sample, phase, _of_sample(network, record, sample, phase))
    height = HEIGHT + 0.5 * max(0, len(view.spikes) - 7)
    figure = new_figure(height)
    # Margins in inches, so that the title keeps its place in a higher figure.
    grid = figure.add_gridspec(
        2, 2, width_ratios=(1, 5.6), height_ratios=(height - 1.6, 1), left=0.025, right=0.985,
        top=1 - 0.71 / height, bottom=0.53 / height, wspace=0.26, hspace=0.06,
    )  # fmt: skip
    raster = figure.add_subplot(grid[0, 1])
    activity = figure.add_subplot(grid[1, 1], sharex=raster)
    _draw_raster(raster, view, (height - 2.5) * 72)
    _draw_activity(activity, view)
    for axes in (raster, activity):
        axes.axvline(view.end + 0.5, color=INK if view.certified else NEGATIVE, linewidth=1.1, linestyle=(0, (4, 2)))
    _draw_image(figure.add_subplot(grid[0, 0]), image)
    _draw_logits(figure.add_subplot(grid[1, 0]), view)
    _draw_title(figure, view, title, 1 - 0.22 / height)
    return figure


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """Return an empty figure of so many inches, drawn without a screen.

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "matplotlib is not installed, and pictures need it. Install it with pip install 'lava-casc[plot]'."
        ) from error
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, in whole or not at all; the same figure gives the same bytes.

    Parameters
    ----------
    figure : Figure
    path : str or Path

    Raises
    ------
    DataError
        The path cannot be written.
    """
    with replacing(path, DataError) as temporary:
        # Without the version of matplotlib in it.
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})


@dataclass(frozen=True, eq=False)
class _View:
    """One sample of a record, or one phase of it; `spikes` are its (T, neurons) by layer, from the input on."""

    network: IntegerNetwork
    record: SpikeRecord
    sample: int
    phase: int
    spikes: dict[str, NDArray[np.int64]]

    @property
    def certified(self) -> bool:
        phases = self.record.phases_certified
        return bool(self.record.certified[self.sample] if phases is None else phases[self.sample, self.phase])

    @property
    def phases(self) -> int:
        """The phases of the sample, 1 without recurrence."""
        return 1 if self.record.phases_certified is None else self.record.phases_certified.shape[1]

    @cached_property
    def end(self) -> int:
        """The last step with a spike, the input's too, which a record's `last_spike` leaves out; or the run's last."""
        if not self.certified:
            return self._steps
        drawn = [int(step) for values in self.spikes.values() for step in np.flatnonzero(values.any(axis=1))[-1:] + 1]
        # That of a sequence is the latest of any phase, not of this one.
        last = int(self.record.last_spike[self.sample]) if self.record.phases_certified is None else 0
        return max([last, *drawn])

    @property
    def steps(self) -> int:
        """The steps to draw: all, or a few past the certificate, after which nothing can happen."""
        if not self.certified:
            return self._steps
        return min(self._steps, max(self.end, self.network.last_event(self.record.schedule)) + AFTERMATH)

    @property
    def _steps(self) -> int:
        return max(len(values) for values in self.spikes.values())

    @cached_property
    def has_negative(self) -> bool:
        return any(values.min(initial=0) < 0 for values in self.spikes.values())

    @cached_property
    def has_sizes(self) -> bool:
        return any(np.abs(values).max(initial=0) > 1 for values in self.spikes.values())

    def greatest(self, name: str) -> int:
        """Return the size of the greatest spike that a layer can emit under the schedule."""
        network, schedule = self.network, self.record.schedule
        layer = network[name]
        if isinstance(layer, Entry):
            low, high = layer.reach
            return max(1, -(-max(high, -low) // schedule.wake_steps))
        return min(network.peaks[name], schedule.max_burst)

    def wake(self, name: str) -> tuple[int, int]:
        """Return the first step of a layer's wake, and the first one after it."""
        if isinstance(self.network[name], Entry):
            return 1, 1 + self.record.schedule.wake_steps
        timing = self.network.timing(self.record.schedule)[name]
        return timing.bias_start, timing.bias_stop


def _of_sample(network: IntegerNetwork, record: SpikeRecord, sample: int, phase: int) -> dict[str, NDArray[np.int64]]:
    if not record.spikes:
        raise DataError('the record holds no spikes to draw. Run with record=("spikes",).')
    if not 0 <= sample < len(record):
        raise DataError(f"sample {sample} is not in a record of {len(record)}. Choose one from 0 on.")
    for name in record.spikes:
        if name not in network.shapes:
            raise DataError(f"{name}: the record has this layer and the network has not. Give its own network.")
    kept = {name: np.asarray(record.spikes[name][sample]) for name in network.shapes if name in record.spikes}
    phases = 1 if record.phases_certified is None else record.phases_certified.shape[1]
    if not 0 <= phase < phases:
        raise DataError(f"phase {phase} is not in a sample of {phases}. Choose one from 0 on.")
    if record.phases_certified is not None:
        kept = {name: values[phase] for name, values in kept.items()}
    return {name: values.reshape(len(values), -1).astype(np.int64) for name, values in kept.items()}


def _draw_raster(axes: Axes, view: _View, points: float) -> None:
    """Draw the spikes of every layer into axes that are so many `points` high."""
    # Areas by the square root: a layer of 64 neurons stays visible beside one of 4096.
    roots = {name: float(np.sqrt(values.shape[1])) for name, values in view.spikes.items()}
    heights = {name: max(root, 0.05 * sum(roots.values())) for name, root in roots.items()}
    gap = 0.035 * sum(heights.values())
    points /= sum(heights.values()) + gap * len(heights)
    top = 0.0
    for name, height in heights.items():
        neurons = view.spikes[name].shape[1]
        start, stop = view.wake(name)
        axes.add_patch(_box(0.5, top, view.steps, height, SLEEP))
        axes.add_patch(_box(start - 0.5, top, min(stop, view.steps + 1) - start, height, "white"))
        drawn = np.arange(0, neurons, _every(neurons))
        rows = top + (np.arange(len(drawn)) + 0.5) * height / len(drawn)
        _draw_spikes(axes, view, name, drawn, rows, float(np.clip(0.8 * points * height / len(drawn), 0.35, 3.0)))
        axes.add_patch(_box(0.5, top, view.steps, height, "none", edge=RULE))
        kind = "inputs" if isinstance(view.network[name], Entry) else "neurons"
        shown = "" if _every(neurons) == 1 else f", 1 of {_every(neurons)}"
        for text, side, above, size, colour in (
            (_shortened(name), "bottom", 1, SMALL, INK), (f"{neurons} {kind}{shown}", "top", -1, TINY, FAINT),
        ):  # fmt: skip
            axes.annotate(
                text, (0, top + height / 2), xycoords=("axes fraction", "data"), xytext=(-6, above),
                textcoords="offset points", ha="right", va=side, fontsize=size, color=colour,
            )  # fmt: skip
        top += height + gap
    axes.set(xlim=(0.5, view.steps + 0.5), ylim=(top - gap, 0), yticks=[])
    axes.tick_params(axis="x", length=0, labelbottom=False)
    axes.spines[:].set_visible(False)
    if view.certified:
        text, colour = f"silent after step {view.end}: certified", INK
    else:
        text, colour = f"stopped after step {view.end}: not certified", NEGATIVE
    bound = view.network.silence_bound(view.record.schedule)
    place: dict[str, Any] = {"xytext": (0, 3), "textcoords": "offset points", "va": "bottom"}
    axes.annotate(
        text, (view.end + 0.5, 1), xycoords=("data", "axes fraction"), ha="right", fontsize=SMALL, fontweight="bold",
        color=colour, **place,
    )  # fmt: skip
    axes.annotate(
        f"proven silent after step {bound}",
        (0, 1),
        xycoords="axes fraction",
        ha="left",
        fontsize=TINY,
        color=FAINT,
        **place,
    )


def _every(neurons: int) -> int:
    return -(-neurons // MOST)


def _draw_spikes(
    axes: Axes, view: _View, name: str, drawn: NDArray[np.int64], rows: NDArray[np.float64], width: float
) -> None:
    """Draw the neurons `drawn` of a layer, in two collections of dashes: to the right of a step and to the left."""
    from matplotlib.collections import LineCollection

    # Where nothing is negative, the whole width of a step is there for the positive.
    offset, longest = (0.0, LONGEST) if view.has_negative else (-LONGEST, 2 * LONGEST)
    values = view.spikes[name][:, drawn]
    for sign, colour in ((1, POSITIVE), (-1, NEGATIVE)):
        at, neuron = np.nonzero(values * sign > 0)
        x, y = at + 1 + offset, rows[neuron]
        tip = x + sign * np.maximum(longest * np.abs(values[at, neuron]) / view.greatest(name), SHORTEST)
        dashes = np.stack([np.stack([x, y], 1), np.stack([tip, y], 1)], 1)
        lines = LineCollection(dashes, colors=colour, linewidths=width, capstyle="butt", label=f"{name} {sign:+d}")
        lines.set_rasterized(True)  # in a drawing of vectors, too: there may be a hundred thousand
        axes.add_collection(lines, autolim=False)


def _shortened(name: str) -> str:
    return name if len(name) <= NAME_LENGTH else f"\N{HORIZONTAL ELLIPSIS}{name[1 - NAME_LENGTH :]}"


def _box(x: float, y: float, width: float, height: float, face: str, edge: str = "none") -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), width, height, facecolor=face, edgecolor=edge, linewidth=0.6)


def _draw_activity(axes: Axes, view: _View) -> None:
    at = np.arange(1, view.steps + 1)
    for sign, colour in ((1, POSITIVE), (-1, NEGATIVE)):
        numbers = [np.count_nonzero(values[: view.steps] * sign > 0, axis=1) for values in view.spikes.values()]
        axes.bar(at, sign * np.sum(numbers, axis=0), width=2 * LONGEST, color=colour)
    axes.axhline(0, color=RULE, linewidth=0.6)
    axes.set_xticks(at[:: -(-view.steps // 24)])
    axes.set_xlabel("time step", fontsize=SMALL, color=INK, labelpad=2)
    axes.tick_params(labelsize=TINY, length=2, color=RULE, labelcolor=INK)
    axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    axes.locator_params(axis="y", nbins=3)
    axes.set_ylabel("spikes\nper step", fontsize=SMALL, color=INK, rotation=0, ha="right", va="center", labelpad=6)
    axes.spines[:].set_visible(False)


def _draw_image(axes: Axes, image: ArrayLike | None) -> None:
    axes.set_anchor("N")
    axes.set(xticks=[], yticks=[])
    if image is None:
        axes.set_axis_off()
        return
    pixels = np.asarray(image)
    if pixels.ndim == 3 and len(pixels) == 3:
        pixels = np.moveaxis(pixels, 0, -1) / max(pixels.max(), 1)
    elif pixels.ndim == 3:
        pixels = pixels.mean(axis=0)
    axes.imshow(pixels, cmap="gray_r", interpolation="nearest")
    axes.set_title("input", fontsize=SMALL, color=INK, pad=3)
    axes.spines[:].set(color=RULE, linewidth=0.6)


def _draw_logits(axes: Axes, view: _View) -> None:
    logits, best = view.record.logits[view.sample], int(view.record.predictions[view.sample])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    of_all = " of all phases" if view.phases > 1 else ""
    if len(view.network.readouts) > 1 or len(view.network.shapes[view.network.readouts[0].name]) > 1:
        # Values of several kinds, or maps of them: none of them is the best.
        axes.fill_between(range(len(logits)), logits, step="mid", color=INK, linewidth=0)
        axes.axhline(0, color=RULE, linewidth=0.6)
        axes.set_xticks([])
        axes.set_xlabel(f"{len(logits)} outputs{of_all}", fontsize=SMALL, color=INK, labelpad=2)
        return
    axes.bar(range(len(logits)), logits, color=[INK if k == best else RULE for k in range(len(logits))], width=0.75)
    axes.axhline(0, color=RULE, linewidth=0.6)
    shown = list(range(len(logits))) if len(logits) <= 12 else [best]
    axes.set_xticks(shown, [str(k) for k in shown])
    axes.tick_params(labelsize=TINY, length=0, labelcolor=FAINT)
    axes.get_xticklabels()[shown.index(best)].set(color=INK, fontweight="bold")
    axes.set_xlabel(f"logits{of_all}", fontsize=SMALL, color=INK, labelpad=2)


def _draw_title(figure: Figure, view: _View, title: str | None, y: float) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if title is None:
        total = sum(int(np.count_nonzero(values)) for values in view.spikes.values())
        where = f", phase {view.phase + 1} of {view.phases}" if view.phases > 1 else ""
        title = f"{view.record.engine}, {view.record.schedule.mode}{where}: {total:,} spikes"
    figure.text(0.025, y, title, fontsize=LARGE, color=INK, va="center", fontweight="bold")
    handles: list[Any] = [Line2D([], [], color=POSITIVE, linewidth=3, label="+ spike")]
    if view.has_negative:
        handles.append(Line2D([], [], color=NEGATIVE, linewidth=3, label="\N{MINUS SIGN} spike"))
    handles.append(Patch(facecolor=SLEEP, edgecolor=RULE, linewidth=0.6, label="asleep"))
    if view.has_sizes:
        handles.append(Line2D([], [], color=FAINT, linewidth=1, label="length: size"))
    figure.legend(
        handles=handles, loc="center right", bbox_to_anchor=(0.99, y), ncols=len(handles), frameon=False,
        fontsize=TINY, handlelength=1.4, columnspacing=1.4, handletextpad=0.5, labelcolor=INK,
    )  # fmt: skip
