"""Texts from CSV files to tokens, and every way in which such a folder can be damaged."""

from __future__ import annotations

import re

import numpy as np
import pytest
from csv_folder import make_texts

from lava_casc.errors import CheckpointError, DataError
from lava_casc.text import Encoding, encoding_of, make_encoding, read_classes, read_texts, split_words

WORDS = Encoding(("<pad>", "<unknown>", "a", "goal", "été"), 4, ("1", "2"))


def write(folder, text, split="train"):
    path = folder / f"{split}.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return re.escape(str(path))


def test_rows_become_texts_and_labels(tmp_path):
    write(tmp_path, '"2","A ""goal""","is scored,\nat last"\r\n"1","No title",""\r\n')
    found = read_texts(tmp_path, "train", ("x", "y"))
    assert found.texts == ('A "goal" is scored,\nat last', "No title ")
    assert (found.labels.tolist(), found.labels.dtype) == ([1, 0], np.int64)
    assert (len(found), len(found.first(1)), found.first(1).labels.tolist()) == (2, 1, [1])
    assert read_classes(tmp_path) == ("1", "2")


def test_words_are_runs_of_letters_in_lower_case():
    assert split_words("Haiti #39;s ÉTÉ 1,900 don't under_score E-mail") == [
        "haiti", "s", "été", "don", "t", "under", "score", "e", "mail",
    ]  # fmt: skip
    assert split_words("12 $%") == []


def test_tokens_are_cut_off_and_padded_at_the_end():
    texts = ["Goal! A goal, a goal", "nothing", "Été a"]
    assert WORDS.encode(texts).tolist() == [[3, 2, 3, 2], [1, 0, 0, 0], [4, 2, 0, 0]]
    assert WORDS.encode(texts).dtype == np.int64
    assert WORDS.encode([]).shape == (0, 4)


def test_a_vocabulary_is_of_the_most_frequent_words():
    found = make_encoding(["b b a c", "c d b a"], ("1",), 5, 3)
    assert found.words == ("<pad>", "<unknown>", "b", "a", "c")
    assert len(make_encoding(["b b a c"], ("1",), 3000, 3).words) == 5
    assert make_encoding(["b"], ("1",), 1, 3).words == ("<pad>", "<unknown>")


def test_an_encoding_travels_as_notes():
    about = WORDS.about()
    assert {type(value) for value in about.values()} == {str, int}
    assert encoding_of(about) == WORDS
    names = Encoding(WORDS.words, 4, ("Sci/Tech", "World, and more"))
    assert encoding_of(names.about()) == names


@pytest.mark.parametrize(
    "damage",
    [{"vocabulary": None}, {"length": 0}, {"length": "x"}, {"classes": "[]"}, {"classes": "no json"},
     {"vocabulary": "a a"}, {"vocabulary": "<pad>"}, {"classes": None}],
)  # fmt: skip
def test_notes_of_another_checkpoint_are_refused(damage):
    about = {name: value for name, value in {**WORDS.about(), **damage}.items() if value is not None}
    with pytest.raises(CheckpointError, match="the checkpoint does not say how words become tokens. Train one with"):
        encoding_of(about)


def test_an_encoding_is_checked():
    with pytest.raises(ValueError, match="a vocabulary begins with <pad>, <unknown>"):
        Encoding(("a", "b", "c"), 3, ("1",))
    with pytest.raises(ValueError, match="a length of at least 1, and a class"):
        Encoding(WORDS.words, 0, ("1",))


def test_classes_may_have_names(tmp_path):
    make_texts(tmp_path)
    assert read_classes(tmp_path) == ("1", "2", "3")
    (tmp_path / "classes.txt").write_text("Sports\nBusiness\n\nSci/Tech\n")
    assert read_classes(tmp_path) == ("Sports", "Business", "Sci/Tech")
    assert len(read_texts(tmp_path, "test", read_classes(tmp_path))) == 30


DAMAGED = [
    ("", r": is empty. Write one text a row: class, title, description"),
    ("\n", r", line 1: 0 columns instead of 3"),
    ("1,a,b\n2,only a title\n", r", line 2: 2 columns instead of 3: class, title, description. Mend the row"),
    ("1,a,b\n1,a,b,c\n", r", line 2: 4 columns instead of 3"),
    ("1,a,b\nSports,a,b\n", r", line 2: the class 'Sports' is no number. Number the classes from 1"),
    ("1,a,b\n-1,a,b\n", r", line 2: the class '-1' is no number"),
    ("1,a,b\n1,a,b\n3,a,b\n", r", line 3: class 3 is none of 1 .. 2. Mend the row, or the classes"),
    ("0,a,b\n", r", line 1: class 0 is none of 1 .. 2"),
    ("1,a,b\n2,,\n", r", line 2: the text holds no word. Remove the row"),
    ("1,a,b\n2,1984,#\n", r", line 2: the text holds no word"),
    ('1,a,b\n2,a,"b\n', r", behind line 1: not a CSV file in UTF-8 \(unexpected end of data\)"),
    ('1,a,b\n2,a,"b"c\n', r", behind line 1: not a CSV file in UTF-8 \(',' expected after '\"'\)"),
    (b"1,a,b\n2,a,\xff\xfe\n", r", behind line [01]: not a CSV file in UTF-8 \('utf-8' codec can't decode"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), DAMAGED)
def test_a_damaged_file_is_named_with_the_line(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(DataError, match="^" + path + message):
        read_texts(tmp_path, "train", ("1", "2"))


def test_a_missing_folder_or_file_is_named(tmp_path):
    for split in ("train", "test"):
        with pytest.raises(DataError, match=f"{split}.csv: no such file. Give --data-dir a folder with train.csv and"):
            read_texts(tmp_path, split, ("1",))
    with pytest.raises(DataError, match="nowhere: no such folder. Give --data-dir a folder with train.csv and test"):
        read_classes(tmp_path / "nowhere")


def test_damaged_classes_are_named(tmp_path):
    make_texts(tmp_path)
    (tmp_path / "classes.txt").write_text("\n \n")
    with pytest.raises(DataError, match=r"classes.txt: is empty. Write one class a line"):
        read_classes(tmp_path)
    (tmp_path / "classes.txt").write_bytes(b"\xff\xfe\n")
    with pytest.raises(DataError, match=r"classes.txt: cannot be read \('utf-8' codec"):
        read_classes(tmp_path)
    (tmp_path / "classes.txt").unlink()
    write(tmp_path, "0,a,b\n")
    with pytest.raises(DataError, match=r"train.csv, line 1: class 0 is none of 1 .. 0"):
        read_texts(tmp_path, "train", read_classes(tmp_path))
