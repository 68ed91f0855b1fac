"""Images: every accepted form, and every refusal of DESIGN 4.1."""

import warnings
from numbers import Real

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.io import imsave
from sklearn.model_selection import train_test_split

from mtsk._validation import (
    MIN_SIDE,
    Interval,
    InvalidParameterError,
    SequenceOf,
    check_image,
    check_parameters,
    parameter_error,
)
from mtsk.data.files import ImageFolder, read_image
from mtsk.data.images import Images
from mtsk.exceptions import ImageError, MtskError, SkippedImageWarning

SEEDED = np.random.default_rng(0)
GREY = SEEDED.integers(0, 256, (9, 11), np.uint8)
RGB = SEEDED.integers(0, 256, (10, 8, 3), np.uint8)


class Lazy:
    """A sequence that counts what is opened."""

    def __init__(self, items):
        self.items, self.opened = items, []

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        self.opened.append(index)
        return self.items[index]


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(["b.png", "a.png", "c.PNG", "d.tif"]):
        imsave(tmp_path / name, np.full((9, 9, 3), i, np.uint8), check_contrast=False)
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


# -- what an image may be -----------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "full"), [("uint8", 255), ("uint16", 65535), (">u2", 65535)]
)
def test_unsigned_integers_are_scaled_by_their_full_range(dtype, full):
    image = (
        np.array([[0, full // 3], [full // 5, full]], dtype).repeat(8, 0).repeat(8, 1)
    )
    got = check_image(image, "image 0")
    assert got.dtype == np.float32
    assert got.shape == (16, 16, 1)
    np.testing.assert_allclose(got[..., 0], image.astype(float) / full, atol=1e-7)
    assert got.min() == 0
    assert got.max() == 1


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_floats_in_the_unit_interval_are_kept(dtype):
    image = np.linspace(0, 1, 81).reshape(9, 9).astype(dtype)
    got = check_image(image, "image 0")
    assert got.dtype == np.float32
    np.testing.assert_allclose(got[..., 0], image.astype(float), atol=1e-7)


def test_a_dark_image_is_not_stretched():
    """Nothing is guessed from values: 0 and 1 in uint8 are nearly black."""
    assert check_image(np.ones((9, 9), np.uint8), "image 0").max() == np.float32(
        1 / 255
    )


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((9, 9), bool), "image 7 must be uint8, uint16 or float.*dtype bool"),
        (np.full((9, 9), 300, np.int64), r"image 7.*dtype int64.*range \[300, 300\]"),
        (np.zeros((9, 9), np.uint32), r"image 7.*dtype uint32.*astype\(np.uint8\)"),
        (np.full((9, 9), 255, np.int64), r"8 bits: .*astype\(np.uint8\)"),
        (np.full((9, 9), 4000, np.int32), r"16 bits: .*astype\(np.uint16\)"),
        (np.full((9, 9), -900, np.int16), r"\(image - low\) / \(high - low\)"),
        (np.full((9, 9), 70_000, np.uint32), r"\(image - low\) / \(high - low\)"),
        (np.zeros((9, 9), bool), r"astype\(np.uint8\) \* 255"),
        (np.zeros((9, 9), complex), "image 7.*dtype complex128"),
        (np.full((9, 9), "a"), "image 7.*dtype <U1"),
        (np.full((9, 9), 255.0), r"image 7 is floating.*range \[255, 255\].*divide"),
        (np.full((9, 9), -0.1), r"image 7.*must lie in \[0, 1\].*range \[-0.1, -0.1\]"),
        (np.full((9, 9), np.nan), "image 7 must be finite, got NaN"),
        (np.full((9, 9), np.inf), "image 7 must be finite"),
        (np.zeros(9, np.uint8), r"image 7 must have shape \(H, W\).*shape \(9,\)"),
        (np.zeros((2, 9, 9, 3), np.uint8), r"image 7 must have shape.*\(2, 9, 9, 3\)"),
        (np.zeros((7, 9), np.uint8), r"image 7 must be at least 8 x 8.*\(7, 9\)"),
        (np.zeros((9, 7, 3), np.uint8), r"image 7 must be at least 8 x 8.*\(9, 7, 3\)"),
        (np.zeros((9, 9, 0), np.uint8), r"image 7 must be at least.*\(9, 9, 0\)"),
        (None, r"image 7 must have shape.*dtype object, shape \(\)"),
    ],
)
def test_refusals_name_image_dtype_shape_and_range(image, message):
    with pytest.raises(ImageError, match=message):
        check_image(image, "image 7")


def test_smallest_side_is_accepted():
    side = MIN_SIDE
    assert check_image(np.zeros((side, side)), "image 0").shape == (side, side, 1)


