"""Shards of images: read anywhere, killed and resumed, in memory that does not grow."""

import json
import os
import signal
from pathlib import Path

import joblib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests_support import Counting, Slight, run_until_done

from mtsk import DeepFeatures, JointRidge, MultiTaskSegmenter
from mtsk.backbones import load_backbone
from mtsk.exceptions import CheckpointError, ImageError, SkippedImageWarning
from mtsk.features import MemoryCache
from mtsk.heads import RelatedRidge
from mtsk.segmenter.fitting import pixels_per_image
from mtsk.tables.checkpoint import Checkpoint
from mtsk.tables.shards import (
    RowExtractor,
    ShardSizes,
    TableReader,
    shard_ends,
    smallest_dtype,
)
from mtsk.tasks.task_set import TaskSet
from mtsk.testing import toy_images

SUMS = JointRidge(alpha=1e-2, calibrate=False)
X, LABELS = toy_images(40)
Y = {
    "labels": LABELS,
    "disc": [None if i % 3 else label == 7 for i, label in enumerate(LABELS)],
    "mean": [float(image.mean()) for image in X],
}


def features(**kw):
    kw = {"scales": [1], "dtype": "float32"} | kw
    return DeepFeatures(load_backbone(Slight(), taps=["first", "second"]), **kw)


def segmenter(**kw):
    kw = {"features": features(), "max_pixels_per_image": 60, "random_state": 0} | kw
    kw.setdefault("head", "logistic")
    return MultiTaskSegmenter(**kw)


def coefficients(model):
    return np.concatenate(
        [np.ravel(head.coef_) for head in (model.pixel_head_, model.image_head_)]
    )


def assert_close(a, b):
    """Other shards add up in another order: equal but for rounding, which few columns
    that nearly depend on one another blow up a little."""
    for head in ("pixel_head_", "image_head_"):
        one, other = (getattr(m, head).coef_ for m in (a, b))
        np.testing.assert_allclose(one, other, atol=1e-3 * np.abs(other).max())
    for image in X[:2]:
        for ours, theirs in zip(
            a.decision_function([image]).values(),
            b.decision_function([image]).values(),
            strict=True,
        ):
            np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-3, atol=1e-4)


class Breaking:
    """A lazy sequence that fails once it has given so many images."""

    def __init__(self, images, n):
        self.images, self.left = images, n

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.left -= 1
        if self.left < 0:
            raise OSError("the disk is gone")
        return self.images[index]


@pytest.mark.parametrize("head", ["logistic", SUMS], ids=["table", "sums"])
@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_workers_give_what_one_process_gives(head, backend):
    here = segmenter(head=head).fit(X, Y)
    with joblib.parallel_config(backend, n_jobs=2):
        there = segmenter(head=head).fit(X, Y)
    assert_close(there, here)
    assert there.n_rows_ == here.n_rows_
    assert there.n_images_ == here.n_images_ == 40


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_workers_predict_what_one_process_predicts(backend):
    images = [*X[:8], np.zeros((3, 3), np.uint8), *X[8:11]]
    model = segmenter(features=features(on_error="skip")).fit(X[:6], LABELS[:6])
    with pytest.warns(
        SkippedImageWarning, match="1 of 12 images were skipped: image 8"
    ):
        here = model.predict(images)
    with (
        joblib.parallel_config(backend, n_jobs=2),
        pytest.warns(SkippedImageWarning, match="1 of 12 images were skipped: image 8"),
    ):
        there = model.predict(images)
    assert here[8] is None
    assert there[8] is None
    for one, other in zip(here, there, strict=True):
        np.testing.assert_array_equal(one, other)
    probabilities = segmenter(n_jobs=2).fit(X[:6], LABELS[:6]).predict_proba(X[:5])
    assert probabilities.shape == (5, *X.shape[1:3], 2)


@given(st.integers(1, 3000), st.integers(1, 9), st.sampled_from([16, 64]))
def test_workers_get_even_shares_of_whole_pairs(n, n_jobs, most):
    with joblib.parallel_config("threading"):
        ends = shard_ends(n, n_jobs, most)
    sizes = np.diff([0, *ends])
    assert ends[-1] == n
    assert (sizes > 0).all()
    assert (sizes <= most).all()
    assert (sizes[:-1] % 2 == 0).all()
    assert np.ptp(sizes[:-1]) <= 2 if len(sizes) > 1 else True
    if len(sizes) >= n_jobs > 1 and n >= 8 * n_jobs:
        shares = [sizes[i::n_jobs].sum() for i in range(n_jobs)]  # dealt out in turn
        assert np.ptp(shares) <= 4


