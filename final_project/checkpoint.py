"""The model file of a run: one temporal model and its autoencoder, to be used on the same mesh."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from common.cli import InputError
from common.files import JsonObject, write_arrays
from common.run import HOUSEKEEPING, as_json
from common.weights import read_model, save_model
from final_project.config import MODELS, Config
from final_project.data import Flow
from final_project.factory import Groups, Sizes, build_autoencoder, build_temporal
from final_project.raw import readable
from final_project.surrogate import Surrogate
from final_project.temporal_config import TemporalConfig

MODEL = "model.safetensors"
MESH = "mesh.npz"
COPY = "; copy the run folder again or train again"
SAME_MESH = 1e-6  # largest distance between nodes of the same mesh, over the mesh's extent

# What the parts of temporal models were called before embedding, head and scales were modules.
EARLIER_NAMES = (
    (re.compile(r"^(mean|std|delta_std|weights|theta_mean|theta_std)$"), r"scales.\1"),
    (re.compile(r"^embed\."), "embedding.layers."),
    (re.compile(r"^place\."), "embedding.place."),
    (re.compile(r"^head\.(\d)"), r"head.layers.\1"),
    (re.compile(r"^spread\."), "head.spread."),
)


@dataclass(frozen=True)
class About:
    """What a model file says of its networks and of the flow that they are for."""

    path: Path
    name: str
    config: Config
    temporal: TemporalConfig
    groups: Groups
    fields: tuple[str, ...]
    parameters: tuple[str, ...]
    step: float
    shape: tuple[int, int]

    @classmethod
    def of(cls, path: Path, about: JsonObject, weights: dict[str, Tensor]) -> About:
        """From a file's metadata. Raises InputError for what no training has written.

        Nothing may be larger than the weights that are there: networks are built from it.
        """
        with damaged(path):
            sized = {**about["config"], **about["temporal"]}
            layers = {"blocks", "autoencoder_layers"}
            most = sum(value.numel() for value in weights.values())
            for name, value in sized.items():
                numbers = value if isinstance(value, list) else [value]
                limit = len(weights) if name in layers else most
                if name in BUILDS and any(not fits(number, limit) for number in numbers):
                    raise ValueError(f"{name} {value}")
            groups, latents = about["shape"]
            step = about["step"]
            if not (fits(groups, most) and fits(latents, most) and 0 < float(step) < math.inf):
                raise ValueError(f"shape {about['shape']}, step {step}")
            return cls(
                path=path,
                name=str(about["name"]),
                config=_config(about["config"]),
                temporal=TemporalConfig(**about["temporal"]),
                groups=tuple(tuple(map(int, group)) for group in about["groups"]),
                fields=tuple(map(str, about["fields"])),
                parameters=tuple(map(str, about["parameters"])),
                step=float(step),
                shape=(groups, latents),
            )

    def networks(self, mesh: np.ndarray) -> dict[str, nn.Module]:
        """Fresh networks for a mesh with nodes (P, 2)."""
        sizes = Sizes(*self.shape, len(self.parameters))
        kind = MODELS[self.name].autoencoder if self.name in MODELS else "own"
        return {
            "autoencoder": build_autoencoder(self.config, kind, mesh, self.groups),
            "temporal": build_temporal(self.temporal, sizes),
        }


# options of a model file from which the sizes of networks follow
BUILDS = {
    *("boxes", "latents", "autoencoder_layers", "autoencoder_width"),
    *("width", "blocks", "heads", "down_ratio", "condition_width", "patches", "window", "phase"),
}


def fits(number: object, most: int) -> bool:
    """Whether a size is a whole number up to `most`, or None where there is no such size."""
    if number is None:
        return True
    return type(number) is int and 0 <= number <= most


@contextlib.contextmanager
def damaged(path: Path) -> Iterator[None]:
    """Turns what a damaged or foreign model file causes into one line that names it."""
    try:
        yield
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise InputError(f"{path} is damaged or of another program ({text}){COPY}") from None


@dataclass(frozen=True)
class SavedSurrogate:
    """Networks from a model file, with the name of the temporal model and the time step."""

    name: str
    surrogate: Surrogate
    step: float


def save_networks(
    folder: Path, flow: Flow, groups: Groups, config: Config, name: str, surrogate: Surrogate
) -> None:
    """Writes the networks with all that is needed to use them on the same mesh.

    Trained weights in float16; means and scales in full, for a field may be 101,325 to within 1.
    """
    weights: dict[str, Tensor] = {}
    for part, network in (("autoencoder", surrogate.autoencoder), ("temporal", surrogate.temporal)):
        trained = {key for key, _ in network.named_parameters()}
        for key, value in network.state_dict().items():
            half = value.half()
            exact = key not in trained or not half.isfinite().all()
            weights[f"{part}.{key}"] = value if exact else half
    options = {
        field.name: as_json(getattr(config, field.name))
        for field in dataclasses.fields(config)
        if field.name not in HOUSEKEEPING | {"data"}
    }
    about = {
        "name": name,
        "config": options,
        "temporal": dataclasses.asdict(surrogate.temporal.config),
        "groups": groups,
        "fields": flow.field_names,
        "parameters": flow.parameter_names,
        "step": flow.step,
        "shape": [surrogate.temporal.groups, surrogate.temporal.latents],
    }
    save_model(folder / MODEL, weights, about)


def save_mesh(folder: Path, coordinates: np.ndarray, triangles: np.ndarray) -> None:
    """Writes the mesh that a run's networks are for: nodes (P, 2) and triangles (M, 3)."""
    write_arrays(folder / MESH, coordinates=coordinates, triangles=triangles)


