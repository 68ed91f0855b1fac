"""Tiles give what the whole image gives, can be stopped, and go on."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import dask.array
import numpy as np
import pytest
import zarr
from scipy import ndimage
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from tests_support import Slight, Worldly, run_until_done

from mtsk import DeepFeatures, MultiTaskSegmenter, SharedDecoder, predict_tiled
from mtsk.backbones import load_backbone
from mtsk.exceptions import ImageError, TilingError, UnknownTaskError
from mtsk.tasks import (
    BinaryMask,
    Boundary,
    Detection,
    InstanceSegmentation,
    boxes_of_instances,
)
from mtsk.tasks.postprocess import RemoveSmall
from mtsk.tiling.tile_store import TileStore

SMALL = {"tile_size": 64, "overlap": 48}


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(TileStore, "chunk", 64)


def scene(shape, seed=0, n=None):
    """A dark picture with bright discs, and their ids."""
    random = np.random.default_rng(seed)
    image = random.integers(0, 60, (*shape, 3), dtype=np.uint8)
    ids = np.zeros(shape, int)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for i in range(n or shape[0] * shape[1] // 600):
        cy, cx, r = *random.uniform(0, shape), random.uniform(4, 9)
        disc = (y - cy) ** 2 + (x - cx) ** 2 < r**2
        if not ids[ndimage.binary_dilation(disc, iterations=2)].any():
            ids[disc] = i + 1
            image[disc] += 120
    return image, ids


def features(**kw):
    return DeepFeatures(
        load_backbone(Slight(), taps=["first", "second"]), dtype="float32", **kw
    )


@pytest.fixture(scope="module")
def model():
    X, Y = zip(*(scene((72, 80), seed) for seed in range(6)), strict=True)
    targets = {
        "mask": [ids > 0 for ids in Y],
        "depth": [ids % 7 / 7 for ids in Y],
        "rim": [ids > 0 for ids in Y],
        "ids": list(Y),
        "boxes": [boxes_of_instances(ids)[0] for ids in Y],
        "many": [len(np.unique(ids)) > 8 for ids in Y],
        "mean": [float(image.mean()) for image in X],
    }
    tasks = {
        "rim": Boundary(),
        "ids": InstanceSegmentation(),
        "boxes": Detection(max_boxes=1000),
    }
    return MultiTaskSegmenter(tasks, features=features(), random_state=0).fit(
        list(X), targets
    )


def same_parts(a, b):
    """Whether two maps of ids agree up to names."""
    pairs = np.unique(np.stack([np.ravel(a), np.ravel(b)]), axis=1)
    return len(pairs[0]) == len(np.unique(a)) == len(np.unique(b))


def assert_same(found, whole):
    np.testing.assert_array_equal(found["mask"], whole["mask"])
    np.testing.assert_array_equal(found["rim"], whole["rim"])
    np.testing.assert_allclose(found["depth"], whole["depth"], atol=1e-4)
    assert same_parts(found["ids"], whole["ids"])
    order = [
        np.lexsort(np.round(f["boxes"], 1).T) for f in (found["boxes"], whole["boxes"])
    ]
    np.testing.assert_allclose(
        found["boxes"]["boxes"][order[0]], whole["boxes"]["boxes"][order[1]], atol=1e-2
    )
    assert found["many"] == whole["many"]
    assert found["mean"] == pytest.approx(whole["mean"], rel=1e-4)


def whole_image(model, image):
    return {name: column[0] for name, column in model.predict([image]).items()}


@pytest.mark.parametrize("shape", [(192, 256), (171, 145), (60, 300), (64, 64)])
def test_every_task_is_as_in_the_whole_image(model, shape):
    image, _ = scene(shape, seed=9)
    assert_same(predict_tiled(model, image, **SMALL), whole_image(model, image))


@pytest.mark.parametrize("seed", range(3))
def test_objects_are_joined_across_tiles(model, seed):
    image, ids = scene((200, 200), seed=20 + seed)
    found = predict_tiled(model, image, tasks=["ids"], **SMALL)["ids"]
    assert same_parts(found, whole_image(model, image)["ids"])
    assert found.max() == len(np.unique(found)) - 1  # 1 … n, none left out
    assert found.max() > 20
    crossing = np.intersect1d(ids[63], ids[64])
    assert len(crossing) > 1  # some do lie across an edge


@pytest.mark.parametrize(
    "head",
    [
        RandomForestClassifier(5, random_state=0),
        SharedDecoder(width=8, n_blocks=1, n_points=64),
        SharedDecoder("unet", width=8, n_blocks=1, n_points=64),
    ],
    ids=["forest", "fcn", "unet"],
)
def test_heads_that_are_not_linear(head, monkeypatch):
    monkeypatch.setattr(SharedDecoder, "min_steps", 30)
    X, Y = zip(*(scene((72, 80), seed) for seed in range(4)), strict=True)
    model = MultiTaskSegmenter(
        features=features(scales=[0.5, 1]), head=head, random_state=0
    ).fit(list(X), [ids > 0 for ids in Y])
    image, _ = scene((192, 160), seed=7)
    found, whole = predict_tiled(model, image, **SMALL), model.predict([image])[0]
    assert (found != whole).mean() < 1e-3
    assert 0.02 < whole.mean() < 0.6


def test_any_source_that_can_be_cut(model, tmp_path):
    image, _ = scene((130, 150), seed=3)
    np.save(tmp_path / "image.npy", image)
    group = zarr.open_group(tmp_path / "image.zarr", mode="w")
    group.create_array("image", data=image, chunks=(40, 40, 3))
    expected = predict_tiled(model, image, tasks=["mask"], **SMALL)["mask"]
    for source in (
        np.load(tmp_path / "image.npy", mmap_mode="r"),
        group["image"],
        dask.array.from_array(image, chunks=(50, 60, 3)),
        image / np.float32(255),
    ):
        found = predict_tiled(model, source, tasks=["mask"], **SMALL)["mask"]
        np.testing.assert_array_equal(found, expected)


def test_predictions_on_disk_are_those_in_memory(model, tmp_path):
    image, _ = scene((130, 150), seed=3)
    expected = predict_tiled(model, image, **SMALL)
    found = predict_tiled(model, image, tmp_path / "out.zarr", **SMALL)
    assert_same(found, expected)
    again = predict_tiled(model, image, tmp_path / "out.zarr", **SMALL)
    assert_same(again, expected)
    stored = zarr.open_group(tmp_path / "out.zarr", mode="r")["mask"][:]
    np.testing.assert_array_equal(stored, expected["mask"])


class Failing:
    """An image that can be cut so many times."""

    def __init__(self, image, n):
        self.image, self.left = image, n
        self.shape, self.dtype = image.shape, image.dtype

    def __getitem__(self, key):
        self.left -= 1
        if self.left < 0:
            raise OSError("cannot read the chunk")
        return self.image[key]


def test_what_was_done_before_an_unreadable_tile_is_kept(model, tmp_path):
    image, _ = scene((192, 192), seed=4)
    with pytest.raises(ImageError, match=r"rows 64 to 128, columns 64 to 128.*is kept"):
        predict_tiled(model, Failing(image, 8), tmp_path / "out.zarr", **SMALL)
    # Nine tiles, four of them done: these are read to be compared, the others twice.
    source = Failing(image, 4 + 5 * 2)
    found = predict_tiled(model, source, tmp_path / "out.zarr", **SMALL)
    assert source.left == 0
    assert_same(found, whole_image(model, image))


def test_a_journal_cut_short_costs_one_tile(model, tmp_path):
    image, _ = scene((192, 192), seed=4)
    with pytest.raises(ImageError):
        predict_tiled(model, Failing(image, 10), tmp_path / "out.zarr", **SMALL)
    journal = tmp_path / "out.zarr" / "mtsk_tiles.jsonl"
    text = journal.read_bytes()
    journal.write_bytes(text[:-7])
    source = Failing(image, 4 + 5 * 2)
    assert_same(
        predict_tiled(model, source, tmp_path / "out.zarr", **SMALL),
        whole_image(model, image),
    )


def test_a_journal_killed_before_its_first_line_is_begun_anew(model, tmp_path):
    image, _ = scene((72, 72))
    (tmp_path / "out.zarr").mkdir()
    (tmp_path / "out.zarr" / "mtsk_tiles.jsonl").write_bytes(b'{"reci')
    found = predict_tiled(model, image, tmp_path / "out.zarr", tasks=["mask"], **SMALL)
    np.testing.assert_array_equal(found["mask"], whole_image(model, image)["mask"])


def test_another_model_image_or_setting_is_refused(model, tmp_path):
    image, _ = scene((100, 100))
    out = tmp_path / "out.zarr"
    predict_tiled(model, image, out, tasks=["mask"], **SMALL)
    with pytest.raises(TilingError, match="differs in tasks; choose another place"):
        predict_tiled(model, image, out, tasks=["depth"], **SMALL)
    with pytest.raises(TilingError, match="differs in image"):
        predict_tiled(model, image[:90], out, tasks=["mask"], **SMALL)
    with pytest.raises(TilingError, match="differs in overlap"):
        predict_tiled(model, image, out, tasks=["mask"], tile_size=64, overlap=8)
    with pytest.raises(TilingError, match=r"of another image.*rows 0 to 64"):
        predict_tiled(model, image[::-1], out, tasks=["mask"], **SMALL)
    other = copy.copy(model)
    features = model.features_.__sklearn_clone__().set_params(channels=[2, 1, 0])
    other.predictor_ = replace(model.predictor_, features=features.fit())
    with pytest.raises(TilingError, match="differs in model"):
        predict_tiled(other, image, out, tasks=["mask"], **SMALL)


def test_only_what_mtsk_wrote_is_replaced_and_only_when_there_is_something(
    model, tmp_path
):
    image, _ = scene((100, 100))
    out = tmp_path / "out.zarr"
    predict_tiled(model, image, out, tasks=["mask"], **SMALL)
    (out / "notes.txt").write_text("mine")
    before = zarr.open_group(out, mode="r")["mask"][:]
    with pytest.raises(ImageError):
        predict_tiled(
            model, Failing(image, 0), out, tasks=["depth"], overwrite=True, **SMALL
        )
    np.testing.assert_array_equal(zarr.open_group(out, mode="r")["mask"][:], before)
    predict_tiled(model, image, out, tasks=["depth"], overwrite=True, **SMALL)
    assert sorted(p.name for p in out.iterdir()) == [
        "depth",
        "mtsk_tiles.jsonl",
        "notes.txt",
        "zarr.json",
    ]


def test_a_refused_image_leaves_nothing(model, tmp_path):
    with pytest.raises(ImageError, match="6 channels"):
        predict_tiled(model, np.zeros((80, 80, 6), np.uint8), tmp_path / "out.zarr")
    assert not (tmp_path / "out.zarr").exists()


@pytest.mark.parametrize("damage", ["gone", "foreign"])
def test_maps_that_are_no_longer_there_are_named(model, tmp_path, damage):
    image, _ = scene((100, 100))
    predict_tiled(model, image, tmp_path / "out.zarr", tasks=["mask"], **SMALL)
    group = zarr.open_group(tmp_path / "out.zarr", mode="a")
    del group["mask"]
    if damage == "foreign":
        group.create_array("mask", shape=(3, 3), dtype="f4")
    with pytest.raises(
        TilingError, match=r"the map of task 'mask'.*missing or damaged"
    ):
        predict_tiled(model, image, tmp_path / "out.zarr", tasks=["mask"], **SMALL)
    found = predict_tiled(
        model, image, tmp_path / "out.zarr", tasks=["mask"], overwrite=True, **SMALL
    )
    np.testing.assert_array_equal(found["mask"], whole_image(model, image)["mask"])


@pytest.mark.parametrize(
    "content",
    [
        b"garbage\n",
        b"\xff\xfe\x00\n",
        b'{"a": 1}\n',
        b"[1]\n",
        b'{"recipe": {}}\n[1]\n',
    ],
)
def test_a_damaged_journal_is_named(model, tmp_path, content):
    image, _ = scene((72, 72))
    predict_tiled(model, image, tmp_path / "out.zarr", tasks=["mask"], **SMALL)
    (tmp_path / "out.zarr" / "mtsk_tiles.jsonl").write_bytes(content)
    with pytest.raises(
        TilingError, match=r"mtsk_tiles\.jsonl.*damaged.*overwrite=True"
    ):
        predict_tiled(model, image, tmp_path / "out.zarr", tasks=["mask"], **SMALL)
    predict_tiled(
        model, image, tmp_path / "out.zarr", tasks=["mask"], overwrite=True, **SMALL
    )


@pytest.mark.parametrize("most", [3, 1000])
def test_the_most_boxes_of_an_image_are_of_the_image(model, most):
    model = copy.deepcopy(model)
    model.tasks_["boxes"].max_boxes = most
    image, _ = scene((192, 192), seed=11)
    found = predict_tiled(model, image, tasks=["boxes"], **SMALL)["boxes"]
    whole = whole_image(model, image)["boxes"]
    np.testing.assert_allclose(found["scores"], whole["scores"], atol=1e-4)


@pytest.mark.parametrize("name", ["../mask", "a/b", ".hidden", "ä" * 101])
def test_names_of_tasks_that_are_no_names_of_files(tmp_path, name):
    image, ids = scene((72, 80))
    model = MultiTaskSegmenter(features=features(), random_state=0).fit(
        [image] * 2, {name: [ids > 0] * 2}
    )
    with pytest.raises(TilingError, match="cannot be the name of a file"):
        predict_tiled(model, image, tmp_path / "out.zarr", **SMALL)
    assert predict_tiled(model, image, **SMALL)[name].shape == (72, 80)


@pytest.mark.parametrize(
    "out", [3, True, b"", "", "http://host/out.zarr", "a\0b", ["a"], "maps"]
)
def test_places_that_are_none(model, out):
    with pytest.raises((TypeError, ValueError), match="`out` of predict_tiled must be"):
        predict_tiled(model, scene((72, 80))[0], out, **SMALL)


def test_a_place_that_cannot_be_made(model, tmp_path):
    image, _ = scene((72, 80))
    (tmp_path / "file").write_text("")
    with pytest.raises(TilingError, match="cannot be written"):
        predict_tiled(model, image, tmp_path / "file" / "sub.zarr", **SMALL)
    with pytest.raises(TilingError, match="cannot be written"):
        predict_tiled(model, image, tmp_path / ("x" * 300 + ".zarr"), **SMALL)


def test_what_mtsk_did_not_write_is_left_alone(model, tmp_path):
    image, _ = scene((100, 100))
    theirs = tmp_path / "theirs.zarr"
    zarr.open_group(theirs, mode="w").create_array("mask", shape=(3, 3), dtype="f4")
    with pytest.raises(TilingError, match="mtsk did not make it"):
        predict_tiled(model, image, theirs, overwrite=True, **SMALL)
    assert zarr.open_group(theirs, mode="r")["mask"].shape == (3, 3)
    (tmp_path / "notes.zarr").write_text("mine")
    with pytest.raises(TilingError, match="mtsk did not make it"):
        predict_tiled(model, image, tmp_path / "notes.zarr", overwrite=True, **SMALL)
    assert (tmp_path / "notes.zarr").read_text() == "mine"


def test_a_full_disk_keeps_what_is_done(model, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    image, _ = scene((100, 100))
    out = tmp_path / "out.zarr"
    monkeypatch.setattr(zarr.Array, "__setitem__", full)
    with pytest.raises(TilingError, match=r"could not be written.*No space left"):
        predict_tiled(model, image, out, tasks=["mask"], **SMALL)
    monkeypatch.undo()
    monkeypatch.setattr(TileStore, "chunk", 64)
    found = predict_tiled(model, image, out, tasks=["mask"], **SMALL)
    np.testing.assert_array_equal(found["mask"], whole_image(model, image)["mask"])


def test_bare_targets_give_a_bare_map(tmp_path):
    image, ids = scene((72, 80))
    model = MultiTaskSegmenter(features=features(), random_state=0).fit(
        [image] * 2, [np.where(ids > 0, "disc", "dark")] * 2
    )
    found = predict_tiled(model, image, **SMALL)
    np.testing.assert_array_equal(found, model.predict([image])[0])
    assert found.dtype.kind == "U"
    with pytest.raises(TilingError, match="a zarr group holds numbers"):
        predict_tiled(model, image, tmp_path / "out.zarr", **SMALL)


@pytest.mark.parametrize(
    ("kw", "error", "message"),
    [
        ({"tile_size": 0}, ValueError, "`tile_size` of predict_tiled must be an int"),
        ({"tile_size": 1.5}, ValueError, "`tile_size`"),
        ({"overlap": -1}, ValueError, "`overlap`"),
        ({"halo": -3}, ValueError, "`halo`"),
        ({"halo": True}, ValueError, "`halo`"),
        ({"tasks": ["nope"]}, UnknownTaskError, "no task 'nope'"),
        ({"tasks": 3}, ValueError, "`tasks` of predict_tiled"),
        ({"overwrite": "yes"}, ValueError, "`overwrite`"),
    ],
)
def test_bad_parameters(model, kw, error, message):
    with pytest.raises(error, match=message):
        predict_tiled(model, scene((72, 80))[0], **kw)


class Raising:
    shape, dtype = (99, 99), np.uint8

    def __getitem__(self, key):
        raise RuntimeError("codec is broken")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ([[1, 2]], "takes one image.*got list"),
        (np.zeros((2, 64, 64, 3), np.uint8), "got shape"),
        (np.zeros((64, 64, 5), np.uint8), "5 channels"),
        (np.full((64, 64), 7.0), "must lie in"),
        (np.zeros((64, 64), np.int64), "must be uint8"),
        (np.zeros((3, 64), np.uint8), "at least 8 x 8"),
        (np.zeros((0, 64, 3), np.uint8), "at least 8 x 8"),
        (dask.array.ones((99, 99))[dask.array.ones(99) > 0], "sizes must be known"),
        (Raising(), "cannot be read .codec is broken."),
    ],
)
def test_bad_images(model, image, message):
    with pytest.raises(ImageError, match=message):
        predict_tiled(model, image, **SMALL)


class Selfish(BinaryMask):
    decode_radius = -3


def test_models_that_are_none(model):
    image, ids = scene((72, 80))
    with pytest.raises(TypeError, match="needs a MultiTaskSegmenter"):
        predict_tiled(RandomForestClassifier(), image)
    with pytest.raises(NotFittedError):
        predict_tiled(MultiTaskSegmenter(), image)
    own = MultiTaskSegmenter(Selfish(), features=features(), random_state=0)
    with pytest.raises(
        TilingError, match="`decode_radius` of task 'target' must be an int"
    ):
        predict_tiled(own.fit([image] * 2, [ids > 0] * 2), image)


def test_what_tiles_cannot_tell_is_refused():
    image, ids = scene((72, 80))
    X, Y = [image] * 4, [ids > 0] * 4
    crf = MultiTaskSegmenter(features=features(), structure="crf", random_state=0)
    with pytest.raises(TilingError, match="structure=None"):
        predict_tiled(crf.fit(X, Y), image)
    steps = MultiTaskSegmenter(
        BinaryMask(postprocess=RemoveSmall(4)), features=features(), random_state=0
    )
    with pytest.raises(TilingError, match="decodes a whole image at once"):
        predict_tiled(steps.fit(X, Y), image)
    worldly = DeepFeatures(load_backbone(Worldly(), taps=["second"]))
    whole = MultiTaskSegmenter(features=worldly, random_state=0).fit(X, Y)
    with pytest.raises(TilingError, match=r"sees the whole image.*halo="):
        predict_tiled(whole, image)
    assert predict_tiled(whole, image, halo=32).shape == image.shape[:2]


KILLED = """
import sys, numpy as np
sys.path[:0] = {tests!r}
import mtsk, test_tiling
test_tiling.TileStore.chunk = 64
model = test_tiling.simple_model()
image, _ = test_tiling.scene((256, 256), seed=5)
print("ready", flush=True)
mtsk.predict_tiled(model, image, {out!r}, **test_tiling.SMALL)
print("done", flush=True)
"""


def simple_model():
    X, Y = zip(*(scene((72, 80), seed) for seed in range(3)), strict=True)
    targets = {"mask": [ids > 0 for ids in Y], "ids": list(Y)}
    return MultiTaskSegmenter(
        {"ids": InstanceSegmentation()}, features=features(), random_state=0
    ).fit(list(X), targets)


def test_killed_at_random_it_goes_on(tmp_path):
    """kill -9 again and again until it ends; what comes out is whole."""
    out = tmp_path / "out.zarr"
    script = KILLED.format(
        tests=[str(folder) for folder in Path(__file__).parents[:2]], out=str(out)
    )
    run_until_done(script, 0.25)
    model = simple_model()
    image, _ = scene((256, 256), seed=5)
    whole = whole_image(model, image)
    group = zarr.open_group(out, mode="r")
    np.testing.assert_array_equal(group["mask"][:], whole["mask"])
    assert same_parts(group["ids"][:], whole["ids"])
    lines = (out / "mtsk_tiles.jsonl").read_text().splitlines()
    notes = [json.loads(line) for line in lines[1:]]
    tiles = [note["tile"] for note in notes if "tile" in note]
    assert sorted(tiles) == list(range(16))
