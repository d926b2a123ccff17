"""`lava-casc estimate`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lava_casc import console
from lava_casc.cli.options import AsJson, Debug, Target, check_writable

if TYPE_CHECKING:
    from lava_casc.hardware import Hardware
    from lava_casc.mapping import Placement
    from lava_casc.network import IntegerNetwork
    from lava_casc.schedule import WakeSleepSchedule


@console.reports_errors
def estimate(
    network: Annotated[Path, typer.Argument(help="A network file: lava-casc export wrote it.")],
    hw: Target = "loihi2_oheo_gulch",
    step_us: Annotated[
        float | None, typer.Option("--step-us", min=0.0, help="How long a step takes, in microseconds, for latencies.")
    ] = None,
    study: Annotated[
        Path | None, typer.Option("--study", help="What evaluate --study left: the steps that samples really took.")
    ] = None,
    picture: Annotated[Path | None, typer.Option("--picture", help="Draw how full every core is, as PNG.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write everything as JSON, core by core.")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Tell whether a network fits a target: its registers, its cores and chips, and what limits it."""
    from lava_casc.hardware import read_hardware
    from lava_casc.mapping import place
    from lava_casc.netx import read_file
    from lava_casc.pipeline import write_json

    for path in (picture, output):
        if path is not None:
            check_writable(path)
    file, hardware = read_file(network), read_hardware(hw)
    registers = _registers(file.network, hardware)
    placement = None if hardware.core is None else place(file.network, hardware)
    result: dict[str, Any] = {
        "network": str(network),
        "hardware": hardware.name,
        "fits": not registers["problems"] and (placement is None or not placement.problems),
        "registers": registers,
        "steps": _steps(file.network, file.schedule, step_us),
        "measured": None if study is None else _measured(study, file.network),
        "placement": None if placement is None else _placed(placement),
        "staircase": _staircase(file.network),
        "fits_on": [] if placement is None or not placement.problems else _others(file.network, hardware),
    }
    if output is not None:
        cores = {} if placement is None else {"cores": placement.utilization()}
        write_json(output, {**result, **cores})
    if picture is not None and placement is not None:
        _draw(placement, picture)
    if as_json:
        console.show_json(result)
        return
    _print(result, hardware)


def _registers(network: IntegerNetwork, hardware: Hardware) -> dict[str, Any]:
    """Return how many bits the proven ranges take, layer by layer, and what does not fit."""
    from lava_casc.errors import RangeError
    from lava_casc.ranges import check_ranges, ranges

    problems: list[str] = []
    try:
        check_ranges(network, hardware)
    except RangeError as error:
        problems.append(str(error))
    used = {name: found.bits for name, found in ranges(network).items()}
    return {"limit": hardware.state_bits, "bits": used, "problems": problems}


def _steps(network: IntegerNetwork, schedule: WakeSleepSchedule, step_us: float | None) -> dict[str, Any]:
    """Return how long a sample takes at most, in the file's schedule and with graded spikes."""
    found: dict[str, Any] = {}
    for name, chosen in ((f"in the file: {schedule.mode}", schedule), ("graded", network.schedule("graded"))):
        steps = network.certified_by(chosen)
        found[name] = {"period": chosen.period, "certified_by": steps}
        if step_us is not None:
            found[name]["latency_us"] = steps * step_us
    return found


def _measured(path: Path, network: IntegerNetwork) -> dict[str, Any]:
    """Return when the samples of a study were certified, if it is of this network."""
    from lava_casc.errors import DataError
    from lava_casc.study import read_study

    found = read_study(path)
    theirs = [(layer["name"], tuple(layer["shape"]), layer["levels"]) for layer in found["network"]["layers"]]
    if theirs != [(layer.name, network.shapes[layer.name], getattr(layer, "levels", None)) for layer in network]:
        raise DataError(f"{path}: is of another network. Leave --study out, or make one with evaluate --network.")
    silence = {key: found["summary"]["silence"][f"certificate_{key}"] for key in ("median", "p99", "max")}
    return {"samples": found["samples"], "certified": found["summary"]["certified"], "steps": silence}


def _staircase(network: IntegerNetwork) -> dict[str, Any]:
    """Return what the form that needs no microcode takes, beside the CIF neurons, and why it may not fit."""
    from lava_casc.errors import UnsupportedModelError
    from lava_casc.loihi.staircase import staircase_cost, staircase_refusals

    cif = sum(math.prod(network.shapes[layer.name]) for layer in network.computed)
    try:
        neurons, refused = staircase_cost(network), list(staircase_refusals(network).values())
    except UnsupportedModelError as error:
        return {"cif_neurons": cif, "neurons": {}, "refused": [str(error)]}
    return {"cif_neurons": cif, "neurons": neurons, "refused": refused}


