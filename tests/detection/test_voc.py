"""Folders in VOC layout: what they say is read as it stands, and what cannot be right is named."""

from __future__ import annotations

import numpy as np
import pytest
from voc_folder import CLASSES, HEIGHT, WIDTH, annotate, draw

from lava_casc.detection import read_voc, splits
from lava_casc.errors import DataError

Image = pytest.importorskip("PIL.Image")

SIZE = (24, 64)
NAME = "trainval_0"


def test_boxes_are_stretched_with_their_images(voc):
    objects = [("square", 8, 12, 40, 36), ("disc", 0, 0, WIDTH, HEIGHT, True)]
    draw(voc, NAME, objects[:1])
    annotate(voc, NAME, objects)
    data = read_voc(voc, "trainval", SIZE)
    assert (len(data), data.classes, data.size) == (6, CLASSES, SIZE)
    first = data.objects[0]
    assert first.boxes.tolist() == pytest.approx(np.array([[6.4, 6, 32, 18], [0, 0, 64, 24]]))
    assert (first.labels.tolist(), first.difficult.tolist()) == ([1, 0], [False, True])
    images = data.images([0, 1])
    assert (images.shape, images.dtype) == ((2, 3, *SIZE), np.uint8)
    x0, y0, x1, y1 = first.boxes[0].round().astype(int)
    blue = np.zeros(SIZE, bool)
    blue[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1] = True
    assert (images[0][2][blue] > 200).all()
    assert (images[0][2][:, x1 + 1 :] < 120).all()
    assert data.images([]).shape == (0, 3, *SIZE)


def test_jpeg_and_grey_images_are_read(voc):
    (voc / "JPEGImages" / f"{NAME}.png").unlink()
    Image.new("L", (WIDTH, HEIGHT), 90).save(voc / "JPEGImages" / f"{NAME}.jpg")
    annotate(voc, NAME, [])
    data = read_voc(voc, "trainval", SIZE)
    assert (data.images([0]) == 90).all()
    assert data.objects[0].boxes.shape == (0, 4)


def test_the_classes_of_training_are_those_of_the_test(voc):
    for name in ("test_0", "test_1", "test_2"):
        annotate(voc, name, [("square", 1, 1, 9, 9)])
    assert read_voc(voc, "test", SIZE).classes == ("square",)
    data = read_voc(voc, "test", SIZE, CLASSES)
    assert (data.classes, data.objects[0].labels.tolist()) == (CLASSES, [1])
    assert len(data.first(2)) == 2
    assert len(data.first(None)) == 3


def test_lists_of_single_classes_have_a_second_column(voc):
    (voc / "ImageSets/Main/disc_val.txt").write_text("test_0 1\n\ntest_1 -1\n")
    assert len(read_voc(voc, "disc_val", SIZE)) == 2


def test_the_splits_are_those_that_the_folder_has(voc):
    assert splits(voc) == ("trainval", "test")
    (voc / "ImageSets/Main/test.txt").unlink()
    assert splits(voc) == ("train", "val")


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([("disc", 5, 5, 5, 9)], r"trainval_0\.xml: the box 5,5,5,9 of 'disc' has no area"),
        ([("disc", 5, 9, 7, 8)], r"trainval_0\.xml: the box 5,9,7,8 of 'disc' has no area"),
        ([("disc", "nan", 1, 7, 8)], r"trainval_0\.xml: the box nan,1,7,8 of 'disc' has no area"),
        ([("disc", -1, 5, 7, 9)], r"trainval_0\.xml: the box -1,5,7,9 of 'disc' leaves its image of 80x48 pixels"),
        ([("disc", 1, 5, 81, 9)], r"trainval_0\.xml: the box 1,5,81,9 of 'disc' leaves its image of 80x48 pixels"),
        ([("disc", 1, 5, 8, 49)], r"leaves its image"),
        ([("disc", 1, -1, 8, 9)], r"leaves its image"),
        ([("blob", 1, 5, 8, 9)], r"trainval_0\.xml: class 'blob' is not known\. The classes are disc, square\."),
        ([("", 1, 5, 8, 9)], r"trainval_0\.xml: not an annotation in VOC's XML \(an object without name\)"),
        ([("disc", "", 5, 8, 9)], r"trainval_0\.xml: not an annotation in VOC's XML \(an object without xmin\)"),
        ([("disc", "x", 5, 8, 9)], r"trainval_0\.xml: not an annotation in VOC's XML \(could not convert"),
    ],
)
def test_an_impossible_object_is_named(voc, boxes, message):
    annotate(voc, NAME, boxes)
    with pytest.raises(DataError, match=message):
        read_voc(voc, "trainval", SIZE, CLASSES)


def test_a_box_may_fill_its_image(voc):
    annotate(voc, NAME, [("disc", 0, 0, WIDTH, HEIGHT)])
    assert read_voc(voc, "trainval", SIZE, CLASSES).objects[0].boxes.tolist() == [[0, 0, 64, 24]]


def test_a_folder_that_is_none_is_named(tmp_path, voc):
    with pytest.raises(DataError, match=r"nothing: no such folder\. Give --data-dir a folder in VOC layout"):
        read_voc(tmp_path / "nothing", "train", SIZE)
    with pytest.raises(DataError, match=r"Main/train\.txt: cannot be read \(FileNotFoundError\).* has test, trainval"):
        read_voc(voc, "train", SIZE)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"train\.txt: cannot be read .* this one has no lists"):
        read_voc(tmp_path / "empty", "train", SIZE)
    (voc / "ImageSets/Main/test.txt").write_text("\n \n")
    with pytest.raises(DataError, match=r"test\.txt: is empty\. List the names"):
        read_voc(voc, "test", SIZE)
    (voc / "ImageSets/Main/test.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"test\.txt: cannot be read \(UnicodeDecodeError\)"):
        read_voc(voc, "test", SIZE)


def test_a_split_without_any_object_is_named(voc):
    for name in ("test_0", "test_1", "test_2"):
        annotate(voc, name, [])
    with pytest.raises(DataError, match=r"test\.txt: none of its 3 images holds an object"):
        read_voc(voc, "test", SIZE)


def test_a_damaged_annotation_is_named(voc):
    path = voc / "Annotations" / f"{NAME}.xml"
    path.write_text("<annotation><object>")
    with pytest.raises(DataError, match=r"trainval_0\.xml: not an annotation in VOC's XML \(no element found"):
        read_voc(voc, "trainval", SIZE)
    path.unlink()
    with pytest.raises(DataError, match=r"trainval_0\.xml: no such annotation"):
        read_voc(voc, "trainval", SIZE)


def test_a_damaged_image_is_named(voc):
    path = voc / "JPEGImages" / f"{NAME}.png"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    data = read_voc(voc, "trainval", SIZE)  # its header is right
    with pytest.raises(DataError, match=r"trainval_0\.png: not a readable image \(.+\)\. Get it again or remove it"):
        data.images([1, 0])
    path.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"trainval_0\.png: not a readable image \(UnidentifiedImageError"):
        read_voc(voc, "trainval", SIZE)
    path.unlink()
    with pytest.raises(DataError, match=r"JPEGImages/trainval_0\.jpg: no such image, nor one in \.jpeg or \.png"):
        read_voc(voc, "trainval", SIZE)
