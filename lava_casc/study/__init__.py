"""What a network does after every step: accuracy, errors, activity and cost, summed up over a data set."""

from lava_casc.study.cost import connections, multiply_accumulates
from lava_casc.study.files import read_study, save_study, write_layers, write_scores
from lava_casc.study.intervals import interval, jackknife
from lava_casc.study.measuring import Method, measure, plain
from lava_casc.study.quantization import quantization_errors
from lava_casc.study.scores import Predictions, Ranks, Scorer
from lava_casc.study.summary import compare, summary
from lava_casc.study.sums import Run, Study

__all__ = [
    "Method",
    "Predictions",
    "Ranks",
    "Run",
    "Scorer",
    "Study",
    "compare",
    "connections",
    "interval",
    "jackknife",
    "measure",
    "multiply_accumulates",
    "plain",
    "quantization_errors",
    "read_study",
    "save_study",
    "summary",
    "write_layers",
    "write_scores",
]
