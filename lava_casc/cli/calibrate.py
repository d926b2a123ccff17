"""`lava-casc calibrate`."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lava_casc import console
from lava_casc.cli.options import DATA_SETS, AsJson, DataDir, Debug, Download, ImageSize, among, check_writable
from lava_casc.cli.samples import read_dataset_of
from lava_casc.cli.train import Device, print_epoch
from lava_casc.errors import CascError, DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lava_casc.frontend import Calibration, Checkpoint
    from lava_casc.training import Dataset

Method = Literal["percentile", "mse", "distribution"]


@console.reports_errors
def calibrate(
    model: Annotated[Path, typer.Argument(help="A checkpoint of a network with ReLU: lava_casc.save_model wrote it.")],
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="By default the data set that MODEL says it was trained on.",
            autocompletion=among(lambda: DATA_SETS),
        ),
    ] = None,
    data_dir: DataDir = None,
    download: Download = False,
    image_size: ImageSize = None,
    levels: Annotated[str, typer.Option("--levels", help="Levels L of every CQReLU; several as in 4,8,16.")] = "8",
    method: Annotated[
        Method, typer.Option("--method", help="How thresholds are found: see docs/relu.md.")
    ] = "distribution",
    percentile: Annotated[
        float, typer.Option("--percentile", min=0.01, max=100, help="With --method percentile: of all activations.")
    ] = 99.9,
    per_layer: Annotated[bool, typer.Option("--per-layer", help="One threshold a layer, not one a channel.")] = False,
    no_bias_correction: Annotated[
        bool, typer.Option("--no-bias-correction", help="Leave the means as quantization makes them.")
    ] = False,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Training samples to calibrate on.")] = 512,
    test_samples: Annotated[
        int | None, typer.Option("--test-samples", min=1, help="Score on the first so many test samples alone.")
    ] = None,
    finetune_epochs: Annotated[
        int, typer.Option("--finetune-epochs", min=0, help="Epochs of training with CQReLU after that.")
    ] = 0,
    learning_rate: Annotated[
        float, typer.Option("--learning-rate", min=0.0, help="Of the fine-tuning's start; it falls as a cosine.")
    ] = 0.01,
    device: Annotated[
        Device, typer.Option("--device", help="Of the fine-tuning; auto: CUDA where there is a device.")
    ] = "auto",
    seed: Annotated[int, typer.Option("--seed", help="Of the fine-tuning.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="By default MODEL with -L8 before its suffix, for 8 levels."),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Make a CQReLU network of one with plain ReLU, from a few hundred samples; score it in float and as integers."""
    from lava_casc.frontend import Calibration, load_checkpoint
    from lava_casc.frontend.calibrate import spread

    chosen = _levels(levels)
    paths = {n: _path(output or model, n, exact=output is not None and len(chosen) == 1) for n in chosen}
    for path in paths.values():
        check_writable(path)
        if path.resolve() == model.resolve():
            raise CascError(f"{path}: the calibrated checkpoint would replace the model. Give another -o.")
    checkpoint = load_checkpoint(model)
    dataset = _dataset(
        model, checkpoint, data, lambda name: read_dataset_of(checkpoint, name, data_dir, download, image_size)
    )
    images = dataset.train_images[spread(len(dataset.train_images), samples)]
    tested = dataset.test_images[:test_samples], dataset.test_labels[:test_samples]
    found: dict[str, Any] = {
        "model": str(model),
        "data": dataset.name,
        **{key: value for key, value in asdict(Calibration(1, method)).items() if key not in ("levels", "percentile")},
        "per_channel": not per_layer,
        "bias_correction": not no_bias_correction,
        **({"percentile": percentile} if method == "percentile" else {}),
        "samples": len(images),
        "test_samples": len(tested[0]),
        "finetune_epochs": finetune_epochs,
        "relu": _float_accuracy(checkpoint, *tested),
        "levels": {},
        "interrupted": False,
    }

    def keep(n: int, made: Checkpoint, prefix: str = "") -> None:
        row = {f"{prefix}{key}": value for key, value in scored(made, *tested).items()}
        _save(paths[n], replace(made, about={**made.about, "test_accuracy": row[f"{prefix}float"]}))
        found["levels"][str(n)] = {**found["levels"].get(str(n), {}), **row, "file": str(paths[n])}

    try:
        for n in chosen:
            calibration = Calibration(n, method, not per_layer, percentile, not no_bias_correction)
            about = {"dataset": dataset.name, "calibration_samples": len(images)}
            made = _calibrated(checkpoint, images, calibration, about)
            keep(n, made)
            if finetune_epochs:
                keep(n, finetuned(made, dataset, finetune_epochs, learning_rate, seed, device), "finetuned_")
    except KeyboardInterrupt:
        if not found["levels"]:
            raise
        found["interrupted"] = True
    if as_json:
        console.show_json(found)
    else:
        _print(found)
    if found["interrupted"]:
        console.stop(f"{len(found['levels'])} of {len(chosen)} levels are kept")


def _levels(text: str) -> list[int]:
    """Return the levels of ``8`` or ``4,8,16``, in rising order."""
    try:
        found = sorted({int(part) for part in text.split(",")})
    except ValueError as error:
        raise CascError(f"--levels {text!r}: give integers and commas, as in 4,8,16.") from error
    if found[0] < 1:
        raise CascError(f"--levels {text!r}: levels must be at least 1.")
    return found


def _path(base: Path, levels: int, exact: bool) -> Path:
    return base if exact else base.with_name(f"{base.stem}-L{levels}{base.suffix}")


