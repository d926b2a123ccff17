"""`lava-casc doctor`."""

from __future__ import annotations

from dataclasses import asdict

from lava_casc import console
from lava_casc.cli.options import AsJson, Debug


@console.reports_errors
def doctor(as_json: AsJson = False, debug: Debug = False) -> None:
    """Say what is installed, what is missing, what to do about each, and what to do next."""
    from lava_casc.doctor import diagnose, outlook

    checks = diagnose()
    if as_json:
        console.show_json([asdict(check) for check in checks])
        return
    console.table(
        "lava-casc doctor",
        ["check", "status", "found", "what to do"],
        [[c.name, c.status, c.found, c.remedy] for c in checks],
    )
    console.out.print(outlook(checks))
    console.out.print(
        "A bug? Report it with what lava-casc doctor --json prints; it names neither you nor this machine."
    )
