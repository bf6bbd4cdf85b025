"""The Transformer and the U-Net: counts, symmetries, what they are before training."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from assignment5.dit import (
    Block,
    DiT,
    Overlap,
    Shared,
    attention,
    noise_embedding,
    positions,
    turned,
    turns,
)
from assignment5.unet import UNet
from common.weights import count_parameters


def test_the_noise_embedding_by_hand():
    embedding = noise_embedding(torch.tensor([0.3]))
    angles = [2 * math.pi * 0.3 * 1000 ** (k / 15) for k in range(16)]
    truth = [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
    assert embedding.shape == (1, 32)
    assert np.allclose(embedding[0].numpy(), truth, atol=2e-3)  # angles up to 1,900 in float32


def test_parameter_counts():
    width = 192
    # q k v, projection, feed-forward of 4, modulation of 6, with biases
    block = 18 * width**2 + 15 * width
    patches = 2 * 48 * width + width + 48
    noise = 33 * width + width**2 + width
    last_modulation = 2 * width**2 + 2 * width
    total = 8 * block + patches + noise + last_modulation
    assert count_parameters(DiT(32, 4, width)) == total == 5_467_632
    assert count_parameters(UNet(64)) == count_parameters(UNet(32)) == 1_950_627


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"conditioning": "token"},
        {"skips": True},
        {"ends": "convolution"},
        {"conditioning": "token", "skips": True},
        {"placing": "rotary"},
        {"placing": "both", "conditioning": "token"},
        {"qk_norm": True},
        {"value_residual": True, "skips": True},
        {"ends": "overlap"},
    ],
)
def test_the_transformer_is_zero_before_training_and_uses_noise_and_image_after(options):
    torch.manual_seed(0)
    model = DiT(16, 4, 48, 4, 12, **options)
    x, variance = torch.randn(2, 3, 16, 16), torch.tensor([0.2, 0.9])
    assert not model(x, variance).any()
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(4):
        optimiser.zero_grad()
        (model(x, variance) - x).square().mean().backward()
        optimiser.step()
    # no weight is unused, as several processes need
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert not torch.allclose(model(x, variance), model(x, variance.flip(0)))
    assert not torch.allclose(model(x, variance), model(x.roll(4, 3), variance))


def test_adaln_zero_makes_every_block_the_identity_at_first():
    x, condition = torch.randn(2, 5, 24), torch.randn(2, 24)
    assert torch.equal(Block(24, 12, True, False)(x, condition, None), x)


def test_a_block_treats_tokens_as_a_set():
    torch.manual_seed(0)
    block = Block(24, 12, False, False)
    x, order = torch.randn(2, 5, 24), torch.tensor([3, 1, 4, 0, 2])
    assert torch.allclose(block(x[:, order], None, None), block(x, None, None)[:, order], atol=1e-5)


@pytest.mark.parametrize("tokens", [16, 200])
def test_both_ways_of_attention_agree(tokens):
    q, k, v = torch.randn(3, 2, 4, tokens, 8)
    exact = torch.softmax(q @ k.transpose(2, 3) / 8**0.5, 3) @ v
    assert torch.allclose(attention(q, k, v), exact, atol=1e-5)
    rounded = attention(q.bfloat16(), k.bfloat16(), v.bfloat16()).float()
    assert torch.allclose(rounded, exact, atol=0.05)


def test_positions_differ_and_rows_are_not_columns():
    codes = positions(8, 192)
    assert codes.shape == (64, 192)
    assert torch.cdist(codes, codes).add(torch.eye(64) * 9).min() > 0.1


def test_turned_products_depend_on_the_offset_alone():
    torch.manual_seed(0)
    grid, width = 5, 8
    angles = turns(grid, width).double()
    q, k = torch.randn(2, 1, 1, 1, width, dtype=torch.float64)
    products = (
        turned(q.expand(-1, -1, 25, -1), angles) @ turned(k.expand(-1, -1, 25, -1), angles).mT
    )
    table = products.view(grid, grid, grid, grid)  # row and column of the query, of the key
    assert torch.allclose(table[0, 1, 2, 4], table[1, 0, 3, 3])
    assert torch.allclose(table[2, 2, 2, 2], (q * k).sum(), atol=1e-6)
    assert not torch.allclose(table[0, 0, 1, 0], table[0, 0, 0, 1])  # rows are not columns


def test_turning_by_hand():
    angles = turns(2, 4)  # rates 1 of rows and of columns
    assert torch.equal(angles, torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]]))
    x = torch.tensor([1.0, 2, 3, 4]).expand(1, 1, 4, 4)
    cosine, sine = math.cos(1), math.sin(1)
    truth = [cosine - 3 * sine, 2, sine + 3 * cosine, 4]
    assert torch.allclose(turned(x, angles)[0, 0, 2], torch.tensor(truth))
    assert torch.allclose(turned(x, angles).norm(dim=3), x.norm(dim=3))


def test_the_token_of_the_noise_level_is_not_turned():
    model = DiT(16, 4, 48, 1, 12, conditioning="token", placing="rotary")
    assert model.angles.shape == (17, 2)
    assert not model.angles[0].any()
    assert not model.positions.any()


def test_normalised_queries_and_keys_do_not_feel_their_size():
    torch.manual_seed(0)
    block = Block(24, 3, False, False, qk_norm=True)
    x = torch.randn(2, 5, 24)
    before = block.attend(x, Shared())
    with torch.no_grad():
        block.qkv.weight[:48] *= 7  # queries and keys
        block.qkv.bias[:48] *= 7
    assert torch.allclose(block.attend(x, Shared()), before, atol=1e-5)
    with torch.no_grad():
        block.norm_q.weight *= 3
    assert not torch.allclose(block.attend(x, Shared()), before, atol=1e-3)


def test_later_blocks_mix_in_the_values_of_the_first():
    torch.manual_seed(0)
    block = Block(24, 3, False, False, takes_values=True)
    x = torch.randn(2, 5, 24)
    alone = Shared()
    plain = block.attend(x, alone)  # the first keeps its own
    doubled = Shared(values=3 * alone.values)
    mixed = block.attend(x, doubled) - block.projection.bias  # v / 2 + 3 v / 2 = 2 v
    assert torch.allclose(mixed, 2 * (plain - block.projection.bias), atol=1e-5)


@pytest.mark.parametrize(("side", "patch"), [(8, 2), (16, 4)])
def test_overlapping_patches_that_agree_make_the_image(side, patch):
    """Each token writes what the image holds there, so that their average is the image."""
    join = Overlap(side, patch)
    image = torch.randn(2, 3, side, side)
    windows = torch.nn.functional.unfold(image, 2 * patch, padding=patch // 2, stride=patch)
    pixels = windows.view(2, 3, 4 * patch**2, -1).permute(0, 3, 2, 1).flatten(2)
    assert torch.allclose(join(pixels), image, atol=1e-5)
    inside = slice(patch // 2, side - patch // 2)
    assert torch.allclose(join.total[..., inside, inside], torch.ones(()), atol=1e-6)


def test_a_token_reaches_half_a_patch_beyond_its_own():
    join = Overlap(16, 4)
    patches = torch.zeros(1, 16, 64 * 3)
    patches[:, 5] = 1  # the token of rows and columns 4 to 7
    written = join(patches)[0, 0]
    assert torch.equal(written.any(0), torch.tensor([2 <= place < 10 for place in range(16)]))
    assert written.max() == written[5, 5] == written[6, 6]


def test_the_u_net_is_zero_before_training_and_joins_every_skip():
    torch.manual_seed(0)
    model = UNet(16, (4, 8, 12))
    x, variance = torch.randn(2, 3, 16, 16), torch.tensor([0.2, 0.9])
    assert not model(x, variance).any()
    torch.nn.init.normal_(model.head.weight)
    model(x, variance).square().mean().backward()
    assert all(parameter.grad.any() for parameter in model.parameters() if parameter.ndim > 1)
    assert [block.first.in_channels for level in model.up for block in level] == [20, 16, 12, 8]
