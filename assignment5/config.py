"""Every number that affects a result of assignment 5, with its default.

The defaults are the tuned recipe, ASSIGNED is the recipe of Keras' example. Nothing heavy is
imported here, so that `--help` and a refusal answer at once.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeVar

import tyro

from common.cli import (
    BaseConfig,
    Fields,
    InputError,
    PathOrNone,
    SavedRunConfig,
    check_ranges,
    option_of,
)
from common.shard import Shard

Source = Literal["auto", "flowers", "folder", "synthetic"]
Part = Literal["train", "validation", "test"]
Network = Literal["Transformer", "U-Net"]
RecipeName = Literal["tuned", "as assigned"]
Conditioning = Literal["adaln", "token"]
Ends = Literal["linear", "convolution", "overlap"]
Positions = Literal["sincos", "rotary", "both"]
Target = Literal["noise", "image", "velocity"]
Loss = Literal["target", "noise", "image", "velocity"]
Error = Literal["mae", "mse"]
Optimiser = Literal["adamw", "muon"]
SamplerName = Literal["ddim", "heun", "dpm++"]
Wanted = Literal["auto", "on", "off"]
ConfigT = TypeVar("ConfigT", bound="Config")
RecipeT = TypeVar("RecipeT", bound=str)

GIVEN = "given"  # the split of rows that are scored against a user's images
NETWORKS: tuple[Network, ...] = ("Transformer", "U-Net")
SAMPLERS: dict[SamplerName, str] = {
    "ddim": "DDIM",
    "heun": "Heun",
    "dpm++": "DPM-Solver++(2M)",
}
NEIGHBOURS = 5  # of an image, in precision, recall, density and coverage
SCORED_AT_LEAST = NEIGHBOURS + 1  # the neighbours and the image itself

SHRINK = 4  # the side of an image over that of its code
LARGEST_SIDE = 1024  # pixels: far beyond what attention over patches can do

COUNTS = (
    "seeds",
    "synthetic_images",
    "patch",
    "latent_patch",
    "codec_epochs",
    "width",
    "depth",
    "heads",
    "unet_widths",
    "batch",
    "accumulate",
    "epochs",
    "repeats",
    "steps",
    "sweep",
    "feature_width",
    "feature_epochs",
    "feature_seeds",
    "n",
)
RANGES: dict[str, tuple[float, float]] = {  # (least, largest), of all four scripts
    **dict.fromkeys(COUNTS, (1, math.inf)),
    **dict.fromkeys(("min_snr", "lr", "weight_decay", "warmup"), (0, math.inf)),
    "latent": (0, 3 * SHRINK**2),
    "seed": (0, 2**32),
    "to_seed": (0, 2**32),
    "guidance": (0, 100),
    "side": (8, LARGEST_SIDE),
    "samples": (SCORED_AT_LEAST, math.inf),
    "powers": (0.05, 20),
    "power": (0.05, 20),
    "eta": (0, 1),
    "min_signal": (0.001, 0.999),
    "max_signal": (0.001, 0.999),
    "ema": (0, 1),
}
LISTS = ("recipes", "steps", "sweep", "powers", "unet_widths", "sampler")


def check_options(config: object) -> None:
    """Raises InputError for a number outside RANGES and for a list without entries."""
    check_ranges(config, RANGES)
    for name in LISTS:
        if getattr(config, name, None) == ():
            raise InputError(f"{option_of(name)}: at least one is needed")


def check_readable(data: Path | None) -> None:
    """Raises InputError for a device, a pipe or a socket in the place of --data: it has no end."""
    if data is not None and not data.is_dir() and not data.is_file():
        raise InputError(
            f"--data {data} is no regular file and no folder; give a folder, tar, zip or npz of "
            "images"
        )


# ----------------------------------------------------------------------------------- training


@dataclass(frozen=True)
class Config(BaseConfig):
    """Assignment 5: DDIM with a Transformer; the defaults are the tuned recipe."""

    source: Source = "auto"
    """where the images come from; auto: --data, else flowers in the data folder, else drawn ones"""
    seed: int = 0
    """seed of the split, the weights and every random draw in training"""
    seeds: int = 5
    """number of noise sets that every score is averaged over"""
    shard: str = "0/1"
    """i/n: do only every n-th training, the i-th first, in a process of its own (others do the
    rest); the same command without --shard then takes over what all of them did"""
    synthetic_images: int = 4000
    """number of flowers in the built-in drawn sample"""
    side: int = 32
    """side of the images in pixels"""
    recipes: tuple[RecipeName, ...] = ("tuned",)
    """recipes to train, each with both networks"""
    only: tuple[str, ...] = ()
    """of these trainings only some, by their names, such as "U-Net, as assigned" (default: all)"""

    # networks
    patch: int = 4
    """side of the Transformer's patches in pixels"""
    width: int = 192
    """width of the Transformer, a multiple of its heads"""
    depth: int = 8
    """number of Transformer blocks"""
    heads: int = 12
    """number of attention heads per Transformer block"""
    conditioning: Conditioning = "adaln"
    """how the Transformer gets the noise level: adaLN-Zero, or as one more token"""
    skips: bool = True
    """long skips from the first half of the Transformer to the second (U-ViT)"""
    ends: Ends = "linear"
    """first and last layers of the Transformer: one affine map per patch, 3 x 3 convolutions, or
    written patches that overlap by half"""
    positions: Positions = "sincos"
    """how the Transformer knows where patches are: added codes, turned queries and keys, or both"""
    qk_norm: bool = False
    """normalise queries and keys of the Transformer's attention"""
    value_residual: bool = False
    """mix the values of the first block into those of the later ones"""
    classes: bool = False
    """tell the networks the class of nine images in ten, to ask for it later; needs labels"""
    latent: int = 0
    """channels of the codes, at a quarter of the side, that the tuned Transformer denoises in place
    of pixels; 0: pixels"""
    latent_patch: int = 2
    """side of the Transformer's patches in cells of the codes"""
    codec_epochs: int = 12
    """passes of the codes' autoencoder over the training part"""
    unet_widths: tuple[int, ...] = (32, 64, 96, 128)
    """widths of the U-Net's levels"""

    # objective
    target: Target = "noise"
    """what the networks predict"""
    loss: Loss = "target"
    """what the training error is of: the target, or what follows from the predicted target"""
    error: Error = "mae"
    """training error of the prediction: absolute or squared"""
    min_snr: float = 0.0
    """gamma of the Min-SNR weights of the loss; 0: no weights"""
    min_signal: float = 0.02
    """signal rate at t = 1"""
    max_signal: float = 0.95
    """signal rate at t = 0"""

    # optimisation
    batch: int = 64
    """images per training step, over all processes"""
    accumulate: int = 1
    """parts that a training step is computed in, for small memories"""
    epochs: int = 1
    """number of epochs of --repeats passes over the training part"""
    repeats: int = 5
    """passes over the training part per epoch"""
    optimiser: Optimiser = "adamw"
    """muon: Muon for the matrices inside the Transformer's blocks, AdamW for the rest"""
    lr: float = 1e-3
    """peak learning rate"""
    weight_decay: float = 1e-4
    """weight decay"""
    warmup: int = 250
    """steps over which the learning rate rises linearly"""
    decay: bool = True
    """let the learning rate fall to zero on a cosine"""
    flips: bool = True
    """mirror half of the training images"""
    scoreaug: bool = False
    """shift half of the noisy images and their targets by up to an eighth of the side (ScoreAug)"""
    ema: float = 0.999
    """decay of the averaged weights, which sample; at most (1 + step) / (10 + step)"""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """arithmetic of the networks; auto: bfloat16 where it is the faster"""

    # scores
    samples: int = 512
    """images sampled per noise set for a score"""
    steps: tuple[int, ...] = (5, 20)
    """numbers of sampling steps at which every network is scored on the test part"""
    powers: tuple[float, ...] = (1.0, 0.8, 0.6)
    """exponents of a sampler's times (1: even), among which validation chooses"""
    sweep: tuple[int, ...] = (5, 10)
    """numbers of network evaluations at which the samplers are compared on validation"""
    feature_width: int = 32
    """first width of the feature network"""
    feature_epochs: int = 6
    """passes of the feature network over the training part"""
    feature_seeds: int = 1
    """trainings of the feature network; with more than one ± is over them"""
    imagenet: Wanted = "auto"
    """score in features of ImageNet too; auto: where their wheel is installed"""
    dcgan: bool = False
    """train a DCGAN for as long as the first network, as a row to compare with"""
    inception: bool = False
    """score in Inception's features too (pip install torch-fidelity; fetches its weights)"""

    def __post_init__(self) -> None:
        check_options(self)
        Shard.of(self.shard)
        if self.min_signal >= self.max_signal:
            raise InputError(
                f"--min-signal {self.min_signal}: allowed is less than "
                f"--max-signal {self.max_signal}"
            )
        validate(self)
        if self.latent and self.scoreaug:
            raise InputError("--scoreaug moves pixels; it does not go with --latent")
        check_only(self)
        if self.dcgan and not fits_dcgan(self.side):
            raise InputError(f"--dcgan draws a side of 8, 16, 32, 64, ...; --side is {self.side}")

    def check(self) -> None:
        """Raises InputError for paths that cannot be used, a device or a pipe among them."""
        super().check()
        check_readable(self.data)

    @classmethod
    def presets(cls) -> dict[str, Fields]:
        """The fields that each preset changes."""
        smoke: Fields = {
            "synthetic_images": 160,
            "side": 16,
            "width": 48,
            "unet_widths": (8, 16),
            "batch": 16,
            "epochs": 1,
            "repeats": 2,
            "warmup": 5,
            "seeds": 2,
            "samples": 24,
            "feature_width": 8,
            "sweep": (3,),
            "steps": (2, 3),
            "powers": (1.0, 0.6),
            "feature_epochs": 1,
            "imagenet": "off",
            "recipes": ("tuned", "as assigned"),
        }
        full: Fields = {
            "side": 64,
            "width": 384,
            "epochs": 50,
            "samples": 1024,
            "sweep": (3, 5, 7, 10, 15, 20, 50),
            "feature_epochs": 30,
            "recipes": ("tuned", "as assigned"),
        }
        default: Fields = {"repeats": 3, "samples": 128, "powers": (1.0,)}
        return {"smoke": smoke, "default": default, "full": full}

    def denoiser(self, network: Network, class_names: tuple[str, ...] = ()) -> DenoiserConfig:
        """The part of these options that builds one of the networks, for data of these classes."""
        own = ("network", "class_names", "latent")
        names = [each.name for each in fields(DenoiserConfig) if each.name not in own]
        options = {name: getattr(self, name) for name in names}
        known = class_names if self.classes else ()
        latent = self.latent if network == "Transformer" else 0
        return DenoiserConfig(network, class_names=known, latent=latent, **options)