def test_a_cache_in_memory_stays_in_its_process():
    cache = MemoryCache(2**24)
    segmenter(features=features(cache=cache), n_jobs=2).fit(X, Y)
    assert len(cache) > 0


def test_errors_and_skipped_images_keep_their_indices():
    images = [*X[:20], np.zeros((3, 3), np.uint8), *X[21:]]
    for n_jobs in (1, 2):
        with (
            joblib.parallel_config("threading"),
            pytest.raises(ImageError, match="image 20 must be at least"),
        ):
            segmenter(n_jobs=n_jobs).fit(images, Y)
        with (
            joblib.parallel_config("threading"),
            pytest.warns(SkippedImageWarning, match="1 of 40 images"),
        ):
            model = segmenter(features=features(on_error="skip"), n_jobs=n_jobs).fit(
                images, Y
            )
        assert list(model.skipped_) == [20]
        assert model.n_images_ == 39


@pytest.mark.parametrize(
    "head", [SUMS, RelatedRidge(alpha=1e-2, share=0.5, calibrate=False)]
)
def test_sums_give_what_a_table_gives(head):
    weight = np.random.default_rng(0).uniform(0.5, 2, len(X))
    streamed = segmenter(head=head).fit(X, Y, sample_weight=weight)
    in_pieces = segmenter(head=head)
    for start in range(0, 40, 10):
        part = slice(start, start + 10)
        in_pieces.partial_fit(
            X[part], {n: v[part] for n, v in Y.items()}, sample_weight=weight[part]
        )
    assert_close(streamed, in_pieces)
    assert streamed.n_rows_ == in_pieces.n_rows_


def test_many_images_give_fewer_pixels_each():
    found = [pixels_per_image(500, n) for n in (1, 400, 401, 1000, 10**6)]
    assert found == [500, 500, 498, 200, 10]
    assert segmenter(max_pixels_per_image=None).fit(X, LABELS).n_rows_ == 40 * 500
    assert segmenter(max_pixels_per_image=200).fit(X, LABELS).n_rows_ == 40 * 200
    assert (
        segmenter(max_pixels_per_image=None, head=SUMS).fit(X, LABELS).n_rows_
        == 40 * 500
    )


def test_a_table_that_will_not_fit_is_refused_early(monkeypatch):
    network = Counting()
    own = DeepFeatures(load_backbone(network, taps=["first"]), scales=[1])
    monkeypatch.setattr("mtsk.tables.joiner.available_memory", lambda: 10_000)
    with pytest.raises(
        MemoryError, match=r"14 of 40 images.*Lower `max_pixels_per_image`"
    ):
        segmenter(features=own).fit(X, LABELS)
    assert network.images == 14


# -- checkpoints ------------------------------------------------------------------


@pytest.mark.parametrize("head", ["logistic", SUMS], ids=["table", "sums"])
def test_a_broken_fit_goes_on_where_it_was(tmp_path, monkeypatch, head):
    monkeypatch.setattr(TableReader, "sizes", ShardSizes(fewest=20))
    unbroken = segmenter(head=head).fit(Breaking(X, 99), Y)
    folder = tmp_path / "kept"
    for n_read in (26, 16):
        with pytest.raises(OSError, match="the disk is gone"):
            segmenter(head=head, checkpoint=folder).fit(Breaking(X, n_read), Y)
    resumed = segmenter(head=head, checkpoint=folder).fit(Breaking(X, 20), Y)
    np.testing.assert_array_equal(coefficients(resumed), coefficients(unbroken))
    assert resumed.n_images_ == 40
    assert not folder.exists()


@pytest.mark.parametrize("head", ["logistic", SUMS], ids=["table", "sums"])
@pytest.mark.parametrize("change", ["labels", "images", "weights", "fewer"])
def test_what_changed_is_read_again(tmp_path, monkeypatch, head, change):
    monkeypatch.setattr(TableReader, "sizes", ShardSizes(fewest=16))
    folder = tmp_path / "kept"
    broken = [*X[:30], np.zeros(3, np.uint8), *X[31:]]
    weight = np.ones(40)
    with pytest.raises(ImageError):
        segmenter(head=head, checkpoint=folder).fit(broken, Y, sample_weight=weight)
    images, targets, n = list(X), Y, 40
    if change == "labels":
        targets = {**Y, "labels": LABELS[:, ::-1]}
    elif change == "images":
        images = [255 - image for image in X]
    elif change == "weights":
        weight[:10] = 5
    else:
        n = 12
    images, weight = images[:n], weight[:n]
    targets = {name: column[:n] for name, column in targets.items()}
    resumed = segmenter(head=head, checkpoint=folder)
    resumed.fit(images, targets, sample_weight=weight)
    plain = segmenter(head=head).fit(images, targets, sample_weight=weight)
    np.testing.assert_array_equal(coefficients(resumed), coefficients(plain))
    assert resumed.n_images_ == n


