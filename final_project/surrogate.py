"""The two stages as one surrogate of the flow: encode a frame, roll its code out, decode.

Shape letters: N trajectories, T frames, S steps, P nodes, F fields, G field groups, L latent
numbers per group, K parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common.weights import count_parameters
from final_project.autoencoder import MeshAutoencoder
from final_project.rollout import rollout
from final_project.temporal import TemporalModel


@torch.no_grad()
def encode(autoencoder: MeshAutoencoder, fields: np.ndarray) -> Tensor:
    """Latents (N, T, G, L) of fields (N, T, P, F), one trajectory at a time.

    They are on the autoencoder's device.
    """
    autoencoder.eval()
    device = autoencoder.mean.device
    return torch.stack([autoencoder.encode(torch.from_numpy(part).to(device)) for part in fields])


@torch.no_grad()
def decode(autoencoder: MeshAutoencoder, z: Tensor) -> np.ndarray:
    """Fields float64 (N, T, P, F) of latents (N, T, G, L)."""
    autoencoder.eval()
    return np.stack([autoencoder.decode(part).cpu().numpy() for part in z])


@dataclass(frozen=True)
class Surrogate:
    """A trained autoencoder and a temporal model of its codes."""

    autoencoder: MeshAutoencoder
    temporal: TemporalModel

    @property
    def params(self) -> int:
        """How many trained numbers both networks have."""
        return count_parameters(self.autoencoder) + count_parameters(self.temporal)

    def predict(self, first: np.ndarray, theta: np.ndarray, steps: int) -> np.ndarray:
        """Fields float64 (N, S, P, F) that follow frames (N, P, F) alone, at parameters (N, K)."""
        z = encode(self.autoencoder, first[:, None])[:, 0]  # (N, G, L)
        parameters = torch.from_numpy(theta).float().to(z.device)
        future = rollout(self.temporal, z, parameters, steps)  # (N, S, G, L)
        return decode(self.autoencoder, future)


@dataclass(frozen=True)
class Trained(Surrogate):
    """A surrogate, and how long its training took."""

    seconds: float  # of both stages
