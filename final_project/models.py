"""The networks of a run by name, what they predict, and their files.

Shape letters: N trajectories, T frames, S steps, P nodes, F fields, G field groups, L latent numbers a group, K parameters.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.cli import InputError
from common.weights import as_said, read_model, save_model
from final_project.autoencoder import Autoencoder, MeshAutoencoder, PublishedAutoencoder
from final_project.config import Config, temporal_config
from final_project.data import Flow
from final_project.patches import Geometry, geometry_of, patch_table
from final_project.rollout import rollout
from final_project.sea import Temporal, build
from final_project.streams import TemporalConfig


def build_autoencoder(
    config: Config, published: bool, coordinates: np.ndarray, groups: tuple[tuple[int, ...], ...]
) -> MeshAutoencoder:
    """A fresh autoencoder for a mesh with nodes (P, 2), the paper's or ours. Raises InputError for sizes that do not fit."""
    table = patch_table(coordinates, *config.boxes, keep_empty=published)
    if published:
        return PublishedAutoencoder(
            table,
            groups,
            config.latents,
            hidden=30 * config.latents,
            heads=math.gcd(8, config.latents * len(groups)),
        )
    return Autoencoder(
        table,
        groups,
        config.latents,
        max(32, config.latents),
        config.autoencoder_width,
        config.autoencoder_layers,
    )


def build_temporal(
    config: Config, name: str, groups: int, latents: int, parameters: int
) -> Temporal:
    """A fresh temporal model of config.MODELS. Raises InputError for sizes that do not fit."""
    return build(
        temporal_config(config, name, groups, latents, parameters), groups, latents, parameters
    )


def geometry(
    config: Config, autoencoder: MeshAutoencoder, coordinates: np.ndarray
) -> Geometry | None:
    """Where the patches of nodes (P, 2) lie and what their codes have in common; None for the paper's autoencoder, whose codes have no linear part."""
    if not isinstance(autoencoder, Autoencoder):
        return None
    return geometry_of(
        coordinates, patch_table(coordinates, *config.boxes), *config.boxes, autoencoder.bases()
    )


@torch.no_grad()
def encode(autoencoder: MeshAutoencoder, fields: np.ndarray) -> Tensor:
    """Latents (N, T, G, L) of fields (N, T, P, F), one trajectory at a time, on the autoencoder's device."""
    autoencoder.eval()
    return torch.stack(
        [autoencoder.encode(torch.from_numpy(part).to(autoencoder.mean.device)) for part in fields]
    )


@torch.no_grad()
def decode(autoencoder: MeshAutoencoder, z: Tensor) -> np.ndarray:
    """Fields float32 (N, T, P, F) of latents (N, T, G, L)."""
    autoencoder.eval()
    return np.stack([autoencoder.decode(part).cpu().numpy() for part in z])


def predict(
    autoencoder: MeshAutoencoder,
    temporal: Temporal,
    first: np.ndarray,
    theta: np.ndarray,
    steps: int,
) -> np.ndarray:
    """Fields (N, S, P, F) that follow the given frames (N, P, F) at parameters (N, K): from that frame alone."""
    z = encode(autoencoder, first[:, None])[:, 0]
    return decode(
        autoencoder, rollout(temporal, z, torch.from_numpy(theta).float().to(z.device), steps)
    )


# ---------------------------------------------------------------------------------------------------------------- files


def save_networks(
    folder: Path,
    flow: Flow,
    groups: tuple[tuple[int, ...], ...],
    config: dict[str, Any],
    name: str,
    autoencoder: MeshAutoencoder,
    temporal: Temporal,
) -> None:
    """Writes our autoencoder and one temporal model with all that is needed to use them on the same mesh: model.safetensors."""
    weights = {f"autoencoder.{key}": value for key, value in autoencoder.state_dict().items()}
    weights |= {f"temporal.{key}": value for key, value in temporal.state_dict().items()}
    about = {
        "name": name,
        "config": config,
        "temporal": dataclasses.asdict(temporal.config),
        "groups": groups,
        "fields": flow.field_names,
        "parameters": flow.parameter_names,
        "step": float(flow.time[1] - flow.time[0]),
        "shape": [temporal.groups, temporal.latents],
    }
    save_model(folder / "model.safetensors", weights, about, half=True)


def load_networks(
    folder: Path, flow: Flow, device: str
) -> tuple[MeshAutoencoder, Temporal, dict[str, Any]]:
    """The networks of a run, for a flow on the same mesh with the same fields and parameters, and what their file says of them.

    Raises InputError for a file that is not whole, and for a flow on another mesh or with other fields or parameters.
    """
    path = folder / "model.safetensors"
    weights, about = read_model(path)
    mesh = (
        np.load(folder / "mesh.npz", allow_pickle=False)["coordinates"]
        if (folder / "mesh.npz").exists()
        else None
    )
    for what, has, needs in (
        ("fields", flow.field_names, about["fields"]),
        ("parameters", flow.parameter_names, about["parameters"]),
    ):
        if tuple(has) != tuple(needs):
            raise InputError(
                f"{path} was trained on {what} {', '.join(needs)}; the data have {', '.join(has) or 'none'}"
            )
    if (
        mesh is None
        or mesh.shape != flow.coordinates.shape
        or np.abs(mesh - flow.coordinates).max() > 1e-6 * np.ptp(mesh, 0).max()
    ):
        raise InputError(
            f"{path} was trained on another mesh ({0 if mesh is None else len(mesh)} nodes; the data have {len(flow.coordinates)}); train again on it"
        )
    groups = tuple(tuple(group) for group in about["groups"])
    settings: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in about["config"].items()
    }
    autoencoder = build_autoencoder(Config(**settings), False, mesh, groups)
    count, latents = about["shape"]
    temporal = build(TemporalConfig(**about["temporal"]), count, latents, len(about["parameters"]))
    with as_said(path):
        for name, network in (("autoencoder", autoencoder), ("temporal", temporal)):
            network.load_state_dict(
                {
                    key.removeprefix(f"{name}."): value.float()
                    for key, value in weights.items()
                    if key.startswith(f"{name}.")
                }
            )
    return autoencoder.to(device).eval(), temporal.to(device).eval(), about
