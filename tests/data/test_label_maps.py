"""Label maps in files: by number, by palette, by colour, or refused by name."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mtsk import ImageFolder, MultiTaskSegmenter, Targets
from mtsk.data import CategoricalMap, read_label_maps
from mtsk.exceptions import ImageError, TargetError
from mtsk.tasks import Boundary, SemanticSegmentation
from mtsk.tasks.task_set import TaskSet

COLOURS = np.array([[0, 0, 0], [128, 0, 0], [0, 200, 10], [255, 255, 255]], np.uint8)


def _words(codes):
    return np.array([f"#{r:02x}{g:02x}{b:02x}" for r, g, b in COLOURS])[codes]


def _codes(seed, n_classes=4, shape=(12, 17)):
    return np.random.default_rng(seed).integers(0, n_classes, shape)


def _save(path, codes, kind, seed=0):
    """Write a label map as colours, as its own palette's indices, or as a GIF."""
    if kind == "rgb":
        Image.fromarray(COLOURS[codes]).save(path.with_suffix(".png"))
        return path.with_suffix(".png")
    order = np.random.default_rng(seed).permutation(len(COLOURS))
    image = Image.fromarray(np.argsort(order)[codes].astype(np.uint8), "P")
    image.putpalette(COLOURS[order].ravel().tolist())
    out = path.with_suffix(".gif" if kind == "gif" else ".png")
    image.save(out)
    return out


