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
    file: Annotated[
        Path,
        typer.Argument(
            help="An ONNX file (.onnx), what torch.export.save wrote (.pt2), or a NIR graph that export wrote (.nir)."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The checkpoint; by default FILE with the suffix .pt. Of .nir, a network file, .net."
        ),
    ] = None,
    input_shape: Annotated[
        str | None, typer.Option("--input-shape", help="C,H,W of one image; only where FILE leaves it open.")
    ] = None,
    input_range: Annotated[
        str | None, typer.Option("--input-range", help="Least and greatest integer of an image, by default 0,255.")
    ] = None,
    input_scale: Annotated[
        str | None,
        typer.Option("--input-scale", help="The network was trained on this times the integers; by default 1/255."),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="The data set that it was trained on, for calibrate and evaluate.",
            autocompletion=among(lambda: DATA_SETS),
        ),
    ] = None,
    hw: Annotated[
        str | None,
        typer.Option("--hw", help="For .nir: limits to fit, by default those that it was exported for."),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Read a network from elsewhere, compare it with its file on random images, and write a checkpoint.

    A NIR graph that lava-casc export wrote becomes the network file again, bit for bit; any other is refused, since
    NIR has no words for what makes spikes exact.
    """
    is_nir = file.suffix.lower() == ".nir"
    given = {
        "--input-shape": input_shape,
        "--input-range": input_range,
        "--input-scale": input_scale,
        "--data": dataset,
    }
    for option, value in (given if is_nir else {"--hw": hw}).items():
        if value is not None:
            known = "a NIR graph says all of its input" if is_nir else "a checkpoint is for any target"
            raise CascError(f"{option} {value}: {known}. Leave {option} out.")
    if file.suffix == ".pt":
        raise CascError(f"{file}: no ONNX file and no program (.pt2). A checkpoint needs no import: lava-casc export.")
    if output is None:
        output = file.with_suffix(".net" if is_nir else ".pt")
        if output.exists():  # a network that somebody trained, perhaps
            raise CascError(f"{output}: exists already. Give -o {output} to replace it, or another -o.")
    check_writable(output)
    if output.resolve() == file.resolve():
        raise CascError(f"{output}: what is read would be replaced. Give another -o.")
    if is_nir:
        _network_file(file, output, hw, as_json)
    else:
        _checkpoint(file, output, input_shape, input_range or "0,255", input_scale or "1/255", dataset, as_json)


def _network_file(file: Path, output: Path, hw: str | None, as_json: bool) -> None:
    """Make a network file of a NIR graph."""
    from lava_casc import netx
    from lava_casc.hardware import read_hardware
    from lava_casc.interchange import read_nir_file

    console.announce(1, 2, f"read {file}")
    found = read_nir_file(file)
    console.announce(2, 2, f"write {output}")
    netx.write(output, found.network, found.schedule, hardware=read_hardware(hw or found.hardware))
    source = found.network.input
    if as_json:
        shown = {"shape": list(source.shape), "low": source.low, "high": source.high, "scale": source.scale}
        console.show_json(
            {"file": str(output), "input": shown, "layers": len(found.network.layers), "schedule": found.schedule.mode}
        )
        return
    console.out.print(
        f"wrote {output}, {len(found.network.layers)} layers, schedule {found.schedule.mode}; "
        f"next: lava-casc run {output}"
    )


def _checkpoint(
    file: Path,
    output: Path,
    input_shape: str | None,
    input_range: str,
    input_scale: str,
    dataset: str | None,
    as_json: bool,
) -> None:
    """Make a checkpoint of an ONNX file or a program."""
    from lava_casc.frontend import save_model
    from lava_casc.frontend.trace import UNQUANTIZED
    from lava_casc.interchange import import_model

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
