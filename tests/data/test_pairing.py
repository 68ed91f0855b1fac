"""Images and labels in two folders belong together by name, or are refused."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.io import imsave
from sklearn.model_selection import cross_val_score

from mtsk import DeepFeatures, ImageFolder, MultiTaskSegmenter, Targets
from mtsk.data.pairing import pair_by_name
from mtsk.exceptions import TargetError
from mtsk.testing import toy_images

X, MASKS = toy_images(7)


def write(folder, names, arrays):
    folder.mkdir()
    for name, array in zip(names, arrays, strict=True):
        imsave(folder / name, array.astype(np.uint8), check_contrast=False)
    return ImageFolder(folder)


def model():
    return MultiTaskSegmenter(features=DeepFeatures(scales=(1,)), random_state=0)


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("{}", "{}"),
        ("{}", "{}_mask"),
        ("{}", "mask_{}"),
        ("{}_x", "{}"),
        ("img_{}", "img_{}_seg"),
    ],
)
@given(
    numbers=st.lists(st.integers(0, 999), min_size=2, max_size=12, unique=True),
    seed=st.integers(0, 99),
)
def test_files_are_paired_by_what_differs(image, label, numbers, seed):
    keys = [f"{n:03d}" for n in numbers]
    order = np.random.default_rng(seed).permutation(len(keys))
    pairs = pair_by_name(
        [image.format(k) for k in keys], [label.format(keys[i]) for i in order], "t"
    )
    assert [order[i] for i in pairs] == list(range(len(keys)))


def test_numbers_without_zeros_are_not_taken_for_one_another():
    images = [str(n) for n in range(1, 13)]
    labels = [f"{n}_mask" for n in sorted(range(1, 13), key=str)]
    pairs = pair_by_name(images, labels, "t")
    assert [labels[i] for i in pairs] == [f"{name}_mask" for name in images]


def test_the_first_label_file_may_have_no_image():
    with pytest.warns(UserWarning, match=r"have no image \(\['a_mask'\]\)"):
        found = pair_by_name(["b", "c"], ["a_mask", "b_mask", "c_mask"], "t")
    assert found == [1, 2]
    assert pair_by_name(["z", "b"], ["b_mask"], "t") == [None, 0]


def test_names_that_differ_on_both_sides_are_paired_with_a_warning():
    with pytest.warns(UserWarning, match=r"\['train_1', 'train_2'\].*paired by the"):
        assert pair_by_name(["train_1", "train_2"], ["test_2", "test_1"], "t") == [1, 0]


def test_numbers_in_names_count_by_value(tmp_path):
    names = [f"img_{i}" for i in range(1, 13)]
    folder = write(tmp_path / "a", [f"{n}.png" for n in names], X[[0] * 12])
    masks = write(tmp_path / "b", [f"{n}_mask.png" for n in names], MASKS[[0] * 12])
    assert folder.stems == names
    assert masks.stems == [f"{n}_mask" for n in names]


def test_targets_in_the_order_of_images_are_cut_into_folds(tmp_path):
    names = [f"{i}.png" for i in range(7)]
    images = write(tmp_path / "images", names, X)
    masks = write(tmp_path / "masks", names[:2] + names[3:], MASKS[[0, 1, 3, 4, 5, 6]])
    Y = Targets.for_images(images, parts=masks, kind=list("abababa"))
    assert Y.labelled("parts").tolist() == [0, 1, 3, 4, 5, 6]
    np.testing.assert_array_equal(Y["parts"][3], MASKS[3])
    assert cross_val_score(model(), images, Y.subset(["parts"]), cv=2).min() > 0.7
    with pytest.raises(TypeError, match="images must be an ImageFolder"):
        Targets.for_images(X, parts=masks)


def test_what_has_no_partner_is_named():
    with pytest.warns(UserWarning, match=r"1 label files have no image \(\['z'\]\)"):
        assert pair_by_name(["a", "b"], ["b", "z", "a"], "t") == [2, 0]
    with pytest.warns(
        UserWarning, match=r"\['z'\]\), 1 images no label file \(\['b'\]"
    ):
        assert pair_by_name(["a", "b"], ["a", "z"], "t") == [0, None]
    assert pair_by_name(["a", "b"], ["a"], "t") == [0, None]  # as missing labels are


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (["a", "b"], ["c", "d"], r"no names in common: .*\['c', 'd'\].*\['a', 'b'\]"),
        (["a", "a"], ["a", "b"], "two images are called 'a'"),
        (["a", "b"], ["b", "b"], "two label files are called 'b'"),
        (["1", "2", "3"], ["mask_7", "mask_8", "mask_9"], "no names in common"),
    ],
)
def test_what_does_not_belong_together_is_refused(images, labels, message):
    with pytest.raises(TargetError, match=message):
        pair_by_name(images, labels, "t")


def test_a_fit_pairs_folders_by_name(tmp_path):
    """One image has no mask, one mask no image: by order, most pairs were wrong."""
    names = [f"{c}.png" for c in "abcdefg"]
    images = write(tmp_path / "images", names[1:], X[1:])
    masks = write(
        tmp_path / "masks",
        [n for n in names if n != "d.png"],
        MASKS[[0, 1, 2, 4, 5, 6]],
    )
    known = [1, 2, 4, 5, 6]
    expected = model().fit(X[known], MASKS[known].astype(np.uint8))
    for Y in (masks, {"target": masks}, Targets(target=masks)):
        with pytest.warns(UserWarning, match="1 label files have no image.*1 images"):
            found = model().fit(images, Y)
        got, wanted = (m.decision_function(X[:2]) for m in (found, expected))
        got = got["target"] if isinstance(got, dict) else got
        np.testing.assert_allclose(got, wanted, atol=1e-3)
    with pytest.warns(UserWarning, match="have no image"):
        assert found.score_tasks(images, masks)["target"] > 0.8


def test_hidden_files_are_no_images(tmp_path):
    folder = write(tmp_path / "images", ["a.png", "b.png"], X[:2])
    (tmp_path / "images" / "._a.png").write_bytes(b"of macOS")
    assert ImageFolder(tmp_path / "images").stems == folder.stems == ["a", "b"]


def test_folds_of_folders_stay_paired(tmp_path):
    names = [f"{i}.png" for i in range(7)]
    images = write(tmp_path / "images", names, X)
    masks = write(tmp_path / "masks", [f"m{n}" for n in names], MASKS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = cross_val_score(model(), images, masks, cv=2)
    assert scores.min() > 0.7
