"""What a temporal model is made of: plain numbers, so that options can be checked without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from common.cli import InputError

Exchange = Literal["none", "addition", "sequential", "symmetric"]
Scheme = Literal["Euler", "Adams-Bashforth"]


@dataclass(frozen=True)
class TemporalConfig:
    """Architecture of a temporal model; the defaults are ours, `published` is the paper's code."""

    width: int | None = 256
    """width of a stream; None: that of the latent, without embedding and head (published)"""
    blocks: int = 2
    """Transformer blocks"""
    heads: int = 8
    """attention heads, in the streams and in the exchange"""
    mlp_ratio: float = 4.0
    """hidden width of a block's MLP over the width of a stream"""
    down_ratio: int = 2
    """width of a stream over the width at which the exchange works"""
    exchange: Exchange = "symmetric"
    """none; addition: of the other streams' states; sequential (published): a stream reads the
    streams before it after their exchange; symmetric: all read the states before the exchange"""
    gated: bool = True
    """multiply what a stream receives by a gate per channel that starts at zero"""
    tipi: bool = True
    """add a function of the flow's parameters to every stream"""
    adaptive: bool = False
    """AdaLN: the gain and shift of every norm depend on the flow's parameters"""
    condition_width: int | None = 64
    """hidden width of an AdaLN conditioner; None: twice the normalised width (published)"""
    delta: bool = True
    """predict the change of the latent, with a head that starts at zero"""
    final_norm: bool = False
    """normalise the states after the last block"""
    output_projection: bool = False
    """end every block with a dense layer that has no residual around it (published)"""
    small_start: bool = True
    """start every branch at zero, and AdaLN at gain 1 (published: gain 2)"""
    principal: bool = True
    """start the embedding and the head on the principal components of the latents and of their
    changes; without a width there is no embedding to start"""
    standardise: bool = True
    """fit the scales of latents, changes, parameters and loss; False: raw numbers (published)"""
    scaled_latents: bool = False
    """without fitted scales: latents over the size that their group has in training"""
    scaled_parameters: bool = False
    """without fitted scales: parameters over their largest value in training"""
    scheme: Scheme = "Euler"
    """how predicted changes f of the latents add up; Adams-Bashforth: z + 3/2 f_t - 1/2 f_(t-1)"""
    phase: int = 0
    """pairs of principal components of a group's latents that turn by a learned angle per step"""
    joint: bool = False
    """control: all field groups in one stream"""
    patches: int = 0
    """patches of a frame, each a token of its own in place of time; 0: a frame is one token"""
    bundle: int = 1
    """frames that one step of a model of patches predicts at once, and goes on from the last"""
    window: int | None = None
    """frames that a query sees, its own included; None: all"""
    dropout: float = 0.0
    """dropout after a block's MLP"""
    attention_dropout: float = 0.0
    """dropout of attention weights over frames, in the streams and in the exchange"""
    tipi_dropout: float = 0.0
    """dropout of the function of the parameters, drawn for every stream and frame"""

    @classmethod
    def published(
        cls,
        adaptive: bool = True,
        exchange: Exchange = "sequential",
        all_dropouts: bool = False,
    ) -> TemporalConfig:
        """The paper's cylinder configuration, or the multiphase one with adaptive=False.

        At the published sizes they have 87.19 and 201.51 million parameters. Two streams have
        dropout in seven places in the published cylinder code: their attention (2), exchange (2)
        and MLPs (2), and TIPI. Without all_dropouts that of the MLPs alone is kept.
        """
        dropout = 0.1 if adaptive else 0.0
        return cls(
            width=None,
            blocks=1,
            mlp_ratio=8.0,
            exchange=exchange,
            gated=False,
            adaptive=adaptive,
            condition_width=None,
            delta=False,
            principal=False,
            final_norm=True,
            output_projection=True,
            small_start=False,
            standardise=False,
            dropout=dropout,
            attention_dropout=dropout if all_dropouts else 0.0,
            tipi_dropout=dropout if all_dropouts else 0.0,
        )

    def stream_shape(self, groups: int, latents: int) -> tuple[int, int]:
        """How many streams there are, and how many latent numbers each holds."""
        return (1, groups * latents) if self.joint else (groups, latents)

    def stream_width(self, groups: int, latents: int) -> int:
        """Width of a stream."""
        return self.width or self.stream_shape(groups, latents)[1]

    def check(self, groups: int, latents: int) -> None:
        """Raises InputError for sizes that cannot be built.

        The heads must fit the widths, the joint control cannot exchange, patches must share the
        latent numbers evenly, and no size is below one.
        """
        window = 1 if self.window is None else self.window
        sizes = (groups, latents, self.blocks, self.heads, self.down_ratio, window, self.bundle)
        if min(sizes) < 1:
            raise InputError(
                "groups, latents, blocks, heads, down_ratio, window and bundle must be at least 1"
            )
        if self.bundle > 1 and not (self.patches and self.scheme == "Euler" and not self.phase):
            raise InputError(
                f"bundles of {self.bundle} frames are of models of patches, with Euler's steps and "
                "without turning pairs"
            )
        if self.joint and self.exchange != "none":
            raise InputError(
                f'joint streams with exchange "{self.exchange}": '
                'one stream has nobody to exchange with; take "none"'
            )

        if not self.delta and (self.phase or self.scheme != "Euler"):
            raise InputError(f"scheme {self.scheme} and turning pairs are of models of the change")

        # every head turns pairs of numbers by their position: its size must be even
        width = self.stream_width(groups, latents)
        multiple = 2 * self.heads * self.down_ratio
        exchanging = self.exchange != "none"
        if width % (2 * self.heads) or (exchanging and width % multiple):
            raise InputError(
                f"width {width} does not fit {self.heads} heads; take a multiple of {multiple}, "
                "so that every head has an even size in streams and exchange"
            )

        _, numbers = self.stream_shape(groups, latents)
        if self.patches and numbers % self.patches:
            raise InputError(
                f"{numbers} latent numbers in a stream cannot be shared by {self.patches} patches"
            )
