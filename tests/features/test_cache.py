"""Caches: what comes out is what went in, or nothing."""

import copy
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.base import clone

from mtsk import DeepFeatures
from mtsk.features.cache import DiskCache, MemoryCache, content_digest, open_cache
from mtsk.features.feature_maps import FeatureMaps
from mtsk.testing import toy_images


def make(seed=0, dtype=np.float16, digest="ab12"):
    random = np.random.default_rng(seed)
    taps = [random.normal(size=s).astype(dtype) for s in [(4, 5, 2), (2, 3, 3)]]
    return FeatureMaps(taps, [(4.0, 4.0), (25 / 3, 8.0)], (16, 20), True, digest)


def assert_same(got, maps):
    assert got is not None
    assert len(got.taps) == len(maps.taps)
    for a, b in zip(got.taps, maps.taps, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert a.tobytes() == b.tobytes()
    facts = ("strides", "shape", "position", "digest")
    assert [getattr(got, f) for f in facts] == [getattr(maps, f) for f in facts]


# -- on disk ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("position", [False, True])
def test_disk_gives_back_every_bit(tmp_path, dtype, position):
    maps = make(dtype=dtype)
    maps.position = position
    maps.taps[0][0, 0] = [np.nan, -0.0]
    cache = DiskCache(tmp_path)
    cache.put("key", maps)
    assert_same(cache.get("key"), maps)
    assert_same(DiskCache(str(tmp_path)).get("key"), maps)


def test_disk_makes_its_folder(tmp_path):
    DiskCache(tmp_path / "a" / "b").put("key", make())
    assert (tmp_path / "a" / "b").is_dir()


def test_disk_misses_are_none(tmp_path):
    assert DiskCache(tmp_path).get("key") is None


def test_disk_entries_are_whole_files_only(tmp_path):
    cache = DiskCache(tmp_path)
    cache.put("one", make(1))
    cache.put("two", make(2))
    cache.put("one", make(3))
    assert len(list(tmp_path.iterdir())) == 2
    assert not list(tmp_path.glob("*.part"))
    assert_same(cache.get("one"), make(3))


@pytest.fixture
def damaged(tmp_path):
    """A cache and a way to set the bytes of its only entry."""
    cache = DiskCache(tmp_path)
    cache.put("key", make())
    (path,) = tmp_path.iterdir()
    return cache, path.read_bytes(), path.write_bytes


def test_truncated_entries_are_none(damaged):
    cache, raw, write = damaged
    for length in [0, 1, 10, *range(50, len(raw), 97), len(raw) - 1]:
        write(raw[:length])
        assert cache.get("key") is None, f"cut at {length} of {len(raw)} bytes"


@pytest.mark.parametrize("bit", [0x01, 0x40, 0xFF])
def test_altered_entries_are_none_or_unharmed(damaged, bit):
    """No byte of the file, when altered, gives other features or an error."""
    cache, raw, write = damaged
    missed = 0
    for place in [*range(0, len(raw), 13), *range(len(raw) - 400, len(raw), 3)]:
        changed = bytearray(raw)
        changed[place] ^= bit
        write(bytes(changed))
        got = cache.get("key")
        if got is None:
            missed += 1
        else:
            assert_same(got, make())
    assert missed > 50


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"(80, 90, 20)", b"(10, 90, 20)"),
        (b"(80, 90, 20)", b"(80, 45, 20)"),
        (b"'<f4'", b"'<f2'"),
        (b"'<f4'", b"'<i4'"),
    ],
)
def test_an_altered_header_is_noticed(tmp_path, old, new):
    """A smaller array is read without reaching the end, where the zip checks."""
    tap = np.random.default_rng(0).normal(size=(80, 90, 20)).astype(np.float32)
    cache = DiskCache(tmp_path)
    cache.put("key", FeatureMaps([tap], [(4.0, 4.0)], (320, 360)))
    (path,) = tmp_path.iterdir()
    raw = path.read_bytes()
    assert raw.count(old) == 1
    path.write_bytes(raw.replace(old, new))
    assert cache.get("key") is None


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"PK\x03\x04", b"\x93NUMPY\x01\x00", pickle.dumps([1])]
)
def test_files_that_are_no_entries(damaged, content):
    cache, _, write = damaged
    write(content)
    assert cache.get("key") is None


