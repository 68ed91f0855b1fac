"""Labels of the command line: folders and tables, and what is wrong with them."""

import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
from command_line import MASKS, QUICK, X, answer
from PIL import Image
from skimage.io import imsave

import mtsk
from mtsk.cli import main


def test_a_table_without_images(home, tmp_path, capsys):
    table = tmp_path / "t.csv"
    table.write_text("name,kind\na,b\n")
    out = str(tmp_path / "m")
    assert main(["train", str(home / "photos"), str(table), "-o", out]) == 1
    assert "a column 'image'" in capsys.readouterr().err


def test_masks_with_a_palette_are_read_as_numbers(home, tmp_path):
    (tmp_path / "masks").mkdir()
    for i in range(6):
        picture = Image.fromarray(MASKS[i].astype(np.uint8), mode="P")
        picture.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
        picture.save(tmp_path / "masks" / f"bild {i}.png")
    labels = [str(home / "photos"), str(tmp_path / "masks")]
    assert main(["train", *labels, "-o", str(tmp_path / "m"), *QUICK, "--json"]) == 0
    assert mtsk.load(tmp_path / "m").tasks_["masks"].classes_.tolist() == [3, 7]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,n\nbild 0.png,1\nbild 0.jpg,2\n", "line 3: 'bild 0' a second time"),
        ("image,\nbild 0.png,1\n", "a column without a name"),
        ("image,n\nbild 0.png,1,7\n", "a column without a name"),
        ("image;n\nbild 0.png;1\n", "commas between cells"),
    ],
)
def test_tables_with_something_wrong(home, tmp_path, text, message, capsys):
    (tmp_path / "t.csv").write_text(text)
    labels = [str(home / "photos"), str(tmp_path / "t.csv")]
    assert main(["train", *labels, "-o", str(tmp_path / "m")]) == 1
    assert message in capsys.readouterr().err


def test_labels_of_one_name(home, tmp_path, capsys):
    labels = [str(home / "photos"), str(home / "parts"), f"parts={home / 'parts'}"]
    assert main(["train", *labels, "-o", str(tmp_path / "m")]) == 1
    assert "two labels are called 'parts'" in capsys.readouterr().err


def test_words_among_numbers_are_refused(home, tmp_path, capsys):
    table = tmp_path / "t.csv"
    lines = [f"bild {i}.png,{i}" for i in range(5)]
    table.write_text("\n".join(["image,n", *lines, "bild 5.png,unknown"]))
    train = ["train", str(home / "photos"), str(table), "-o", str(tmp_path / "m")]
    assert main(train) == 1
    assert "column 'n': 5 numbers, and ['unknown']" in capsys.readouterr().err


def test_a_mask_of_another_size_is_told_by_its_image(home, tmp_path, capsys):
    masks = tmp_path / "masks"
    masks.mkdir()
    for i, mask in enumerate(MASKS[:4]):
        part = mask[: 30 if i == 2 else None].astype(np.uint8)
        imsave(masks / f"bild {i}.png", part, check_contrast=False)
    train = ["train", str(home / "photos"), str(masks), "-o", str(tmp_path / "m")]
    assert main([*train, *QUICK]) == 1
    assert "bild 2.png" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("image,n,n\nbild 0.png,1,2\n", r"two columns \['n'\]"),
        ("image,a/b\nbild 0.png,1\nbild 1.png,0\n", "cannot be the name of a file"),
        ("image,n\nbild 0.png,1\nnope.png,0\n", "1 rows name no image here"),
    ],
)
def test_tables_that_would_lose_something(home, tmp_path, table, message):
    (tmp_path / "t.csv").write_text(table, encoding="utf-8")
    arguments = [str(home / "photos"), str(tmp_path / "t.csv")]
    found = subprocess.run(
        [
            sys.executable,
            "-m",
            "mtsk",
            "train",
            *arguments,
            "-o",
            tmp_path / "m",
            *QUICK,
        ],
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert re.search(message, found.stderr)
    assert "Traceback" not in found.stderr


def test_blanks_after_commas_and_a_name_that_is_empty(home, tmp_path, capsys):
    lines = [f"bild {i}.png, {'ab'[i % 2]}" for i in range(4)]
    (tmp_path / "t.csv").write_text("\n".join(["image, kind", *lines]))
    train = ["train", str(home / "photos"), str(tmp_path / "t.csv")]
    assert main([*train, "-o", str(tmp_path / "m"), *QUICK, "--json"]) == 0
    assert list(mtsk.load(tmp_path / "m").tasks_) == ["kind"]
    train = ["train", str(home / "photos"), f"={home / 'parts'}"]
    assert main([*train, "-o", str(tmp_path / "n")]) == 1
    assert "have no name before '='" in capsys.readouterr().err


def test_tags_of_numbers_teach_the_maps(home, tmp_path):
    lines = [f"bild {i}.png,3;7" for i in range(6)]
    (tmp_path / "t.csv").write_text("\n".join(["image,tags", *lines]))
    train = [
        "train",
        str(home / "photos"),
        str(home / "parts"),
        str(tmp_path / "t.csv"),
    ]
    assert main([*train, "-o", str(tmp_path / "m"), *QUICK, "--json"]) == 0
    (link,) = mtsk.load(tmp_path / "m").tag_links_
    assert (link.pixels, link.tags) == ("parts", "tags")


def test_a_type_that_is_no_task(home, tmp_path, capsys):
    train = ["train", str(home / "photos"), str(home / "parts")]
    where = ["-o", str(tmp_path / "m")]
    assert main([*train, *where, "--task", "parts=PixelTask"]) == 1
    assert "TYPE one of" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["cell", "3", "0.5"])
