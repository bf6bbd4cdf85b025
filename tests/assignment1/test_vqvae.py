"""The VQ-VAE and the views that it makes of a code map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from assignment1.synthetic import draw_faces
from assignment1.views import code_views
from assignment1.vqvae import VQVAE, Codebook, load_vqvae, psnr
from assignment1.warps import COPIES
from common.cli import InputError


def test_codebook_nearest_and_moving_average_by_hand():
    book = Codebook(2, 2, decay=0.5, dead_below=0.01)
    book.vectors.copy_(torch.tensor([[0.0, 0.0], [10.0, 0.0]]))
    book.counts.fill_(2.0)
    book.sums.copy_(book.vectors * 2)
    z = torch.tensor([[1.0, 0.0], [3.0, 0.0], [9.0, 0.0]])
    indices = book.nearest(z)
    assert indices.tolist() == [0, 0, 1]
    book.update(z, indices, np.random.default_rng(0))
    # N = (2, 1.5), s = ((0 + 4) / 2, (20 + 9) / 2)
    torch.testing.assert_close(book.counts, torch.tensor([2.0, 1.5]))
    torch.testing.assert_close(book.vectors, torch.tensor([[1.0, 0.0], [14.5 / 1.5, 0.0]]))


def test_dead_codes_start_again_at_vectors_of_the_batch():
    book = Codebook(4, 2)
    z = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    book.start(z, np.random.default_rng(0))
    assert len(np.unique(book.nearest(z))) == 4
    book.vectors[3] = 1e4
    book.counts[3] = 0.1
    book.update(z, book.nearest(z), np.random.default_rng(0))
    assert (book.vectors[3] == z).all(1).any()


def test_gradients_pass_the_quantiser_and_the_commitment_is_eq_3():
    torch.manual_seed(0)
    model = VQVAE(8, 4, 8, 8, 1, 1)
    pixels = torch.rand(2, 1, 48, 48)
    off = torch.autocast("cpu", enabled=False)
    model.losses(pixels, np.random.default_rng(0), True, off)
    reconstruction, commitment = model.losses(pixels, np.random.default_rng(1), True, off)
    reconstruction.backward(retain_graph=True)
    assert model.encoder[1].weight.grad.abs().sum() > 0
    assert commitment > 0
    assert not model.codebook.vectors.requires_grad


def test_vqvae_round_trip_and_views(tmp_path):
    torch.manual_seed(0)
    model = VQVAE(16, 4, 8, 8, 1, 1).eval()
    model.codebook.vectors.normal_()
    faces, _ = draw_faces(5, 0)
    maps = model.encode(faces)
    assert maps.shape == (5, 12, 12)
    assert maps.dtype == np.uint8
    model.save(tmp_path / "v.safetensors")
    back = load_vqvae(tmp_path / "v.safetensors")
    np.testing.assert_array_equal(back.encode(faces), maps)
    np.testing.assert_array_equal(back.decode(maps), model.decode(maps))

    # the views are a function of the code map alone
    X = code_views(maps, model).matrix
    assert X.shape == (5, 144 + 144 + (1 + COPIES) * 2304)
    np.testing.assert_array_equal(X, code_views(maps.copy(), model).matrix)
    with pytest.raises(InputError, match="not a VQ-VAE"):
        load_vqvae(Path(__file__))


def test_psnr_by_hand():
    images = np.full((1, 2, 2), 255, np.uint8)
    np.testing.assert_allclose(psnr(images, np.full((1, 2, 2), 0.9, np.float32)), 20.0, atol=1e-4)