def _placed(placement: Placement) -> dict[str, Any]:
    pairs, crossing = placement.traffic
    rows = [
        {
            "name": layer.name,
            "type": layer.type,
            "shape": list(placement.network.shapes[layer.name]),
            "cores": layer.cores,
            "first_core": layer.first_core,
            "cuts": list(layer.grid.cuts),
            "most": {resource: int(values.max()) for resource, values in layer.needs.items()},
            "limited_by": layer.tightest(placement.limits),
        }
        for layer in placement.layers
    ]
    return {
        "cores": placement.cores,
        "chips": placement.chips,
        "limits": placement.limits,
        "layers": rows,
        "routes": pairs,
        "routes_between_chips": crossing,
        "problems": [problem.message for problem in placement.problems],
    }


def _others(network: IntegerNetwork, hardware: Hardware) -> list[str]:
    """Return the shipped targets on which the network fits."""
    from lava_casc.hardware import read_hardware, shipped_configs
    from lava_casc.mapping import place

    others = [name for name in shipped_configs() if name not in ("template", hardware.name)]
    found = []
    with console.progress("other targets", len(others)) as bar:
        for done, name in enumerate(others, 1):
            other = read_hardware(name)
            if other.core is None or not place(network, other).problems:
                found.append(name)
            bar(done)
    return found


def _draw(placement: Placement, path: Path) -> None:
    from lava_casc.report import save_figure
    from lava_casc.report.cores import plot_cores

    chip = placement.hardware.chip
    title = f"{placement.hardware.name}: {placement.cores:,} cores on {placement.chips} chips"
    layers = [(layer.name, layer.cores) for layer in placement.layers]
    cores_per_chip = placement.cores if chip is None else chip.cores.number
    save_figure(plot_cores(placement.utilization(), layers, cores_per_chip, title), path)


def _print(result: dict[str, Any], hardware: Hardware) -> None:
    bits = result["registers"]["bits"]
    limit = result["registers"]["limit"]
    placement = result["placement"]
    if placement is not None:
        limits = placement["limits"]
        columns = [
            "layer",
            "shape",
            "cores",
            "neurons",
            "weights, bytes",
            "axons in",
            "axons out",
            "limited by",
            "state bits",
        ]
        rows = [
            [
                row["name"],
                "x".join(map(str, row["shape"])),
                row["cores"],
                *(f"{row['most'][resource]:,} of {limits[resource]:,}" for resource in limits),
                row["limited_by"].replace("_", " "),
                f"{bits[row['name']]} of {limit}" if row["name"] in bits else "",
            ]
            for row in placement["layers"]
        ]
        console.table(f"{hardware.name}: the fullest core of each layer", columns, rows)
        console.out.print(
            f"{_count(placement['cores'], 'core')}, {_count(placement['chips'], 'chip')}; "
            f"{_count(placement['routes'], 'route')}, "
            f"{placement['routes_between_chips']:,} of them from chip to chip"
        )
    else:
        rows = [[name, f"{used} of {limit}"] for name, used in bits.items()]
        console.table(f"{hardware.name}: not partitioned", ["layer", "state bits"], rows)
    for name, steps in result["steps"].items():
        latency = f", {steps['latency_us']:,g} microseconds" if "latency_us" in steps else ""
        console.out.print(f"{name}: every sample certified by step {steps['certified_by']}{latency}")
    if result["measured"] is not None:
        steps = result["measured"]["steps"]
        console.out.print(
            f"measured: {result['measured']['certified']:,} of {result['measured']['samples']:,} samples certified, in "
            f"step {steps['median']:g} (median), {steps['p99']:g} (99 %), {steps['max']:g} (greatest)"
        )
    stairs = result["staircase"]
    if stairs["refused"]:
        refused = len(stairs["refused"])
        console.out.print(f"--engine staircase: does not fit ({refused} layers, the first: {stairs['refused'][0]})")
    else:
        neurons = sum(stairs["neurons"].values())
        console.out.print(f"--engine staircase: fits, {neurons:,} neurons instead of {stairs['cif_neurons']:,}")
    problems = result["registers"]["problems"] + ([] if placement is None else placement["problems"])
    for problem in problems:
        console.out.print(f"does not fit: {problem}")
    if result["fits_on"]:
        console.out.print(f"It fits on: {', '.join(result['fits_on'])}.")
    if not problems:
        console.out.print("Everything fits." if placement is None else "Everything fits, by these limits.")
    unknown = [] if hardware.core is None else [name for name, quantity in hardware.core if not quantity.is_known]
    if unknown:
        console.out.print(
            f"Assumed, because nothing is public: {', '.join(unknown).replace('_', ' ')} of a core. "
            "Nothing here was ever run on a chip."
        )


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"