def test_archives_of_something_else(tmp_path):
    np.savez(tmp_path / "key.npz", other=np.ones(3))
    assert DiskCache(tmp_path).get("key") is None


def test_a_damaged_entry_is_replaced(damaged):
    cache, raw, write = damaged
    write(raw[:100])
    assert cache.get("key") is None
    cache.put("key", make())
    assert_same(cache.get("key"), make())


def test_reading_leaves_no_file_open(damaged):
    cache, raw, write = damaged
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        assert cache.get("key") is not None
        write(raw[:100])
        assert cache.get("key") is None


def test_a_failing_write_leaves_nothing_and_is_told(tmp_path, monkeypatch):
    cache = DiskCache(tmp_path)
    cache.put("key", make())

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(np, "savez", full)
        with pytest.warns(UserWarning, match=r"not be kept .*\(No space left"):
            cache.put("key", make(1))
    assert [p.name for p in tmp_path.iterdir()] == ["key.npz"]
    assert_same(cache.get("key"), make())


def test_a_failing_rename_leaves_nothing(tmp_path):
    cache = DiskCache(tmp_path)
    with pytest.warns(UserWarning, match="not be kept"):
        cache.put("nowhere/key", make())
    assert list(tmp_path.iterdir()) == []


def test_entries_of_other_images_and_programs_are_none(tmp_path):
    cache = DiskCache(tmp_path)
    cache.put("key", make())
    (tmp_path / "other.npz").write_bytes((tmp_path / "key.npz").read_bytes())
    assert cache.get("other") is None
    arrays = dict(np.load(tmp_path / "key.npz"))
    for name in ("tap0", "strides", "seal"):
        foreign = {k: v for k, v in arrays.items() if k != name}
        if name == "tap0":
            foreign["tap0"] = np.full_like(arrays["tap0"], np.nan)
        np.savez(tmp_path / "foreign.npz", **foreign)
        assert cache.get("foreign") is None


def test_many_writers_of_one_entry(tmp_path):
    cache = DiskCache(tmp_path)

    def write_and_read(i):
        cache.put("key", make())
        return cache.get("key")

    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(write_and_read, range(20)):
            assert_same(got, make())
    assert [p.name for p in tmp_path.iterdir()] == ["key.npz"]


# -- in memory ----------------------------------------------------------------


def test_memory_gives_back_the_same():
    cache, maps = MemoryCache(), make()
    assert cache.get("key") is None
    cache.put("key", maps)
    for one, other in zip(cache.get("key").taps, maps.taps, strict=True):
        assert one is other
    assert len(cache) == 1
    assert cache.n_bytes == maps.nbytes


def test_least_recently_used_make_room():
    size = make().nbytes
    cache = MemoryCache(max_bytes=3 * size)
    for name in "abc":
        cache.put(name, make())
    cache.get("a")
    cache.put("d", make())
    assert [name for name in "abcd" if cache.get(name) is not None] == ["a", "c", "d"]
    assert cache.n_bytes == 3 * size


def test_room_is_counted_in_bytes():
    small, large = make(dtype=np.float16), make(dtype=np.float32)
    cache = MemoryCache(max_bytes=large.nbytes + small.nbytes)
    for name in "abc":
        cache.put(name, small)
    assert len(cache) == 3
    cache.put("large", large)
    assert len(cache) == 2
    assert cache.n_bytes <= cache.max_bytes
    assert cache.get("c") is not None


