"""A folder of texts in CSV files, for tests."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

#: What each class writes about, beside words that all of them use.
TOPICS = (["goal", "match", "team"], ["bank", "market", "shares"], ["virus", "software", "chip"])
COMMON = ["the", "a", "of", "to", "says", "new", "for"]


def make_texts(folder: Path, train: int = 96, test: int = 30, seed: int = 0) -> Path:
    """Write train.csv and test.csv with texts of three classes that a few words tell apart; return the folder."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("test", test)):
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_ALL)
            for i in range(count):
                words = [*rng.choice(TOPICS[i % 3], 2), *rng.choice(COMMON, int(rng.integers(2, 6)))]
                rng.shuffle(words)
                writer.writerow([i % 3 + 1, words[0].title(), " ".join(words[1:]) + "."])
    return folder
