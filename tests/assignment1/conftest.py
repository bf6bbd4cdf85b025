"""Small data sets that several tests of assignment 1 share."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from assignment1.config import Config
from assignment1.data import Split
from assignment1.views import Dataset, Views
from assignment1.warps import warped


@pytest.fixture(scope="session")
def data() -> Dataset:
    """120 random faces of three classes: codes, mirror codes, pictures, copies, and a codebook."""
    rng = np.random.default_rng(0)
    codes = rng.integers(256, size=(120, 288)).astype(np.uint8)
    pictures = rng.integers(256, size=(120, 2304)).astype(np.uint8)
    labels = rng.integers(3, size=120)
    codebook = rng.standard_normal((256, 16)).astype(np.float32)
    split = Split(np.arange(80), np.arange(80, 100), np.arange(100, 120))
    copies = warped(pictures.reshape(-1, 48, 48), codes[:, :144], 2).reshape(120, -1)
    views = Views(codes[:, :144], codes[:, 144:], pictures, copies)
    return Dataset(views, labels, split, codebook)


@pytest.fixture(scope="session")
def small() -> Config:
    """Options with few maps, units and components."""
    return dataclasses.replace(
        Config(),
        field_maps=2,
        picture_maps=2,
        look_up_components=4,
        units=30,
        field_units=30,
        patches=3,
        alphas=5,
        mlp_hidden=(8,),
        mlp_epochs=2,
        mlp_batch=32,
    )
