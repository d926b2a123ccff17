"""Detection as in CASC (arXiv 2406.05371): a YOLO, data in VOC layout, its training, mean average precision."""

from lava_casc.detection.data import Detection, Objects, read_voc, splits
from lava_casc.detection.decode import detect
from lava_casc.detection.metrics import mean_average_precision
from lava_casc.detection.model import BACKBONES, build_detector
from lava_casc.detection.train import TASK, DetectorTraining, detector_of, train_detector

__all__ = [
    "BACKBONES",
    "TASK",
    "Detection",
    "DetectorTraining",
    "Objects",
    "build_detector",
    "detect",
    "detector_of",
    "mean_average_precision",
    "read_voc",
    "splits",
    "train_detector",
]
