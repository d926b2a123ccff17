"""The site documents every public name, and what looks at the built site sees what is wrong with it."""

from __future__ import annotations

import importlib.util
import runpy
import zlib
from pathlib import Path

import pytest
from browser import chromium

if any(importlib.util.find_spec(name) is None for name in ("sphinx", "lava")):
    pytest.skip("the site's tools and Lava are not all installed", allow_module_level=True)

DOCS = Path(__file__).parents[1] / "docs"
CONF = runpy.run_path(str(DOCS / "conf.py"))
CHECK = runpy.run_path(str(DOCS / "check.py"))

GOOD = """<!DOCTYPE html><title>a title</title><article><h1 id="top">a</h1><a href="b.html#there">b</a>
<img src="p.png" alt="words"></article>"""


def site(folder, a=GOOD):
    (folder / "a.html").write_text(a)
    (folder / "b.html").write_text(GOOD.replace('id="top"', 'id="there"'))
    (folder / "p.png").touch()
    return folder


def test_every_public_name_is_on_a_page(tmp_path):
    CONF["_api"](tmp_path)
    overview = (DOCS / "api.md").read_text(encoding="utf-8").split()
    for module in CONF["public_modules"]():
        assert module in overview, module
        page = (tmp_path / "api" / f"{module}.md").read_text(encoding="utf-8")
        for name, value in CONF["public_names"](module).items():
            path = CONF["documented_as"](module, name, value)
            assert f":: {path}\n" in page or f"`{path}`" in page or f".. py:data:: {name}\n" in page, path


def test_every_package_is_public_or_named_internal():
    found = {path.name for path in (DOCS.parent / "lava_casc").iterdir() if (path / "__init__.py").is_file()}
    assert found - {*CONF["INTERNAL"]} == {m.rpartition(".")[2] for m in CONF["public_modules"]()} & found


def test_a_good_site_is_good(tmp_path):
    assert CHECK["check_pages"](site(tmp_path)) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("b.html#there", "c.html", "which is not there"),
        ("b.html#there", "b.html#nowhere", "where nothing is called so"),
        ('src="p.png"', 'src="q.png"', "which is not there"),
        ('src="p.png"', 'src="https://example.org/p.png"', "from a network"),
        (' alt="words"', "", "no words for the picture p.png"),
        ("<title>a title</title>", "", "titled ''"),
        ("h1", "h2", "0 headings"),
    ],
)
def test_what_is_wrong_with_a_page_is_seen(old, new, said, tmp_path):
    (line,) = CHECK["check_pages"](site(tmp_path, GOOD.replace(old, new)))
    assert line.startswith("a.html")
    assert said in line


def test_a_name_that_is_missing_is_seen(tmp_path):
    header = b"# Sphinx inventory version 2\n# Project: x\n# Version: 0\n# The rest is compressed by zlib.\n"
    (tmp_path / "objects.inv").write_bytes(header + zlib.compress(b""))
    assert "lava_casc.convert is not documented" in CHECK["check_names"](tmp_path)


def test_a_page_that_sticks_out_on_a_telephone_is_seen(tmp_path):
    chromium()
    code = '<pre style="overflow:auto"><b style="padding:500px">scrolls</b></pre>'
    wide = GOOD.replace("<h1", f'{code}<p style="width:900px">wide</p><h1')
    (line,) = CHECK["check_width"](site(tmp_path, wide))
    assert line.startswith("a.html: 9")
