"""`lava-casc export`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lava_casc import console
from lava_casc.cli.options import AsJson, Debug, MaxBurst, Mode, Preset, SleepSteps, Target, WakeSteps, mode_of
from lava_casc.errors import CascError

if TYPE_CHECKING:
    from lava_casc.network import IntegerNetwork
    from lava_casc.pipeline import Conversion


@console.reports_errors
def export(
    model: Annotated[Path, typer.Argument(help="A checkpoint: lava-casc train or lava_casc.save_model wrote it.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The network file; by default MODEL with the suffix .net. With the suffix .nir a NIR graph for other "
            "tools, which cannot hold max pooling, words, or a bias for every place of an image.",
        ),
    ] = None,
    levels: Annotated[
        int | None, typer.Option("--levels", min=1, help="Other levels than the model was trained with.")
    ] = None,
    weight_bits: Annotated[int, typer.Option("--weight-bits", min=2, max=16, help="Signed bits of a weight.")] = 8,
    per_layer: Annotated[bool, typer.Option("--per-layer", help="One scale a layer instead of one a channel.")] = False,
    hw: Target = "loihi2_oheo_gulch",
    mode: Annotated[
        Mode | None,
        typer.Option(
            "--mode", help="Schedule that is written into the file, by default unary; run can choose another."
        ),
    ] = None,
    max_burst: MaxBurst = None,
    preset: Preset = None,
    wake_steps: WakeSteps = None,
    sleep_steps: SleepSteps = None,
    verify: Annotated[
        int | None,
        typer.Option("--verify", min=0, help="Samples to compare spikes and integers on; by default up to 16."),
    ] = None,
    staircase: Annotated[
        bool, typer.Option("--staircase", help="Refuse what the engine staircase cannot hold: see docs/staircase.md.")
    ] = False,
    report: Annotated[Path | None, typer.Option("--report", help="Write everything that is known as JSON.")] = None,
    input_shape: Annotated[str | None, typer.Option("--input-shape", help="C,H,W: only for a pickled module.")] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Load a pickled module. THIS RUNS CODE FROM THE FILE.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Fold and quantize a checkpoint to integers, prove their ranges, verify spikes, and write a netx HDF5 file or NIR.

    A NIR file says in its metadata what NIR has no words for: levels, negative spikes, initial potentials, wake and
    sleep. lava-casc import reads it back; every other reader runs plain IF neurons, without any certificate.
    """
    from lava_casc import pipeline
    from lava_casc.frontend import InputSpec

    chosen = mode_of(mode, preset, wake_steps) or ("unary" if max_burst is None else "burst")
    output = model.with_suffix(".net") if output is None else output
    if output.resolve() == model.resolve():
        raise CascError(f"{output}: the network file would replace the checkpoint. Give another -o.")
    if allow_pickle:
        console.err.print("warning: --allow-pickle runs whatever code the file holds")
    options = pipeline.Options(
        weight_bits, not per_layer, levels, chosen, wake_steps, sleep_steps, hw, verify, staircase, max_burst
    )
    spec = None if input_shape is None else InputSpec(_shape(input_shape))
    is_nir = output.suffix.lower() == ".nir"
    if is_nir:
        from lava_casc.interchange.common import library

        library("nir", output)  # missing, it is said before anything begins
    conversion = pipeline.export(
        model,
        output,
        options,
        on_step=console.announce,
        progress=console.share,
        spec=spec,
        allow_pickle=allow_pickle,
        store=_nir_file if is_nir else None,
    )
    summary = {**pipeline.summary(conversion), "file": str(output), "bytes": output.stat().st_size}
    if report is not None:
        pipeline.write_json(report, summary)
    if as_json:
        console.show_json(summary)
        return
    _print_conversion(summary)
    if is_nir:
        console.out.print(
            "other readers of NIR run plain IF neurons: no levels, no negative spikes, no sleep, no certificate; "
            f"to read it back: lava-casc import {output}"
        )
    if report is not None:
        console.out.print(f"report: {report}")


