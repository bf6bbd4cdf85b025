"""The model file of a run: our autoencoder and one temporal model, to be used on the same mesh."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from common.cli import InputError
from common.files import JsonObject, write_arrays
from common.run import HOUSEKEEPING, as_json
from common.weights import matching_shapes, read_model, save_model
from final_project.config import Config
from final_project.data import Flow
from final_project.factory import Groups, Sizes, build_autoencoder, build_temporal
from final_project.surrogate import Surrogate
from final_project.temporal_config import TemporalConfig

MODEL = "model.safetensors"
MESH = "mesh.npz"
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
class SavedSurrogate:
    """Networks from a model file, with the name of the temporal model and the time step."""

    name: str
    surrogate: Surrogate
    step: float


def save_networks(
    folder: Path, flow: Flow, groups: Groups, config: Config, name: str, surrogate: Surrogate
) -> None:
    """Writes the networks with all that is needed to use them on the same mesh."""
    networks = {"autoencoder": surrogate.autoencoder, "temporal": surrogate.temporal}
    weights = {
        f"{part}.{key}": value
        for part, network in networks.items()
        for key, value in network.state_dict().items()
    }
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
        "step": float(flow.time[1] - flow.time[0]),
        "shape": [surrogate.temporal.groups, surrogate.temporal.latents],
    }
    save_model(folder / MODEL, weights, about, half=True)


def save_mesh(folder: Path, coordinates: np.ndarray, triangles: np.ndarray) -> None:
    """Writes the mesh that a run's networks are for: nodes (P, 2) and triangles (M, 3)."""
    write_arrays(folder / MESH, coordinates=coordinates, triangles=triangles)


def load_networks(folder: Path, flow: Flow, device: str) -> SavedSurrogate:
    """The networks of a run, for a flow on the same mesh with the same fields and parameters.

    Raises InputError for a file that is not whole, and for a flow on another mesh or with other
    fields or parameters.
    """
    path = folder / MODEL
    weights, about = read_model(path)
    _check_names(path, "fields", about["fields"], flow.field_names)
    _check_names(path, "parameters", about["parameters"], flow.parameter_names)
    mesh = _check_mesh(folder, flow)

    # networks of the sizes that the file names:
    groups = tuple(tuple(group) for group in about["groups"])
    autoencoder = build_autoencoder(_config(about["config"]), "own", mesh, groups)
    count, latents = about["shape"]
    sizes = Sizes(count, latents, len(about["parameters"]))
    temporal = build_temporal(TemporalConfig(**about["temporal"]), sizes)

    # their weights:
    with matching_shapes(path):
        autoencoder.load_state_dict(_part(weights, "autoencoder."))
        temporal.load_state_dict(present_names(_part(weights, "temporal.")))
    surrogate = Surrogate(autoencoder.to(device).eval(), temporal.to(device).eval())
    return SavedSurrogate(about["name"], surrogate, about["step"])


def present_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A temporal model's weights under the names that its parts have now."""
    renamed = {}
    for name, value in weights.items():
        for earlier, present in EARLIER_NAMES:
            name = earlier.sub(present, name)
        renamed[name] = value
    return renamed


def _part(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """float32 weights of one network, without its prefix."""
    return {
        name.removeprefix(prefix): value.float()
        for name, value in weights.items()
        if name.startswith(prefix)
    }


def _config(options: JsonObject) -> Config:
    """The options of a run, from JSON values."""
    values: JsonObject = {}
    for name, value in options.items():
        values[name] = tuple(value) if isinstance(value, list) else value
    return Config(**values)


def _check_names(path: Path, what: str, trained: list[str], given: tuple[str, ...]) -> None:
    """Raises InputError where the data have other fields or parameters."""
    if given != tuple(trained):
        raise InputError(
            f"{path} was trained on {what} {', '.join(trained)}; "
            f"the data have {', '.join(given) or 'none'}"
        )


def _check_mesh(folder: Path, flow: Flow) -> np.ndarray:
    """The nodes (P, 2) of a run's mesh. Raises InputError where those of the flow differ."""
    nodes = np.zeros((0, 2))
    if (folder / MESH).exists():
        nodes = np.load(folder / MESH, allow_pickle=False)["coordinates"]
    same = len(nodes) > 0 and nodes.shape == flow.coordinates.shape
    if same:
        same = np.abs(nodes - flow.coordinates).max() <= SAME_MESH * np.ptp(nodes, 0).max()
    if not same:
        raise InputError(
            f"{folder / MODEL} was trained on another mesh ({len(nodes)} nodes; "
            f"the data have {len(flow.coordinates)}); train again on it"
        )
    return nodes
