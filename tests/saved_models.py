"""Models that go to a file and come back, which several test files look at."""

import numpy as np
from tests_support import Slight

import mtsk
from mtsk import DeepFeatures, JointRidge
from mtsk.testing import toy_images

X, MASKS = toy_images(6, (24, 28))
SLIGHT = Slight()
SMALL = DeepFeatures(SLIGHT, taps=["first", "second"], scales=(1,))
BUNDLED = DeepFeatures(scales=(1,))


def same(a, b):
    """Whether two predictions are equal to the bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, set):
        return a == b
    return np.array_equal(np.asarray(a), np.asarray(b))


def returned(model, tmp_path, backbone="slight", **more):
    """Save and load a model."""
    path = tmp_path / "my model é.mtsk"
    mtsk.save(model, path)
    if backbone == "slight":
        backbone = None if isinstance(model, JointRidge) else SLIGHT
    return mtsk.load(path, backbone=backbone, **more)


def check(model, tmp_path, images=X, **more):
    loaded = returned(model, tmp_path, **more)
    assert type(loaded) is type(model)
    assert same(model.predict(images), loaded.predict(images))
    assert same(model.decision_function(images), loaded.decision_function(images))
    assert loaded.get_params().keys() == model.get_params().keys()
    return loaded