def test_image_errors_are_value_errors_of_mtsk():
    assert issubclass(ImageError, ValueError)
    assert issubclass(ImageError, MtskError)


# -- sources ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "shapes"),
    [
        (GREY[None], [(1, 9, 11, 3)]),
        (RGB[None], [(1, 10, 8, 3)]),
        (GREY[None, :, :, None], [(1, 9, 11, 3)]),
        ([GREY, RGB], [(1, 9, 11, 3), (1, 10, 8, 3)]),
        ((GREY, RGB), [(1, 9, 11, 3), (1, 10, 8, 3)]),
        (Lazy([GREY, RGB]), [(1, 9, 11, 3), (1, 10, 8, 3)]),
        ([(GREY / 255).tolist()], [(1, 9, 11, 3)]),
    ],
    ids=["grey", "rgb", "one-channel", "ragged", "tuple", "lazy", "nested-list"],
)
def test_accepted_sources(source, shapes):
    images = Images(source)
    assert len(images) == len(shapes)
    assert [views.shape for _, views in images] == shapes
    assert all(views.dtype == np.float32 for _, views in images)


def test_object_array_of_ragged_images():
    source = np.empty(2, object)
    source[:] = [GREY, RGB]
    assert [v.shape for _, v in Images(source)] == [(1, 9, 11, 3), (1, 10, 8, 3)]


def test_grey_is_repeated_to_three():
    views = Images([GREY])[0]
    np.testing.assert_array_equal(views[0, :, :, 0], views[0, :, :, 2])
    np.testing.assert_allclose(views[0, :, :, 1], GREY / 255, atol=1e-6)


@pytest.mark.parametrize("form", [list, np.array, pd.Series, tuple])
def test_paths_in_any_sequence(folder, form):
    paths = form([str(folder / "b.png"), str(folder / "a.png")])
    values = [views.max() * 255 for _, views in Images(paths)]
    np.testing.assert_allclose(values, [0, 1], atol=1e-4)


def test_series_of_paths_is_read_by_place_not_by_label(folder):
    paths = pd.Series([folder / "b.png", folder / "a.png"], index=[5, 0])
    np.testing.assert_allclose(Images(paths)[1].max() * 255, 1, atol=1e-4)


def test_nothing_is_opened_before_it_is_asked_for():
    source = Lazy([GREY, RGB, GREY])
    images = Images(source)
    assert len(images) == 3
    assert source.opened == []
    images[1]
    assert source.opened == [1]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("photos", r"'photos' is neither; one image file alone is \[path\]"),
        (np.zeros((9, 9)), r"X must have shape \(n, H, W\).*\(9, 9\).*X\[None\]"),
        (np.zeros((1, 1, 9, 9, 3)), r"X must have shape.*\(1, 1, 9, 9, 3\)"),
        ([], "X holds no image"),
        (np.zeros((0, 9, 9)), "X holds no image"),
        ({"a": GREY}, "X must be an array.*got dict"),
        ((i for i in [GREY]), "X must be an array.*got generator"),
        (3, "X must be an array.*got int"),
        (None, "X must be an array.*got NoneType"),
        (pd.DataFrame({"path": ["a.png"]}), "X must be.*DataFrame"),
    ],
)
def test_refused_sources(source, message):
    with pytest.raises(ImageError, match=message):
        Images(source)


def test_pathlike_source_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(ImageError, match="is neither; one image file alone"):
        Images(tmp_path / "none")
    with pytest.raises(ImageError, match="holds no image"):
        Images(tmp_path)


def test_a_ragged_nested_list_is_an_image_error():
    with pytest.raises(ImageError, match="image 0"):
        Images([[[0.1, 0.2], [0.3]]])[0]


def test_error_names_the_index_in_the_source():
    with pytest.raises(ImageError, match="image 2 is floating point"):
        list(Images([GREY, RGB, np.full((9, 9), 2.0)]))


# -- channels -----------------------------------------------------------------


def test_alpha_is_refused_with_the_remedy():
    with pytest.raises(
        ImageError, match=r"image 0 has 4 channels.*alpha.*\[\.\.\., :3\]"
    ):
        Images(np.zeros((1, 9, 9, 4), np.uint8))[0]


@pytest.mark.parametrize("count", [2, 5])
def test_other_channel_counts_ask_for_channels(count):
    with pytest.raises(ImageError, match=rf"image 0 has {count} channels; .*channels="):
        Images(np.zeros((1, 9, 9, count)))[0]


@pytest.mark.parametrize(
    "channels",
    [(4, 0, 2), [4, 0, 2], np.array([4, 0, 2]), np.array([4, 0, 2], "uint8")],
)
def test_channels_pick_in_the_order_given(channels):
    image = np.arange(5) / 10 * np.ones((9, 9, 1))
    views = Images([image], channels=channels)[0]
    assert views.shape == (1, 9, 9, 3)
    np.testing.assert_allclose(views[0, 0, 0], [0.4, 0.0, 0.2], atol=1e-6)


