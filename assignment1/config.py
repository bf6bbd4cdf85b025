"""Every number that affects a result of assignment 1: published recipes, options, presets."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from common.cli import (
    BaseConfig,
    InputError,
    PathOrNone,
    SavedRunConfig,
    check_exists,
    check_ranges,
    check_writable,
)
from common.shard import Shard

# ------------------------------------------------------------------------------------ recipes


@dataclass(frozen=True)
class Course:
    """What the course's notebook fixed."""

    test_share: float = 0.2
    split_seed: int = 42
    mlp_lr: float = 1e-3
    mlp_epochs: int = 12
    mlp_batch: int = 500
    weight_scale: float = 1.0
    l1_ratio: float = 0.5
    alphas: dict[str, float] = field(
        default_factory=lambda: {"ridge": 0.01, "lasso": 0.01, "elasticnet": 0.1}
    )


@dataclass(frozen=True)
class VQTraining:
    """How the VQ-VAE is trained, apart from the options."""

    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 1e-4
    warmup_steps: int = 100  # over which the learning rate rises
    clip: float = 1.0  # largest norm of the gradient
    mirrored: float = 0.5  # share of batches that are flipped left to right
    log_every: int = 50


@dataclass(frozen=True)
class AlphaGrids:
    """Strengths of the penalties that validation chooses from, as powers of ten.

    Those of lasso and elastic net are relative to the least alpha at which every weight is zero.
    """

    ridge: tuple[float, float] = (5, -2)
    relative: tuple[float, float] = (0, -3)
    wide_ridge: tuple[float, float] = (4.5, -0.5)
    wide_points: int = 11
    l1_ratio: float = 0.5  # of the elastic net


@dataclass(frozen=True)
class PictureCNN:
    """How the CNN on decoded pictures is trained, apart from the options."""

    learning_rate: float = 3e-3
    batch: int = 128
    weight_decay: float = 0.05
    dropout: float = 0.4


COURSE = Course()
PICTURE_CNN = PictureCNN()
VQ_TRAINING = VQTraining()
ALPHA_GRIDS = AlphaGrids()

PICTURE_STRIDE = 2  # of the receptive fields on the decoded picture
LABEL_SMOOTHING = 0.1  # of the held-out MLPs
LINEAR_ITERATIONS = 200  # of the linear baseline's solver
RESAMPLES = 2000  # of the test faces, for the interval of an accuracy
INTERVAL = (2.5, 97.5)  # per cent
EXAMPLES = 64  # drawn faces among which one of each expression is shown
EXAMPLES_SEED = 12345


@dataclass(frozen=True)
class Compute:
    """Where the networks are trained, and in which arithmetic."""

    device: str
    precision: str  # "float32" | "bfloat16"


# ------------------------------------------------------------------------------------ options