@settings(max_examples=150, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(["rgb", "palette", "gif"]), min_size=2, max_size=5)
)
def test_colours_mean_the_same_in_every_kind_of_file(kinds, tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    truth = [_codes(i) for i in range(len(kinds))]
    paths = [
        _save(folder / f"m{i}", codes, kind, seed=i + 1)
        for i, (codes, kind) in enumerate(zip(truth, kinds, strict=True))
    ]
    for found, codes in zip(read_label_maps(paths), truth, strict=True):
        assert isinstance(found, CategoricalMap)
        np.testing.assert_array_equal(np.asarray(found), _words(codes))


def test_indices_of_one_palette_are_the_labels(tmp_path):
    truth = [_codes(i, n) for i, n in enumerate([4, 2, 3])]
    paths = [_save(tmp_path / f"{i}", t, "palette") for i, t in enumerate(truth)]
    order = np.argsort(np.random.default_rng(0).permutation(len(COLOURS)))
    for found, codes in zip(read_label_maps(paths), truth, strict=True):
        np.testing.assert_array_equal(found, order[codes])


def test_grey_values_are_the_labels(tmp_path):
    truth = [_codes(i).astype(np.uint8) for i in range(2)]
    Image.fromarray(truth[0]).save(tmp_path / "a.png")
    Image.fromarray(np.repeat(truth[1][..., None], 3, axis=2)).save(tmp_path / "b.png")
    for found, codes in zip(
        read_label_maps([tmp_path / "a.png", tmp_path / "b.png"]), truth, strict=True
    ):
        np.testing.assert_array_equal(found, codes)


def test_a_map_without_colours_among_coloured_ones_is_read_by_colour(tmp_path):
    black = _save(tmp_path / "a", np.zeros((5, 6), int), "rgb")
    other = _save(tmp_path / "b", _codes(0), "rgb")
    found = read_label_maps([black, other])
    assert set(np.asarray(found[0]).ravel()) == {"#000000"}


def test_colours_can_be_named(tmp_path):
    path = _save(tmp_path / "a", _codes(0), "rgb")
    names = {"#000000": "sky", "#800000": "roof", "00C80A": "tree", "#ffffff": "snow"}
    found = np.asarray(read_label_maps([path], names)[0])
    expected = np.array(["sky", "roof", "tree", "snow"])[_codes(0)]
    np.testing.assert_array_equal(found, expected)
    numbers = dict(zip(names, [7, 2, 2, 9], strict=True))  # two colours, one class
    found = np.asarray(read_label_maps([path], numbers)[0])
    np.testing.assert_array_equal(found, np.array([7, 2, 2, 9])[_codes(0)])
    del names["#ffffff"]
    with pytest.raises(TargetError, match=r"a\.png.*#ffffff"):
        read_label_maps([path], names)
    with pytest.raises(TargetError, match="rrggbb"):
        read_label_maps([path], {"red": 1})
    with pytest.raises(TargetError, match="numbers and words"):
        read_label_maps([path], {"#000000": 1, "#800000": "roof"})


def test_what_cannot_be_told_is_refused_by_name(tmp_path):
    palette = _save(tmp_path / "a", _codes(0), "palette")
    Image.fromarray(_codes(1).astype(np.uint8)).save(tmp_path / "b.png")
    with pytest.raises(TargetError, match=r"a\.png.*palette.*b\.png.*grey"):
        read_label_maps([palette, tmp_path / "b.png"])
    clear = np.dstack([COLOURS[_codes(2)], np.full((12, 17), 200, np.uint8)])
    Image.fromarray(clear).save(tmp_path / "c.png")
    with pytest.raises(TargetError, match=r"c\.png.*transparent"):
        read_label_maps([tmp_path / "c.png"])
    indices = Image.fromarray(_codes(3).astype(np.uint8), "P")
    indices.putpalette(COLOURS.ravel().tolist())
    for name, alpha in (("e", 2), ("f", bytes([255, 255, 0]))):
        indices.save(tmp_path / f"{name}.png", transparency=alpha)
        with pytest.raises(TargetError, match=rf"{name}\.png.*transparent"):
            read_label_maps([tmp_path / f"{name}.png"])
    indices.save(tmp_path / "g.png", transparency=7)  # an index that no pixel has
    np.testing.assert_array_equal(read_label_maps([tmp_path / "g.png"])[0], _codes(3))
    clear[..., 3] = 255
    Image.fromarray(clear).save(tmp_path / "d.png")
    found = read_label_maps([tmp_path / "d.png"])[0]
    np.testing.assert_array_equal(np.asarray(found), _words(_codes(2)))


def test_lossy_files_are_told(tmp_path):
    mask = np.zeros((32, 32), np.uint8)
    mask[8:20, 8:20] = 255
    Image.fromarray(mask).save(tmp_path / "a.jpg", quality=50)
    with pytest.warns(UserWarning, match=r"a\.jpg.*mask > 127"):
        read_label_maps([tmp_path / "a.jpg"])


def test_folders_of_colours_are_targets(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    (tmp_path / "masks").mkdir()
    halves = (np.arange(64) // 32 * np.ones((64, 64))).astype(int)
    for i in range(4):
        image = rng.integers(0, 100, (64, 64, 3), dtype=np.uint8)
        image[:, 32:] += 150
        Image.fromarray(image).save(tmp_path / "photos" / f"{i}.png")
        _save(tmp_path / "masks" / f"{i}", halves, "palette", seed=i)
    X, Y = ImageFolder(tmp_path / "photos"), ImageFolder(tmp_path / "masks")
    found = MultiTaskSegmenter(random_state=0).fit(X, Y).predict(X)
    assert (np.array(found) == _words(halves)).mean() > 0.97
    names = {"#000000": "left", "#800000": "right"}
    named = ImageFolder(tmp_path / "masks", colours=names)[1:]
    words = Targets(side=named)["side"][0]
    assert set(np.asarray(words).ravel()) == {"left", "right"}
    task = SemanticSegmentation(void="#000000").fit(Targets(m=Y)["m"])
    assert task.classes_.tolist() == ["#800000"]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_pictures_and_numbers_stay_as_they_are(tmp_path, dtype):
    rng = np.random.default_rng(0)
    values = (rng.random((40, 40)) * 200).astype(dtype)
    Image.fromarray(values).save(tmp_path / "a.tif")
    found = read_label_maps([tmp_path / "a.tif"])[0]
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, values)
    picture = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "b.png")
    few = np.zeros((9, 9, 3), np.uint8)
    few[2:4, :, 1] = 3
    Image.fromarray(few).save(tmp_path / "c.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_label_maps([tmp_path / "b.png", tmp_path / "c.png"])
    np.testing.assert_array_equal(found[0], picture)
    np.testing.assert_array_equal(found[1], few)


def test_masks_with_blurred_edges_are_told():
    rng = np.random.default_rng(0)
    masks = np.zeros((2, 80, 80), np.uint8)
    masks[:, 20:60, 20:60] = 255
    soft = masks.copy()
    soft[:, 20, 20:60] = rng.integers(20, 230, (2, 40))  # one row of an edge
    plain, many = TaskSet.fit({}, Targets(a=masks)), rng.integers(0, 40, (2, 80, 80))
    assert plain["a"].classes_.tolist() == [0, 255]
    with pytest.warns(UserWarning, match=r"97% of the pixels hold 2 of them, \[0, 255"):
        TaskSet.fit({}, Targets(a=soft))
    TaskSet.fit({"a": SemanticSegmentation()}, Targets(a=soft))  # said: classes
    TaskSet.fit({}, Targets(a=many))  # forty classes, none rare


def test_edges_of_coloured_regions(tmp_path):
    codes = np.repeat(np.repeat(_codes(3, shape=(3, 4)), 6, axis=0), 6, axis=1)
    path = _save(tmp_path / "a", codes, "palette", seed=5)
    other = _save(tmp_path / "b", codes, "rgb")
    found, _ = read_label_maps([path, other])
    task = Boundary().fit([found])
    np.testing.assert_array_equal(
        task.encode(found, codes.shape), task.encode(codes, codes.shape)
    )
    void = Boundary(void="#800000").fit([found])
    expected = Boundary(void=1).encode(codes, codes.shape)
    np.testing.assert_array_equal(void.encode(found, codes.shape), expected)


def test_grey_among_colours_and_two_scales_are_refused(tmp_path):
    rgb = _save(tmp_path / "a", _codes(0), "rgb")
    for name, grey in (("b", _codes(1, 3)), ("c", _codes(1, 2) == 1)):
        path = tmp_path / f"{name}.png"
        Image.fromarray(grey if grey.dtype == bool else grey.astype(np.uint8)).save(
            path
        )
    with pytest.raises(TargetError, match=r"b\.png.*in grey.*a\.png.*in colours"):
        read_label_maps([rgb, tmp_path / "b.png"])
    found = read_label_maps([rgb, tmp_path / "c.png"])[1]  # white is in a.png
    assert set(np.asarray(found).ravel()) == {"#000000", "#ffffff"}
    red = _save(tmp_path / "d", _codes(0, 2), "rgb")
    with pytest.raises(TargetError, match=r"c\.png.*in grey"):
        read_label_maps([red, tmp_path / "c.png"])
    for name, white in (("e", 1), ("f", 255)):
        mask = (_codes(3, 2) * white).astype(np.uint8)
        Image.fromarray(mask).save(tmp_path / f"{name}.png")
    with pytest.raises(TargetError, match=r"e\.png.*0 and 1, .*f\.png.*0 and 255"):
        read_label_maps([tmp_path / "e.png", tmp_path / "f.png"])


def test_void_of_another_kind_is_refused():
    with pytest.raises(TargetError, match="`void` has 'sky'"):
        SemanticSegmentation(void="sky").fit([_codes(0)])
    with pytest.raises(TargetError, match="`void` has 255"):
        SemanticSegmentation(void=255).fit([_words(_codes(0))])


def test_label_maps_of_too_many_pixels(tmp_path, monkeypatch):
    path = _save(tmp_path / "a", _codes(0), "palette")
    grey = tmp_path / "b.png"
    Image.fromarray(_codes(0).astype(np.uint8)).save(grey)
    for most in (150, 60):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
        for file in (path, grey):
            with pytest.raises(ImageError, match="MAX_IMAGE_PIXELS"):
                read_label_maps([file])
