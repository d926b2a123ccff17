"""A real browser without a screen, for tests of pages: what it lays out, in which colours, and how it looks."""

import html
import json
import os
import re
import shutil
import subprocess

import pytest

_ASK = """
<script>
onload = () => {
  const page = document.getElementById("page").contentDocument, root = page.documentElement;
  const colour = (element, what) => getComputedStyle(element)[what];
  const letters = [...page.querySelectorAll("svg text")];
  const found = {
    width: root.scrollWidth, height: root.scrollHeight,
    paper: colour(page.body, "backgroundColor"), ink: colour(page.body, "color"),
    letters: [...new Set(letters.map(text => colour(text, "fill")))],
    smallest: Math.min(...letters.map(text => text.getBoundingClientRect().height).filter(size => size > 0)),
    svgs: [...page.querySelectorAll("svg")].map(svg => svg.getBoundingClientRect().width),
    ids: [...page.querySelectorAll("[id]")].map(element => element.id),
    fetched: page.defaultView.performance.getEntriesByType("resource").map(entry => entry.name)
      .filter(name => !name.startsWith("data:")),
    broken: [...page.querySelectorAll("use")].map(use => use.getAttribute("xlink:href").slice(1))
      .filter(id => !page.getElementById(id)),
  };
  document.getElementById("answer").textContent = JSON.stringify(found);
};
</script>
"""


def chromium():
    """Return the browser's path; where there is none the test is skipped, but never in continuous integration."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("no chromium: .ci/run installs it")
        pytest.skip("no chromium here: apt-get install chromium")
    return path


def look(page, folder, *, width=1200, dark=False):
    """Return what the browser says of a page of HTML that is so many pixels wide."""
    frame = f'<iframe id="page" style="border:0;width:{width}px;height:800px" srcdoc="{html.escape(page)}"></iframe>'
    wrapper = f'<!DOCTYPE html><meta charset="utf-8">{frame}<pre id="answer"></pre>{_ASK}'
    return answer_of(wrapper, folder, f"--blink-settings=preferredColorScheme={0 if dark else 1}")


def answer_of(page, folder, *options):
    """Return the JSON that the scripts of a page of HTML have put into its element `answer`."""
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    run = _run([*options, "--dump-dom", path.as_uri()], folder)
    answer = re.search(r'<pre id="answer">(.*?)</pre>', run.stdout, re.DOTALL)
    assert answer is not None, run.stderr
    return json.loads(html.unescape(answer[1]))


def _run(arguments, folder):
    # A sandbox of its own needs rights that tests in a container do not have; the page is our own.
    command = [chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    profile = f"--user-data-dir={folder / 'profile'}"
    return subprocess.run([*command, profile, *arguments], capture_output=True, text=True, timeout=120, check=True)
