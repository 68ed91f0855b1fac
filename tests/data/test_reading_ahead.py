"""Images.each: threads read ahead, and nobody can tell by what is given."""

from __future__ import annotations

import threading
import warnings

import numpy as np
import pytest
from PIL import Image
from skimage.io import imsave

from mtsk import DeepFeatures, ImageFolder
from mtsk.backbones import Backbone
from mtsk.data.images import Images
from mtsk.exceptions import ImageError, SkippedImageWarning

SEEDED = np.random.default_rng(0)
PICTURES = list(SEEDED.integers(0, 256, (9, 12, 10, 3), np.uint8))
KINDS = ["array", "list", "tuple", "paths", "folder", "mixed"]
HERE = threading.main_thread()


def who(index, views):
    return index, views, threading.current_thread()


@pytest.fixture
def folder(tmp_path):
    for i, pixels in enumerate(PICTURES):
        imsave(tmp_path / f"{i}.png", pixels, check_contrast=False)
    return tmp_path


def sources(folder):
    files = ImageFolder(folder)
    whole = np.stack(PICTURES)
    return {
        "array": whole,
        "list": PICTURES,
        "tuple": tuple(PICTURES),
        "paths": [str(path) for path in files.paths],
        "folder": files,
        "mixed": [*PICTURES[:4], *files.paths[4:]],
    }


@pytest.mark.parametrize("n_threads", [1, 3, 30])
@pytest.mark.parametrize("kind", KINDS)
def test_all_come_in_order_from_threads(kind, n_threads, folder):
    images = Images(sources(folder)[kind])
    found = list(images.each(who, n_threads))
    assert [index for index, _, _ in found] == list(range(9))
    for (_, views, _), (_, expected) in zip(found, images, strict=True):
        np.testing.assert_array_equal(views, expected)
    assert [thread is HERE for _, _, thread in found] == [True] + 8 * [False]
    part = list(images.part(3, 5).each(who, n_threads))
    assert [index for index, _, _ in part] == [3, 4]


class Lazy:
    """A sequence of the user's own, which may not bear threads."""

    def __len__(self):
        return len(PICTURES)

    def __getitem__(self, index):
        assert threading.current_thread() is HERE
        return PICTURES[index]


class Listed(list):
    def __getitem__(self, index):
        assert threading.current_thread() is HERE
        return super().__getitem__(index)


class Opened:
    """An image of the user's own type."""

    def __array__(self, dtype=None, copy=None):
        assert threading.current_thread() is HERE
        return PICTURES[0]


class Guarded(np.ndarray):
    """A kind of array of the user's own."""

    def __getitem__(self, index):
        assert threading.current_thread() is HERE
        return super().__getitem__(index)


OBJECTS = np.empty(3, object)
OBJECTS[:] = [Opened(), Opened(), Opened()]


@pytest.mark.parametrize(
    "source",
    [
        Lazy(),
        Listed(PICTURES),
        [*PICTURES, Opened()],
        OBJECTS,
        np.stack(PICTURES).view(Guarded),
    ],
)
def test_what_is_not_ours_is_asked_by_the_caller_alone(source):
    assert {thread for *_, thread in Images(source).each(who, 3)} == {HERE}


def test_as_far_ahead_as_there_are_threads_and_no_further():
    begun = []
    changed = threading.Condition()

    def noted(index, views):
        with changed:
            begun.append(index)
            changed.notify_all()
        return index

    for index in Images(PICTURES).each(noted, 3):
        if index:  # the first is made before threads begin
            wanted = min(index + 3, 8)
            with changed:
                assert changed.wait_for(lambda n=wanted: max(begun) >= n, timeout=60)
                # What comes after it has not been given to a thread yet.
                assert max(begun) == wanted


def test_filters_of_warnings_are_left_alone(tmp_path):
    """What silences warnings changes the whole process: never in two threads."""
    paths = []
    for i in range(60):
        paths.append(tmp_path / f"{i}.png")
        pixels = SEEDED.integers(0, 256, (120, 120, 3), np.uint8)
        imsave(paths[i], pixels, check_contrast=False)
        if i % 5 == 4:
            paths[i].write_bytes(paths[i].read_bytes()[:2000])
    images = Images(paths, on_error="skip")
    before = list(warnings.filters)
    for _ in range(3):
        assert len(list(images.each(who, 8))) == 48
        assert list(warnings.filters) == before
    with pytest.warns(SkippedImageWarning, match="12 of 60"):
        images.warn_of_skipped()


def test_kinds_of_files(tmp_path):
    """Whatever is read ahead, or left to the caller's thread, is the same."""
    pixels = PICTURES[0]
    grey = pixels[..., 0]
    Image.fromarray(pixels).save(tmp_path / "a.jpg")
    Image.fromarray(pixels).quantize(8).save(tmp_path / "b.png", transparency=b"a" * 8)
    Image.fromarray(grey).save(tmp_path / "c.png")
    Image.fromarray(grey.astype(np.uint16) * 200).save(tmp_path / "d.png")
    Image.fromarray(pixels).save(tmp_path / "e.tif")
    Image.fromarray(pixels).save(tmp_path / "f.gif")
    Image.fromarray(pixels).save(tmp_path / "g.bmp")
    Image.fromarray(pixels).save(tmp_path / "h.webp", lossless=True)
    paths = [path for path in sorted(tmp_path.iterdir()) for _ in range(2)]
    images = Images(paths, on_error="skip")
    plain = list(images)
    told, images.skipped = images.skipped, {}
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        ahead = list(images.each(who, 3))
    assert not warned
    for one, other in zip(plain, ahead, strict=True):
        np.testing.assert_array_equal(one[1], other[1])
    assert images.skipped == told
    assert len(plain) + len(told) == 16


@pytest.mark.parametrize("n_threads", [0, 3])
def test_errors_come_in_their_turn(folder, n_threads):
    (folder / "4.png").write_bytes(b"not a picture")
    (folder / "7.png").unlink()
    paths = [folder / f"{i}.png" for i in range(9)]
    tour = Images(paths).each(who, n_threads)
    assert [next(tour)[0] for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(ImageError, match=r"image 4 \(.*4\.png\).*damaged"):
        next(tour)
    images = Images(paths, on_error="skip")
    found = [index for index, *_ in images.each(who, n_threads)]
    assert found == [0, 1, 2, 3, 5, 6, 8]
    assert list(images.skipped) == [4, 7]
    assert "no such file" in images.skipped[7]


def test_a_photograph_that_is_to_be_turned_is_told_once(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PICTURES[5]).save(folder / "5.png", exif=exif)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert len(list(Images(ImageFolder(folder)).each(who, 3))) == 9
    assert ["EXIF" in str(w.message) for w in told] == [True]


def test_no_thread_is_left_where_the_caller_stops():
    tour = Images(PICTURES).each(who, 3)
    next(tour), next(tour)
    tour.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("mtsk-read")]


def test_features_are_the_same(folder, monkeypatch):
    features = DeepFeatures(scales=(1,)).fit()
    plain = features.transform(ImageFolder(folder))
    names = set()
    read = Images._read

    def seen(images, *args):
        names.add(threading.current_thread().name.split("_")[0])
        return read(images, *args)

    monkeypatch.setattr(Images, "_read", seen)
    monkeypatch.setattr(Backbone, "keeps_maps", True)
    ahead = features.transform(ImageFolder(folder))
    assert names == {"MainThread", "mtsk-read"}
    for one, other in zip(plain, ahead, strict=True):
        assert one.digest == other.digest
        for a, b in zip(one.taps, other.taps, strict=True):
            np.testing.assert_array_equal(a, b)
