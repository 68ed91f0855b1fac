"""The parts of a decoder, each against what it should equal."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import nn

from mtsk.backbones import module_backbone
from mtsk.decoders.losses import GroupLoss, scores_at
from mtsk.decoders.networks import FCN, TapInfo, UNet, octave, resample
from mtsk.decoders.pyramid import Pyramid, stack_pyramids
from mtsk.decoders.tuning import trainable
from mtsk.features import FeatureMaps
from mtsk.tasks.columns import ColumnGroup

NOMINAL, BINARY, REAL = (
    ColumnGroup(k, n) for k, n in (("nominal", 3), ("binary", 2), ("real", 2))
)


def maps(shape=(20, 30), stride=4, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    cells = [-(-side // stride) for side in shape]
    tap = rng.normal(size=(*cells, channels)).astype(np.float32)
    return FeatureMaps([tap], [(stride, stride)], shape)


def test_scores_at_pixels_are_those_of_the_upsampled_map():
    found = maps()
    tap = torch.from_numpy(found.taps[0]).permute(2, 0, 1)
    places = np.stack(np.indices(found.shape), -1).reshape(-1, 2)
    scores = scores_at(tap, torch.from_numpy(places), 4)
    np.testing.assert_allclose(scores.numpy(), found.at(places), atol=1e-5)


@pytest.mark.parametrize(
    ("cells", "size", "strides"),
    [
        ((7, 9), (7, 10), (3.9, 4.2)),
        ((7, 9), (7, 9), (4.2, 3.9)),
        ((7, 9), (14, 9), (8, 4.1)),
    ],
)
def test_strides_count_where_the_number_of_cells_stays(cells, size, strides):
    """torch's interpolation copies an axis whose length stays."""
    x = torch.rand(1, 1, *cells, dtype=torch.float64)
    found = resample(x, strides, 4, size)[0, 0].numpy()
    places = [
        np.clip((np.arange(m) * 4 + 2) / s - 0.5, 0, n - 1)
        for n, m, s in zip(cells, size, strides, strict=True)
    ]
    want = map_coordinates(
        x[0, 0].numpy(), np.meshgrid(*places, indexing="ij"), order=1
    )
    np.testing.assert_allclose(found, want, atol=1e-6)


