"""The methods that papers compare with, each a small configuration of network, neuron and schedule: none certifies."""

from lava_casc.baselines.bias import calibrated
from lava_casc.baselines.rates import Rates, at_rates
from lava_casc.baselines.registry import METHODS, Baseline, Material, find, prepare
from lava_casc.baselines.scaling import percentile_network, percentile_thresholds
from lava_casc.baselines.times import ParallelTimes

__all__ = [
    "METHODS",
    "Baseline",
    "Material",
    "ParallelTimes",
    "Rates",
    "at_rates",
    "calibrated",
    "find",
    "percentile_network",
    "percentile_thresholds",
    "prepare",
]
