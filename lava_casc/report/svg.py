"""Figures as SVG that lives in a page: its colours are the page's, light or dark."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from lava_casc.report.raster import FAINT, INK, NEGATIVE, POSITIVE, RULE, SLEEP

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Of Okabe and Ito: told apart with every kind of colour vision.
ORANGE, SKY, GREEN, GREY, PURPLE = "#E69F00", "#56B4E9", "#009E73", "#999999", "#CC79A7"
#: Of Tol's muted colours; readable on white and on black like the others.
OLIVE = "#999933"
#: The custom properties of the page's style sheet that each colour of a figure becomes.
VARIABLES = {
    INK: "ink", "#000000": "ink", FAINT: "faint", RULE: "rule", SLEEP: "sleep", "#FFFFFF": "paper",
    POSITIVE: "blue", NEGATIVE: "red", ORANGE: "orange", SKY: "sky", GREEN: "green", GREY: "grey",
}  # fmt: skip


def as_svg(figure: Figure, salt: str = "lava_casc") -> str:
    """Return a figure as the text of an SVG file; the same figure gives the same text.

    Parameters
    ----------
    figure : Figure
    salt : str
        What the names within the file are made of.

    Returns
    -------
    str
    """
    import matplotlib

    found = io.StringIO()
    # Letters stay letters.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure.savefig(found, format="svg", metadata={"Date": None, "Creator": None})
    return re.sub(r"<metadata>.*?</metadata>", "", found.getvalue(), flags=re.DOTALL)


def embedded(text: str, name: str, description: str) -> str:
    """Return an SVG file of `as_svg` as an element for a page, in the colours of that page.

    Parameters
    ----------
    text : str
    name : str
        Unlike that of any other figure on the page: what a figure refers to within itself begins with it.
    description : str
        What it shows, for those who do not see it.
    """
    box = re.search(r'<svg [^>]*(viewBox="[^"]*")[^>]*>', text)
    if box is None:
        raise ValueError("not an SVG with a viewBox")
    body = text[box.end() :]
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", body)
    for colour, variable in VARIABLES.items():
        body = re.sub(colour, f"var(--{variable})", body, flags=re.IGNORECASE)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {box[1]} role="img" '
        f'aria-label="{_escaped(description)}">{body.strip()}'
    )


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
