"""TIFF files are read by what they say of their axes, and refused where they do not."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.io import imsave
from tifffile import imwrite

from mtsk import ImageFolder, Targets
from mtsk.data.files import read_image
from mtsk.data.tiff import TiffImage
from mtsk.exceptions import ImageError

SIZES = {"T": 3, "Z": 4, "C": 5, "Y": 12, "X": 17}


def _pixels(axes, dtype=np.uint8, seed=0):
    shape = [SIZES[a] for a in axes]
    return np.random.default_rng(seed).integers(0, 255, shape).astype(dtype)


def _expected(array, axes):
    """Return the images of an array, (n, Y, X, C), found by moving axes one by one."""
    for letter in "TZCYX":
        if letter not in axes:
            array, axes = array[None], letter + axes
    array = np.einsum(f"{axes.lower()}->tzyxc", array)
    return array.reshape(-1, *array.shape[2:])


@settings(max_examples=150, deadline=None)
@given(
    axes=st.sampled_from(
        ["".join(p) for n in (2, 3, 4) for p in itertools.permutations("TZCYX", n)]
    ).filter(lambda a: {"Y", "X"} <= set(a) and a != "XY"),
    said=st.booleans(),
    dtype=st.sampled_from([np.uint8, np.uint16, np.float32]),
)
def test_any_order_of_axes_is_read_rightly(axes, said, dtype, tmp_path_factory):
    path = tmp_path_factory.mktemp("tiff") / "a.tif"
    array = _pixels(axes, dtype)
    said |= axes.index("X") < axes.index("Y")  # X last is all that a writer can say
    metadata = {} if said else {"axes": axes}
    imwrite(path, array, metadata=metadata, photometric="minisblack")
    images = ImageFolder([path], axes=axes if said else None)
    expected = _expected(array, axes)
    assert len(images) == len(expected)
    for found, one in zip(images, expected, strict=True):
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, one[..., 0] if "C" not in axes else one)


@pytest.mark.parametrize("kind", ["imagej", "ome"])
@pytest.mark.parametrize("axes", ["ZYX", "CYX", "ZCYX", "TZCYX", "YX"])
def test_imagej_and_ome(tmp_path, kind, axes):
    path = tmp_path / ("a.ome.tif" if kind == "ome" else "a.tif")
    array = _pixels(axes)
    imwrite(path, array, metadata={"axes": axes}, **{kind: True})
    expected = _expected(array, axes)
    found = list(ImageFolder([path]))
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other if "C" in axes else other[..., 0])


def test_a_picture_is_the_same_as_png_and_tiff(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (9, 11, 3), dtype=np.uint8)
    imsave(tmp_path / "a.png", picture, check_contrast=False)
    imwrite(tmp_path / "b.tif", picture, photometric="rgb")
    imwrite(
        tmp_path / "c.tif",
        np.moveaxis(picture, 2, 0),
        photometric="rgb",
        planarconfig="separate",
    )
    imwrite(tmp_path / "d.tif", picture[None, None], photometric="rgb")
    for found in ImageFolder(tmp_path):
        np.testing.assert_array_equal(found, picture)


@pytest.mark.parametrize("n", [2, 3, 4, 12])
def test_axes_that_are_not_told_are_refused(tmp_path, n):
    path = tmp_path / "a.tif"
    imwrite(path, np.zeros((n, 20, 30), np.uint8), photometric="minisblack")
    with pytest.raises(ImageError, match=rf"a\.tif.*length \[{n}\].*axes='ZYX'"):
        ImageFolder(tmp_path)[0]
    with pytest.raises(ImageError, match="'CYX' for channels"):
        read_image(path)
    assert len(ImageFolder(tmp_path, axes="zyx")) == n
    assert ImageFolder(tmp_path, axes="CYX")[0].shape == (20, 30, n)
    with pytest.raises(ImageError, match="must name each axis once"):
        ImageFolder(tmp_path, axes="ZZX")


def test_one_page_alone_is_an_image(tmp_path):
    imwrite(tmp_path / "a.tif", np.ones((1, 8, 9), np.uint16), photometric="minisblack")
    assert ImageFolder(tmp_path)[0].shape == (8, 9)


def test_stacks_of_images_and_of_labels_are_paired(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    stack = _pixels("ZYX")
    labels = (stack > 100).astype(np.uint8)
    for name in ("s2", "s10"):
        imwrite(
            tmp_path / "x" / f"{name}.tif",
            stack,
            imagej=True,
            metadata={"axes": "ZYX"},
        )
        imwrite(
            tmp_path / "y" / f"{name}.tif",
            labels,
            metadata={"axes": "ZYX"},
            photometric="minisblack",
        )
    images = ImageFolder(tmp_path / "x")
    assert images.stems[:5] == ["s2_0000", "s2_0001", "s2_0002", "s2_0003", "s10_0000"]
    Y = Targets.for_images(images, mask=ImageFolder(tmp_path / "y"))
    for image, mask in zip(images, Y["mask"], strict=True):
        np.testing.assert_array_equal(mask, image > 100)
    assert isinstance(images.paths[0], TiffImage)
    with pytest.raises(ImageError, match="stack of 4 images"):
        read_image(tmp_path / "x" / "s2.tif")
    assert images[[1, 5]].stems == ["s2_0001", "s10_0001"]


def test_what_a_file_says_of_its_axes_counts(tmp_path):
    array = _pixels("CYX")
    imwrite(tmp_path / "a.ome.tif", array, metadata={"axes": "CYX"}, ome=True)
    images = ImageFolder(tmp_path, axes="ZYX")
    assert images.stems == ["a"]
    np.testing.assert_array_equal(images[0], np.moveaxis(array, 0, 2))
    imwrite(tmp_path / "b.tif", array, metadata={}, photometric="minisblack")
    with pytest.raises(ImageError, match=r"has 3 axes.*axes='TZYX' names 4"):
        ImageFolder(tmp_path, axes="TZYX")
    alone = ImageFolder([tmp_path / "a.ome.tif"])
    assert alone.stems == ["a"]
    np.testing.assert_array_equal(alone[0], np.moveaxis(array, 0, 2))
