"""Tags teach pixels: which links are found, and what they are believed for."""

import numpy as np
import pytest

from mtsk import DeepFeatures, MultiTaskSegmenter, Targets
from mtsk.exceptions import UnknownTaskError
from mtsk.features import MemoryCache
from mtsk.heads import RelatedRidge
from mtsk.links import Links
from mtsk.links.pseudo_labels import TagLink, find_tag_links, pseudo_labels
from mtsk.tasks import MultiLabel, SemanticSegmentation
from mtsk.testing import toy_images

LINK = TagLink("semantic", "tags", np.array([1, 0, -1]))


def fitted(masks, tags, of="auto", labels=None, classes=None):
    return {
        "semantic": SemanticSegmentation(classes=classes).fit([np.array([masks])]),
        "tags": MultiLabel(labels, of=of).fit(tags),
    }


def test_links_are_found_by_name():
    (link,) = find_tag_links(fitted(["cow", "sky"], [{"sky"}, {"cow", "indoors"}]))
    assert (link.pixels, link.tags) == ("semantic", "tags")
    assert link.label_of_class.tolist() == [0, 2]
    (link,) = find_tag_links(fitted([3, 7], [[0, 1], [1, 0]], labels=[7, 3]))
    assert link.label_of_class.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("masks", "tags", "of"),
    [
        (["cow", "sky"], [{"sky"}], "auto"),  # the cow has no label
        ([0, 1], [[True, False]], "auto"),  # labels without names
        (["cow", "sky"], [{"sky", "cow"}], None),
    ],
)
def test_no_link(masks, tags, of):
    assert find_tag_links(fitted(masks, tags, of)) == []


def test_a_link_that_is_given_may_leave_classes_out():
    (link,) = find_tag_links(
        fitted(["cow", "ground", "sky"], [{"cow", "sky"}], "semantic")
    )
    assert link.label_of_class.tolist() == [0, -1, 1]


def test_links_to_nothing_are_refused():
    with pytest.raises(UnknownTaskError, match=r"names 'sematic'; .*'semantic'"):
        find_tag_links(fitted(["cow"], [{"cow"}], "sematic"))
    with pytest.raises(UnknownTaskError, match="no label of 'tags' is a class"):
        find_tag_links(fitted(["cow"], [{"sky"}], "semantic"))
    with pytest.raises(ValueError, match=r"of.*MultiLabel"):
        MultiLabel(of=3).fit([{"a"}])


def test_what_tags_allow():
    columns = np.array([[1, 0], [0, 1], [np.nan, 0], [0, 0]])
    assert LINK.allowed(columns).tolist() == [
        [False, True, True],
        [True, False, True],
        [False, True, True],
        [False, False, True],
    ]
    assert LINK.present(columns).tolist() == [
        [False, True, False],
        [True, False, False],
        [False, False, False],
        [False, False, False],
    ]
    whole = TagLink("semantic", "tags", np.array([0, 1]))
    assert whole.allowed(np.array([[0, 0]])).all()  # tags that leave nothing


def test_pixels_take_only_allowed_classes_and_only_clear_ones():
    scores = np.array([[9.0, 5.0, 0.0], [9.0, 1.0, 0.9], [0.0, 0.0, 0.0]])
    tags = np.tile([np.nan, 0], (3, 1))  # allows classes 1 and 2, tells of none
    codes = pseudo_labels(LINK, tags, scores, np.zeros(3, int))
    np.testing.assert_array_equal(codes, [1, np.nan, np.nan])


def test_a_tag_has_pixels_even_where_scores_deny_it():
    scores = np.zeros((100, 3))
    scores[:, 0] = 9
    scores[40:43, 2] = 3
    link = TagLink("semantic", "tags", np.array([0, 1, 2]))
    tags = np.tile([1, np.nan, 1], (100, 1))  # classes 0 and 2 are there
    codes = pseudo_labels(link, tags, scores, np.zeros(100, int))
    assert (codes == 2).sum() == 2
    assert set(np.flatnonzero(codes == 2)) <= {40, 41, 42}
    images = np.repeat([0, 1], 50)
    codes = pseudo_labels(link, tags, scores, images)
    assert (codes[50:] == 2).sum() == 1  # each image for itself


@pytest.fixture(scope="module")
def tagged():
    """Masks on three images of eight, and tags on all."""
    X, Y = toy_images(8)
    tags = [set(np.unique(y).tolist()) for y in Y]
    masks = [y if i < 3 else None for i, y in enumerate(Y)]
    return X, Y, Targets(semantic=masks, tags=tags)


def model(**parameters):
    features = DeepFeatures(scales=[1], cache=MemoryCache())
    # Of linear heads: only their tasks do not feel one another.
    parameters.setdefault("head", "logistic")
    return MultiTaskSegmenter(features=features, random_state=0, **parameters)


@pytest.mark.filterwarnings("ignore:the tags of")
def test_tags_add_rows_and_are_told_of(tagged):
    X, _, targets = tagged
    taught, alone = (
        model(max_pixels_per_image=50),
        model(max_pixels_per_image=50, links=Links(n_pseudo_label_rounds=0)),
    )
    assert taught.fit(X, targets).n_rows_ == 8 * 50
    assert alone.fit(X, targets).n_rows_ == 3 * 50
    assert [(k.pixels, k.tags) for k in taught.tag_links_] == [("semantic", "tags")]


