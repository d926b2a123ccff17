"""A folder in VOC layout, drawn here: rectangles and discs of few colours on a grey ground."""

from __future__ import annotations

import numpy as np

CLASSES = ("disc", "square")
HEIGHT, WIDTH = 48, 80
OBJECT = """<object><name>{}</name><difficult>{}</difficult><bndbox>
<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"""


def annotate(folder, name, objects):
    """Write the annotation of an image: (class, x0, y0, x1, y1) of each object, and True at the end if difficult."""
    lines = [OBJECT.format(kind, int(bool(hard)), *box) for kind, *box, hard in ((*o, False)[:6] for o in objects)]
    (folder / "Annotations" / f"{name}.xml").write_text(f"<annotation>{''.join(lines)}</annotation>")


def draw(folder, name, objects, suffix=".png"):
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (WIDTH, HEIGHT), (110, 110, 110))
    pen = ImageDraw.Draw(picture)
    for kind, x0, y0, x1, y1, *_ in objects:
        shape, colour = (pen.ellipse, (220, 40, 40)) if kind == "disc" else (pen.rectangle, (40, 60, 230))
        shape((x0, y0, x1 - 1, y1 - 1), fill=colour)
    picture.save(folder / "JPEGImages" / f"{name}{suffix}")


def make_voc(folder, counts, seed=0):
    """Make a folder with so many images in each split; each image holds one object or two, side by side."""
    rng = np.random.default_rng(seed)
    for sub in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / sub).mkdir(parents=True)
    for split, count in counts.items():
        names = [f"{split}_{i}" for i in range(count)]
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            objects = []
            for left in (0, WIDTH // 2)[: rng.integers(1, 3)]:
                w, h = rng.integers(14, 32, 2)
                x, y = left + rng.integers(0, WIDTH // 2 - w), rng.integers(0, HEIGHT - h)
                objects.append((CLASSES[rng.integers(2)], x, y, x + w, y + h))
            draw(folder, name, objects)
            annotate(folder, name, objects)
    return folder