@dataclass(frozen=True)
class DenoiserConfig:
    """What builds a denoiser, and nothing else; saved with its weights. See Config's fields."""

    network: Network
    side: int
    patch: int
    width: int
    depth: int
    heads: int
    conditioning: Conditioning
    skips: bool
    ends: Ends
    unet_widths: tuple[int, ...]
    target: Target
    min_signal: float
    max_signal: float
    positions: Positions = "sincos"
    qk_norm: bool = False
    value_residual: bool = False
    class_names: tuple[str, ...] = ()  # in the order of their labels; none: trained without
    latent: int = 0  # of a U-Net always
    latent_patch: int = 2

    def __post_init__(self) -> None:
        validate(self)


def fits_dcgan(side: int) -> bool:
    """Whether a DCGAN, which doubles a side of four, can draw images of this side."""
    return side >= 8 and side & (side - 1) == 0


def validate(sizes: Config | DenoiserConfig) -> None:
    """Raises InputError for sizes that fit no network; arithmetic only."""
    if sizes.width % sizes.heads:
        raise InputError(
            f"--width {sizes.width} is not divisible by the {sizes.heads} heads; "
            f"take a multiple of {sizes.heads}"
        )
    if sizes.side % sizes.patch:
        raise InputError(
            f"--side {sizes.side} is not divisible by --patch {sizes.patch}; "
            "allowed are the divisors of the side"
        )
    if sizes.positions != "sincos" and sizes.width // sizes.heads % 4:
        raise InputError(
            f"--positions {sizes.positions}: --width {sizes.width} gives each of the "
            f"{sizes.heads} heads {sizes.width // sizes.heads} channels; take a multiple of "
            f"{4 * sizes.heads}"
        )
    if sizes.ends == "overlap" and sizes.patch % 2:
        raise InputError(f"--ends overlap: --patch {sizes.patch} is odd; take an even one")
    if sizes.latent and sizes.side % (SHRINK * sizes.latent_patch):
        raise InputError(
            f"--side {sizes.side}: codes need a multiple of {SHRINK} x --latent-patch "
            f"{sizes.latent_patch}"
        )
    halvings = len(sizes.unet_widths) - 1
    if sizes.side % 2**halvings:
        raise InputError(
            f"--side {sizes.side}: the U-Net halves it {halvings} times; "
            f"take a multiple of {2**halvings}"
        )


