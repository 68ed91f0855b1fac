"""The command line, as a person runs it: folders with spaces, broken files, Ctrl-C."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from command_line import MASKS, QUICK, X, answer
from skimage.io import imread, imsave
from sklearn.model_selection import GridSearchCV

import mtsk
from mtsk.backbones import Backbone
from mtsk.cli import main


def test_train_learns_folders_and_tables_together(home):
    model = mtsk.load(home / "m.mtsk")
    kinds = {name: type(task).__name__ for name, task in model.tasks_.items()}
    assert kinds == {
        "parts": "SemanticSegmentation",
        "kind": "Classification",
        "n": "Regression",
        "tags": "MultiLabel",
    }
    assert model.n_images_ == 6
    assert set(mtsk.persistence.describe(home / "m.mtsk")["scores"]) <= set(kinds)


def test_predict_writes_what_predict_says(home, tmp_path, capsys):
    where = [str(home / "new photos"), "-o", str(tmp_path / "out"), "--overlays"]
    assert main(["predict", str(home / "m.mtsk"), *where, "--json"]) == 0
    assert answer(capsys)["done"] == 6
    found = mtsk.load(home / "m.mtsk").predict(X)
    for i in range(6):
        np.testing.assert_array_equal(
            imread(tmp_path / "out" / "parts" / f"neu {i}.png"), found["parts"][i]
        )
        drawn = imread(tmp_path / "out" / "parts_overlay" / f"neu {i}.png")
        assert drawn.shape == X[i].shape
    with open(tmp_path / "out" / "predictions.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [f"neu {i}.png" for i in range(6)]
    assert [row["kind"] for row in rows] == list(found["kind"])
    numbers = list(found["n"])  # of a batch, and the command line's one by one
    assert [float(row["n"]) for row in rows] == pytest.approx(numbers, abs=1e-3)
    assert [set(filter(None, row["tags"].split(";"))) for row in rows] == found["tags"]


def test_broken_images_are_named_and_the_rest_goes_on(home, tmp_path, capsys):
    for i in range(3):
        imsave(tmp_path / f"good{i}.png", X[i], check_contrast=False)
        (tmp_path / f"bad{i}.png").write_text("no image")
    arguments = ["predict", str(home / "m.mtsk"), str(tmp_path)]
    assert main([*arguments, "-o", str(tmp_path / "out"), "--json"]) == 1
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert told["done"] == 3
    assert {os.path.basename(p) for p in told["failed"]} == {
        f"bad{i}.png" for i in range(3)
    }
    assert all(f"bad{i}.png" in said.err for i in range(3))
    assert len(list((tmp_path / "out" / "parts").iterdir())) == 3


def test_evaluate_scores_as_score_tasks_does(home, capsys):
    where = [str(home / "photos"), str(home / "parts")]
    assert main(["evaluate", str(home / "m.mtsk"), *where, "--json"]) == 0
    told = answer(capsys)
    expected = mtsk.load(home / "m.mtsk").score_tasks(
        X[:5], mtsk.Targets(parts=MASKS[:5])
    )
    assert told["scores"]["parts"] == pytest.approx(expected["parts"])
    assert told["images"] == 5


def test_describe_and_backbones(home, capsys):
    assert main(["describe", str(home / "m.mtsk")]) == 0
    assert "parts: SemanticSegmentation" in capsys.readouterr().out
    assert main(["describe", str(home / "m.mtsk"), "--json"]) == 0
    assert answer(capsys)["model"] == "MultiTaskSegmenter"
    assert main(["backbones", "mobilenetv3_small_0"]) == 0
    assert "timm:mobilenetv3_small_050" in capsys.readouterr().out.split()
    assert main(["backbones", "no such network"]) == 1
    capsys.readouterr()
    assert main(["backbones"]) == 0
    listed = capsys.readouterr().out
    for word in ("dinov2-small", "22.1 M", "apache-2.0", "mtsk backbones --download"):
        assert word in listed
    assert main(["backbones", "--json"]) == 0
    (tiny,) = [row for row in answer(capsys) if row["name"] == "dinov3-convnext-tiny"]
    assert tiny["strides"] == [4, 8, 16, 32]
    assert tiny["licence"] == "dinov3-license"


def test_names_types_and_void_can_be_said(home, tmp_path, capsys):
    out = tmp_path / "m.mtsk"
    labels = [f"edges={home / 'parts'}", "--task", "edges=Boundary"]
    arguments = ["train", str(home / "photos"), *labels, "-o", str(out), *QUICK]
    assert main([*arguments, "--holdout", "0", "--json"]) == 0
    assert type(mtsk.load(out).tasks_["edges"]).__name__ == "Boundary"
    labels = [f"parts={home / 'parts'}", "--void", "7"]
    arguments = ["train", str(home / "photos"), *labels, "-o", str(out), *QUICK]
    with pytest.warns(UserWarning, match="'parts' has one class only, 3"):
        assert main([*arguments, "--json"]) == 0
    assert mtsk.load(out).tasks_["parts"].classes_.tolist() == [3]


def test_text_classes_are_written_as_codes_with_their_names(tmp_path):
    words = np.where(MASKS == 7, "disc", "ground")
    features = mtsk.DeepFeatures(scales=(0.5,))
    model = mtsk.MultiTaskSegmenter(features=features, head="ridge", random_state=0)
    mtsk.save(model.fit(X, mtsk.Targets(words=words)), tmp_path / "m")
    imsave(tmp_path / "a.png", X[0], check_contrast=False)
    out = tmp_path / "out"
    assert (
        main(["predict", str(tmp_path / "m"), str(tmp_path / "a.png"), "-o", str(out)])
        == 0
    )
    names = json.loads((out / "words_classes.json").read_text())
    codes = imread(out / "words" / "a.png")
    np.testing.assert_array_equal(
        np.vectorize(lambda c: names[str(c)])(codes), model.predict(X[:1])["words"][0]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["describe", "none.mtsk"], "cannot be read: No such file"),
        (["predict", "none.mtsk", ".", "-o", "{out}"], "cannot be read: No such file"),
        (["train", "none", "labels", "-o", "{out}"], "no such folder: 'none'"),
        (
            ["train", "{photos}", "none", "-o", "{out}"],
            "neither a folder nor a .csv",
        ),
        (["train", "{photos}", "{photos}", "-o", "{out}"], "it is no label map"),
        (
            ["train", "{photos}", "{parts}", "-o", "{out}", "--task", "a=b"],
            "TYPE one of",
        ),
        (
            ["train", "{photos}", "{parts}", "-o", "{out}", "--task", "a=Boundary"],
            "the labels are ['parts']",
        ),
        (
            ["train", "{new}", "{parts}", "-o", "{out}"],
            "no names in common",
        ),
        (["train", "{photos}", "{parts}", "-o", "{out}", "--holdout", "2"], "below 1"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    home, arguments, message, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    places = {
        n: str(home / p)
        for n, p in (("photos", "photos"), ("parts", "parts"), ("new", "new photos"))
    }
    places["out"] = str(tmp_path / "out")
    assert main([a.format(**places) for a in arguments]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["fly"], ["train"], ["predict", "m"]])
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as told:
        main(arguments)
    assert told.value.code == 2
    assert "usage: mtsk" in capsys.readouterr().err


def test_a_task_that_would_be_written_elsewhere_is_refused(tmp_path, capsys):
    features = mtsk.DeepFeatures(scales=(0.5,))
    model = mtsk.MultiTaskSegmenter(features=features, head="ridge", random_state=0)
    mtsk.save(model.fit(X, {"../../out": MASKS}), tmp_path / "m")
    imsave(tmp_path / "a.png", X[0], check_contrast=False)
    before = set(tmp_path.parent.rglob("*"))
    arguments = [
        str(tmp_path / "m"),
        str(tmp_path / "a.png"),
        "-o",
        str(tmp_path / "o"),
    ]
    assert main(["predict", *arguments]) == 1
    assert "cannot be the name of a file" in capsys.readouterr().err
    assert set(tmp_path.parent.rglob("*")) == before


def test_images_of_one_name_are_not_written_over_one_another(home, tmp_path, capsys):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        imsave(tmp_path / folder / "same.png", X[0], check_contrast=False)
    folders = [str(tmp_path / folder) for folder in "ab"]
    out = ["-o", str(tmp_path / "out")]
    assert main(["predict", str(home / "m.mtsk"), *folders, *out]) == 1
    assert "have one name" in capsys.readouterr().err


def test_a_model_that_is_no_segmenter_and_a_search(home, tmp_path, capsys):
    model = mtsk.load(home / "m.mtsk")
    mtsk.save(model.pixel_head_, tmp_path / "head")
    out = [str(home / "new photos"), "-o", str(tmp_path / "out")]
    assert main(["predict", str(tmp_path / "head"), *out]) == 1
    assert "holds a JointRidge" in capsys.readouterr().err
    features = mtsk.DeepFeatures(scales=(0.5,))
    plain = mtsk.MultiTaskSegmenter(features=features, head="ridge", random_state=0)
    search = GridSearchCV(plain, {"max_pixels_per_image": [20, 30]}, cv=2).fit(X, MASKS)
    mtsk.save(search, tmp_path / "search")
    assert main(["predict", str(tmp_path / "search"), *out, "--json"]) == 0


def test_a_place_that_cannot_be_written_is_told_first(home, tmp_path, capsys):
    labels = [str(home / "photos"), str(home / "parts")]
    assert main(["train", *labels, "-o", str(tmp_path / "none" / "m")]) == 1
    assert "no such folder" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["demo", "-o", str(tmp_path / "file")]) == 1
    assert "can be no folder" in capsys.readouterr().err
    out = ["-o", str(tmp_path / "file")]
    assert main(["predict", str(home / "m.mtsk"), str(home / "photos"), *out]) == 1
    assert "can be no folder" in capsys.readouterr().err


def test_tasks_of_few_labels_are_learnt_and_not_scored(home, tmp_path, capsys):
    (tmp_path / "one").mkdir()
    part = MASKS[0].astype(np.uint8)
    imsave(tmp_path / "one" / "bild 0.png", part, check_contrast=False)
    labels = [str(home / "photos"), str(home / "parts"), str(tmp_path / "one")]
    out = ["-o", str(tmp_path / "m"), *QUICK, "--holdout", "0.4"]
    assert main(["train", *labels, *out, "--json"]) == 0
    said = capsys.readouterr()
    assert "too few labels to score one" in said.err
    assert set(json.loads(said.out)["scores"]) <= {"parts"}
    assert set(mtsk.load(tmp_path / "m").tasks_) == {"parts", "one"}


def command(*arguments):
    return [sys.executable, "-m", "mtsk", *arguments]


def test_it_runs_as_a_process_and_help_is_quick(home):
    run = subprocess.run(command("--help"), capture_output=True, text=True, check=True)
    assert "predict" in run.stdout
    script = "import mtsk.cli, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.skipif(os.name == "nt", reason="SIGINT is not sent so on Windows")
def test_ctrl_c_keeps_what_is_done(home, tmp_path):
    many = tmp_path / "many"
    many.mkdir()
    for i in range(400):
        imsave(many / f"{i:03d}.png", X[i % 6], check_contrast=False)
    out = tmp_path / "out"
    with subprocess.Popen(
        command("predict", str(home / "m.mtsk"), str(many), "-o", str(out)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Of a shell's job in the background, children would ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as run:
        while not (out / "parts").exists() or len(list((out / "parts").iterdir())) < 2:
            time.sleep(0.05)
            assert run.poll() is None
        run.send_signal(signal.SIGINT)
        said, complained = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "stopped; what was written is kept" in complained
    assert "of 400 images done" in said
    written = sorted((out / "parts").iterdir())
    assert 2 <= len(written) < 400
    for path in written[:-1]:
        assert imread(path).shape == (32, 40)


def test_the_network_sees_every_image_once(home, tmp_path, monkeypatch, capsys):
    seen = []
    trace = Backbone.trace

    def counted(self, batch):
        seen.append(len(batch))
        return trace(self, batch)

    monkeypatch.setattr(Backbone, "trace", counted)
    train = [str(home / "photos"), str(home / "parts"), "-o", str(tmp_path / "m")]
    assert main(["train", *train, *QUICK, "--holdout", "0.4", "--json"]) == 0
    assert answer(capsys)["scores"]
    assert sum(seen) == 5  # a trial, its scores, and the fit of all


@pytest.mark.parametrize("seed", ["-1", "x", "1.5", str(2**32)])
def test_a_seed_that_is_none(home, seed, capsys):
    with pytest.raises(SystemExit):
        main(["train", "a", "b", "-o", "c", f"--seed={seed}"])
    assert "must be an int, 0 or more" in capsys.readouterr().err


def test_georeferenced_images_give_georeferenced_maps(home, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    place = {
        "crs": rasterio.crs.CRS.from_epsg(32632),
        "transform": rasterio.Affine(10, 0, 500000, 0, -10, 5400000),
    }
    source = tmp_path / "scene.tif"
    bands = np.moveaxis(X[0], 2, 0)
    count, height, width = bands.shape
    size = {"count": count, "height": height, "width": width}
    with rasterio.open(
        source, "w", driver="GTiff", dtype="uint8", **size, **place
    ) as file:
        file.write(bands)
    out = tmp_path / "out"
    assert main(["predict", str(home / "m.mtsk"), str(source), "-o", str(out)]) == 0
    with rasterio.open(out / "parts" / "scene.tif") as file:
        assert (file.crs, file.transform) == (place["crs"], place["transform"])
        found = file.read(1)
    expected = mtsk.load(home / "m.mtsk").predict([X[0]], tasks=["parts"])["parts"]
    np.testing.assert_array_equal(found, expected[0])


def test_a_backbone_can_be_named(home, tmp_path, capsys):
    where = [str(home / "photos"), str(home / "parts"), "-o", str(tmp_path / "m")]
    network = ["--backbone", "timm:resnet10t", "--weights"]
    assert main(["train", *where, *QUICK, "--json", *network, "random"]) == 0
    assert mtsk.load(tmp_path / "m").features_.network().name == "timm:resnet10t"
    capsys.readouterr()
    assert main(["train", *where, *QUICK, *network, str(tmp_path / "none.pth")]) == 1
    assert "none.pth" in capsys.readouterr().err
    assert main(["train", *where, *QUICK, "--backbone", "resnet10t"]) == 1
    assert "unknown backbone 'resnet10t'" in capsys.readouterr().err


def test_what_saving_needs_is_looked_for_first(home, tmp_path, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "mtsk.persistence", raising=False)
    monkeypatch.setitem(sys.modules, "skops", None)
    monkeypatch.setitem(sys.modules, "skops.io", None)
    monkeypatch.setattr(mtsk.MultiTaskSegmenter, "fit", None)
    where = [str(home / "photos"), str(home / "parts"), "-o", str(tmp_path / "m")]
    assert main(["train", *where, *QUICK]) == 1
    assert "needs skops" in capsys.readouterr().err


def test_a_failure_is_told_in_json_too(tmp_path, capsys):
    assert main(["describe", str(tmp_path / "none.mtsk"), "--json"]) == 1
    assert "none.mtsk" in answer(capsys)["error"]


def test_a_network_that_is_not_there_is_told(capsys):
    assert main(["backbones", "zzzzz"]) == 1
    assert "no network has 'zzzzz' in its name" in capsys.readouterr().err
