"""Texts as in CASC (arXiv 2406.05371): a recurrent classifier of words, data in CSV files, its training."""

from lava_casc.text.data import Encoding, Texts, encoding_of, make_encoding, read_classes, read_texts, split_words
from lava_casc.text.train import TASK, TextClassifier, TextTraining, classify, train_text

__all__ = [
    "TASK",
    "Encoding",
    "TextClassifier",
    "TextTraining",
    "Texts",
    "classify",
    "encoding_of",
    "make_encoding",
    "read_classes",
    "read_texts",
    "split_words",
    "train_text",
]