@dataclass(frozen=True)
class Config(BaseConfig):
    """Assignment 1: ELM, binary-weight ELM and MLP on VQ-VAE codes of faces."""

    # data
    data: PathOrNone = None
    """FER csv (emotion, pixels, Usage), npz (images, labels, usage), a folder, zip or tar of
    <train|val|test>/<class>/ images, or a folder of code maps. Labels are words or 0 angry,
    1 disgust, 2 fear, 3 happy, 4 sad, 5 surprise, 6 neutral"""
    source: Literal["auto", "fer2013", "codemaps", "synthetic"] = "auto"
    """where the faces come from; auto: --data, else the data folder, else the built-in sample"""
    seed: int = 0
    """seed of the split, the VQ-VAE and the synthetic faces; the ELMs use 0 .. seeds-1"""
    seeds: int = 10
    """how many random hidden layers every ELM is drawn with"""
    synthetic_faces: int = 6000
    """how many faces the built-in sample has"""
    validation: float = 0.1
    """share of the training part that all choices are made on, where the data have no validation
    part of their own"""

    # VQ-VAE
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
    """steps of the VQ-VAE as a plain autoencoder before k-means places the codes; at most half"""
    commitment: float = 0.25
    """weight of the VQ-VAE's commitment term (van den Oord et al., eq. 3)"""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """arithmetic of the networks' training; auto: bfloat16 where the processor has it"""

    # as assigned
    course_mlp: tuple[int, ...] = (640, 1650, 3000, 500)
    """hidden layers of the course's MLP"""
    course_units: tuple[int, int] = (1500, 2000)
    """hidden units of the course's ELM and binary ELM"""

    # held out: ELMs
    units: int = 2000
    """hidden units of the held-out ELMs on integers, one-hot and look-up"""
    look_up_components: int = 16
    """principal axes of the codebook that a looked-up code keeps"""
    field_units: int = 1000
    """hidden units behind the receptive fields (which are also linked directly to the output)"""
    field_sizes: tuple[int, ...] = (3, 5, 7)
    """sides of the receptive fields on the 12 x 12 looked-up codes"""
    field_maps: int = 32
    """random maps of each side of the receptive fields on the looked-up codes"""
    picture_sizes: tuple[int, ...] = (9, 15)
    """sides of the receptive fields on the 48 x 48 decoded picture"""
    picture_maps: int = 32
    """random maps of each side of the receptive fields on the decoded picture"""
    patches: int = 150
    """random whitened patches of the decoded picture (ridge only); each has 32 features"""
    alphas: int = 30
    """points of a path of penalties"""
    sweep_units: tuple[int, ...] = (125, 250, 500, 1000, 2000)
    """hidden units of the ELMs on look-up whose accuracy and seconds are drawn"""
    sweep_patches: tuple[int, ...] = (5, 10, 20, 40)
    """numbers of whitened patches of the ELMs that are drawn beside them"""
    sweep_draws: int = 3
    """hidden layers of each of these ELMs (at most --seeds)"""

    # held out: baselines and networks
    linear_c: float = 0.01
    """inverse penalty of the linear baseline (scikit-learn's C)"""
    mlp_hidden: tuple[int, ...] = (512, 256)
    """hidden layers of the held-out MLPs"""
    mlp_lr: float = 2e-3
    """peak learning rate of the held-out MLPs (AdamW, one cycle)"""
    mlp_epochs: int = 8
    """passes of the held-out MLPs over the training part"""
    mlp_copies_hidden: tuple[int, ...] = (1024,)
    """hidden layers of the MLPs on whitened patches, whose inputs are a hidden layer already"""
    mlp_copies_epochs: int = 20
    """passes of the MLPs on whitened patches, which see another copy of a face in each"""
    mlp_batch: int = 512
    """faces in a batch of the held-out MLPs"""
    mlp_dropout: float = 0.5
    """share of the held-out MLPs' hidden units left out in training"""
    mlp_weight_decay: float = 0.2
    """AdamW's weight decay of the held-out MLPs"""
    mlp_alpha: float = 1e-4
    """strength of the held-out MLPs' output penalties (per weight, added to the cross-entropy)"""
    cnn_width: int = 64
    """channels of the CNN's first stage"""
    cnn_epochs: int = 10
    """passes of the CNN over the training part"""
    picture_cnn_width: int = 32
    """channels of the first stage of the CNN on decoded pictures"""
    picture_cnn_epochs: int = 12
    """passes of the CNN on decoded pictures over the training part"""

    shard: str = "0/1"
    """i/n: train the VQ-VAE and only every n-th kind of classifier, the i-th first, in a process of
    its own (others do the rest); the same command without --shard then takes over what all of them
    did"""

    def __post_init__(self) -> None:
        check_ranges(self, dict.fromkeys(COUNTS, (1, math.inf)))
        check_ranges(self, dict.fromkeys(NOT_NEGATIVE, (0, math.inf)))
        check_ranges(
            self, {"codes": (2, 256), "validation": (0.001, 0.9), "mlp_dropout": (0, 0.99)}
        )
        Shard.of(self.shard)

    @classmethod
    def presets(cls) -> dict[str, dict[str, object]]:
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
                "patches": 8,
                "alphas": 6,
                "sweep_units": (40, 80),
                "sweep_patches": (2, 4),
                "mlp_hidden": (32, 16),
                "mlp_epochs": 2,
                "mlp_copies_hidden": (32,),
                "mlp_copies_epochs": 2,
                "mlp_batch": 64,
                "cnn_width": 8,
                "cnn_epochs": 1,
                "picture_cnn_width": 4,
                "picture_cnn_epochs": 1,
            },
            "default": {
                "synthetic_faces": 2500,
                "vq_epochs": 3,
                "vq_width": 64,
                "seeds": 2,
                "units": 1000,
                "field_maps": 8,
                "picture_maps": 8,
                "field_units": 500,
                "patches": 30,
                "alphas": 20,
                "mlp_copies_hidden": (512,),
                "mlp_copies_epochs": 8,
                "sweep_units": (125, 500),
                "sweep_patches": (5, 10),
                "sweep_draws": 1,
                "cnn_width": 32,
                "picture_cnn_width": 16,
                "picture_cnn_epochs": 4,
            },
            "full": {
                "vq_epochs": 12,
                "mlp_hidden": (1024, 256),
                "mlp_batch": 256,
                "mlp_epochs": 15,
                "picture_cnn_epochs": 16,
            },
        }


