"""Denoisers: how one is built, and its file, which carries what is needed to build it again."""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, get_args, get_origin, get_type_hints

from torch import nn

from assignment5.codec import Codec
from assignment5.config import RANGES, SHRINK, DenoiserConfig, Job
from assignment5.diffusion import Diffusion, Schedule
from assignment5.dit import DiT
from assignment5.memory import matching_shapes, to_device
from assignment5.unet import UNet
from common.cli import InputError, check_ranges
from common.files import JsonObject, StateDict, tensors
from common.machine import Device
from common.weights import count_parameters, read_model, save_model


@dataclass(frozen=True)
class Trained:
    """The result of a training: averaged weights, seconds, and number of images seen."""

    weights: StateDict
    seconds: float
    images: int


@dataclass(frozen=True)
class Denoiser:
    """A trained network on its device; `recipe` names how it was trained in rows and figures."""

    config: DenoiserConfig
    recipe: str
    model: Diffusion
    bfloat16: bool
    seconds: float | None = None  # of training

    @property
    def params(self) -> int:
        """Number of trained weights."""
        return count_parameters(self.model)

    @classmethod
    def of(
        cls, job: Job, trained: Trained, device: Device, class_names: tuple[str, ...] = ()
    ) -> Denoiser:
        """The denoiser that a job trained, on images of these classes."""
        config = job.config.denoiser(job.network, class_names)
        model = filled(config, tensors(trained.weights), device)
        return cls(config, job.recipe, model, device.bfloat16, trained.seconds)


def build(config: DenoiserConfig) -> Diffusion:
    """A fresh network in its diffusion."""
    schedule = Schedule(config.min_signal, config.max_signal)
    classes = len(config.class_names)
    codec = Codec(config.latent) if config.latent else None
    network = build_network(config)
    return Diffusion(network, schedule, config.target, classes=classes, codec=codec)


def build_network(config: DenoiserConfig) -> nn.Module:
    """A fresh Transformer or U-Net."""
    if config.network == "U-Net":
        return UNet(config.side, config.unet_widths, classes=len(config.class_names))
    in_codes = {
        "side": config.side // SHRINK,
        "patch": config.latent_patch,
        "channels": config.latent,
    }
    return DiT(
        **(in_codes if config.latent else {"side": config.side, "patch": config.patch}),
        width=config.width,
        depth=config.depth,
        heads=config.heads,
        conditioning=config.conditioning,
        skips=config.skips,
        ends=config.ends,
        placing=config.positions,
        qk_norm=config.qk_norm,
        value_residual=config.value_residual,
        classes=len(config.class_names),
    )


def filled(config: DenoiserConfig, weights: StateDict, device: Device) -> Diffusion:
    """A network with trained weights on its device."""
    model = build(config)
    model.load_state_dict(weights)
    return to_device(model, device.name).eval()


def save_denoiser(path: Path, denoiser: Denoiser) -> None:
    """Writes weights as float16, with what builds the network again."""
    about = {
        "network": denoiser.config.network,
        "recipe": denoiser.recipe,
        "bfloat16": denoiser.bfloat16,
        "config": asdict(denoiser.config),
    }
    save_model(path, denoiser.model.state_dict(), about, half=True)


def load_denoiser(path: Path, device: Device) -> Denoiser:
    """A denoiser that `save_denoiser` wrote. Raises InputError for a damaged file."""
    weights, about = read_model(path)
    if not isinstance(about, dict):
        raise InputError(f"{path} is not a model of assignment 5: it lacks a description")
    config = saved_config(path, about, weights)
    recipe = about.get("recipe")
    if not isinstance(recipe, str):
        raise InputError(f"{path} is not a model of assignment 5: it lacks the recipe")
    bfloat16 = device.bfloat16 and bool(about.get("bfloat16"))
    check_finite(path, weights)
    with matching_shapes(path):
        model = filled(config, weights, device)
    return Denoiser(config, recipe, model, bfloat16)


def saved_config(path: Path, about: JsonObject, weights: StateDict) -> DenoiserConfig:
    """What builds the network of a file, which may carry further options of its run.

    Raises InputError where an option is missing, of another type or out of its range, and where
    the network would have more layers or wider ones than the file holds.
    """
    try:
        saved = {**about["config"], "network": about["network"]}
        values = {
            field.name: saved[field.name]
            for field in fields(DenoiserConfig)
            if field.default is MISSING or field.name in saved  # later options are the default
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not a model of assignment 5: it lacks {error}") from None
    try:
        for name in ("unet_widths", "class_names"):
            if name in values:
                values[name] = tuple(values[name])
        kinds = get_type_hints(DenoiserConfig)
        for name, value in values.items():
            check_type(name, value, kinds[name])
        check_ranges(SimpleNamespace(**values), RANGES)
        config = DenoiserConfig(**values)
    except (InputError, TypeError, ZeroDivisionError) as error:
        raise InputError(f"{path} describes no network ({error}); copy or train it again") from None
    widths = [config.width] * config.depth if config.depth <= len(weights) else []
    if config.network == "U-Net":
        widths = list(config.unet_widths)
    numbers = sum(value.numel() for value in weights.values())
    if not 0 < len(widths) <= len(weights) or max(widths) ** 2 > numbers:
        raise InputError(f"{path} holds weights of another shape than it says")
    return config


def check_type(name: str, value: object, kind: object) -> None:
    """Raises InputError for a value of another type than a field's."""
    allowed = get_args(kind)
    if get_origin(kind) is Literal:
        fits = isinstance(value, str) and value in allowed
    elif get_origin(kind) is tuple:
        fits = isinstance(value, tuple) and all(type(item) is allowed[0] for item in value)
    else:
        fits = type(value) is kind
    if not fits:
        raise InputError(f"{name} is {value!r}")


def check_finite(path: Path, weights: StateDict) -> None:
    """Raises InputError for weights that are NaN or infinite, which would draw nothing."""
    for name, value in weights.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise InputError(f"{path}: {name} is not finite; copy or train it again")