def test_a_column_that_says_the_same_everywhere_is_refused(
    home, tmp_path, value, capsys
):
    table = tmp_path / "one.csv"
    table.write_text(
        "image,kind\n" + "".join(f"bild {i}.png,{value}\n" for i in range(6))
    )
    arguments = ["train", str(home / "photos"), str(table), "-o", str(tmp_path / "m")]
    assert main(arguments) == 1
    assert "labels 'kind' are" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("kind", ["ImageToImage", "Detection", "DensityCount"])
def test_tasks_that_folders_cannot_hold_are_refused(home, tmp_path, kind, capsys):
    where = [str(home / "photos"), str(home / "parts"), "-o", str(tmp_path / "m")]
    assert main(["train", *where, "--task", f"parts={kind}"]) == 1
    assert "TYPE one of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("grades", "order"), [(["lo", "mid", "hi"], "lo,mid,hi"), ([3, 1, 2], "3,1,2")]
)
def test_the_order_of_grades_is_said(home, tmp_path, grades, order, capsys):
    table, model = tmp_path / "grades.csv", str(tmp_path / "m.mtsk")
    rows = [f"bild {i}.png,{grades[i % 3]}" for i in range(6)]
    table.write_text("\n".join(["image,grade", *rows]))
    train = ["train", str(home / "photos"), str(table), "-o", model, *QUICK]
    assert main([*train, "--task", f"grade=Ordinal:{order}"]) == 0
    assert mtsk.load(model).tasks_["grade"].classes_.tolist() == grades
    assert main([*train, "--task", "grade=Count:1,2"]) == 1
    assert "a Count has no classes" in capsys.readouterr().err


def test_a_grade_that_is_held_out_alone_is_known(home, tmp_path):
    table, model = tmp_path / "grades.csv", str(tmp_path / "m.mtsk")
    rows = [f"bild {i}.png,{i}" for i in range(6)]
    table.write_text("\n".join(["image,grade", *rows]))
    train = ["train", str(home / "photos"), str(table), "-o", model, *QUICK]
    assert main([*train, "--task", "grade=Ordinal", "--holdout", "0.4"]) == 0
    assert mtsk.load(model).tasks_["grade"].classes_.tolist() == list(range(6))


def test_one_word_an_image_can_be_a_tag(home, tmp_path, capsys):
    table = tmp_path / "tags.csv"
    rows = [f"bild {i}.png,{'cow' if i % 2 else 'grass'}" for i in range(6)]
    table.write_text("\n".join(["image,seen", *rows]))
    model = str(tmp_path / "m.mtsk")
    train = ["train", str(home / "photos"), str(table), "-o", model, *QUICK]
    assert main([*train, "--task", "seen=MultiLabel"]) == 0
    assert mtsk.load(model).predict(X[:2])["seen"] == [{"grass"}, {"cow"}]
    capsys.readouterr()
    evaluate = ["evaluate", model, str(home / "photos"), str(table), "--json"]
    assert main(evaluate) == 0
    assert answer(capsys)["metrics"] == {"seen": "average_precision"}
    table.write_text(
        "\n".join(["image,seen", *(f"bild {i}.png,pig" for i in range(6))])
    )
    with pytest.warns(UserWarning, match="unknown labels"):
        assert main(evaluate) == 0
    assert answer(capsys)["scores"] == {"seen": None}


def test_labels_that_name_no_image_are_refused_before_anything_is_learnt(
    home, tmp_path, capsys
):
    table = tmp_path / "t.csv"
    table.write_text("image,kind\nnobody.png,a\nelse.png,b\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        labels = str(home / "parts"), str(table)
        made = main(["train", str(home / "photos"), *labels, "-o", "m.mtsk"])
    assert made != 0
    assert "name none of the images" in capsys.readouterr().err