def test_a_checkpoint_knows_the_mixtures_of_channels():
    """They are learnt from all images, so that one more makes other rows of each."""
    images = np.random.default_rng(0).random((4, 32, 32, 5)).astype(np.float32)
    images[3, ..., 4] *= 0.1

    def digest(n):
        features = DeepFeatures(scales=[1], channels="pca").fit(images[:n])
        return RowExtractor(features, TaskSet({}), 10, 0).digest()

    assert digest(3) == digest(3)
    assert digest(3) != digest(4)


def test_a_checkpoint_of_another_fit_is_refused(tmp_path):
    with pytest.raises(OSError, match="gone"):
        segmenter(checkpoint=tmp_path / "a").fit(Breaking(X, 20), Y)
    with pytest.raises(CheckpointError, match="of a fit with other parameters"):
        segmenter(checkpoint=tmp_path / "a", max_pixels_per_image=50).fit(X, Y)
    with pytest.raises(CheckpointError, match="of a fit with other parameters"):
        segmenter(checkpoint=tmp_path / "a", random_state=1).fit(X, Y)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="files that mtsk did not write"):
        segmenter(checkpoint=tmp_path).fit(X, Y)
    with pytest.raises(CheckpointError, match="is a file"):
        segmenter(checkpoint=tmp_path / "notes.txt").fit(X, Y)
    with pytest.raises(CheckpointError, match="could not be written"):
        segmenter(checkpoint=tmp_path / "notes.txt" / "sub").fit(X, Y)
    with pytest.raises(CheckpointError, match="cannot be used"):
        segmenter(checkpoint="a\0b").fit(X, Y)
    with pytest.raises(ValueError, match=r"`checkpoint` of.*SharedDecoder"):
        segmenter(checkpoint=tmp_path / "b", head="fcn").fit(X, Y)
    with pytest.raises(ValueError, match=r"`random_state`.*`checkpoint` is given"):
        segmenter(checkpoint=tmp_path / "b", random_state=None).fit(X, Y)


