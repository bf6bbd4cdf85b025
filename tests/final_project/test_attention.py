"""Rotary positions: products of rotated vectors depend on the difference of positions alone."""

from __future__ import annotations

import numpy as np
import torch

from final_project.attention import rotary, rotate


def test_rotary_products_depend_on_differences_only():
    q, k = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0))
    products = [
        (rotate(q, rotary(torch.tensor([i]), 8)) * rotate(k, rotary(torch.tensor([j]), 8))).sum()
        for i, j in ((5, 2), (1005, 1002))
    ]
    assert torch.isclose(*products, atol=1e-5)
    assert torch.equal(rotate(q, rotary(torch.tensor([0]), 8)), q)
    quarter = rotate(torch.tensor([[[[1.0, 0.0]]]]), rotary(torch.tensor([1]), 2))
    assert torch.allclose(
        quarter.flatten(), torch.tensor([np.cos(1.0), np.sin(1.0)], dtype=torch.float32)
    )
