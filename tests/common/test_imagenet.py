"""EfficientNet-Lite0: the published network, its folded normalisation, and what it takes."""

from __future__ import annotations

import csv
import io
import re
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from common import imagenet
from common.cli import InputError, data_folder
from common.imagenet import (
    EPSILON,
    HEAD_CHANNELS,
    SIDE,
    STAGES,
    Convolution,
    FeatureNet,
    build,
    feature_net,
    folded,
    read_weights,
    weights_path,
)

SMALL = 64  # side of the pictures where any will do
DAISY = 985  # of ImageNet's classes
OXEYE_DAISY = "49"  # of the flowers' labels


@pytest.fixture(scope="module")
def net() -> FeatureNet:
    return feature_net()


def pictures(count: int, side: int = SMALL) -> torch.Tensor:
    """Random coloured pixels (B, 3, S, S) in 0..1."""
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("side", [SIDE, 96])
def test_the_network_is_that_of_the_published_package(net, side):
    package = pytest.importorskip("efficientnet_lite_pytorch")
    published = package.EfficientNet.from_name("efficientnet-lite0", image_size=side)
    published.load_state_dict(read_weights())
    published.eval()
    pixels = pictures(2, side)
    with torch.no_grad():
        expected = published.extract_features((255 * pixels - 127) / 128).mean((2, 3))
        torch.testing.assert_close(net.pooled(pixels, side), expected, rtol=1e-4, atol=5e-5)


def test_every_published_weight_is_used_once_and_has_its_shape():
    weights = read_weights()
    trained = [v for name, v in weights.items() if "running" not in name and v.dim()]
    assert sum(value.numel() for value in trained) == 4_652_008  # the package's count for Lite0
    build(weights)
    name = "_blocks.7._depthwise_conv.weight"
    with pytest.raises(ValueError, match=f"{name} is missing"):
        build({key: value for key, value in weights.items() if key != name})
    with pytest.raises(ValueError, match=re.escape("is (480, 1, 2, 3); (480, 1, 3, 3) is needed")):
        build(weights | {name: weights[name][:, :, :2]})
    with pytest.raises(ValueError, match="no place for: another"):
        build(weights | {"another": torch.zeros(1)})


def test_batch_normalisation_is_folded_into_the_convolution():
    generator = torch.Generator().manual_seed(1)
    weights = {
        "c.weight": torch.randn(5, 4, 3, 3, generator=generator),
        "n.weight": torch.randn(5, generator=generator),
        "n.bias": torch.randn(5, generator=generator),
        "n.running_mean": torch.randn(5, generator=generator),
        "n.running_var": torch.rand(5, generator=generator),
        "n.num_batches_tracked": torch.tensor(1),
    }
    x = torch.randn(2, 4, 7, 7, generator=generator)
    convolved = F.conv2d(x, weights["c.weight"], padding=1)
    numbers = (weights[f"n.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
    expected = F.batch_norm(convolved, *numbers, eps=EPSILON)
    left = dict(weights)
    convolution = folded(left, "c", "n", (5, 4, 3, 3), clipped=False)
    torch.testing.assert_close(convolution(x), expected, rtol=1e-4, atol=1e-4)
    assert not left


def test_zeros_lie_below_and_to_the_right_where_their_number_is_odd():
    ones = Convolution(torch.ones(1, 1, 3, 3), torch.zeros(1), stride=2, clipped=False)
    # windows of a 4 x 4 picture start at 0 and 2; the second one loses its last row or column
    expected = torch.tensor([[9.0, 6.0], [6.0, 4.0]])
    assert torch.equal(ones(torch.ones(1, 1, 4, 4))[0, 0], expected)
    clipped = Convolution(ones.weight, ones.bias, stride=2, clipped=True)
    assert torch.equal(clipped(torch.ones(1, 1, 4, 4))[0, 0], expected.clamp(max=6))
    # of a 5 x 5 picture the windows start at -1, 1 and 3
    assert torch.equal(ones(torch.ones(1, 1, 5, 5))[0, 0, 0], torch.tensor([4.0, 6.0, 4.0]))


def test_maps_have_the_published_shapes_and_pass_gradients_to_the_pixels_alone(net):
    pixels = pictures(2).requires_grad_()
    maps = net.maps(pixels, side=SMALL)
    sides = [SMALL // stride for stride in (2, 4, 8, 16, 16, 32, 32)]
    shapes = [(2, stage.channels, s, s) for stage, s in zip(STAGES, sides, strict=True)]
    assert [tuple(found.shape) for found in maps] == shapes
    maps[2].square().mean().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().sum() > 0
    assert not net.stem.weight.requires_grad
    assert net.head.weight.grad is None
    for early, whole in zip(net.maps(pixels, 3, SMALL), maps, strict=False):
        assert torch.equal(early, whole)


def test_a_picture_has_the_same_features_alone_in_bytes_in_floats_and_in_three_greys(net):
    grey = np.random.default_rng(0).integers(256, size=(3, 40, 40)).astype(np.uint8)
    features = net.features(grey, SMALL)
    assert features.shape == (3, HEAD_CHANNELS)
    assert features.dtype == np.float32
    np.testing.assert_array_equal(net.features(grey, SMALL), features)
    for same in (grey / np.float32(255), np.repeat(grey[..., None], 3, axis=3)):
        np.testing.assert_allclose(net.features(same, SMALL), features, rtol=1e-3, atol=1e-4)
    alone = net.features(grey, SMALL, at_once=1)
    np.testing.assert_allclose(alone, features, rtol=1e-3, atol=1e-4)
    assert net.features(grey[:0], SMALL).shape == (0, HEAD_CHANNELS)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, 8), np.uint8),
        np.zeros((2, 8, 8, 4), np.uint8),
        np.zeros((2, 8, 8), np.int64),
        np.full((2, 8, 8), 1.5, np.float32),
        np.full((2, 8, 8), np.nan, np.float32),
    ],
)
def test_other_arrays_are_refused(net, wrong):
    with pytest.raises(ValueError, match="allowed are"):
        net.features(wrong, SMALL)


def test_another_file_of_weights_is_refused_before_it_is_read(tmp_path, monkeypatch):
    changed = bytearray(weights_path().read_bytes())
    changed[-1] ^= 1
    (tmp_path / "weights.pth").write_bytes(changed)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", None)  # calling it would end in another error
        with pytest.raises(InputError, match="sha256"):
            read_weights(tmp_path / "weights.pth")
    with pytest.raises(InputError, match="cannot be read"):
        read_weights(tmp_path / "none.pth")
    monkeypatch.setattr(imagenet, "PACKAGE", "no_such_package")
    with pytest.raises(InputError, match="no-such-package with ImageNet weights is not installed"):
        weights_path()


@pytest.mark.realdata
def test_photographs_of_daisies_are_daisies(net):
    with tarfile.open(data_folder() / "oxford_flowers102_64px.tar") as archive:
        table = io.TextIOWrapper(archive.extractfile("labels.csv"))
        names = [row["file"] for row in csv.DictReader(table) if row["label"] == OXEYE_DAISY]
        files = [archive.extractfile(f"jpg/{name}").read() for name in names[:20]]
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files])
    weights = read_weights()
    features = torch.from_numpy(net.features(pixels))
    logits = features @ weights["_fc.weight"].T + weights["_fc.bias"]  # (N, 1000)
    assert (logits.argmax(1) == DAISY).float().mean() >= 0.9
