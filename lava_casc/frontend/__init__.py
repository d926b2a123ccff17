"""Torch in: the activation, the traced graph, its calibration and folding, quantization to integers, checkpoints."""

from lava_casc.frontend.calibrate import Calibration, calibrate
from lava_casc.frontend.checkpoint import Checkpoint, InputSpec, load_checkpoint, load_model, save_model
from lava_casc.frontend.cqrelu import CQReLU, Normalize, replace_relu
from lava_casc.frontend.cqrnn import CQRNN
from lava_casc.frontend.fold import FloatNetwork, fold
from lava_casc.frontend.outputs import real_outputs
from lava_casc.frontend.quantize import BranchReport, LayerReport, QuantizationReport, quantize
from lava_casc.frontend.trace import Graph, GraphModel, trace

__all__ = [
    "CQRNN",
    "BranchReport",
    "CQReLU",
    "Calibration",
    "Checkpoint",
    "FloatNetwork",
    "Graph",
    "GraphModel",
    "InputSpec",
    "LayerReport",
    "Normalize",
    "QuantizationReport",
    "calibrate",
    "fold",
    "load_checkpoint",
    "load_model",
    "quantize",
    "real_outputs",
    "replace_relu",
    "save_model",
    "trace",
]