@pytest.mark.parametrize("damage", ["cut", "noise", "header"])
def test_damaged_checkpoints_are_named(tmp_path, damage):
    folder = tmp_path / "kept"
    with pytest.raises(OSError, match="gone"):
        segmenter(checkpoint=folder).fit(Breaking(X, 20), Y)
    path = folder / (
        "mtsk_checkpoint.json" if damage == "header" else "shard_000000.npz"
    )
    named = folder.name if damage == "header" else path.name
    content = path.read_bytes()
    path.write_bytes(
        content[: len(content) // 2] if damage != "noise" else b"\x00" * 99
    )
    with pytest.raises(CheckpointError, match=rf"{named}.*damaged.*delete it"):
        segmenter(checkpoint=folder).fit(X, Y)


def test_a_full_disk_leaves_what_is_done(tmp_path, monkeypatch):
    folder = tmp_path / "kept"
    savez, calls = np.savez, []

    def full(file, **arrays):
        calls.append(1)
        if len(calls) > 1:
            file.write(b"half")
            raise OSError(28, "No space left on device")
        savez(file, **arrays)

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(CheckpointError, match=r"could not be written.*No space"):
        segmenter(checkpoint=folder).fit(X, Y)
    monkeypatch.undo()
    assert sorted(p.name for p in folder.iterdir()) == [
        "mtsk_checkpoint.json",
        "shard_000000.npz",
    ]
    resumed = segmenter(checkpoint=folder).fit(X, Y)
    np.testing.assert_array_equal(
        coefficients(resumed), coefficients(segmenter().fit(X, Y))
    )


@pytest.mark.parametrize("n_removed", [0, 1, 5, 10])
def test_stopped_while_tidying_up_it_goes_on(tmp_path, monkeypatch, n_removed):
    monkeypatch.setattr(TableReader, "sizes", ShardSizes(most=4))
    folder, unlink, to_go = tmp_path / "kept", Path.unlink, [n_removed]

    def stopped(path, missing_ok=False):
        if not path.name.startswith("."):  # what is written stands, and is tidied up
            to_go[0] -= 1
            if to_go[0] < 0:
                raise KeyboardInterrupt
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", stopped)
    with pytest.raises(KeyboardInterrupt):
        segmenter(checkpoint=folder).fit(X, Y)
    monkeypatch.setattr(Path, "unlink", unlink)
    left = {path.name for path in folder.iterdir()}
    assert len(left) == 11 - n_removed
    assert "mtsk_checkpoint.json" in left
    segmenter(checkpoint=folder).fit(X, Y)
    assert not folder.exists()


def test_no_name_is_no_folder():
    with pytest.raises(ValueError, match=r"`checkpoint` .* a path, or None"):
        segmenter(checkpoint="").fit(X, Y)


def test_stopped_while_it_began_it_goes_on(tmp_path):
    (tmp_path / ".mtsk_checkpoint.json.123.7").write_text("{")
    segmenter(checkpoint=tmp_path).fit(X, Y)
    assert not tmp_path.exists()


def test_more_images_leave_the_shards_that_are_there_as_they_are(tmp_path):
    folder = tmp_path / "kept"
    kept = Checkpoint(folder, "recipe")
    assert kept.shard_ends([6, 10, 14]) == [6, 10, 14]
    again = Checkpoint(folder, "recipe")
    assert again.shard_ends([8, 16, 24, 29]) == [6, 10, 14, 20, 26, 29]
    assert again.shard_ends([12]) == [6, 10, 12]
    assert again.shard_ends([10]) == [6, 10]
    for bad in ("3", "[]", "[4, 4]", "[2.5]", "[true]", '["a"]', "null"):
        kept.header.write_text(f'{{"ends": {bad}, "extractor": "recipe"}}')
        with pytest.raises(CheckpointError, match="damaged"):
            Checkpoint(folder, "recipe")


KILLED = """
import sys, time
sys.path[:0] = {tests!r}
import test_shards, numpy as np
test_shards.TableReader.sizes = test_shards.ShardSizes(2, 2, 2)

class Slow(test_shards.Breaking):
    def __getitem__(self, index):
        time.sleep(0.01)
        return self.images[index]

head = test_shards.SUMS if {sums} else 'logistic'
model = test_shards.segmenter(head=head, checkpoint={folder!r})
print("ready", flush=True)
model.fit(Slow(test_shards.X, 0), test_shards.Y)
np.save({result!r}, test_shards.coefficients(model))
print("done", flush=True)
"""


@pytest.mark.parametrize("sums", [False, True])
def test_killed_at_random_it_ends_as_if_it_had_not_been(tmp_path, monkeypatch, sums):
    monkeypatch.setattr(TableReader, "sizes", ShardSizes(2, 2, 2))
    script = KILLED.format(
        tests=[str(folder) for folder in Path(__file__).parents[:2]],
        sums=sums,
        folder=str(tmp_path / "kept"),
        result=str(tmp_path / "coef.npy"),
    )
    run_until_done(script, 0.4, seed=int(sums))
    unbroken = segmenter(head=SUMS if sums else "logistic").fit(X, Y)
    np.testing.assert_array_equal(
        np.load(tmp_path / "coef.npy"), coefficients(unbroken)
    )
    assert not (tmp_path / "kept").exists()


# -- a cluster ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            memory_limit=0,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


class Deadly:
    """Images, one of which kills the first process that looks at it."""

    def __init__(self, images, at, marker):
        self.images, self.at, self.marker = images, at, marker

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        if index == self.at and not os.path.exists(self.marker):
            with open(self.marker, "w") as file:
                json.dump(os.getpid(), file)
            os.kill(os.getpid(), signal.SIGKILL)
        return self.images[index]


@pytest.mark.filterwarnings("ignore")  # of distributed's own
@pytest.mark.parametrize("head", ["logistic", SUMS], ids=["table", "sums"])
def test_a_worker_of_a_cluster_dies_in_mid_fit(cluster, tmp_path, head):
    cluster.wait_for_workers(2)  # with one, joblib does the work in this process
    here = segmenter(head=head).fit(X, Y)
    marker = tmp_path / "killed"
    with joblib.parallel_config("dask"):
        there = segmenter(head=head).fit(Deadly(X, 21, marker), Y)
    assert json.loads(marker.read_text()) != os.getpid()
    assert there.n_images_ == 40  # none twice, none lost
    assert there.n_rows_ == here.n_rows_
    assert_close(there, here)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([0, 255], np.uint8),
        ([-1, 127], np.int8),
        ([-1, 200], np.int16),
        ([0, 70_000], np.uint32),
        ([-(2**40), 3], np.int64),
        ([], np.uint8),
    ],
)
def test_maps_travel_in_the_least_bytes(values, dtype):
    given = np.array([values], np.int64)
    sent = smallest_dtype(given)
    assert sent.dtype == dtype
    np.testing.assert_array_equal(sent, given)


def test_what_is_no_map_of_integers_travels_as_it_is():
    for entry in (None, {"a"}, 3, np.eye(2), np.eye(2, dtype=bool)):
        assert smallest_dtype(entry) is entry
    both = np.array([[2**64 - 1, 0]], np.uint64)
    np.testing.assert_array_equal(smallest_dtype(both), both)