def test_what_is_too_large_throws_nothing_out():
    small, large = make(dtype=np.float16), make(dtype=np.float32)
    cache = MemoryCache(max_bytes=small.nbytes)
    cache.put("small", small)
    cache.put("large", large)
    assert cache.get("large") is None
    assert cache.get("small").taps[0] is small.taps[0]


def test_putting_twice_counts_once():
    cache = MemoryCache()
    cache.put("key", make())
    cache.put("key", make())
    assert (len(cache), cache.n_bytes) == (1, make().nbytes)


def test_clear():
    cache = MemoryCache()
    cache.put("key", make())
    cache.clear()
    assert (len(cache), cache.n_bytes, cache.get("key")) == (0, 0, None)


@pytest.mark.parametrize("copier", [clone, copy.deepcopy])
def test_clones_share_it(copier):
    cache = MemoryCache()
    assert copier(cache) is cache
    assert copier([cache])[0] is cache if copier is copy.deepcopy else True


def test_another_process_starts_empty():
    cache = MemoryCache(max_bytes=12345)
    cache.put("key", make())
    again = pickle.loads(pickle.dumps(cache))
    assert (len(again), again.max_bytes) == (0, 12345)


def test_threads_keep_the_count():
    size = make().nbytes
    cache = MemoryCache(max_bytes=5 * size)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: cache.put(str(i % 30), make()), range(300)))
    assert cache.n_bytes == len(cache) * size == 5 * size


def test_repr_tells_how_full_it_is():
    assert repr(MemoryCache(10**9)) == "MemoryCache(0 entries, 0 MiB)"


# -- which cache --------------------------------------------------------------


def test_open_cache(tmp_path):
    assert open_cache(None) is None
    assert open_cache("memory") is open_cache("memory")
    assert isinstance(open_cache("memory"), MemoryCache)
    for path in (tmp_path, str(tmp_path)):
        assert isinstance(open_cache(path), DiskCache)
        assert open_cache(path).folder == tmp_path
    own = MemoryCache()
    assert open_cache(own) is own


def test_digest_depends_on_content_and_nothing_else():
    a = np.arange(6, dtype=np.float32)
    assert content_digest(a, "x") == content_digest(a.copy(), "x")
    assert content_digest(np.asfortranarray(np.eye(3))) == content_digest(np.eye(3))
    others = [
        content_digest(a, "y"),
        content_digest(a.astype(float), "x"),
        content_digest(a.reshape(2, 3), "x"),
        content_digest(a.reshape(3, 2), "x"),
        content_digest(a[::-1], "x"),
        content_digest("x", a),
        content_digest(a),
    ]
    assert len({content_digest(a, "x"), *others}) == len(others) + 1
    assert int(content_digest(a), 16) >= 0


@pytest.mark.parametrize("size", [-1, "x", 0.5])
def test_sizes_of_a_memory_cache_that_are_none(size):
    with pytest.raises(ValueError, match="`max_bytes` of MemoryCache must be an int"):
        MemoryCache(size)


def test_nobody_can_change_what_the_memory_holds():
    """Law 6: neither who computed an entry, nor who found it."""
    X, _ = toy_images(2)
    features = DeepFeatures(scales=(1,), cache=MemoryCache()).fit()
    first = features.transform(X)
    expected = [np.array(tap) for tap in first[0].taps]
    found = features.transform(X)[0]
    for maps in (first[0], found):
        for tap in maps.taps:
            with pytest.raises(ValueError, match="read-only"):
                tap[:] = 0
        maps.tap(0).zero_()
    with pytest.raises(TypeError):
        found.taps[0] = np.zeros_like(expected[0])
    first[0].taps[0] = np.zeros_like(expected[0])
    found.taps = []
    again = features.transform(X)[0]
    for tap, before in zip(again.taps, expected, strict=True):
        np.testing.assert_array_equal(tap, before)
    assert again.at([[0, 0]]).shape == (1, features.n_features_out_)