@pytest.mark.parametrize("stride", [8, 6.5, 4, 3])
def test_resampled_cells_lie_where_feature_maps_say(stride):
    """A ramp stays the ramp, away from the border, whatever the strides."""
    size, height = 10, 40
    centres = stride * np.arange(-(-height // stride)) + (stride - 1) / 2
    ramp = torch.tensor(centres, dtype=torch.float32)[None, None, :, None]
    x = ramp.expand(1, 1, len(centres), 6)
    out = resample(x, (stride, stride), 4, (size, 6))[0, 0, :, 0].numpy()
    expected = (4 * np.arange(size) + 1.5).clip(centres[0], centres[-1])
    np.testing.assert_allclose(out, expected, atol=1e-4)


def test_fine_taps_are_averaged():
    fine = torch.arange(64.0).reshape(1, 8, 8, 1)
    pyramid = Pyramid.of([(1.0, 1.0, fine), (4.0, 4.0, fine[:, :2, :2])], (8, 8), 4)
    assert [tap.shape for tap in pyramid.taps] == [(1, 1, 2, 2)] * 2
    assert pyramid.strides == [(4.0, 4.0)] * 2
    assert pyramid.taps[0][0, 0, 0, 0] == fine[0, :4, :4, 0].mean()
    assert torch.equal(pyramid.taps[1][0, 0], fine[0, :2, :2, 0])


def test_pyramids_of_maps_keep_their_precision():
    found = maps()
    found.taps[0] = found.taps[0].astype(np.float16)
    pyramid = Pyramid.of_maps(found, 4)
    assert pyramid.taps[0].dtype == torch.float16
    batch = stack_pyramids([pyramid, pyramid], torch.device("cpu"))
    assert batch.taps[0].shape[0] == 2
    assert batch.taps[0].dtype == torch.float32


@pytest.mark.parametrize("width", [32, 30, 29])
def test_a_mirrored_pyramid_is_that_of_the_mirrored_image(width):
    """On taps that are means of pixels, away from the border."""
    image = torch.arange(40.0)[:width].expand(8, width)

    def taps(picture):
        out = []
        for stride in (2, 4):
            padded = nn.functional.pad(
                picture[None, None], (0, -width % stride, 0, 0), mode="replicate"
            )
            mean = nn.functional.avg_pool2d(padded, stride)
            out.append((float(stride), float(stride), mean.permute(0, 2, 3, 1)))
        return Pyramid.of(out, (8, width), 1)

    got, expected = taps(image).mirrored(), taps(image.flip(1))
    for a, b in zip(got.taps, expected.taps, strict=True):
        np.testing.assert_allclose(a[..., 1:-2], b[..., 1:-2], atol=1e-4)


@pytest.mark.parametrize(("ratio", "level"), [(1, 0), (0.5, 0), (2, 1), (7.4, 3)])
def test_octaves(ratio, level):
    assert octave(ratio) == level


@pytest.mark.parametrize("kind", [FCN, UNet])
def test_shapes_of_scores(kind):
    taps = [TapInfo(5, 4), TapInfo(6, 16)]
    network = kind(taps, 4, 8, 1, 0.0, [NOMINAL, REAL], [BINARY]).eval()
    x = [torch.rand(2, 5, 9, 12), torch.rand(2, 6, 3, 3)]
    planes, labels = network(x, [(4.0, 4.0), (16.0, 16.0)], (33, 48))
    assert [p.shape for p in planes] == [(2, 3, 9, 12), (2, 2, 9, 12)]
    assert [s.shape for s in labels] == [(2, 2)]
    own = {id(p) for p in network.shared_parameters()}
    assert all(id(p) not in own for p in network.maps.parameters())
    assert all(id(p) in own for p in network.blocks.parameters())


@pytest.mark.parametrize("kind", [FCN, UNet])
def test_gradients_are_the_slopes(kind):
    torch.manual_seed(0)
    taps = [TapInfo(3, 4), TapInfo(2, 8)]
    # Of numbers: what classes cover is taken as given, and would have no slope.
    network = kind(taps, 4, 4, 1, 0.0, [REAL], [BINARY]).eval()
    x = [torch.rand(1, 3, 4, 4), torch.rand(1, 2, 2, 2)]

    def total(a, b):
        planes, labels = network([a, b], [(4.0, 4.0), (8.0, 8.0)], (16, 16))
        # `float()` in the network rounds to single precision: look at large steps.
        return (planes[0] ** 2).sum() + (labels[0] ** 2).sum()

    for tap in x:
        tap.requires_grad_(True)
    slopes = torch.autograd.grad(total(*x), x)
    rng = torch.Generator().manual_seed(1)
    for i, slope in enumerate(slopes):
        way = torch.randn(x[i].shape, generator=rng)
        step = 1e-3 * way
        ahead = [t + step if j == i else t for j, t in enumerate(x)]
        behind = [t - step if j == i else t for j, t in enumerate(x)]
        with torch.no_grad():
            measured = (total(*ahead) - total(*behind)) / 2e-3
        assert measured.item() == pytest.approx((slope * way).sum().item(), rel=2e-2)


def test_labels_of_images_read_what_classes_cover():
    network = FCN([TapInfo(3, 4)], 4, 8, 1, 0.0, [NOMINAL], [BINARY]).eval()
    shared = torch.rand(1, 4, 2, 2)
    cover = torch.full((1, 3, 2, 2), -50.0)
    cover[0, 0, 0], cover[0, 2, 1] = 50.0, 50.0  # class 0 above, class 2 below
    (found,), (peaks,) = network._over_classes(shared, [cover])
    np.testing.assert_allclose(found[:3], np.sqrt([0.5, 0, 0.5]), atol=1e-6)
    np.testing.assert_allclose(peaks, [6.9068, -6.9068, 6.9068], atol=1e-3)
    above, middle, below = found[3:].reshape(3, 4)
    np.testing.assert_allclose(above, shared[0, :, 0].sum(1) / 3, atol=1e-6)
    np.testing.assert_allclose(below, shared[0, :, 1].sum(1) / 3, atol=1e-6)
    np.testing.assert_allclose(middle, 0, atol=1e-6)


def settled(group, targets, power=None, total=1.0):
    loss = GroupLoss(group, slice(0, group.n_columns), power)
    for target in targets:
        loss.count(target, 1.0)
    loss.settle(total)
    return loss


@pytest.mark.parametrize("power", [None, "sqrt", "balanced"])
def test_the_null_model_loses_one(power):
    rng = np.random.default_rng(0)
    codes = rng.choice(3, (500, 1), p=[0.7, 0.2, 0.1]).astype(np.float32)
    loss = settled(NOMINAL, [codes], power)
    weight = loss.unit[0].numpy() * loss.counts[0]
    prior = torch.tensor(weight / weight.sum()).log().float().expand(500, 3)
    assert loss.of(prior, torch.from_numpy(codes)).item() == pytest.approx(1, abs=1e-4)


def test_the_mean_of_numbers_loses_one():
    numbers = np.random.default_rng(0).normal(30, 7, (400, 2)).astype(np.float32)
    loss = settled(REAL, [numbers])
    assert loss.of(torch.zeros(400, 2), torch.from_numpy(numbers)).item() == (
        pytest.approx(1, abs=1e-4)
    )
    np.testing.assert_allclose(loss.shift, numbers.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(loss.scale, numbers.std(axis=0), rtol=1e-4)


def test_images_count_alike_and_rare_tasks_are_made_up_for():
    many, few = np.zeros((90, 1), np.float32), np.ones((10, 1), np.float32)
    loss = settled(NOMINAL, [many, few], total=4.0)
    np.testing.assert_allclose(loss.counts[0], [1, 1, 0])
    assert loss.labelled == 2  # of 4: each counts twice
    alone = settled(NOMINAL, [many, few], total=2.0)
    np.testing.assert_allclose(loss.unit, 2 * alone.unit)


def test_missing_entries_have_no_part_in_a_loss():
    targets = torch.tensor([[0.0, float("nan")], [1.0, 1.0], [float("nan")] * 2])
    loss = settled(BINARY, [np.array([[0, 0], [1, 1]], np.float32)])
    scores = torch.randn(3, 2, requires_grad=True)
    loss.of(scores, targets).backward()
    assert (scores.grad[targets.isnan()] == 0).all()
    assert (scores.grad[~targets.isnan()] != 0).all()


def test_chosen_pixels_are_labelled():
    targets = torch.full((6, 7, 1), float("nan"))
    targets[2, 3], targets[4, 4] = 1, 2
    loss = GroupLoss(NOMINAL, slice(0, 1), None)
    seen = set()
    for _ in range(50):
        places, codes = loss.choose(targets, 50)
        assert len(places) == len(codes) == 2  # as many as are labelled
        seen |= {
            (*p, c) for p, (c,) in zip(places.tolist(), codes.tolist(), strict=True)
        }
    assert seen == {(2, 3, 1), (4, 4, 2)}
    assert loss.choose(torch.full((6, 7, 1), float("nan")), 5) is None


def test_what_is_last():
    network = nn.Sequential(nn.Conv2d(3, 4, 2, 2), nn.Conv2d(4, 4, 2, 2), nn.Flatten())
    backbone = module_backbone(network, ["0", "1"])
    assert trainable(backbone, "last") == list(network[1].parameters())
    assert not network[0].weight.requires_grad
    assert trainable(backbone, "all") == list(network.parameters())