def read_about(folder: Path) -> About:
    """What the model file of a run says of its flow. Raises InputError for a damaged file."""
    weights, about = read_model(folder / MODEL)
    return About.of(folder / MODEL, about, weights)


def load_networks(folder: Path, flow: Flow, device: str) -> SavedSurrogate:
    """The networks of a run, for a flow on the same mesh with the same fields and parameters.

    Raises InputError for a file that is not whole, and for a flow on another mesh or with other
    fields or parameters.
    """
    path = folder / MODEL
    weights, metadata = read_model(path)
    about = About.of(path, metadata, weights)
    _check_names(path, "fields", about.fields, flow.field_names)
    _check_names(path, "parameters", about.parameters, flow.parameter_names)
    mesh = _check_mesh(folder, flow)

    # networks of the sizes that the file names, first without memory
    parts = {
        "autoencoder": _part(weights, "autoencoder."),
        "temporal": present_names(_part(weights, "temporal.")),
    }
    with damaged(path):
        with torch.device("meta"):
            shapes = about.networks(mesh)
        for part, network in shapes.items():
            for key, value in network.state_dict().items():
                if parts[part][key].shape != value.shape:
                    raise ValueError(f"{part}.{key} holds weights of another shape than it says")
                if not parts[part][key].isfinite().all():
                    raise ValueError(f"{part}.{key} holds numbers that are not finite")
        networks = about.networks(mesh)
        for part, network in networks.items():
            network.load_state_dict(parts[part])
            network.to(device).eval()
    return SavedSurrogate(about.name, Surrogate(**networks), about.step)  # type: ignore[arg-type]


def present_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A temporal model's weights under the names that its parts have now."""
    renamed = {}
    for name, value in weights.items():
        for earlier, present in EARLIER_NAMES:
            name = earlier.sub(present, name)
        renamed[name] = value
    return renamed


def _part(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights of one network, without its prefix."""
    return {
        name.removeprefix(prefix): value
        for name, value in weights.items()
        if name.startswith(prefix)
    }


def _config(options: JsonObject) -> Config:
    """The options of a run, from JSON values."""
    values: JsonObject = {}
    for name, value in options.items():
        values[name] = tuple(value) if isinstance(value, list) else value
    return Config(**values)


def _check_names(path: Path, what: str, trained: tuple[str, ...], given: tuple[str, ...]) -> None:
    """Raises InputError where the data have other fields or parameters."""
    if given == trained:
        return
    advice = ""
    if what == "parameters" and not given:
        advice = f"; give them with --parameters {' '.join(name.upper() for name in trained)}"
    raise InputError(
        f"{path} was trained on {what} {', '.join(trained) or '(none)'}; "
        f"the data have {', '.join(given) or 'none'}{advice}"
    )


def _check_mesh(folder: Path, flow: Flow) -> np.ndarray:
    """The nodes (P, 2) of a run's mesh. Raises InputError where those of the flow differ."""
    nodes = read_mesh(folder)
    same = len(nodes) > 0 and nodes.shape == flow.coordinates.shape
    if same:
        same = np.abs(nodes - flow.coordinates).max() <= SAME_MESH * np.ptp(nodes, 0).max()
    if not same:
        raise InputError(
            f"{folder / MODEL} was trained on another mesh ({len(nodes)} nodes; "
            f"the data have {len(flow.coordinates)}); train again on it"
        )
    return nodes


def read_mesh(folder: Path) -> np.ndarray:
    """The nodes float64 (P, 2) of a run's mesh. Raises InputError for a damaged file."""
    path = folder / MESH
    if not path.exists():
        return np.zeros((0, 2))
    with readable(path, COPY), np.load(path, allow_pickle=False) as file:
        nodes = file["coordinates"]
    planar = nodes.ndim == 2 and nodes.shape[1] == 2 and nodes.dtype.kind == "f"
    if not planar or not np.isfinite(nodes).all():
        raise InputError(f"{path} is damaged: coordinates {nodes.dtype} {nodes.shape}{COPY}")
    return nodes.astype(np.float64)