# Keras' example as published: noise, MAE, AdamW 1e-3, no augmentation; the Transformer that takes
# its U-Net's place is a plain ViT
ASSIGNED: Fields = {
    "conditioning": "token",
    "skips": False,
    "ends": "linear",
    "positions": "sincos",
    "qk_norm": False,
    "value_residual": False,
    "classes": False,
    "latent": 0,
    "target": "noise",
    "loss": "target",
    "error": "mae",
    "min_snr": 0.0,
    "min_signal": 0.02,
    "max_signal": 0.95,
    "batch": 64,
    "optimiser": "adamw",
    "lr": 1e-3,
    "weight_decay": 1e-4,
    "warmup": 0,
    "decay": False,
    "flips": False,
    "scoreaug": False,
    "ema": 0.999,
}


def changed(config: ConfigT, changes: Fields) -> ConfigT:
    """A config with some of its fields changed."""
    return replace(config, **changes)


@dataclass(frozen=True)
class Job:
    """One network to train: its config, and the labels of its checkpoint and of its rows."""

    name: str
    network: Network
    recipe: str
    config: Config


def training_name(network: Network, recipe: str) -> str:
    """The name of a network trained by a recipe, in checkpoints, logs and distances.npz."""
    return f"{network}, {recipe}"


def samples_key(network: Network, recipe: str) -> str:
    """The name of a network's samples in pictures.npz."""
    return f"samples | {network} | {recipe}"


