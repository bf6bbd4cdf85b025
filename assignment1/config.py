"""Every number that affects a result of assignment 1, with its default."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from common.cli import BaseConfig


@dataclasses.dataclass(frozen=True)
class Config(BaseConfig):
    """Assignment 1: ELM, binary-weight ELM and MLP on VQ-VAE codes of faces."""

    source: Literal["auto", "fer2013", "codemaps", "synthetic"] = "auto"
    """where the faces come from; auto: --data, else the data folder, else the built-in synthetic sample"""
    seed: int = 0
    """of the split, the VQ-VAE and the synthetic faces; the ELMs use 0 .. seeds-1"""
    seeds: int = 10
    """how many random hidden layers every ELM is drawn with"""
    synthetic_faces: int = 6000
    """how many faces the built-in sample has"""
    validation: float = 0.1
    """share of the training part that all choices are made on"""
    codes: int = 256
    """size m of the VQ-VAE's codebook"""
    code_dim: int = 128
    """dimension d of a code"""
    vq_width: int = 96
    """channels of the VQ-VAE at 12 x 12"""
    vq_fine_width: int = 32
    """channels of the VQ-VAE at 24 x 24"""
    vq_epochs: int = 5
    """passes of the VQ-VAE over the training part"""
    vq_batch: int = 32
    """faces in a batch of the VQ-VAE"""
    vq_lr: float = 1e-3
    """peak learning rate of the VQ-VAE (AdamW, cosine to zero)"""
    vq_warmup: int = 300
    """steps as a plain autoencoder before k-means places the codes"""
    commitment: float = 0.25
    """weight of the commitment term (van den Oord et al., eq. 3)"""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """arithmetic of the VQ-VAE's and MLP's training; auto: bfloat16 where the processor has it"""

    course_mlp: tuple[int, ...] = (640, 1650, 3000, 500)
    """hidden layers of the course's MLP"""
    course_units: tuple[int, int] = (1500, 2000)
    """hidden units of the course's ELM and binary ELM"""
    units: int = 2000
    """hidden units of the held-out ELMs on integers, one-hot and look-up"""
    look_up_components: int = 16
    """principal axes of the codebook that a looked-up code keeps"""
    field_units: int = 1000
    """hidden units behind the receptive fields (which are also linked directly to the output)"""
    field_sizes: tuple[int, ...] = (3, 5, 7)
    """sides of the receptive fields on the 12 x 12 looked-up codes"""
    field_maps: int = 32
    """random maps of each size there"""
    picture_sizes: tuple[int, ...] = (9, 15)
    """sides of the receptive fields on the 48 x 48 decoded picture"""
    picture_maps: int = 32
    """random maps of each size there"""
    wide: tuple[int, int, int] = (50, 100, 1500)
    """maps on codes, maps on the picture and hidden units of the widest ELMs, which have the ridge penalty only"""
    alphas: int = 30
    """points of a path of penalties"""
    linear_c: float = 0.01
    """inverse penalty of the linear baseline (scikit-learn's C)"""
    mlp_hidden: tuple[int, ...] = (512, 256)
    """hidden layers of the held-out MLPs"""
    mlp_lr: float = 2e-3
    """their peak learning rate (AdamW, one cycle)"""
    mlp_epochs: int = 8
    """their passes over the training part"""
    mlp_batch: int = 512
    """faces in a batch"""
    mlp_dropout: float = 0.5
    """share of hidden units left out in training"""
    mlp_weight_decay: float = 0.2
    """AdamW's weight decay"""
    mlp_alpha: float = 1e-4
    """strength of the MLP's output penalties (per weight, added to the cross-entropy)"""
    cnn_width: int = 64
    """channels of the CNN's first stage"""
    cnn_epochs: int = 10
    """its passes over the training part"""

    @classmethod
    def presets(cls) -> dict[str, dict[str, Any]]:
        return {
            "smoke": {
                "synthetic_faces": 700,
                "vq_epochs": 2,
                "vq_warmup": 10,
                "vq_width": 32,
                "vq_fine_width": 16,
                "seeds": 2,
                "course_mlp": (64, 32),
                "course_units": (100, 120),
                "units": 100,
                "field_units": 50,
                "field_maps": 4,
                "picture_maps": 3,
                "wide": (5, 5, 60),
                "alphas": 6,
                "mlp_hidden": (32, 16),
                "mlp_epochs": 2,
                "mlp_batch": 64,
                "cnn_width": 8,
                "cnn_epochs": 1,
            },
            "default": {
                "seeds": 3,
                "course_units": (1500, 2000),
                "units": 1000,
                "field_maps": 16,
                "picture_maps": 16,
                "field_units": 500,
                "wide": (24, 40, 800),
                "cnn_width": 32,
            },
            "full": {
                "vq_epochs": 12,
                "mlp_hidden": (1024, 256),
                "mlp_batch": 256,
                "mlp_epochs": 15,
            },
        }