def _dataset(model: Path, checkpoint: Checkpoint, name: str | None, load: Any) -> Dataset:
    """Return the data set, in the scale that the model takes, if the model is a classifier of its images."""
    from lava_casc.frontend import real_outputs

    task, known = checkpoint.about.get("task", "classification"), checkpoint.about.get("dataset")
    if task != "classification":
        raise DataError(f"{model}: is for {task}, and calibrate scores classifiers of images. Train it with CQReLU.")
    if name is None and known is None:
        raise DataError(f"{model}: does not say what it was trained on. Give --data NAME.")
    dataset: Dataset = load(str(name or known))
    if dataset.shape != checkpoint.input.shape:
        raise DataError(
            f"{model}: takes {checkpoint.input.shape}, but the images of {dataset.name} are {dataset.shape}."
        )
    answers = real_outputs(checkpoint.model, dataset.test_images[:1], checkpoint.input)
    if [answer.shape for answer in answers] != [(1, len(dataset.classes))]:
        raise DataError(f"{model}: does not answer with the {len(dataset.classes)} classes of {dataset.name}.")
    return replace(dataset, scale=checkpoint.input.scale)


def _calibrated(checkpoint: Checkpoint, images: NDArray, calibration: Calibration, about: dict[str, Any]) -> Checkpoint:
    """Return the calibrated checkpoint, with notes on how it came about."""
    from lava_casc.frontend.calibrate import calibrate as calibrated

    with console.progress(f"calibrating, L = {calibration.levels}", 1) as bar:
        graph = calibrated(checkpoint, images, calibration, progress=bar)
    settings = {("calibration" if key == "method" else key): value for key, value in asdict(calibration).items()}
    if calibration.method != "percentile":
        del settings["percentile"]
    kept = {key: value for key, value in checkpoint.about.items() if key not in ("activation", "test_accuracy")}
    examples = images[:64].copy() if checkpoint.examples is None else checkpoint.examples
    return replace(checkpoint, graph=graph, examples=examples, about={**kept, **settings, **about})


def finetuned(
    checkpoint: Checkpoint, dataset: Dataset, epochs: int, learning_rate: float, seed: int, device: str
) -> Checkpoint:
    """Return the checkpoint after some epochs of training, thresholds and shifts included."""
    from lava_casc.training import RECIPES, train
    from lava_casc.training.recipes import pick_device

    recipe, model = RECIPES[dataset.name], checkpoint.model.to(pick_device(device))

    with console.progress(f"fine-tuning, L = {checkpoint.about['levels']}", 1) as bar:
        train(
            model,
            dataset,
            epochs=epochs,
            batch_size=recipe.batch_size,
            learning_rate=learning_rate,
            seed=seed,
            augmentation=recipe.augmentation,
            progress=bar,
            on_epoch=print_epoch,
        )
    about = {"finetune_epochs": epochs, "finetune_learning_rate": learning_rate, "finetune_seed": seed}
    return replace(checkpoint, graph=model.cpu().graph_with_weights(), about={**checkpoint.about, **about})


def scored(checkpoint: Checkpoint, images: NDArray, labels: NDArray) -> dict[str, Any]:
    """Return the accuracy in float and of the integer network with 8-bit weights, which its certified spikes have.

    The spikes of some examples are run: where one differed from the integers, the conversion would raise.
    """
    from lava_casc.pipeline import Options, convert_checkpoint
    from lava_casc.reference import logits

    with console.progress("verifying", 1) as bar:
        conversion = convert_checkpoint(checkpoint, Options(), progress=bar)
    assert conversion.verification is not None
    with console.progress(f"integers, L = {conversion.network.levels}", len(images)) as bar:
        answers = logits(conversion.network, images, bar).argmax(1)
    return {
        "float": _float_accuracy(checkpoint, images, labels),
        "integer": float((answers == labels).mean()),
        "verified": conversion.verification.samples,
        "certified": conversion.verification.certified,
    }


def _float_accuracy(checkpoint: Checkpoint, images: NDArray, labels: NDArray) -> float:
    from lava_casc.training import evaluate

    with console.progress("float", len(images)) as bar:
        return evaluate(checkpoint.model, images, labels, checkpoint.input.scale, progress=bar)


def _save(path: Path, checkpoint: Checkpoint) -> None:
    from lava_casc.frontend import save_model

    save_model(path, checkpoint.model, checkpoint.input, examples=checkpoint.examples, about=checkpoint.about)


def _print(found: dict[str, Any]) -> None:
    rows: list[list[Any]] = [["as it is", f"{found['relu']:.2%}", "", ""]]
    for levels, row in found["levels"].items():
        for prefix, name in (("", f"L = {levels}"), ("finetuned_", f"L = {levels}, {found['finetune_epochs']} epochs")):
            if f"{prefix}float" in row:
                spikes = f"{row[f'{prefix}certified']} of {row[f'{prefix}verified']}"
                rows.append([name, f"{row[f'{prefix}float']:.2%}", f"{row[f'{prefix}integer']:.2%}", spikes])
    how = "a channel" if found["per_channel"] else "a layer"
    console.out.print(
        f"{found['data']}: {found['method']}, a threshold {how}, {found['samples']} training samples; "
        f"accuracy on {found['test_samples']} test samples"
    )
    console.table(
        f"{found['model']}",
        ["network", "float", "8-bit weights", "spikes certified"],
        rows,
    )
    console.out.print("8-bit weights: the integer network, whose outputs certified spikes have to the last bit.")
    for row in found["levels"].values():
        console.out.print(f"wrote {row['file']}")
