"""How predicted changes of latents become the next latents: multistep schemes and rotating pairs.

Shape letters: B batch, N trajectories, T frames, G field groups, L latent numbers per group, K
parameters, m pairs of principal components per group.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from final_project.principal import principal

BEND = 16  # hidden width of what an angle has beyond a linear function of the parameters


def adams_bashforth(change: Tensor, before: Tensor | None) -> Tensor:
    """What predicted changes f (B, T, ...) of successive frames add to them: 3/2 f_t - 1/2 f_(t-1).

    Of second order (Hairer, Norsett and Wanner 1993, section III.1). `before` (B, 1, ...) is the
    change of the frame before the first; without it the first step is Euler's.
    """
    first = change[:, :1] if before is None else before
    earlier = torch.cat([first, change[:, :-1]], dim=1)
    return torch.lerp(earlier, change, 1.5)


def turn(pairs: Tensor, angles: Tensor) -> Tensor:
    """Pairs (..., 2 m) of numbers, the two of a pair side by side, turned by angles (..., m)."""
    x = pairs[..., 0::2]
    y = pairs[..., 1::2]
    cos = angles.cos()
    sin = angles.sin()
    return torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1).flatten(-2)


class Phase(nn.Module):
    """Turns pairs of principal components of the latents by an angle per step.

    A wake that sheds is a pair of modes in quadrature, so its phase advances by a rotation whose
    size does not drift. The angle of each pair is a function of the standardised parameters: a
    linear one, plus a small network that starts at zero. Before `fit` nothing turns.
    """

    analysis: Tensor
    synthesis: Tensor

    def __init__(self, groups: int, latents: int, parameters: int, pairs: int):
        super().__init__()
        self.groups = groups
        pairs = min(pairs, latents // 2)
        self.register_buffer("analysis", torch.zeros(groups, latents, 2 * pairs))
        self.register_buffer("synthesis", torch.zeros(groups, 2 * pairs, latents))
        inputs = 1 + parameters
        self.linear = nn.Linear(inputs, groups * pairs, bias=False)
        self.bend = nn.Sequential(
            nn.Linear(inputs, BEND), nn.GELU(), nn.Linear(BEND, groups * pairs)
        )

    def angles(self, theta: Tensor) -> Tensor:
        """Angles per step (B, G, m) of standardised parameters (B, K)."""
        known = with_one(theta)
        return (self.linear(known) + self.bend(known)).unflatten(1, (self.groups, -1))

    def forward(self, z: Tensor, theta: Tensor) -> Tensor:
        """Centred latents (B, T, G, L) one step later, as far as their pairs turn."""
        pairs = torch.einsum("btgl,glc->btgc", z, self.analysis)  # (B, T, G, 2 m)
        turned = turn(pairs, self.angles(theta)[:, None])
        return z + torch.einsum("btgc,gcl->btgl", turned - pairs, self.synthesis)

    @torch.no_grad()
    def fit(self, z: Tensor, theta: Tensor) -> None:
        """Pairs of centred training latents z (N, T, G, L), and angles linear in theta (N, K).

        Components next to each other in variance are a pair. Its angle in a trajectory is the
        rotation that takes its frames to the next ones best; over trajectories least squares.
        """
        kept = self.analysis.shape[2]
        angles = []
        for group, states in enumerate(z.double().cpu().unbind(2)):  # (N, T, L)
            deviations, directions = principal(states.flatten(0, 1), kept)
            divisor = torch.where(deviations > 0, deviations, torch.inf)
            self.analysis[group] = directions / divisor
            self.synthesis[group] = (directions * deviations).T
            pairs = (states @ (directions / divisor)).unflatten(2, (-1, 2))  # (N, T, m, 2)
            angles.append(mean_angles(pairs))

        measured = torch.cat(angles, dim=1)  # (N, G m)
        known = with_one(theta).double().cpu()
        fitted = torch.linalg.lstsq(known, measured, driver="gelsd").solution  # (1 + K, G m)
        self.linear.weight.copy_(fitted.T)


def with_one(theta: Tensor) -> Tensor:
    """Parameters (B, K) after a 1, so that a linear function of them has a constant: (B, 1 + K)."""
    return torch.cat([theta.new_ones(len(theta), 1), theta], dim=1)


def mean_angles(pairs: Tensor) -> Tensor:
    """The angles (N, m) that turn pairs (N, T, m, 2) to the next frame's, by least squares."""
    now = torch.view_as_complex(pairs[:, :-1].contiguous())
    following = torch.view_as_complex(pairs[:, 1:].contiguous())
    return (following * now.conj()).sum(1).angle()
