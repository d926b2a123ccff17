"""`lava-casc import`."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Annotated

import typer

from lava_casc import console
from lava_casc.cli.options import DATA_SETS, AsJson, Debug, among, check_writable
from lava_casc.errors import CascError


@console.reports_errors
def import_(
    file: Annotated[Path, typer.Argument(help="An ONNX file (.onnx) or what torch.export.save wrote (.pt2).")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The checkpoint; by default FILE with the suffix .pt.")
    ] = None,
    input_shape: Annotated[
        str | None, typer.Option("--input-shape", help="C,H,W of one image; only where FILE leaves it open.")
    ] = None,
    input_range: Annotated[
        str, typer.Option("--input-range", help="Least and greatest integer of an image, as in 0,255.")
    ] = "0,255",
    input_scale: Annotated[
        str, typer.Option("--input-scale", help="The network was trained on this times the integers: 1/255, 0.0625.")
    ] = "1/255",
    dataset: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="The data set that it was trained on, for calibrate and evaluate.",
            autocompletion=among(lambda: DATA_SETS),
        ),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Read a network from elsewhere, compare it with its file on random images, and write a checkpoint."""
    from lava_casc.frontend import save_model
    from lava_casc.frontend.trace import UNQUANTIZED
    from lava_casc.interchange import import_model

    if file.suffix == ".pt":
        raise CascError(f"{file}: no ONNX file and no program (.pt2). A checkpoint needs no import: lava-casc export.")
    if output is None:
        output = file.with_suffix(".pt")
        if output.exists():  # a network that somebody trained, perhaps
            raise CascError(f"{output}: exists already. Give -o {output} to replace it, or another -o.")
    check_writable(output)
    if output.resolve() == file.resolve():
        raise CascError(f"{output}: the checkpoint would replace the file. Give another -o.")
    shape = None if input_shape is None else _integers("--input-shape", input_shape)
    reach = _integers("--input-range", input_range)
    if len(reach) != 2:
        raise CascError(f"--input-range {input_range!r}: give two integers, as in 0,255.")
    try:
        scale = float(Fraction(input_scale))
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise CascError(f"--input-scale {input_scale!r}: give a number or a fraction, as in 1/255.") from error
    console.announce(1, 2, f"read {file}")
    model, spec = import_model(file, shape, low=reach[0], high=reach[1], scale=scale)
    console.announce(2, 2, f"write {output}")
    save_model(output, model, spec, about={} if dataset is None else {"dataset": dataset})
    kinds = [op.kind for op in model.graph.operations]
    to_calibrate = sum(kind in UNQUANTIZED for kind in kinds)
    counts = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds) if kind != "input"}
    found = {
        "file": str(output),
        "input": {"shape": list(spec.shape), "low": spec.low, "high": spec.high, "scale": spec.scale},
        "operations": counts,
        "to_calibrate": to_calibrate,
    }
    if as_json:
        console.show_json(found)
        return
    console.table(f"{file}", ["operation", "how many"], [list(row) for row in counts.items()])
    console.out.print(
        f"input {'x'.join(map(str, spec.shape))}, integers {spec.low} to {spec.high} times {spec.scale:g}"
    )
    after = f"lava-casc calibrate {output}" if to_calibrate else f"lava-casc export {output}"
    console.out.print(f"wrote {output}; next: {after}")


def _integers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise CascError(f"{option} {text!r}: give integers and commas, as in 3,32,32.") from error
