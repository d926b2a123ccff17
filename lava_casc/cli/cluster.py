"""`lava-casc submit`, `jobs`, `collect` and `cancel`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lava_casc import console
from lava_casc.cli.engines import schedule_of
from lava_casc.cli.options import (
    DATA_SETS,
    AsJson,
    DataDir,
    Debug,
    Download,
    Engine,
    ImageSize,
    MaxBurst,
    Mode,
    Preset,
    Target,
    among,
    mode_of,
)
from lava_casc.cli.samples import load_images
from lava_casc.errors import ClusterError

if TYPE_CHECKING:
    from lava_casc.cluster import JobFolder
    from lava_casc.hardware import Hardware

Folder = Annotated[Path, typer.Argument(help="What lava-casc submit made.")]
#: Differing logits that are shown one by one.
SHOWN = 20


@console.reports_errors
def submit(
    network: Annotated[Path, typer.Argument(help="A network file: lava-casc export wrote it.")],
    data: Annotated[
        str | None,
        typer.Option("--data", help="A data set: its test images.", autocompletion=among(lambda: DATA_SETS)),
    ] = None,
    data_dir: DataDir = None,
    download: Download = False,
    image_size: ImageSize = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="Samples of your own: integers in a .npy file.")
    ] = None,
    samples: Annotated[int | None, typer.Option("--samples", min=1, help="Only the first so many.")] = None,
    hw: Target = "loihi2_oheo_gulch",
    launcher: Annotated[
        Literal["env", "sbatch"],
        typer.Option("--launcher", help="env: here, with the variables for INRC; sbatch: as a job of SLURM."),
    ] = "env",
    partition: Annotated[str | None, typer.Option("--partition", help="By default the target's first.")] = None,
    board: Annotated[str | None, typer.Option("--board", help="A single board.")] = None,
    generation: Annotated[
        str | None, typer.Option("--generation", help="N3B3 or N3C1; by default the target's first.")
    ] = None,
    engine: Annotated[Engine, typer.Option("--engine", help="What the host runs: see lava-casc run.")] = "fused",
    mode: Annotated[Mode | None, typer.Option("--mode", help="By default the schedule in the file.")] = None,
    max_burst: MaxBurst = None,
    preset: Preset = None,
    tasks: Annotated[int, typer.Option("--tasks", min=1, help="With sbatch: an array of so many jobs.")] = 1,
    python: Annotated[str | None, typer.Option("--python", help="The host's interpreter; by default this one.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="By default out/jobs/NETWORK.")] = None,
    again: Annotated[
        bool, typer.Option("--again", help="The folder is there: start what it has no results of.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run/--no-dry-run", help="Show every file and command, and start nothing.")
    ] = True,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Make a folder that holds all that a run needs, and start it on a cloud host or as a job of SLURM."""
    import shlex
    import shutil
    import sys
    import tempfile

    from lava_casc.cluster import Settings, launch, make_folder, missing, open_folder
    from lava_casc.cluster.launch import command
    from lava_casc.hardware import read_hardware
    from lava_casc.netx import read_file

    chosen = mode_of(mode, preset)
    hardware = read_hardware(hw)
    host = _host(hardware, partition, board, generation)
    path = (output or Path("out/jobs") / network.stem).absolute()
    if again:
        folder = open_folder(path)
        if dry_run:
            absent = missing(folder)
            console.out.print(
                f"would run, in {path}:\n{shlex.join(command(path, launcher, host, absent))}", markup=False
            )
            console.out.print("Nothing was started: --no-dry-run does.")
            return
        state = launch(folder, launcher, host)
        console.out.print(f"{path}: started, {'job' if launcher == 'sbatch' else 'process'} {state.job}")
        return
    file = read_file(network)
    inputs, _ = load_images(data, data_dir, download, images, samples, image_size)
    schedule = schedule_of(file.network, file.schedule, chosen, None, None, max_burst)
    settings = Settings(
        engine, host.environment, tuple(hardware.inrc.path if hardware.inrc else ()), python or sys.executable
    )
    if dry_run:
        with tempfile.TemporaryDirectory() as temporary:
            folder = make_folder(Path(temporary) / "job", file.network, inputs, schedule, tasks, settings)
            result = _described(folder, path)
        result["command"] = command(path, launcher, host, list(range(len(folder.tasks))))
        _show(result, launcher, as_json)
        return
    folder = make_folder(path, file.network, inputs, schedule, tasks, settings)
    result = _described(folder, path)
    result["command"] = command(path, launcher, host, list(range(len(folder.tasks))))
    try:
        state = launch(folder, launcher, host)
    except ClusterError:
        shutil.rmtree(path)  # it was made just now, and nothing has run of it
        raise
    result["job"] = state.job
    if as_json:
        console.show_json(result)
        return
    console.out.print(f"{path}: started, {'job' if launcher == 'sbatch' else 'process'} {state.job}")
    console.out.print(f"then: lava-casc jobs {path}, lava-casc collect {path}")


