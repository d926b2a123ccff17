"""The methods by name: whose they are, what they claim, and how each is prepared from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lava_casc.baselines.bias import calibrated
from lava_casc.baselines.rates import Rates, at_rates
from lava_casc.baselines.scaling import percentile_network
from lava_casc.baselines.times import ParallelTimes
from lava_casc.dynamics import Variant
from lava_casc.errors import DataError, UnsupportedModelError
from lava_casc.frontend.checkpoint import Checkpoint
from lava_casc.frontend.fold import fold
from lava_casc.network import IntegerNetwork
from lava_casc.study import Method

NOTHING, HALF = Fraction(0), Fraction(1, 2)
#: Integrate and fire with soft reset, from 0 and from half a threshold; and the one that takes back at minus one.
IF = Variant(signed=False, sleeps=False, initial=NOTHING)
HALFWAY = Variant(signed=False, sleeps=False, initial=HALF)
WITH_MEMORY = Variant(signed=True, sleeps=False, initial=NOTHING, negative_threshold=Fraction(1))


@dataclass(frozen=True, eq=False)
class Material:
    """What methods are prepared from.

    Attributes
    ----------
    checkpoint : Checkpoint
    network : IntegerNetwork
        What the checkpoint was converted to.
    calibration : (N, ...) array of integers, optional
        Samples of training; some methods need them.
    """

    checkpoint: Checkpoint
    network: IntegerNetwork
    calibration: NDArray[np.int64] | None = None

    @property
    def samples(self) -> NDArray[np.int64]:
        """The calibration samples.

        Raises
        ------
        DataError
            There are none.
        """
        if self.calibration is None or not len(self.calibration):
            raise DataError(
                "--method: thresholds and biases are calibrated on training samples, and there are none. Save the "
                f"model with examples, or leave out {', '.join(k for k, v in METHODS.items() if v.calibrates)}."
            )
        return self.calibration

    @cached_property
    def scaled(self) -> IntegerNetwork:
        """The network with the thresholds of its ReLU activations, at rates."""
        return at_rates(percentile_network(self.checkpoint, self.samples))

    @cached_property
    def rates(self) -> IntegerNetwork:
        """The network with its own thresholds, at rates."""
        return at_rates(self.network)

    def calibrate(self) -> Rates:
        """Return QCFS neurons with calibrated biases, at T = L.

        Returns
        -------
        Rates
        """
        rates = Rates(self.rates, HALFWAY)
        spec = self.checkpoint.input
        return calibrated(rates, fold(self.checkpoint.graph), self.samples, spec.scale, self.network.levels)


@dataclass(frozen=True)
class Baseline:
    """A method of the literature; in all of them a rate is ``count / T``, for input in every step and without a sleep.

    Attributes
    ----------
    title, paper : str
    limit : str
        What is claimed of it in the limit, and tested here on neurons that were computed by hand.
    prepare : callable
        From the `Material` to a `lava_casc.study.Method`.
    calibrates : bool
        Whether it needs calibration samples.
    """

    title: str
    paper: str
    limit: str
    prepare: Callable[[Material], Method]
    calibrates: bool = False


#: By the name that ``lava-casc evaluate --method`` takes.
METHODS = {
    "if-percentile": Baseline(
        "IF, thresholds at the 99.9th percentile of ReLU's activations",
        "Rueckauer et al., Frontiers in Neuroscience 2017, doi 10.3389/fnins.2017.00682",
        "for constant input the rate is clip(z, 0, lambda) but for less than lambda / T, always from below",
        lambda material: Rates(material.scaled, IF),
        calibrates=True,
    ),
    "qcfs": Baseline(
        "IF from half a threshold, thresholds as trained",
        "Bu et al., ICLR 2022, arXiv 2303.04347",
        "for constant input the count at T = L is the rounded and clipped level, and for every T the mean error over "
        "evenly distributed z is 0",
        lambda material: Rates(material.rates, HALFWAY),
    ),
    "opi": Baseline(
        "IF from half a threshold, thresholds as for if-percentile",
        "Bu et al., AAAI 2022, arXiv 2202.01440",
        "of all initial potentials half the threshold has the least mean squared error over evenly distributed z",
        lambda material: Rates(material.scaled, HALFWAY),
        calibrates=True,
    ),
    "snm": Baseline(
        "signed neuron with memory: takes back at minus one threshold, thresholds as for if-percentile",
        "Wang, Zhang, Chen, Qu, IJCAI 2022, doi 10.24963/ijcai.2022/347",
        "takes back what it said too early where a whole threshold is missing, and keeps it where less is",
        lambda material: Rates(material.scaled, WITH_MEMORY),
        calibrates=True,
    ),
    "srp": Baseline(
        "two stages of QCFS: neurons whose potential is not above 0 after L steps are silent in the second",
        "Hao et al., AAAI 2023, arXiv 2302.02091",
        "a neuron whose drive is negative says nothing, once L steps have brought its potential to 0 or below",
        lambda material: Rates(material.rates, HALFWAY, silencing=material.network.levels),
    ),
    "calibrated": Baseline(
        "QCFS with calibrated biases",
        "Li et al., ICML 2021, arXiv 2106.06984, the light pipeline",
        "the mean error of each channel on the calibration samples is 0 but for rounding, where no neuron is clipped",
        lambda material: material.calibrate(),
        calibrates=True,
    ),
    "parallel": Baseline(
        "parallel neurons: T steps at once, sorted",
        "arXiv 2412.13610",
        "at every T the counts of the network of T levels with rounding, and sorted spikes",
        lambda material: ParallelTimes(material.checkpoint, material.network),
    ),
}


def find(names: str) -> tuple[str, ...]:
    """Return the methods that a list such as ``qcfs,srp`` names, or all of them for ``all``; in their own order.

    Parameters
    ----------
    names : str
        Separated by commas.

    Returns
    -------
    tuple of str
        Keys of `METHODS`.

    Raises
    ------
    DataError
        A name is not known.
    """
    chosen = {name.strip() for name in names.split(",")}
    unknown = sorted(chosen - {*METHODS, "all"})
    if unknown:
        raise DataError(f"--method: {unknown[0]!r} is not known. Use all, or any of {', '.join(METHODS)}.")
    return tuple(name for name in METHODS if name in chosen or "all" in chosen)


def prepare(names: Sequence[str], material: Material) -> dict[str, Method]:
    """Return methods that are ready to run.

    Parameters
    ----------
    names : sequence of str
        As `find` returns them.
    material : Material

    Returns
    -------
    dict of str to Method

    Raises
    ------
    UnsupportedModelError
        The network is recurrent.
    DataError
        A method needs calibration samples, and there are none.
    RangeError
        A network with other thresholds cannot be made to fit the hardware.
    """
    if material.network.is_recurrent:
        raise UnsupportedModelError(
            "--method: these methods take all of their steps for one input, and a recurrent network goes on to the "
            "next word. Use --study with its --variants."
        )
    return {name: METHODS[name].prepare(material) for name in names}
