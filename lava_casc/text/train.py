"""Train a recurrent classifier of texts, and write it as a checkpoint that knows its words."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from lava_casc.frontend.checkpoint import InputSpec, save_model
from lava_casc.frontend.cqrnn import CQRNN
from lava_casc.text.data import PADDING, UNKNOWN, make_encoding, read_classes, read_texts
from lava_casc.training.loop import Epoch, fit, refuse_to_begin_anew
from lava_casc.training.recipes import EXAMPLES, partial_of, pick_device
from lava_casc.training.train import LABEL_SMOOTHING

#: What a checkpoint of a classifier of texts says of itself under "task".
TASK = "text"
#: Of the numbers of an embedding, and of whole words in training, which then are unknown ones.
DROPOUT, WORD_DROPOUT = 0.5, 0.3
WEIGHT_DECAY = 1e-2
#: Standard deviation of embeddings at first: small ones leave room for the words that matter to grow.
EMBEDDING_SPREAD = 0.3


class TextClassifier(nn.Module):
    """Embedding, recurrent layers with CQReLU, the mean over the words, and a linear classifier.

    Parameters
    ----------
    vocabulary, classes : int
    embedding, hidden : int
        Numbers a word, and neurons a recurrent layer.
    layers : int
        Recurrent layers, one behind the other.
    levels, rounding
        As for `CQReLU`; its threshold is learned.
    """

    def __init__(
        self,
        vocabulary: int,
        classes: int,
        *,
        embedding: int = 32,
        hidden: int = 64,
        layers: int = 1,
        levels: int = 8,
        rounding: str = "round",
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding, padding_idx=PADDING)
        self.embedding.weight.data *= EMBEDDING_SPREAD
        self.dropout = nn.Dropout(DROPOUT)
        sizes = [embedding, *[hidden] * layers]
        self.recurrent = nn.Sequential(
            *(CQRNN(n, m, levels, rounding=rounding, learnable=True) for n, m in zip(sizes, sizes[1:], strict=False))
        )
        self.classifier = nn.Linear(hidden, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits (N, classes) of tokens (N, P).

        Parameters
        ----------
        tokens : (N, P) tensor of int64

        Returns
        -------
        (N, classes) tensor
        """
        return self.classifier(self.recurrent(self.dropout(self.embedding(tokens))).mean(1))


@dataclass(frozen=True)
class TextTraining:
    """The outcome of a training.

    Attributes
    ----------
    accuracy : float
        On the texts of test.csv, after the last epoch: no epoch is chosen by them.
    texts : int
        In test.csv.
    history : tuple of Epoch
    """

    accuracy: float
    texts: int
    history: tuple[Epoch, ...]


def train_text(
    path: str | Path,
    folder: str | Path,
    *,
    vocabulary: int = 3000,
    length: int = 32,
    embedding: int = 32,
    hidden: int = 64,
    layers: int = 1,
    levels: int = 8,
    rounding: str = "round",
    epochs: int = 12,
    batch_size: int = 64,
    learning_rate: float = 0.005,
    seed: int = 0,
    bfloat16: bool = False,
    device: str = "auto",
    resume: bool = False,
    progress: Callable[[float], None] | None = None,
    on_epoch: Callable[[int, int, Epoch], None] | None = None,
) -> TextTraining:
    """Train a `TextClassifier` on a folder of CSV files and write it as a checkpoint, with its vocabulary.

    Parameters
    ----------
    path : str or Path
        Of the checkpoint. Its folder exists. Beside it lies ``path.partial`` while the training runs.
    folder : str or Path
        With train.csv and test.csv: `read_texts`.
    vocabulary : int
        Tokens at most, the unknown word and the padding among them: the most frequent words of train.csv.
    length : int
        Words of a text that the network reads.
    embedding, hidden, layers, levels, rounding
        As for `TextClassifier`.
    epochs, batch_size, learning_rate, seed, bfloat16
        As for `fit`.
    device : {"auto", "cpu", "cuda"}
        ``auto`` is CUDA where there is a device.
    resume, progress, on_epoch
        As for `fit`.

    Returns
    -------
    TextTraining

    Raises
    ------
    DataError
        The folder is damaged.
    UnsupportedModelError
        The training diverged.
    CheckpointError
        The path cannot be written, or there is a training to resume and `resume` is false.
    """
    where = pick_device(device)
    partial = partial_of(path)
    refuse_to_begin_anew(partial, resume)
    classes = read_classes(folder)
    train, test = (read_texts(folder, split, classes) for split in ("train", "test"))
    encoding = make_encoding(train.texts, classes, vocabulary, length)
    tokens = encoding.encode(train.texts)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = TextClassifier(
            len(encoding.words),
            len(classes),
            embedding=embedding,
            hidden=hidden,
            layers=layers,
            levels=levels,
            rounding=rounding,
        )
    settings: dict[str, str | int | float | bool | None] = {
        "task": TASK,
        **encoding.about(),
        "embedding": embedding,
        "hidden": hidden,
        "layers": layers,
        "levels": levels,
        "rounding": rounding,
        "batch_size": batch_size,
        "texts": hashlib.sha256(tokens.tobytes() + train.labels.tobytes()).hexdigest()[:16],
    }
    samples, labels = torch.tensor(tokens, device=where), torch.tensor(train.labels, device=where)
    history = fit(
        model.to(where),
        lambda epoch: batches(samples, labels, batch_size),
        _loss,
        epochs=epochs,
        steps_per_epoch=-(-len(train) // batch_size),
        learning_rate=learning_rate,
        weight_decay=WEIGHT_DECAY,
        optimizer=torch.optim.AdamW,
        seed=seed,
        bfloat16=bfloat16,
        partial=partial,
        resume=resume,
        settings=settings,
        progress=progress,
        on_epoch=on_epoch,
    )
    found = classify(model.cpu(), encoding.encode(test.texts))
    accuracy = float((found == test.labels).mean())
    about = {"epochs": epochs, "learning_rate": learning_rate, "seed": seed, "torch": str(torch.__version__)}
    spec = InputSpec((length,), 0, len(encoding.words) - 1, 1)
    notes = {**settings, **about, "test_accuracy": accuracy}
    save_model(path, model, spec, examples=tokens[:EXAMPLES], about=notes)
    partial.unlink(missing_ok=True)
    return TextTraining(accuracy, len(test), history)


def batches(tokens: Tensor, labels: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield texts in random order, some of their words made unknown: torch's global generator decides."""
    for chosen in torch.randperm(len(tokens)).split(batch_size):
        texts = tokens[chosen.to(tokens.device)]
        lost = (torch.rand(texts.shape) < WORD_DROPOUT).to(tokens.device) & (texts != PADDING)
        yield texts.masked_fill(lost, UNKNOWN), labels[chosen.to(labels.device)]


def classify(model: nn.Module, tokens: NDArray[np.int64], batch_size: int = 512) -> NDArray[np.int64]:
    """Return the classes (N,) that a model, in evaluation, gives to tokens (N, P).

    Parameters
    ----------
    model : torch.nn.Module
    tokens : (N, P) ndarray of int64
    batch_size : int
        Changes no result.

    Returns
    -------
    (N,) ndarray of int64
    """
    with torch.no_grad():
        return torch.cat([model(part).argmax(1) for part in torch.tensor(tokens).split(batch_size)]).numpy()


def _loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    logits = model(batch[0]).float()
    loss = F.cross_entropy(logits, batch[1], label_smoothing=LABEL_SMOOTHING)
    return {"loss": loss, "accuracy": (logits.argmax(1) == batch[1]).float().mean()}