def test_several_triples_make_several_views():
    image = np.arange(5) / 10 * np.ones((9, 9, 1))
    views = Images([image], channels=[(0, 1, 2), (3, 3, 4)])[0]
    np.testing.assert_allclose(
        views[:, 0, 0], [[0, 0.1, 0.2], [0.3, 0.3, 0.4]], atol=1e-6
    )


def test_a_channel_that_is_not_there():
    with pytest.raises(
        ImageError, match="image 0 has 3 channels, but `channels` asks for channel 3"
    ):
        Images([RGB], channels=(0, 1, 3))[0]


@pytest.mark.parametrize(
    "channels",
    [
        (0, 1),
        (0, 1, 2, 3),
        "rgb",
        (0, 1, -1),
        (0.0, 1.0, 2.0),
        [(0, 1, 2), (0, 1)],
        (),
        1,
    ],
)
def test_wrong_channels(channels):
    with pytest.raises(
        InvalidParameterError, match=r"`channels` of .* must be three channel ind.*got"
    ):
        Images([RGB], channels=channels)


# -- files --------------------------------------------------------------------


def test_folder_lists_images_by_name_and_nothing_else(folder):
    images = ImageFolder(folder)
    assert [p.name for p in images.paths] == ["a.png", "b.png", "c.PNG", "d.tif"]
    assert len(images) == 4
    assert images.shape == (4,)
    assert repr(images) == "ImageFolder(4 images)"
    assert images[0].shape == (9, 9, 3)
    assert images[-1].max() == 3


@pytest.mark.parametrize(
    ("key", "places"),
    [
        (slice(1, 3), [1, 2]),
        (np.array([2, 0]), [2, 0]),
        ([3, 1], [3, 1]),
        (np.array([True, False, False, True]), [0, 3]),
        ((np.array([1]), ...), [1]),
    ],
)
def test_folder_indexing_does_not_read(tmp_path, key, places):
    paths = [tmp_path / f"missing{i}.png" for i in range(4)]
    chosen = ImageFolder(paths)[key]
    assert isinstance(chosen, ImageFolder)
    assert chosen.paths == [paths[i] for i in places]


def test_folder_splits_without_reading(tmp_path):
    files = ImageFolder([tmp_path / f"missing{i}.png" for i in range(10)])
    train, test = train_test_split(files, test_size=3, random_state=0)
    assert (len(train), len(test)) == (7, 3)
    assert not set(train.paths) & set(test.paths)
    with pytest.raises(
        ImageError, match=r"cannot read image file.*missing.*no such file"
    ):
        test[0]


def test_folder_that_is_not_there(tmp_path):
    with pytest.raises(ImageError, match=r"no such folder: .*nowhere"):
        ImageFolder(tmp_path / "nowhere")


def test_folder_without_images(tmp_path):
    with pytest.raises(ImageError, match=r"holds no image \(\.png"):
        ImageFolder(tmp_path)