def trainings_of(
    recipes: Iterable[RecipeT], only: Collection[str] = ()
) -> list[tuple[Network, RecipeT]]:
    """Networks with their recipes: both networks by every recipe.

    Or those alone that `only` names, Transformers first, since the first training has the figures.
    """
    pairs = [(network, recipe) for recipe in recipes for network in NETWORKS]
    if not only:
        return pairs
    named = [pair for pair in pairs if training_name(*pair) in only]
    return sorted(named, key=lambda pair: NETWORKS.index(pair[0]))


def check_only(config: Config) -> None:
    """Raises InputError where --only names an unknown training, or leaves a network without one.

    Figures and report compare the two networks, so a run has at least one training of each.
    """
    names = [training_name(*pair) for pair in trainings_of(config.recipes)]
    if unknown := [name for name in config.only if name not in names]:
        raise InputError(f"--only {'; '.join(unknown)}: allowed are {'; '.join(names)}")
    left = {network for network, _ in trainings_of(config.recipes, config.only)}
    if len(left) < len(NETWORKS):
        raise InputError(
            f"--only {'; '.join(config.only)}: a training of each network is needed; "
            f"there are {'; '.join(names)}"
        )


def training_jobs(config: Config) -> list[Job]:
    """The trainings of a run, in the order of its tables."""
    recipes: dict[RecipeName, Config] = {
        "tuned": config,
        "as assigned": changed(config, ASSIGNED),
    }
    return [
        Job(training_name(network, recipe), network, recipe, recipes[recipe])
        for network, recipe in trainings_of(config.recipes, config.only)
    ]


