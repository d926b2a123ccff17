"""`lava-casc doctor`."""

from __future__ import annotations

from dataclasses import asdict

from lava_casc import console
from lava_casc.cli.options import AsJson, Debug


@console.reports_errors
def doctor(as_json: AsJson = False, debug: Debug = False) -> None:
    """Say what is installed, what is missing, and what to do about each."""
    from lava_casc.doctor import diagnose

    checks = diagnose()
    if as_json:
        console.show_json([asdict(check) for check in checks])
        return
    console.table(
        "lava-casc doctor",
        ["check", "status", "found", "what to do"],
        [[c.name, c.status, c.found, c.remedy] for c in checks],
    )