def _nir_file(path: Path, conversion: Conversion) -> IntegerNetwork:
    from lava_casc.interchange import read_nir, write_nir

    write_nir(path, conversion.network, conversion.schedule, hardware=conversion.hardware.name)
    return read_nir(path)


def _shape(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise CascError(f"--input-shape {text!r}: give integers and commas, as in 3,32,32.") from error


#: The layer table of an export: heading, and what a row shows of the layer and of one of its synapses.
_COLUMNS: dict[str, Callable[[dict[str, Any], dict[str, Any]], object]] = {
    "shape": lambda layer, synapse: _times(layer["shape"]),
    "kernel": lambda layer, synapse: _times(synapse.get("weight_shape", [])[2:] or layer.get("kernel", [])),
    "stride": lambda layer, synapse: _times(synapse.get("stride") or layer.get("stride", [])),
    "groups": lambda layer, synapse: synapse.get("groups", ""),
    "exponent": lambda layer, synapse: synapse.get("exponent", ""),
    "error (alone)": lambda layer, synapse: _weight_error(synapse),
    "weight bits": lambda layer, synapse: layer.get("weight_bits", ""),
    "threshold": lambda layer, synapse: "..".join(str(t) for t in sorted({*layer.get("threshold", ())} - {0})),
    "worst |u| bits": lambda layer, synapse: layer.get("range_bits", ""),
    "bits given up": lambda layer, synapse: round(layer["bits_given_up"], 2) if "bits_given_up" in layer else "",
    "levels changed": lambda layer, synapse: f"{layer['changed']:.2%}" if "changed" in layer else "",
}


def _weight_error(synapse: dict[str, Any]) -> str:
    """Return the error of a synapse's weights, and what it would be without the branches that it meets."""
    if "weight_error" not in synapse:
        return ""
    error, alone = (f"{synapse[key]:.2%}" for key in ("weight_error", "weight_error_alone"))
    return error if error == alone else f"{error} ({alone})"


def _times(numbers: list[int]) -> str:
    return "x".join(str(n) for n in numbers)


def _print_conversion(summary: dict[str, Any]) -> None:
    rows = []
    for layer in summary["layers"]:
        branches = layer.get("branches", [])
        first, *more = [s | b for s, b in zip(layer["synapses"], branches, strict=True)] or [{}]
        rows.append([layer["name"], layer["type"], *(show(layer, first) for show in _COLUMNS.values())])
        for synapse in more:
            shown = (show({"shape": layer["shape"]}, synapse) for show in _COLUMNS.values())
            rows.append([f"+ {synapse['source']}", "", *shown])
    console.table(f"{summary['hardware']}: every register proven", ["layer", "type", *_COLUMNS], rows)
    schedule, checked, given_up = summary["schedule"], summary["verification"], summary["input"]["bits_given_up"]
    if given_up:
        console.out.print(f"input: {given_up} bits of every image given up to the range proof")
    if checked is None:
        console.out.print("not verified: --verify 0")
    else:
        console.out.print(
            f"verified on {checked['samples']} {checked['source']} samples, {checked['mode']}: "
            f"{checked['certified']} certified silent by step {checked['last_spike']}, "
            "all counts and logits of these equal to the integer network; "
            f"{_same_class(checked)}logits off by {checked['logit_error']:.2%}"
        )
    console.out.print(
        f"schedule: {schedule['mode']}, {schedule['wake_steps']} wake + {schedule['sleep_steps']} sleep steps, "
        f"silent after step {schedule['silence_bound']} at the latest"
    )
    console.out.print(f"wrote {summary['file']} ({summary['bytes']:,} bytes)")


def _same_class(checked: dict[str, Any]) -> str:
    same = checked["same_class"]
    return "" if same is None else f"{same} of {checked['samples']} classes as in float, "