@dataclass(frozen=True)
class FeatureRecipe:
    """How the feature network is trained, besides its width and epochs."""

    batch: int = 64
    lr: float = 2e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    shift: float = 1 / 8  # largest shift of an image, as a share of its side


FEATURES = FeatureRecipe()


@dataclass(frozen=True)
class CodecRecipe:
    """The autoencoder of the codes and how it is trained, besides its channels and epochs."""

    widths: tuple[int, int, int] = (24, 48, 96)  # at the side of the image, a half, a quarter
    batch: int = 32
    lr: float = 2e-3
    noise: float = 0.1  # of the codes that it learns to decode, in their deviations


CODEC = CodecRecipe()


# ----------------------------------------------------------------------------------- sampling


@dataclass(frozen=True)
class Sampling:
    """A sampler, its number of steps K, and the exponent of its times (1 - k / K)^power.

    power 1: even steps; below 1 the steps are short where noise is strong, the last one is long.
    eta: noise added at each DDIM step, from 0 (none) to 1 (as much as DDPM).
    Raises InputError for values that are not allowed.
    """

    sampler: SamplerName = "ddim"
    steps: int = 20
    power: float = 1.0
    eta: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"--steps {self.steps}: at least one step is needed")
        if not 0 < self.power < math.inf:
            raise InputError(f"--power {self.power}: allowed is a number above 0; 1: even steps")
        check_eta(self.eta, self.sampler)

    @property
    def evaluations(self) -> int:
        """How often the network is called."""
        return 2 * self.steps - 1 if self.sampler == "heun" else self.steps

    @property
    def label(self) -> str:
        """The sampler's name, with the exponent of its times where they are not even."""
        uneven = "" if self.power == 1 else f", times ^{self.power:g}"
        return SAMPLERS[self.sampler] + uneven

    @classmethod
    def of_evaluations(cls, sampler: SamplerName, count: int) -> Sampling:
        """As many steps as have about `count` network evaluations."""
        return cls(sampler, (count + 1) // 2 if sampler == "heun" else count)

    def variant(self, recipe: str) -> str:
        """The variant of the rows of a network trained by a recipe and sampled like this."""
        return f"{recipe}, {self.label}"


def check_eta(eta: float, sampler: SamplerName) -> None:
    """Raises InputError for an eta outside [0, 1], and for one of a deterministic sampler."""
    if not 0 <= eta <= 1:
        raise InputError(f"--eta {eta}: allowed are 0 (deterministic) to 1 (as noisy as DDPM)")
    if eta and sampler != "ddim":
        raise InputError(
            f"--eta {eta}: {SAMPLERS[sampler]} is deterministic; eta belongs to --sampler ddim"
        )


@dataclass(frozen=True)
class Wish:
    """What a network that knows classes is asked for: a label, -1 for none, None for any.

    Any: labels are drawn as often as in the training part. `guidance` is the weight of the
    prediction with the class against that without; 1: it alone.
    """

    label: int | None = None
    guidance: float = 1.0


PICTURED = Sampling("ddim", steps=20)  # the sampler of the figures and of the distances


# ------------------------------------------------------------------------- evaluate and predict


@dataclass(frozen=True)
class EvaluateConfig(SavedRunConfig):
    """Scores the saved denoisers of a run, and draws the run's figures again."""

    data: PathOrNone = None
    """folder, tar, zip or npz of images to score against (default: the run's own images)"""
    out: PathOrNone = None
    """json file of the scores, beside a figure of the same name (default: in the run folder)"""
    part: Literal["validation", "test"] = "test"
    """part of the run's own images to score against, without --data"""
    sampler: tuple[SamplerName, ...] = ("ddim",)
    """one or more samplers"""
    steps: tuple[int, ...] = (5, 20)
    """numbers of steps of each sampler"""
    power: float = 1.0
    """exponent of the samplers' times; 1: even steps; below 1 the last step is a long one"""
    samples: int = 512
    """images sampled per noise set for a score"""
    seeds: int = 5
    """number of noise sets that every score is averaged over"""
    imagenet: Wanted = "auto"
    """score in features of ImageNet too; auto: where their wheel is installed"""
    inception: bool = False
    """score in Inception's features too (pip install torch-fidelity; fetches its weights)"""

    def __post_init__(self) -> None:
        check_options(self)

    def check(self) -> None:
        """Raises InputError for paths that cannot be used, before anything heavy is imported."""
        super().check()
        check_readable(self.data)
        if self.out is not None and (self.out.suffix != ".json" or self.out.is_dir()):
            raise InputError(f"--out {self.out}: give the name of a file that ends in .json")


@dataclass(frozen=True)
class PredictConfig(SavedRunConfig):
    """Samples new images with a saved denoiser."""

    out_is_folder: ClassVar[bool] = True
    data: Annotated[Path | None, tyro.conf.Suppress] = field(default=None)  # sampling reads none
    out: PathOrNone = None
    """folder for the PNG files and grid.png (default: samples in the run folder)"""
    network: Network = "Transformer"
    """network that samples"""
    n: Annotated[int, tyro.conf.arg(aliases=["--count"])] = 16
    """number of images to sample"""
    sampler: SamplerName = "ddim"
    """sampler to use"""
    steps: int = 20
    """number of sampling steps"""
    power: float = 1.0
    """exponent of the sampler's times; 1: even steps; with few steps less is better, see README"""
    eta: float = 0.0
    """noise added at each DDIM step: 0 none, 1 as much as DDPM"""
    seed: int = 0
    """seed of the noise: the same seed gives the same images"""
    to_seed: int | None = None
    """draw a way on the sphere from the first noise of --seed to that of this seed"""
    kind: Annotated[str | None, tyro.conf.arg(name="class", metavar="NAME")] = None
    """class to draw, of a run with --classes (default: as often as in the training part)"""
    guidance: float = 1.0
    """weight of the prediction with the class against that without; 1: it alone"""
    init_image: PathOrNone = None
    """picture whose black part of --mask is kept, while the network paints the rest"""
    mask: PathOrNone = None
    """picture that is white where --init-image is to be painted, black where it is kept"""

    def __post_init__(self) -> None:
        check_options(self)
        check_eta(self.eta, self.sampler)
        if (self.init_image is None) != (self.mask is None):
            raise InputError("--init-image and --mask go together; give both, or none")

    def check(self) -> None:
        """Raises InputError for paths that cannot be used, before anything heavy is imported."""
        super().check()
        for option, path in (("--init-image", self.init_image), ("--mask", self.mask)):
            if path is not None and not path.is_file():
                raise InputError(f"{option} {path} is no file; give a picture")

    @property
    def sampling(self) -> Sampling:
        """The sampler with its options."""
        return Sampling(self.sampler, self.steps, self.power, self.eta)
