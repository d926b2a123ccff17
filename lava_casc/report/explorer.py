"""An interactive picture of neurons: sliders choose a case and a step, for a notebook or any page of HTML."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import ArrayLike, NDArray

from lava_casc.errors import DataError
from lava_casc.network import IntegerNetwork, Neurons
from lava_casc.record import SpikeRecord
from lava_casc.report.raster import AFTERMATH, FAINT, INK, NEGATIVE, POSITIVE, RULE, SLEEP

#: More numbers than this make a page of megabytes, which browsers draw slowly.
MOST = 500_000


@dataclass(frozen=True)
class Explorer:
    """A piece of HTML that a notebook shows; it holds its data and its script, and fetches nothing.

    Attributes
    ----------
    html : str
        For any page. A notebook that is not trusted shows no scripts: run the cell there.
    """

    html: str

    def __repr__(self) -> str:
        return "Explorer (interactive: needs HTML with scripts)"

    def _repr_html_(self) -> str:
        return self.html


def explore(
    received: ArrayLike,
    spikes: ArrayLike,
    choices: Mapping[str, Sequence[object]],
    names: Sequence[str],
    *,
    threshold: ArrayLike,
    levels: int,
    initial: ArrayLike = 0,
    asleep: int | None = None,
    at: Sequence[int] | None = None,
) -> Explorer:
    r"""Return a picture of what neurons receive, their potentials and their counts, side by side, with sliders.

    It computes nothing but what follows from the invariant :math:`u + \theta y = u_0 + S`: the potential
    :math:`u = u_0 + S - \theta y`, and the target :math:`\mathrm{clip}(\lfloor (u_0 + S) / \theta \rfloor, 0, L)`,
    where :math:`S` is everything received so far and :math:`y` the sum of the spikes. A neuron is at its stable point
    where the potential lies in the shaded band: at least 0 unless its count is 0, below :math:`\theta` unless it is L.

    Parameters
    ----------
    received : (\*choices, names, steps) array of int
        What arrives in each step.
    spikes : array of int, of the same shape
        What the neurons said, from a run.
    choices : mapping of str to sequence
        A slider for each leading axis: its label, and what each position is called.
    names : sequence of str
        The neurons that stand side by side.
    threshold : int or array of int
        At least 1; broadcast to (\*choices, names).
    levels : int
        The greatest count L, at least 1.
    initial : int or array of int
        The potential u_0 before the first step; broadcast like `threshold`.
    asleep : int, optional
        The first step of the sleep, which is shaded.
    at : sequence of int, optional
        Where each slider stands first, from 0 on; by default at 0.

    Returns
    -------
    Explorer
        A notebook shows it; its `html` goes into any page.

    Raises
    ------
    DataError
        A shape does not fit, a value is no integer, or there is more than a page can hold.
    """
    received, spikes = _integers("received", received), _integers("spikes", spikes)
    lengths = [len(values) for values in choices.values()]
    if received.shape != spikes.shape or received.ndim < 2 or received.shape[:-1] != (*lengths, len(names)):
        raise DataError(
            f"explore: received {received.shape} and spikes {spikes.shape} must both be ({', '.join(map(str, lengths))}"
            f"{', ' if lengths else ''}{len(names)}, steps), for these choices and names. Arrange them so."
        )
    if not 0 < spikes.size <= MOST:
        raise DataError(f"explore: {spikes.size} values, and a page holds 1 to {MOST}. Choose fewer cases or steps.")
    try:
        theta, u0 = (
            np.broadcast_to(_integers(name, values), received.shape[:-1])
            for name, values in (("threshold", threshold), ("initial", initial))
        )
    except ValueError as error:
        raise DataError(f"explore: threshold or initial does not fit {received.shape[:-1]}. Give one.") from error
    if theta.min() < 1 or levels < 1:
        raise DataError(f"explore: threshold ({theta.min()}) and levels ({levels}) must be at least 1. Give such.")
    at = [0] * len(lengths) if at is None else list(at)
    if len(at) != len(lengths) or not all(0 <= place < length for place, length in zip(at, lengths, strict=True)):
        raise DataError(f"explore: at ({at}) must be a place from 0 on for each of {lengths} choices. Give such.")
    data = {
        "choices": [[label, [str(value) for value in values]] for label, values in choices.items()],
        "at": at,
        "names": list(names),
        "steps": received.shape[-1],
        "threshold": theta.ravel().tolist(),
        "initial": u0.ravel().tolist(),
        "levels": levels,
        "asleep": asleep,
        "received": received.reshape(-1, received.shape[-1]).tolist(),
        "spikes": spikes.reshape(-1, received.shape[-1]).tolist(),
        **_reach(received, spikes, theta, u0),
    }
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")  # no end of a script inside of it
    colours = {
        "ink": INK, "faint": FAINT, "rule": RULE, "sleep": SLEEP, "positive": POSITIVE, "negative": NEGATIVE,
    }  # fmt: skip
    environment = Environment(loader=PackageLoader("lava_casc", "report/templates"), undefined=StrictUndefined)
    template = environment.get_template("explorer.html.j2")
    name = hashlib.sha256(text.encode()).hexdigest()[:12]
    return Explorer(template.render(data=text, name=name, colours=colours))


def explore_layer(
    network: IntegerNetwork, record: SpikeRecord, layer: str, samples: Sequence[int], neurons: Sequence[int]
) -> Explorer:
    """Return a picture of some neurons of a layer in some samples of a run, with a slider for each of the two.

    The steps go on until nothing happens any more in these samples.

    Parameters
    ----------
    network : IntegerNetwork
    record : SpikeRecord
        With the `spikes` and `potentials` of the layer.
    layer : str
    samples, neurons : sequence of int
        Which ones; neurons by their place in the flattened layer.

    Returns
    -------
    Explorer

    Raises
    ------
    DataError
        The record does not hold these, or the layer is recurrent or has no neurons.
    """
    found = network[layer] if layer in network.shapes else None
    if not isinstance(found, Neurons) or record.phases_certified is not None:
        raise DataError(f"{layer}: not a layer of neurons in a network without phases. Choose such a layer.")
    if layer not in record.spikes or layer not in record.potentials:
        raise DataError(f'{layer}: not in the record. Run with record=("spikes", "potentials").')
    flat = [np.asarray(values[layer]) for values in (record.spikes, record.potentials)]
    spikes, potentials = (values.reshape(*values.shape[:2], -1).astype(np.int64) for values in flat)
    for name, chosen, size in (("sample", samples, len(spikes)), ("neuron", neurons, spikes.shape[2])):
        wrong = [each for each in chosen if not 0 <= each < size]
        if wrong or not len(chosen):
            raise DataError(f"{name} {wrong or 'none'} is not in the record of {size}. Choose from 0 on.")
    end = max(network.last_event(record.schedule), *record.last_spike[list(samples)]) + AFTERMATH
    at = np.ix_(samples, range(min(end, spikes.shape[1])), neurons)
    spikes, potentials = (np.moveaxis(values[at], 1, 2) for values in (spikes, potentials))
    place = np.unravel_index(np.asarray(neurons), network.shapes[layer])[0]  # thresholds are by channel
    threshold, initial = (np.broadcast_to(x, len(found.threshold))[place] for x in (found.threshold, found.initial))
    total = potentials + threshold[:, None] * spikes.cumsum(-1)  # with what a neuron started with
    received = total - np.concatenate([np.broadcast_to(initial[:, None], total[..., :1].shape), total[..., :-1]], -1)
    return explore(
        received[:, :, None],
        spikes[:, :, None],
        {"sample": samples, "neuron": neurons},
        [layer],
        threshold=threshold[:, None],
        levels=found.levels,
        initial=initial[:, None],
        asleep=network.timing(record.schedule)[layer].bias_stop,
    )


def _integers(name: str, values: ArrayLike) -> NDArray[np.int64]:
    found = np.asarray(values)
    if found.dtype.kind not in "iu":
        raise DataError(f"explore: {name} must hold integers, not {found.dtype}. Give what a run recorded.")
    return found.astype(np.int64)


def _reach(received: NDArray, spikes: NDArray, theta: NDArray, u0: NDArray) -> dict[str, Any]:
    """Return the least and greatest of all that is drawn, so that nothing moves but what changes."""
    counts = spikes.cumsum(-1)
    potentials = u0[..., None] + received.cumsum(-1) - theta[..., None] * counts
    reached = potentials + theta[..., None] * spikes  # in this step, before the reset
    drawn = {"received": [received], "potential": [potentials, reached, theta], "count": [counts]}
    return {
        "reach": {
            name: [min(0, *(int(x.min()) for x in each)), max(1, *(int(x.max()) for x in each))]
            for name, each in drawn.items()
        }
    }