COUNTS = (
    "seeds",
    "synthetic_faces",
    "code_dim",
    "vq_width",
    "vq_fine_width",
    "vq_epochs",
    "vq_batch",
    "course_mlp",
    "course_units",
    "units",
    "look_up_components",
    "field_units",
    "field_sizes",
    "field_maps",
    "picture_sizes",
    "picture_maps",
    "patches",
    "alphas",
    "sweep_units",
    "sweep_patches",
    "sweep_draws",
    "mlp_hidden",
    "mlp_epochs",
    "mlp_copies_hidden",
    "mlp_copies_epochs",
    "mlp_batch",
    "cnn_width",
    "cnn_epochs",
    "picture_cnn_width",
    "picture_cnn_epochs",
)
NOT_NEGATIVE = (
    "seed",
    "vq_lr",
    "vq_warmup",
    "commitment",
    "linear_c",
    "mlp_lr",
    "mlp_weight_decay",
    "mlp_alpha",
)


@dataclass(frozen=True)
class CodesConfig(Config):
    """Assignment 1: VQ-VAEs of equal size under other measures, and what their codes say."""

    script: ClassVar[str] = "codes.py"
    objectives: tuple[Literal["pixels", "contrast", "gradients", "features", "labels"], ...] = (
        "pixels",
        "contrast",
        "gradients",
        "features",
        "labels",
    )
    """what the reconstructions are measured by, one VQ-VAE each; labels: pixels, and the
    cross-entropy of a classifier of the codes, as an upper bound"""
    contrast_share: float = 0.9
    """share of locally contrast-normalised pixels in their measure; the rest is of pixels"""
    gradients_share: float = 0.5
    """share of the differences of neighbouring pixels in their measure"""
    features_share: float = 0.5
    """share of ImageNet's early feature maps in their measure"""
    feature_side: int = 96
    """side of the faces that the ImageNet network sees"""
    label_weight: float = 0.1
    """weight of the cross-entropy of the codes that see labels"""
    draws: int = 3
    """draws of the whitened patches that a ridge reads the decoded pictures by"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, {"feature_side": (32, 512), "draws": (1, math.inf)})
        check_ranges(self, dict.fromkeys(SHARES, (0, 1)) | {"label_weight": (0, math.inf)})
        if not self.objectives or len(set(self.objectives)) < len(self.objectives):
            raise InputError("--objectives: one or more are needed, each of them once")
        if not Shard.of(self.shard).is_whole:
            raise InputError(f"--shard {self.shard}: measures are not shared; allowed is 0/1")

    @classmethod
    def presets(cls) -> dict[str, dict[str, object]]:
        """Those of train.py, shorter where it has one VQ-VAE to train and this has five."""
        presets = super().presets()
        smaller: dict[str, dict[str, object]] = {
            "smoke": {
                "synthetic_faces": 300,
                "vq_epochs": 1,
                "vq_batch": 8,
                "draws": 2,
                "feature_side": 48,
            },
            "default": {"vq_epochs": 2, "draws": 1},
            "full": {"vq_epochs": 2, "draws": 2},
        }
        return {name: presets[name] | smaller[name] for name in presets}


SHARES = ("contrast_share", "gradients_share", "features_share")


@dataclass(frozen=True)
class EvaluateConfig(SavedRunConfig):
    """Re-scores a finished run of assignment 1."""

    data: PathOrNone = None
    """labelled faces: FER csv, npz, or a folder, zip or tar of images; faces that the run was
    trained or stopped on are left out (default: the run's own test part). Labels are words or
    0 angry, 1 disgust, 2 fear, 3 happy, 4 sad, 5 surprise, 6 neutral"""
    part: Literal["auto", "all", "train", "validation", "test", "private"] = "auto"
    """part of --data that is scored; auto: test and private where there are such, else validation,
    else everything"""
    out: PathOrNone = None
    """json file for the scores (default: evaluation-<data>.json in the run folder, or
    evaluation-test.json for the run's own test part, whose figures are drawn again then)"""


@dataclass(frozen=True)
class PredictConfig(SavedRunConfig):
    """Probabilities of the seven expressions for face images without labels."""

    data: PathOrNone = None
    """an image, a folder, zip or tar of images, an npz (images) or a csv (pixels); no labels"""
    out: PathOrNone = None
    """csv file for the probabilities, with the figure beside it (default: predictions-<data>.csv in
    the run folder, numbered where there is one already)"""
    shown: int = 8
    """faces in the figure"""

    def __post_init__(self) -> None:
        check_ranges(self, {"shown": (1, math.inf)})

    def check(self) -> None:
        """Raises InputError without faces, or as SavedRunConfig."""
        if self.data is None:
            raise InputError("--data is missing; give an image, a folder, an npz or a csv of faces")
        super().check()


@dataclass(frozen=True)
class EncodeConfig(SavedRunConfig):
    """Encodes labelled faces with the saved VQ-VAE of a run."""

    out_is_folder: ClassVar[bool] = True
    data: PathOrNone = None
    """labelled faces: FER csv, npz, or a folder, zip or tar of images (default: the data of the
    run)"""
    out: Path = Path("codemaps")
    """folder that the code maps are written into"""


@dataclass(frozen=True)
class FitConfig:
    """One ELM on a matrix on disk, in one process or, under torchrun, in several."""

    data: PathOrNone = None
    """.npy file of numbers (n, p), a sample a row; it is mapped and need not fit into memory"""
    labels: PathOrNone = None
    """.npy file of the samples' classes (n,)"""
    out: Path = Path("elm.npz")
    """.npz file for the model"""
    units: int = 1000
    """hidden units"""
    weights: Literal["gaussian", "binary"] = "gaussian"
    """hidden weights: N(0, 1) or -1 and +1"""
    activation: tuple[Literal["tanh", "relu", "sigmoid", "sign", "rbf"], ...] = ("tanh",)
    """kind of the hidden units; several share the units evenly"""
    penalty: Literal["ridge", "lasso", "elasticnet"] | None = "ridge"
    """penalty on the output weights"""
    alpha: float | Literal["loo"] = 1.0
    """strength of the penalty; loo: the ridge penalty of the best leave-one-out accuracy"""
    l1_ratio: float = 0.5
    """share of the lasso in the elastic net"""
    seed: int = 0
    """seed of the hidden layer"""

    def check(self) -> None:
        """Raises InputError for options that cannot be used."""
        for option, path in (("--data", self.data), ("--labels", self.labels)):
            if path is None:
                raise InputError(f"{option} is missing; give a .npy file")
            check_exists(option, path)
        if not self.out.absolute().parent.is_dir():
            raise InputError(f"--out {self.out}: the folder {self.out.parent} does not exist")
        check_writable("--out", self.out.parent)
        check_ranges(self, {"units": (len(self.activation), math.inf), "seed": (0, math.inf)})
        check_ranges(self, {"l1_ratio": (0.001, 1)})
        if self.alpha != "loo":
            check_ranges(self, {"alpha": (0, math.inf)})
        if self.out.suffix != ".npz":
            raise InputError(f"--out {self.out}: the name must end in .npz")
        if self.alpha == "loo" and self.penalty != "ridge":
            raise InputError(f"--alpha loo is for --penalty ridge, not {self.penalty}")
