"""``python export/to_netx.py model.pt``: a thin door to ``lava-casc export``."""

import typer

from lava_casc.cli.export import export

if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None, add_completion=False)
    app.command(
        epilog="Example: python export/to_netx.py out/digits.pt -o out/digits.net --verify 64 --report out/export.json"
    )(export)
    app()
