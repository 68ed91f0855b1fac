"""Damaged and hostile files: refused by name, or loaded as something harmless."""

import hashlib
import io
import json
import os
import zipfile

import numpy as np
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KDTree, KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVC, SVR, NuSVC, NuSVR
from sklearn.tree import DecisionTreeClassifier

import mtsk
from mtsk import DeepFeatures, JointRidge, MultiTaskSegmenter
from mtsk.exceptions import ModelFileError, MtskError
from mtsk.persistence.container import FORMAT, MANIFEST, read_container, write_container
from mtsk.persistence.soundness import check_compiled
from mtsk.tasks import DenseRegression
from mtsk.testing import toy_images

CASES = int(os.environ.get("MTSK_DAMAGES", "40"))  # of each kind; more in benchmarks


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A small model with a tree, whose indices scikit-learn follows unchecked."""
    X, masks = toy_images(4)
    model = MultiTaskSegmenter(
        features=DeepFeatures(scales=(0.5,), n_components=1),
        head=DecisionTreeClassifier(max_depth=2, random_state=0),
        random_state=0,
        max_pixels_per_image=40,
    ).fit(X, masks)
    path = tmp_path_factory.mktemp("models") / "model.mtsk"
    mtsk.save(model, path)
    return path


def seal(data):
    """Give bytes the seal that their content asks for, as whoever knows how can."""
    digest = hashlib.sha256(data[:-80]).hexdigest()
    return bytes(data[:-80]) + b"mtsk model %04d %s" % (FORMAT, digest.encode())


def rewritten(path, tmp_path, **members):
    """Return a file of a model some members of which are others."""
    content = {**read_container(path), **members}
    manifest = json.loads(content.pop(MANIFEST))
    out = tmp_path / "hostile.mtsk"
    write_container(out, manifest, content)
    return out


def edited(path, tmp_path, edit):
    """Return a file whose object was edited as text."""
    data = read_container(path)["model.skops"]
    with zipfile.ZipFile(io.BytesIO(data)) as old:
        content = {name: old.read(name) for name in old.namelist()}
    schema = json.loads(content["schema.json"])
    edit(schema, content)
    content["schema.json"] = json.dumps(schema).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as new:
        for name, value in content.items():
            new.writestr(name, value)
    return rewritten(path, tmp_path, **{"model.skops": buffer.getvalue()})


def nodes(schema):
    """Every object in a schema."""
    if isinstance(schema, dict):
        if "__loader__" in schema:
            yield schema
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            yield from nodes(part)


def test_flipped_bits_are_noticed(path, tmp_path):
    data, random = path.read_bytes(), np.random.default_rng(0)
    out = tmp_path / "flipped.mtsk"
    for place in random.integers(0, 8 * len(data), CASES):
        changed = bytearray(data)
        changed[place // 8] ^= 1 << (place % 8)
        out.write_bytes(changed)
        for read in (mtsk.load, mtsk.persistence.describe):
            with pytest.raises(ModelFileError, match=r"flipped\.mtsk"):
                read(out)


def test_files_cut_short_are_noticed(path, tmp_path):
    data, random = path.read_bytes(), np.random.default_rng(1)
    out = tmp_path / "short.mtsk"
    for length in [0, 1, 79, 80, len(data) - 1, *random.integers(0, len(data), CASES)]:
        out.write_bytes(data[:length])
        with pytest.raises(ModelFileError, match=r"short\.mtsk"):
            mtsk.load(out)


def test_bytes_put_in_are_noticed(path, tmp_path):
    data, random = path.read_bytes(), np.random.default_rng(2)
    out = tmp_path / "longer.mtsk"
    for place in random.integers(0, len(data), CASES // 4):
        out.write_bytes(data[:place] + random.bytes(9) + data[place:])
        with pytest.raises(ModelFileError, match=r"longer\.mtsk"):
            mtsk.load(out)


@pytest.mark.filterwarnings("ignore")
def test_flipped_bits_under_a_good_seal_do_no_harm(path, tmp_path):
    data, random = path.read_bytes(), np.random.default_rng(3)
    out, X = tmp_path / "sealed.mtsk", toy_images(1)[0]
    loaded = 0
    for place in random.integers(0, 8 * (len(data) - 80), CASES):
        changed = bytearray(data)
        changed[place // 8] ^= 1 << (place % 8)
        out.write_bytes(seal(changed))
        try:
            model = mtsk.load(out)
        except MtskError:
            continue
        loaded += 1
        try:
            model.predict(X)
        except (Exception, MemoryError):  # wrong numbers may be of no use: no crash
            continue
    assert loaded < CASES


@pytest.mark.parametrize(
    "call",
    ["os.system", "builtins.eval", "subprocess.Popen", "shutil.rmtree", "mtsk.load"],
)
@pytest.mark.parametrize(
    "loader",
    [
        "FunctionNode",
        "TypeNode",
        "ObjectNode",
        "MethodNode",
        "PartialNode",
        "ReduceNode",
        "OperatorFuncNode",
        "ConstructorFromReduceNode",
        "QuantileForestNode",
        "NoNode",
    ],
)
def test_what_would_run_is_refused(path, tmp_path, call, loader):
    module, _, name = call.rpartition(".")
    content = {
        "func": {
            "__class__": "str",
            "__module__": "builtins",
            "__loader__": "JsonNode",
        },
        "obj": {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode"},
    }

    def edit(schema, _):
        victim = list(nodes(schema))[5]
        victim.clear()
        victim.update(
            __class__=name,
            __module__=module,
            __loader__=loader,
            content=content,
            reduce={"args": [], "type": "x"},
            constructor=content,
        )

    out = edited(path, tmp_path, edit)
    with pytest.raises(ModelFileError, match=r"hostile\.mtsk"):
        mtsk.load(out)


@pytest.mark.parametrize("kind", ["PartialNode", "MethodNode", "OperatorFuncNode"])
def test_skops_own_calls_are_no_part_of_a_model(path, tmp_path, kind):
    def edit(schema, _):
        victim = list(nodes(schema))[3]
        victim["__loader__"] = kind

    with pytest.raises(ModelFileError, match=rf"loaded as '{kind}'"):
        mtsk.load(edited(path, tmp_path, edit))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("left_child", 10**6),
        ("left_child", -7),
        ("right_child", 0),
        ("feature", 10**6),
        ("feature", -5),
    ],
)
def test_trees_whose_branches_lead_out_of_memory_are_refused(
    path, tmp_path, name, value
):
    def edit(_, content):
        for file, data in content.items():
            if file.endswith(".npy"):
                array = np.load(io.BytesIO(data))
                if array.dtype.names and name in array.dtype.names:
                    array[name][0] = value
                    buffer = io.BytesIO()
                    np.save(buffer, array)
                    content[file] = buffer.getvalue()

    with pytest.raises(ModelFileError, match="tree"):
        mtsk.load(edited(path, tmp_path, edit))


def test_an_array_that_says_it_is_huge(path, tmp_path):
    def edit(_, content):
        name = next(n for n in content if n.endswith(".npy"))
        buffer = io.BytesIO()
        header = {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**3)}
        np.lib.format.write_array_header_1_0(buffer, header)
        content[name] = buffer.getvalue() + b"\0" * 64

    with pytest.raises(ModelFileError, match="is not what it says"):
        mtsk.load(edited(path, tmp_path, edit))


def test_an_array_of_objects(path, tmp_path):
    def edit(_, content):
        name = next(n for n in content if n.endswith(".npy"))
        buffer = io.BytesIO()
        np.save(buffer, np.array([print], object), allow_pickle=True)
        content[name] = buffer.getvalue()

    with pytest.raises(ModelFileError, match="is not what it says"):
        mtsk.load(edited(path, tmp_path, edit))


def test_nesting_without_end(path, tmp_path):
    deep = {}
    for _ in range(900):
        deep = {"content": deep}

    def edit(schema, _):
        schema["more"] = deep

    with pytest.raises(ModelFileError, match="nested deeper"):
        mtsk.load(edited(path, tmp_path, edit))


def test_a_zip_bomb(path, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", b" " * 10**7)
    out = rewritten(path, tmp_path, **{"model.skops": buffer.getvalue()})
    with pytest.raises(ModelFileError, match="is compressed"):
        mtsk.load(out)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MANIFEST, b" " * 10**7)
        archive.comment = b" " * 80
    out.write_bytes(seal(bytearray(bomb.getvalue())))
    with pytest.raises(ModelFileError, match="is compressed or encrypted"):
        mtsk.load(out)


@pytest.mark.parametrize("name", ["../escape", "/etc/escape", "a/../../b", "C:\\x"])
def test_paths_that_lead_out_are_never_written(path, tmp_path, name):
    out = rewritten(path, tmp_path, **{name: b"text"})
    before = set(tmp_path.parent.rglob("*"))
    mtsk.load(out)  # nothing is ever unpacked
    assert set(tmp_path.parent.rglob("*")) == before


def test_a_model_may_not_name_a_cache(path, tmp_path):
    def edit(schema, _):
        for node in nodes(schema):
            if node["__class__"] == "DeepFeatures":
                node["content"]["content"]["cache"] = {
                    "__class__": "str",
                    "__module__": "builtins",
                    "__loader__": "JsonNode",
                    "content": json.dumps(str(tmp_path / "cache")),
                    "is_json": True,
                }

    model = mtsk.load(edited(path, tmp_path, edit))
    assert model.features_.cache is None
    model.predict(toy_images(1)[0])
    assert not (tmp_path / "cache").exists()


def test_a_later_format_is_told_as_such(path, tmp_path):
    data = path.read_bytes()
    digest = hashlib.sha256(data[:-80]).hexdigest().encode()
    out = tmp_path / "later.mtsk"
    out.write_bytes(data[:-80] + b"mtsk model 0007 " + digest)
    with pytest.raises(ModelFileError, match="has format 7, and this mtsk reads"):
        mtsk.load(out)


@pytest.mark.parametrize("content", [b"", b"PK", b"not a model", b"PK\x03\x04" * 99])
def test_other_files(tmp_path, content):
    out = tmp_path / "other"
    out.write_bytes(content)
    with pytest.raises(ModelFileError, match="no model saved by mtsk"):
        mtsk.load(out)


def test_no_file_and_a_folder(tmp_path):
    with pytest.raises(ModelFileError, match="cannot be read: No such file"):
        mtsk.load(tmp_path / "none")
    with pytest.raises(ModelFileError, match="cannot be read: Is a directory"):
        mtsk.load(tmp_path)


@pytest.mark.parametrize(
    "manifest",
    [{}, {"card": 3}, {"card": {}, "networks": [{}], "foreign": []}, {"networks": 5}],
)
def test_manifests_that_are_none(path, tmp_path, manifest):
    out = tmp_path / "manifest.mtsk"
    members = read_container(path)
    write_container(out, manifest, {"model.skops": members["model.skops"]})
    with pytest.raises(ModelFileError, match=r"manifest\.mtsk"):
        mtsk.load(out)


@pytest.mark.parametrize("card", [{"model": "x"}, [1], {"tasks": [1]}, None])
def test_cards_made_by_hand(path, tmp_path, card):
    content = read_container(path)
    manifest = {**json.loads(content[MANIFEST]), "card": card}
    out = tmp_path / "card.mtsk"
    write_container(out, manifest, {"model.skops": content["model.skops"]})
    with pytest.raises(ModelFileError, match=r"card\.mtsk. has no card"):
        mtsk.persistence.describe(out)


def test_something_that_is_no_estimator(path, tmp_path):
    out = rewritten(path, tmp_path, **{"model.skops": skops.io.dumps([1, 2])})
    with pytest.raises(ModelFileError, match="holds no estimator"):
        mtsk.load(out)


def test_functions_of_numpy_are_fine(tmp_path):
    head = make_pipeline(FunctionTransformer(np.log1p), LogisticRegression())
    table = np.random.default_rng(0).random((20, 3))
    head.fit(table, table[:, 0] > 0.5)
    mtsk.save(head, tmp_path / "m")
    np.testing.assert_array_equal(
        mtsk.load(tmp_path / "m").predict(table), head.predict(table)
    )


def test_a_head_alone_is_small(tmp_path):
    mtsk.save(JointRidge().fit(np.eye(4), [0, 1, 0, 1]), tmp_path / "m")
    assert (tmp_path / "m").stat().st_size < 20_000


def head_of(estimator, tmp_path, task=None):
    """Return the path of a model with a head of scikit-learn's."""
    X, masks = toy_images(4)
    model = MultiTaskSegmenter(
        task,
        features=DeepFeatures(scales=(0.5,), n_components=3),
        head=estimator,
        random_state=0,
        max_pixels_per_image=40,
    ).fit(X, masks if task is None else masks.astype(float) + 0.5)
    mtsk.save(model, tmp_path / "m.mtsk")
    return tmp_path / "m.mtsk", model, X