@console.reports_errors
def jobs(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="What lava-casc submit made; by default all of out/jobs.")
    ] = None,
    lines: Annotated[int, typer.Option("--lines", min=0, help="Last lines of each log.")] = 1,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show how far submitted runs are, and what they printed last."""
    from lava_casc.cluster import look, missing, open_folder
    from lava_casc.cluster.launch import log_tail

    found = folders or sorted(path.parent for path in Path("out/jobs").glob("*/job.json"))
    rows: list[dict[str, Any]] = []
    for path in found:
        folder = open_folder(path)
        state = look(folder)
        states = {} if state is None else state.states
        absent = set(missing(folder))
        rows += [
            {
                "folder": str(path),
                "job": "" if state is None else state.job,
                "task": task,
                "samples": chosen.stop - chosen.start,
                "state": states.get(task, "not started") if task in absent else "COMPLETED",
                "log": log_tail(folder, task, lines),
            }
            for task, chosen in enumerate(folder.tasks)
        ]
    if as_json:
        console.show_json(rows)
        return
    columns = ["folder", "job", "task", "samples", "state", "log"]
    console.table("submitted runs", columns, [[*list(row.values())[:-1], "\n".join(row["log"])] for row in rows])


@console.reports_errors
def collect(
    path: Folder,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write logits and certificates as .npz.")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Bring results back: whether each sample is certified, and every logit that the integer network does not have."""
    import numpy as np

    from lava_casc.cluster import collect as merge
    from lava_casc.cluster import open_folder
    from lava_casc.cluster.merge import differences
    from lava_casc.files import replacing

    folder = open_folder(path)
    record = merge(folder)
    with console.progress("integer network", len(record)) as bar:
        wrong = differences(folder, record, bar)
    result: dict[str, Any] = {
        "folder": str(path),
        "engine": record.engine,
        "samples": len(record),
        "certified_samples": int(record.certified.sum()),
        "logits": int(record.logits.size),
        "differing_logits": len(wrong),
        "differing_in_certified_samples": sum(difference.certified for difference in wrong),
        "last_spike_max": int(record.last_spike.max()),
    }
    if output is not None:
        with replacing(output, ClusterError) as temporary, temporary.open("wb") as file:
            np.savez(file, logits=record.logits, certified=record.certified, last_spike=record.last_spike)
    if as_json:
        rows = [vars(difference) for difference in wrong]
        console.show_json({**result, "differences": rows})
    else:
        console.out.print(
            f"{record.engine}: certified silent: {result['certified_samples']} of {len(record)} samples; logits that "
            f"differ from the integer network computed here: {len(wrong)} of {record.logits.size}"
        )
        if wrong:
            rows_shown = [[d.sample, d.logit, d.found, d.wanted, "yes" if d.certified else "no"] for d in wrong[:SHOWN]]
            more = f", the first {SHOWN}" if len(wrong) > SHOWN else ""
            console.table(f"differing logits{more}", ["sample", "logit", "found", "wanted", "certified"], rows_shown)
        if result["certified_samples"] < len(record):
            console.out.print("Not certified samples were cut short: their answers are not proven.")
    if result["differing_in_certified_samples"]:
        raise ClusterError(
            f"{path}: certified samples differ from the integer network in {result['differing_in_certified_samples']} "
            "logits, which must not be. Keep the folder: what ran does not compute what it should."
        )


@console.reports_errors
def cancel(path: Folder, debug: Debug = False) -> None:
    """Stop what a submitted folder runs."""
    from lava_casc.cluster import cancel as stop
    from lava_casc.cluster import open_folder

    state = stop(open_folder(path))
    console.out.print(f"{path}: cancelled {'job' if state.launcher == 'sbatch' else 'process'} {state.job}")


def _host(hardware: Hardware, partition: str | None, board: str | None, generation: str | None) -> Any:
    """Return where to go: what was asked for, or what the target says first."""
    from lava_casc.cluster import Host

    inrc = hardware.inrc
    if inrc is None:
        if partition is None:
            raise ClusterError(f"{hardware.name}: is nothing to submit to. Give --partition, or a target with [inrc].")
        return Host(partition, board, generation)
    if generation is not None and generation not in inrc.generations:
        raise ClusterError(
            f"{generation}: no chip generation of {hardware.name}. Use one of: {', '.join(inrc.generations)}."
        )
    return Host(partition or inrc.partitions[0], board, generation or inrc.generations[0])


def _described(folder: JobFolder, path: Path) -> dict[str, Any]:
    return {
        "folder": str(path),
        "tasks": [[task.start, task.stop] for task in folder.tasks],
        "files": {name: (folder.path / name).stat().st_size for name in folder.manifest},
        "checksums": folder.manifest,
        "script": (folder.path / "run.sh").read_text(encoding="utf-8"),
    }


def _show(result: dict[str, Any], launcher: str, as_json: bool) -> None:
    import shlex

    if as_json:
        console.show_json({**result, "launcher": launcher})
        return
    sources = [name for name in result["files"] if name.startswith("src/")]
    rows: list[list[Any]] = [
        [name, size, result["checksums"][name][:16]] for name, size in result["files"].items() if name not in sources
    ]
    rows.append([f"src/: {len(sources)} files of lava_casc", sum(result["files"][name] for name in sources), ""])
    console.table(f"would make {result['folder']}", ["file", "bytes", "SHA-256"], rows)
    console.out.print(f"run.sh:\n{result['script']}", markup=False)
    console.out.print(f"would run, in that folder:\n{shlex.join(result['command'])}", markup=False)
    console.out.print(
        "Nothing was made and nothing was started: --no-dry-run does. The run computes on the host's processor; "
        "nothing of lava_casc was ever run on a chip."
    )