def test_corrupt_file_is_named(tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    with pytest.raises(ImageError, match=r"cannot read image file .*broken\.png"):
        read_image(path)
    with pytest.raises(ImageError, match=r"image 1 \(.*broken\.png\)"):
        list(Images([GREY, path]))


def test_truncated_file_is_named(tmp_path):
    path = tmp_path / "cut.png"
    imsave(path, SEEDED.integers(0, 256, (64, 64, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ImageError, match=r"cannot read image file .*cut\.png"):
        read_image(path)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_read_image_keeps_the_pixels(tmp_path, dtype):
    pixels = SEEDED.integers(0, 2**16, (9, 12)).astype(dtype)
    imsave(tmp_path / "x.png", pixels, check_contrast=False)
    got = read_image(str(tmp_path / "x.png"))
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, pixels)


# -- skipping -----------------------------------------------------------------


def test_skip_goes_on_and_remembers_why(tmp_path):
    images = Images(
        [GREY, np.full((9, 9), 7.0), tmp_path / "gone.png", RGB], on_error="skip"
    )
    assert [index for index, _ in images] == [0, 3]
    assert list(images.skipped) == [1, 2]
    assert "image 1 is floating point" in images.skipped[1]
    assert "gone.png" in images.skipped[2]
    with pytest.warns(
        SkippedImageWarning, match=r"2 of 4 images were skipped: image 1"
    ):
        images.warn_of_skipped()


def test_skip_covers_a_lazy_source_that_fails_to_read():
    class Failing(Lazy):
        def __getitem__(self, index):
            if index == 0:
                raise OSError("disk gone")
            return super().__getitem__(index)

    images = Images(Failing([GREY, RGB]), on_error="skip")
    assert [index for index, _ in images] == [1]
    assert images.skipped == {0: "disk gone"}


def test_skip_warning_is_short():
    images = Images([np.zeros(3)] * 8, on_error="skip")
    assert list(images) == []
    with pytest.warns(SkippedImageWarning, match="8 of 8 images.*and 3 more"):
        images.warn_of_skipped()


def test_nothing_skipped_nothing_said():
    images = Images([GREY], on_error="skip")
    list(images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images.warn_of_skipped()


def test_raise_is_the_default():
    with pytest.raises(ImageError, match="image 0 must have shape"):
        list(Images([np.zeros(3)]))


# -- the one error form -------------------------------------------------------


def test_parameter_error_names_parameter_owner_allowed_and_got():
    error = parameter_error("scales", "DeepFeatures", "floats > 0", [0])
    assert str(error) == "`scales` of DeepFeatures must be floats > 0, got [0]"
    assert isinstance(error, ValueError)
    assert len(str(parameter_error("x", "Y", "short", list(range(999))))) < 200


@given(st.lists(st.floats(-2, 2, allow_nan=False), max_size=5))
@settings(max_examples=25, deadline=None)
def test_sequence_of_checks_every_element(values):
    positive = SequenceOf(Interval(Real, 0, None, closed="neither"))
    expected = len(values) > 0 and min(values) > 0
    assert positive.is_satisfied_by(values) == expected
    assert positive.is_satisfied_by(tuple(values)) == expected


@pytest.mark.parametrize("value", ["abc", b"abc", 3, None, {1.0}])
def test_sequence_of_refuses_what_is_no_sequence(value):
    assert not SequenceOf(str).is_satisfied_by(value)


def test_check_parameters_names_every_alternative():
    class Thing:
        size = -1

    with pytest.raises(
        InvalidParameterError, match=r"`size` of Thing must be .*\(0.*or.*None.*got -1"
    ):
        check_parameters(
            Thing(), {"size": [Interval(Real, 0, None, closed="neither"), None]}
        )


def test_masked_pixels_are_refused():
    image = np.ma.masked_equal(RGB, RGB[0, 0, 0])
    with pytest.raises(ImageError, match=r"image 0 is a masked array, .* fill it"):
        Images([image])[0]
    assert np.array_equal(Images([np.ma.masked_array(RGB)])[0], Images([RGB])[0])


@pytest.mark.parametrize("orientation", [None, 1, 6])
def test_a_photograph_that_is_to_be_turned_is_told(tmp_path, orientation):
    path, exif = tmp_path / "a.jpg", Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(RGB).save(path, exif=exif)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert read_image(path).shape == RGB.shape
    assert ["EXIF" in str(w.message) for w in told] == [True] * (orientation == 6)


@pytest.mark.parametrize("folder", [3, ["a.png", 3]])
def test_folder_of_what_are_no_paths(folder):
    with pytest.raises(ImageError, match="a folder or a sequence of paths"):
        ImageFolder(folder)


def test_folder_that_is_a_file(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(ImageError, match="it is a file"):
        ImageFolder(tmp_path / "a")


def test_grey_with_alpha_is_told_how_to_drop_it():
    with pytest.raises(ImageError, match=r"image\[\.\.\., 0\]"):
        Images([np.zeros((9, 9, 2), np.uint8)])[0]


def test_a_flat_image_is_not_told_to_be_transposed():
    with pytest.raises(ImageError, match=r"at least \d+ x \d+ pixels") as told:
        Images([np.zeros((3, 500, 3), np.uint8)])[0]
    assert "transpose" not in str(told.value)


def test_a_folder_of_which_nothing_is_chosen(tmp_path):
    imsave(tmp_path / "a.png", GREY, check_contrast=False)
    with pytest.raises(ImageError, match="X holds no image"):
        Images(ImageFolder(tmp_path)[np.array([False])])


def test_several_frames_and_cmyk_are_told():
    with pytest.raises(ImageError, match="of several frames or pages, choose one"):
        check_image(np.zeros((3, 9, 9, 3), np.uint8), "image 0")
    with pytest.raises(ImageError, match="if it is CMYK"):
        Images([np.zeros((9, 9, 4), np.uint8)])[0]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".gif"])
def test_more_pixels_than_the_limit_are_refused(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(np.zeros((40, 50), np.uint8)).save(path)
    assert read_image(path).shape[:2] in ((40, 50), (1, 40))
    for most in (1999, 900):  # beyond the limit, and beyond twice of it
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
        with pytest.raises(ImageError, match=r"a\.\w+.*MAX_IMAGE_PIXELS"):
            read_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    read_image(path)