def array_of(schema, attribute):
    """Return the stored array of an attribute of some object, as (node, edit)."""

    def find(part):
        if isinstance(part, dict):
            own = part.get("content")
            if isinstance(own, dict) and attribute in own and "file" in own[attribute]:
                return own[attribute]["file"]
            part = list(part.values())
        for inner in part if isinstance(part, list) else ():
            found = find(inner)
            if found is not None:
                return found
        return None

    return find(schema)


def with_array(path, tmp_path, attribute, change):
    def edit(schema, content):
        file = array_of(schema, attribute)
        assert file is not None
        buffer = io.BytesIO()
        np.save(buffer, change(np.load(io.BytesIO(content[file]))))
        content[file] = buffer.getvalue()

    return edited(path, tmp_path, edit)


@pytest.mark.parametrize("machine", [SVC(), NuSVC(nu=0.05), SVC(kernel="poly")])
@pytest.mark.parametrize(
    ("attribute", "change"),
    [
        ("_n_support", lambda a: np.array([-(10**9), 10**9 + a.sum()], np.int32)),
        ("_n_support", lambda a: a[:1]),
        ("_dual_coef_", lambda a: a[:, :-3]),
        ("_dual_coef_", lambda a: a.astype(np.float32)),
        ("support_", lambda a: a[:2]),
        ("support_vectors_", lambda a: a[:, :1]),
        ("support_vectors_", lambda a: a[:2]),
        ("_intercept_", lambda a: a[:0]),
        ("_probA", lambda a: np.zeros(7)),
    ],
)
def test_support_vectors_that_do_not_fit_are_refused(
    machine, attribute, change, tmp_path
):
    path, model, X = head_of(machine, tmp_path)
    np.testing.assert_array_equal(mtsk.load(path).predict(X), model.predict(X))
    with pytest.raises(ModelFileError, match="support vectors that are none"):
        mtsk.load(with_array(path, tmp_path, attribute, change))


