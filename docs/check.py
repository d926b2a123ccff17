"""Check the site that was built: links and anchors, pictures, titles, every public name, and its width on a telephone.

`make docs` calls it: `python docs/check.py out/docs`. It prints what is wrong, and fails if anything is.
"""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

from sphinx.util.inventory import InventoryFile

#: Pixels of a narrow telephone.
WIDTH = 400

_MEASURE = """<!DOCTYPE html><meta charset="utf-8"><pre id="answer"></pre><script>
const pages = PAGES, wide = {};
const next = () => {
  const page = pages.shift();
  if (!page) { document.getElementById("answer").textContent = JSON.stringify(wide); return; }
  const frame = document.createElement("iframe");
  frame.style = "border:0;width:WIDTHpx;height:800px";
  frame.onload = () => {
    const inside = frame.contentDocument;
    // What a table, a block of code or a formula scrolls by itself does not stick out.
    const edges = [...inside.querySelectorAll("article *")]
      .filter(element => !element.parentElement.closest(".table-wrapper, pre, .math"))
      .map(element => element.getBoundingClientRect().right);
    wide[page] = Math.round(Math.max(inside.documentElement.scrollWidth, ...edges));
    frame.remove();
    next();
  };
  frame.src = page;
  document.body.append(frame);
};
onload = next;
</script>"""


class Page(HTMLParser):
    """What a page has: ids to go to, links, what it loads, pictures without words, headings, its title."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.mute: list[str] = []
        self.headings = 0
        self.title = ""
        self._in_title = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Note what a tag says."""
        found = {name: value or "" for name, value in attributes}
        self.ids.update(found[name] for name in ("id", "name") if name in found)
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag in ("script", "img", "iframe", "source") and found.get("src"):
            self.loads.append(found["src"])
        if tag == "link" and found.get("rel") in ("stylesheet", "icon", "preload"):
            self.loads.append(found["href"])
        if tag == "img" and not found.get("alt"):
            self.mute.append(found.get("src", ""))
        self.headings += tag == "h1"
        self._in_title = tag == "title" or self._in_title and tag != "body"

    def handle_endtag(self, tag: str) -> None:
        """Note where the title ends."""
        if tag == "title":
            self._in_title = False

    def handle_data(self, data: str) -> None:
        """Take in the title."""
        if self._in_title:
            self.title += data


def check_pages(site: Path) -> list[str]:
    """Return what is wrong with the pages themselves, one line each."""
    pages = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    wrong = []
    for path, page in pages.items():
        name = path.relative_to(site)
        for link in page.links:
            if re.match(r"[a-z]+:", link):
                continue
            where, _, anchor = link.partition("#")
            target = (path.parent / unquote(where)).resolve() if where else path
            if not target.exists():
                wrong.append(f"{name}: a link to {link}, which is not there")
            elif anchor and target in pages and unquote(anchor) not in pages[target].ids:
                wrong.append(f"{name}: a link to {link}, where nothing is called so")
        for load in page.loads:
            if re.match(r"(https?:)?//", load):
                wrong.append(f"{name}: loads {load} from a network")
            elif not load.startswith("data:") and not (path.parent / unquote(re.split("[?#]", load)[0])).exists():
                wrong.append(f"{name}: loads {load}, which is not there")
        wrong += [f"{name}: no words for the picture {picture}" for picture in page.mute]
        if not page.title.strip() or page.headings != 1 and name.name != "search.html":
            wrong.append(f"{name}: {page.headings} headings, titled {page.title.strip()!r}")
    return wrong


def check_names(site: Path) -> list[str]:
    """Return the public names of the package that the site does not document."""
    conf = runpy.run_path(str(Path(__file__).with_name("conf.py")))
    with (site / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, name: name)
    known = {name for kind, names in inventory.items() if kind.startswith("py:") for name in names}
    return [
        f"{path} is not documented"
        for module in conf["public_modules"]()
        for path in [
            module,
            *(conf["documented_as"](module, name, value) for name, value in conf["public_names"](module).items()),
        ]
        if path not in known
    ]


def check_width(site: Path, width: int = WIDTH) -> list[str]:
    """Return the pages that are wider than a telephone, where there is a browser to lay them out."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        return []
    pages = [path.as_uri() for path in sorted(site.rglob("*.html")) if "_modules" not in path.parts]
    with tempfile.TemporaryDirectory() as folder:
        wrapper = Path(folder) / "wrapper.html"
        wrapper.write_text(_MEASURE.replace("PAGES", json.dumps(pages)).replace("WIDTH", str(width)), encoding="utf-8")
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        command += ["--disable-background-networking", "--allow-file-access-from-files", "--virtual-time-budget=600000"]
        command += [f"--user-data-dir={folder}/profile", "--dump-dom", wrapper.as_uri()]
        run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    answer = re.search(r'<pre id="answer">(\{.*?\})</pre>', run.stdout, re.DOTALL)
    if answer is None:
        return [f"the browser did not lay out the pages: {run.stderr[-300:]}"]
    found = json.loads(answer[1])
    return [
        f"{page.removeprefix(site.as_uri() + '/')}: {wide} pixels wide on a screen of {width}"
        for page, wide in found.items()
        if wide > width
    ]


if __name__ == "__main__":
    folder = Path(sys.argv[1]).resolve()
    lines = [*check_pages(folder), *check_names(folder), *check_width(folder)]
    print("\n".join(lines), end="\n" if lines else "")
    sys.exit(bool(lines))