def test_without_rounds_tags_change_nothing_for_pixels(tagged):
    X, _, targets = tagged
    alone = model(links=Links(n_pseudo_label_rounds=0)).fit(X, targets)
    single = model().fit(X[:3], {"semantic": targets["semantic"][:3]})
    np.testing.assert_array_equal(alone.pixel_head_.coef_, single.pixel_head_.coef_)
    no_link = model(tasks={"tags": MultiLabel(of=None)}).fit(X, targets)
    np.testing.assert_array_equal(no_link.pixel_head_.coef_, alone.pixel_head_.coef_)


def test_tags_do_not_hurt_and_other_tasks_do_not_feel_them(tagged):
    X, Y, targets = tagged
    with_depth = Targets(
        semantic=targets["semantic"],
        tags=targets["tags"],
        depth=[y + 0.5 if i % 2 else None for i, y in enumerate(Y)],
    )
    taught = model().fit(X, with_depth)
    alone = model(links=Links(n_pseudo_label_rounds=0)).fit(X, with_depth)
    assert (
        taught.score_tasks(X[3:], {"semantic": Y[3:]})["semantic"]
        >= alone.score_tasks(X[3:], {"semantic": Y[3:]})["semantic"] - 0.05
    )
    np.testing.assert_allclose(
        taught.pixel_head_.coef_[:, -1], alone.pixel_head_.coef_[:, -1], atol=1e-3
    )


@pytest.mark.filterwarnings("ignore:the tags of")
def test_images_whose_tags_are_missing_teach_nothing(tagged):
    X, _, targets = tagged
    half = Targets(
        semantic=targets["semantic"],
        tags=[t if i < 5 else None for i, t in enumerate(targets["tags"])],
    )
    assert model(max_pixels_per_image=50).fit(X, half).n_rows_ == 5 * 50


def test_how_much_is_shared_is_for_true_labels_to_say(tagged, monkeypatch):
    X, _, targets = tagged
    asked = []
    fit = RelatedRidge.fit

    def watched(self, *args, **more):
        asked.append(self.share)
        return fit(self, *args, **more)

    monkeypatch.setattr(RelatedRidge, "fit", watched)
    taught = model(
        head=RelatedRidge(),
        max_pixels_per_image=40,
        links=Links(n_pseudo_label_rounds=2),
    ).fit(X, targets)
    chosen = taught.pixel_head_.share_
    assert asked[0] == asked[-1] == "cv"  # the last is that of whole images
    assert set(asked[1:-1]) == {chosen}


# -- whether tags help --------------------------------------------------------


def test_a_check_stands_in_the_link(tagged):
    X, _, targets = tagged
    (link,) = model().fit(X, targets).tag_links_
    assert link.tags_are_complete
    assert link.check.is_used
    assert link.check.n_images == 3
    assert 0 <= link.check.miou_without <= link.check.miou_with <= 1


def test_tags_that_name_some_classes_are_taken_so():
    X, Y = toy_images(12)
    masks = [y if i < 6 else None for i, y in enumerate(Y)]
    some = [{7} if i % 2 else {3} for i in range(12)]  # all images have both classes
    targets = Targets(semantic=masks, tags=some)
    (link,) = (
        model(tasks={"tags": MultiLabel(labels=[3, 7])}).fit(X, targets).tag_links_
    )
    assert link.check.is_used
    assert not link.tags_are_complete


def test_tags_that_lower_the_held_out_iou_do_not_teach(tagged):
    X, Y, targets = tagged
    two = Targets(semantic=[*Y[:2], *[None] * 6], tags=targets["tags"])
    with pytest.warns(UserWarning, match=r"tags of 'tags' do not teach 'semantic'"):
        fitted = model().fit(X, two)
    (link,) = fitted.tag_links_
    assert not link.check.is_used
    assert link.check.miou_with < link.check.miou_without
    alone = model(links=Links(n_pseudo_label_rounds=0)).fit(X, two)
    # The table with tags has more rows, which have no label: on some processors that
    # rounds sums otherwise.
    coef = alone.pixel_head_.coef_
    np.testing.assert_allclose(
        fitted.pixel_head_.coef_, coef, atol=1e-3 * np.abs(coef).max()
    )


def test_one_mask_cannot_be_held_out():
    X, Y = toy_images(4)
    tags = [set(np.unique(y).tolist()) for y in Y]
    targets = Targets(semantic=[Y[0], None, None, None], tags=tags)
    (link,) = model().fit(X, targets).tag_links_
    assert (link.check.is_used, link.check.n_images) == (True, 1)
    assert np.isnan(link.check.miou_with)


def test_incomplete_tags_allow_every_class():
    partial = TagLink("semantic", "tags", np.array([1, 0, -1]), tags_are_complete=False)
    assert partial.allowed(np.array([[1, 0], [0, 0]])).all()
    assert partial.present(np.array([[1, 0]])).tolist() == [[False, True, False]]