@pytest.mark.parametrize("machine", [SVR(), NuSVR()])
def test_regression_with_support_vectors(machine, tmp_path):
    path, model, X = head_of(machine, tmp_path, DenseRegression())
    np.testing.assert_array_equal(mtsk.load(path).predict(X), model.predict(X))
    hostile = with_array(path, tmp_path, "_n_support", lambda a: a + 5)
    with pytest.raises(ModelFileError, match="support vectors that are none"):
        mtsk.load(hostile)


@pytest.mark.parametrize("algorithm", ["kd_tree", "ball_tree", "brute"])
def test_trees_of_neighbours_are_grown_anew(algorithm, tmp_path):
    neighbours = KNeighborsClassifier(3, algorithm=algorithm)
    path, model, X = head_of(neighbours, tmp_path)
    types = mtsk.persistence.describe(path)["types"]
    assert bool(types) == (algorithm != "brute")
    loaded = mtsk.load(path, allow=types)
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))


def test_a_tree_of_other_points_is_replaced():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 3)), rng.integers(0, 2, 40)
    model = KNeighborsClassifier(3, algorithm="kd_tree").fit(X, y)
    expected = model.kneighbors(X)[1]
    model._tree = KDTree(rng.normal(size=(40, 3)))
    assert (model.kneighbors(X)[1] != expected).any()
    check_compiled(model, "m")
    np.testing.assert_array_equal(model.kneighbors(X)[1], expected)


def test_references_to_references(path, tmp_path):
    def edit(schema, _):
        def reference(number):
            return {
                "__class__": "list",
                "__module__": "builtins",
                "__loader__": "ListNode",
                "__id__": 10**6 + number,
                "content": [],
            }

        deepest = reference(0)
        for number in range(1, 30):
            level = reference(number)
            level["content"] = [deepest, *[reference(number - 1) for _ in range(3)]]
            deepest = level
        schema["content"]["more"] = deepest

    with pytest.raises(ModelFileError, match="more objects than any model"):
        mtsk.load(edited(path, tmp_path, edit))


def test_archives_in_an_arrays_place(path, tmp_path):
    def edit(schema, content):
        node = next(n for n in nodes(schema) if str(n.get("file")).endswith(".npy"))
        buffer = io.BytesIO()
        np.savez_compressed(buffer, a=np.zeros(10**6))
        content["bomb.npz"] = buffer.getvalue()
        node["file"] = "bomb.npz"

    with pytest.raises(ModelFileError, match=r"'bomb.npz' stands for an array"):
        mtsk.load(edited(path, tmp_path, edit))
