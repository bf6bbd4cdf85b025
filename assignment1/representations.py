"""The representations that the models are compared on, and the models behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from assignment1.config import (
    ALPHA_GRIDS,
    LABEL_SMOOTHING,
    PICTURE_CNN,
    PICTURE_STRIDE,
    Compute,
    Config,
)
from assignment1.elm import ELMClassifier, Moments, Penalty, Weights
from assignment1.features import (
    CodebookLookup,
    OneHotCodes,
    Part,
    RandomReceptiveFields,
    RawCodes,
    SideBySide,
    StandardisedIntegers,
)
from assignment1.mlp import CNNClassifier, MLPClassifier, PictureCNNClassifier
from assignment1.patches import WhitenedPatches
from assignment1.selection import ELM_FAMILIES
from assignment1.variants import (
    DECODED_FIELDS,
    INTEGERS,
    LOOK_UP,
    ONE_HOT,
    PATCHES,
    PENALTIES,
    RECEPTIVE_FIELDS,
)
from assignment1.views import Layout


@dataclass(frozen=True)
class Representation:
    """What the models see of a face, and the ELM's hidden layer that fits it.

    `precision` is that of the moments; `penalties` are those it is tried with; `views` of a face
    are side by side in its features; `mirrored` is the same representation with the mirror image's
    codes behind the codes, for networks that are trained on either, or None; `cholesky`: so wide
    that one factor per alpha costs less than an eigendecomposition.
    """

    name: str
    features: SideBySide
    units: int
    activation: str = "tanh"
    direct_links: bool = False
    precision: Literal["auto", "float64"] = "auto"
    penalties: tuple[Penalty, ...] = PENALTIES
    views: int = 1
    mirrored: SideBySide | None = None
    cholesky: bool = False


def representations(
    config: Config,
    layout: Layout,
    codebook: np.ndarray | None,
    weights: Weights = "gaussian",
    seed: int = 0,
) -> dict[str, Representation]:
    """Every representation that the views and the codebook allow, by name.

    The filters of the receptive fields are random too, and follow the family and the seed.
    """
    codes = layout.codes
    integers = SideBySide([Part(StandardisedIntegers(), *codes)])
    one_hot = SideBySide([Part(OneHotCodes(config.codes), *codes)])
    table = [
        Representation(INTEGERS, integers, config.units),
        Representation(ONE_HOT, one_hot, config.units),
    ]
    if codebook is not None:
        table.append(look_up(config, layout, codebook))
        table += fields(config, layout, codebook, weights, seed)
    return {representation.name: representation for representation in table}


def look_up(config: Config, layout: Layout, codebook: np.ndarray) -> Representation:
    """The code vectors that the indices stand for."""
    lookup = CodebookLookup(codebook, config.look_up_components)
    mirrored = None
    if layout.codes_and_mirror is not None:
        mirrored = SideBySide([Part(lookup, *layout.codes_and_mirror)])
    features = SideBySide([Part(lookup, *layout.codes)])
    return Representation(LOOK_UP, features, config.units, mirrored=mirrored)


def fields(
    config: Config, layout: Layout, codebook: np.ndarray, weights: Weights, seed: int
) -> list[Representation]:
    """Receptive fields on the looked-up codes, and beside them on the decoded picture."""
    on_codes = Part(
        RandomReceptiveFields(
            codebook,
            sizes=config.field_sizes,
            maps=config.field_maps,
            weights=weights,
            mirror=layout.codes_and_mirror is not None,
            random_state=seed,
        ),
        *(layout.codes_and_mirror or layout.codes),
    )
    # fields are so alike that a fit without a penalty needs float64 moments
    receptive = Representation(
        RECEPTIVE_FIELDS,
        SideBySide([on_codes]),
        config.field_units,
        activation="relu",
        direct_links=True,
        precision="float64",
    )
    if layout.pictures is None:
        return [receptive]

    on_picture = Part(
        RandomReceptiveFields(
            sizes=config.picture_sizes,
            maps=config.picture_maps,
            stride=PICTURE_STRIDE,
            weights=weights,
            mirror=True,
            random_state=seed,
        ),
        *layout.pictures,
    )
    decoded = Representation(
        DECODED_FIELDS,
        SideBySide([on_codes, on_picture]),
        config.field_units,
        activation="relu",
        direct_links=True,
        precision="float64",
    )
    return [receptive, decoded, whitened(config, layout, weights, seed)]


def whitened(config: Config, layout: Layout, weights: Weights, seed: int) -> Representation:
    """Random whitened patches as the hidden layer itself, trained on warped copies too."""
    views = 1 + layout.copies
    on_pictures = WhitenedPatches(config.patches, weights=weights, views=views, random_state=seed)
    assert layout.pictures_and_copies is not None  # as there are pictures
    return Representation(
        PATCHES,
        SideBySide([Part(on_pictures, *layout.pictures_and_copies)]),
        units=0,
        direct_links=True,
        penalties=("ridge",),
        views=views,
        cholesky=True,
    )


def alpha_grid(
    representation: Representation, penalty: Penalty, moments: Moments, points: int
) -> np.ndarray:
    """Descending strengths (A,) of a penalty; those of lasso and elastic net begin at all zeros."""
    if representation.cholesky:
        return np.logspace(*ALPHA_GRIDS.wide_ridge, ALPHA_GRIDS.wide_points)
    if penalty is None:
        return np.zeros(1)
    if penalty == "ridge":
        return np.logspace(*ALPHA_GRIDS.ridge, points)
    l1_ratio = 1.0 if penalty == "lasso" else ALPHA_GRIDS.l1_ratio
    return moments.largest_alpha(l1_ratio) * np.logspace(*ALPHA_GRIDS.relative, points)


# ------------------------------------------------------------------------------------- models


def new_elm(representation: Representation, family: str, seed: int) -> ELMClassifier:
    """The held-out ELM of a family, without a penalty unless it knows no other."""
    return ELMClassifier(
        representation.units,
        ELM_FAMILIES[family],
        representation.activation,
        representation.penalties[0],
        direct_links=representation.direct_links,
        precision=representation.precision,
        features=representation.features,
        random_state=seed,
        views=representation.views,
    )


def new_mlp(
    config: Config, representation: Representation, penalty: Penalty, compute: Compute
) -> MLPClassifier:
    """The held-out MLP; it also sees mirror images or warped copies where there are such."""
    mirrored = representation.mirrored
    copies = representation.views > 1
    return MLPClassifier(
        config.mlp_copies_hidden if copies else config.mlp_hidden,
        "adamw",
        config.mlp_lr,
        config.mlp_copies_epochs if copies else config.mlp_epochs,
        config.mlp_batch,
        config.mlp_weight_decay,
        config.mlp_dropout,
        LABEL_SMOOTHING,
        penalty,
        config.mlp_alpha,
        views=representation.views if mirrored is None else 2,
        features=mirrored or representation.features,
        precision=compute.precision,
        device=compute.device,
        random_state=config.seed,
    )


def new_cnn(
    config: Config, layout: Layout, codebook: np.ndarray, compute: Compute
) -> CNNClassifier:
    """The CNN on looked-up codes, which also sees the mirror image where there is one."""
    lookup = CodebookLookup(codebook, config.look_up_components)
    every_code_once = np.arange(len(codebook))[None]
    table = lookup.fit(every_code_once).table_
    codes = layout.codes_and_mirror or layout.codes
    return CNNClassifier(
        table,
        (config.cnn_width,),
        epochs=config.cnn_epochs,
        views=1 if layout.codes_and_mirror is None else 2,
        features=SideBySide([Part(RawCodes(), *codes)]),
        precision=compute.precision,
        device=compute.device,
        random_state=config.seed,
    )


def new_picture_cnn(config: Config, layout: Layout, compute: Compute) -> PictureCNNClassifier:
    """The CNN on decoded pictures and their warped copies."""
    assert layout.pictures_and_copies is not None  # as there are pictures
    return PictureCNNClassifier(
        (config.picture_cnn_width,),
        learning_rate=PICTURE_CNN.learning_rate,
        epochs=config.picture_cnn_epochs,
        batch=PICTURE_CNN.batch,
        weight_decay=PICTURE_CNN.weight_decay,
        dropout=PICTURE_CNN.dropout,
        label_smoothing=LABEL_SMOOTHING,
        views=1 + layout.copies,
        features=SideBySide([Part(RawCodes(), *layout.pictures_and_copies)]),
        precision=compute.precision,
        device=compute.device,
        random_state=config.seed,
    )
