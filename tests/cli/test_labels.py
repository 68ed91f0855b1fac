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
from tifffile import imwrite

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
    assert "a Count has no option 'classes'" in capsys.readouterr().err


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


def test_masks_in_colours_are_learnt_named_and_evaluated(home, tmp_path, capsys):
    colours = np.zeros((8, 3), np.uint8)
    colours[3], colours[7] = (200, 0, 0), (0, 0, 90)
    (tmp_path / "masks").mkdir()
    for i in range(6):
        order = np.random.default_rng(i).permutation(8)  # a palette for each file
        image = Image.fromarray(np.argsort(order)[MASKS[i]].astype(np.uint8), "P")
        image.putpalette(colours[order].ravel().tolist())
        image.save(tmp_path / "masks" / f"bild {i}.png")
    arguments = [str(home / "photos"), str(tmp_path / "masks")]
    model = str(tmp_path / "m")
    assert main(["train", *arguments, "-o", model, *QUICK]) == 0
    assert "classes are the colours #00005a, #c80000" in capsys.readouterr().out
    assert main(["evaluate", model, *arguments, "--json"]) == 0
    plain = answer(capsys)["scores"]["masks"]
    (tmp_path / "c.csv").write_text("colour,class\n#c80000,disc\n#00005A,ground\n")
    named = [*arguments, "--classes", str(tmp_path / "c.csv")]
    assert main(["train", *named, "-o", model, *QUICK, "--json"]) == 0
    assert mtsk.load(model).tasks_["masks"].classes_.tolist() == ["disc", "ground"]
    capsys.readouterr()
    assert main(["evaluate", model, *named, "--json"]) == 0
    assert answer(capsys)["scores"]["masks"] == pytest.approx(plain, abs=0.02)
    assert main(["evaluate", model, *arguments]) == 1  # without the classes
    assert "none is a class of the model: ['disc', 'ground']" in capsys.readouterr().err
    (tmp_path / "c.csv").write_text("colour,class\n#c80000,disc\n")
    assert main(["train", *named, "-o", model, *QUICK]) == 1
    assert "#00005a, which `colours` does not name" in capsys.readouterr().err
    (tmp_path / "c.csv").write_text("color,name\n#c80000,disc\n")
    assert main(["train", *named, "-o", model, *QUICK]) == 1
    assert "the columns 'colour' (#rrggbb) and 'class'" in capsys.readouterr().err


def test_options_of_tasks(home, tmp_path, capsys):
    (tmp_path / "masks").mkdir()
    (tmp_path / "depth").mkdir()
    for i in range(6):
        mask = np.where(MASKS[i] == 7, 255, 0).astype(np.uint8)
        mask[:3] = 9
        imsave(tmp_path / "masks" / f"bild {i}.png", mask, check_contrast=False)
        depth = (MASKS[i] * 100.5).astype(np.float32)
        depth[:4] = 0
        Image.fromarray(depth).save(tmp_path / "depth" / f"bild {i}.tif")
    arguments = ["train", str(home / "photos"), str(tmp_path / "masks")]
    model = tmp_path / "m"
    task = ["--task", "masks=BinaryMask:positive=255:threshold=0.4"]
    quick = ["-o", str(model), *QUICK, "--json"]
    assert main([*arguments, *task, "--void", "9", *quick]) == 0
    found = mtsk.load(model).tasks_["masks"]
    assert (found.positive, found.threshold, found.void) == (255, 0.4, [9])
    task = ["--task", "masks=Boundary:void=9:thin=false", "--void", "3"]
    assert main([*arguments, *task, *quick]) == 0
    found = mtsk.load(model).tasks_["masks"]
    assert (found.void, found.thin) == ([9], False)
    depth = [str(home / "photos"), str(tmp_path / "depth"), "--void", "0", "9"]
    assert main(["train", *depth, *quick]) == 0
    assert mtsk.load(model).tasks_["depth"].void == [0, 9]
    capsys.readouterr()
    for said, message in [
        ("masks=BinaryMask:classes=1", "a BinaryMask has no option 'classes'"),
        ("masks=SemanticSegmentation:voids=1", "no option 'voids', only ['classes'"),
        ("masks=Depth", "TYPE one of ['BinaryMask'"),
        ("mask=Boundary", "the labels are ['masks']"),
    ]:
        assert main([*arguments, "--task", said, *quick]) == 1
        assert message in capsys.readouterr().err
    table = tmp_path / "t.csv"
    table.write_text("image,n\n" + "".join(f"bild {i}.png,{i}.5\n" for i in range(6)))
    arguments = ["train", str(home / "photos"), str(table), "--void", "3"]
    assert main([*arguments, *quick]) == 1
    assert "none of the labels ['n'] are maps" in capsys.readouterr().err


def test_stacks_and_channels(tmp_path, capsys):
    for name in ("photos", "masks"):
        (tmp_path / name).mkdir()
    imwrite(tmp_path / "photos" / "s.tif", X[:6, ..., 0], photometric="minisblack")
    imwrite(
        tmp_path / "masks" / "s.tif",
        MASKS[:6].astype(np.uint8),
        metadata={"axes": "ZYX"},
        photometric="minisblack",
    )
    arguments = ["train", str(tmp_path / "photos"), str(tmp_path / "masks")]
    quick = ["-o", str(tmp_path / "m"), *QUICK, "--json"]
    assert main([*arguments, *quick]) == 1
    assert "does not tell what the axes" in capsys.readouterr().err
    assert main([*arguments, "--axes", "ZYX", *quick]) == 0
    assert answer(capsys)["images"] == 6
    out = tmp_path / "out"
    predict = ["predict", str(tmp_path / "m"), str(tmp_path / "photos"), "-o", str(out)]
    assert main([*predict, "--axes", "ZYX"]) == 0
    assert sorted(p.name for p in (out / "masks").iterdir())[0] == "s_0000.tif"
    assert len(list((out / "masks").iterdir())) == 6
