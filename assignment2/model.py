"""Seq2Seq with dot attention (Sutskever et al. 2014; Luong et al. 2015), and the same network as a distribution forecaster.

Shape letters: B batch, C context, H horizon, S series, I inputs a step, U units, O outputs a step, Q quantile levels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from common.backtest import LEVELS
from common.cli import InputError
from common.run import atomic_path
from common.windows import calendar, ewma_matrices, steps_ahead


class Seq2Seq(nn.Module):
    """LSTM encoder, LSTM decoder started from its final state, dot attention over the encoder's outputs, one linear layer
    on the decoder's output and its attention context side by side.

    Keras counts one bias an LSTM gate and torch two: the second is held at zero and not trained, so the two frameworks'
    networks are the same function with the same number of trained weights (8,078,007 for 7 series and 1,000 units).
    """

    def __init__(self, inputs: int, decoder_inputs: int, units: int, outputs: int):
        super().__init__()
        self.encoder = nn.LSTM(inputs, units, batch_first=True)
        self.decoder = nn.LSTM(decoder_inputs, units, batch_first=True)
        self.head = nn.Linear(2 * units, outputs)
        for lstm in (
            self.encoder,
            self.decoder,
        ):  # Keras' initialisation: Glorot, orthogonal, forget gate open
            weights = dict(lstm.named_parameters())
            nn.init.xavier_uniform_(weights["weight_ih_l0"])
            for gate in weights["weight_hh_l0"].data.chunk(4):
                nn.init.orthogonal_(gate)
            nn.init.zeros_(weights["bias_ih_l0"])
            weights["bias_ih_l0"].data[units : 2 * units] = 1
            nn.init.zeros_(weights["bias_hh_l0"])
            weights["bias_hh_l0"].requires_grad_(False)
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def parameters_trained(self) -> int:
        """How many weights are trained."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)

    def encode(self, context: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Outputs (B, C, U) and final state of a context (B, C, I)."""
        return self.encoder(context)

    def step(
        self, inputs: Tensor, memory: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Outputs (B, n, O), attention (B, n, C) and state after decoder inputs (B, n, I), n steps at once."""
        decoded, state = self.decoder(inputs, state)  # (B, n, U)
        attention = (decoded @ memory.transpose(1, 2)).softmax(-1)  # (B, n, C)
        return self.head(torch.cat([decoded, attention @ memory], -1)), attention, state

    def forward(self, context: Tensor, inputs: Tensor) -> Tensor:
        """Teacher forcing: outputs (B, H, O) for the true inputs (B, H, I) of every step."""
        memory, state = self.encode(context)
        return self.step(inputs, memory, state)[0]

    def decode(
        self,
        context: Tensor,
        first: Tensor,
        steps: int,
        feed: Callable[[Tensor, int], Tensor] = lambda output, _: output,
    ) -> tuple[Tensor, Tensor]:
        """Free-running: outputs (B, H, O) and attention (B, H, C); `feed(output (B, O), step)` makes the next step's input
        (B, I) of what was put out, `first` (B, I) is that of the first step."""
        memory, state = self.encode(context)
        outputs, attentions, inputs = [], [], first
        for step in range(steps):
            output, attention, state = self.step(inputs[:, None], memory, state)
            outputs.append(output[:, 0])
            attentions.append(attention[:, 0])
            if step + 1 < steps:
                inputs = feed(outputs[-1], step + 1)
        return torch.stack(outputs, 1), torch.stack(attentions, 1)


class Forecaster(nn.Module):
    """Seq2Seq that puts out the distribution of each series' change from its last price.

    Inputs are log returns over their usual size, the window's volatility at several speeds, and the calendar. For step h
    and series s the network puts out a location m, a log scale d, a skew a and a tail k; with sigma the volatility at the
    origin and z the training part's quantiles of changes over sigma (`shape`, in units of their `spread`),

        quantile = sigma spread (m + exp(d + a sign(z)) sign(z) |z|^exp(k))

    so an untrained network (its head is zero) is no change, with the intervals of an EWMA-scaled random walk.
    """

    levels: Tensor
    deviation: Tensor
    shape: Tensor
    spread: Tensor
    shrink: Tensor
    smooth: Tensor

    def __init__(
        self,
        series: int,
        context: int,
        horizon: int,
        units: int,
        decays: tuple[float, ...],
        dropout: float,
    ):
        super().__init__()
        self.settings = {
            "series": series,
            "context": context,
            "horizon": horizon,
            "units": units,
            "decays": decays,
            "dropout": dropout,
        }
        self.horizon, self.series = horizon, series
        self.register_buffer("levels", torch.tensor(LEVELS, dtype=torch.float32))
        self.register_buffer("deviation", torch.ones(series))  # of a step's log return
        self.register_buffer("shape", torch.zeros(horizon, series, len(LEVELS)))
        self.register_buffer("spread", torch.ones(horizon, series))
        self.register_buffer(
            "shrink", torch.ones(horizon, series)
        )  # of the location, where a point is wanted
        self.register_buffer(
            "smooth", torch.from_numpy(ewma_matrices(context - 1, decays)), persistent=False
        )  # (D, C - 1, C - 1)
        self.network = Seq2Seq(series * (1 + len(decays)) + 6, series + 6, units, 4 * series)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.network.head.weight)

    @property
    def params(self) -> int:
        """How many weights are trained."""
        return self.network.parameters_trained

    def inputs(self, past: np.ndarray, times: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Encoder inputs (B, C - 1, I), volatility at the origin (B, S) and the targets' calendar (B, H, 6) of prices
        (B, C, S) at times datetime64 (B, C)."""
        returns = (
            torch.from_numpy(np.diff(np.log(past), axis=1).astype(np.float32)).to(
                self.deviation.device
            )
            / self.deviation
        )
        squares = returns.clamp(-10, 10).square()
        volatility = (
            torch.einsum("dtc,bcs->btds", self.smooth, squares).add(1e-3).sqrt()
        )  # (B, C - 1, D, S)
        parts = [
            torch.asinh(returns),
            volatility.log().flatten(2),
            torch.from_numpy(calendar(times[:, 1:])).to(returns.device),
        ]
        return (
            torch.cat(parts, -1),
            volatility[:, -1, -1] * self.deviation,
            torch.from_numpy(calendar(steps_ahead(times, self.horizon))).to(returns.device),
        )

    @torch.no_grad()
    def fit_scales(self, past: np.ndarray, times: np.ndarray, changes: np.ndarray) -> None:
        """Sets deviation, shape and spread from the training part's windows; changes are log returns (N, H, S)."""
        self.deviation.copy_(torch.from_numpy(np.diff(np.log(past[:, -2:]), axis=1).std((0, 1))))
        sigma = (
            torch.cat(
                [
                    self.inputs(past[i : i + 1024], times[i : i + 1024])[1]
                    for i in range(0, len(past), 1024)
                ]
            )
            .cpu()
            .numpy()
        )
        scaled = np.quantile(
            changes / sigma[:, None], self.levels.cpu().numpy(), axis=0
        )  # (Q, H, S)
        shape = torch.from_numpy(scaled).float().permute(1, 2, 0)  # (H, S, Q)
        spread = (shape[..., -10] - shape[..., 9]) / 2
        self.shape.copy_(shape / spread[..., None])
        self.spread.copy_(spread)

    def forward(
        self,
        past: np.ndarray,
        times: np.ndarray,
        truth: Tensor | None = None,
        forced: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Location (B, H, S) and quantiles (B, H, S, Q) of the log return from the last price, and attention (B, H, C - 1).

        Free-running unless `truth` (B, H, S) and `forced` bool (B, H) are given: the step after a forced one is fed the
        true change, every other one the network's own location (scheduled sampling, Bengio et al. 2015).
        """
        inputs, sigma, ahead = self.inputs(past, times)
        unit = sigma[:, None] * self.spread  # (B, H, S)

        def feed(output: Tensor, step: int) -> Tensor:
            fed = output[:, : self.series]
            if truth is not None and forced is not None:
                fed = torch.where(
                    forced[:, step - 1, None], truth[:, step - 1] / unit[:, step - 1], fed
                )
            return torch.cat([torch.asinh(fed), ahead[:, step]], -1)

        first = torch.cat([torch.zeros_like(sigma), ahead[:, 0]], -1)
        outputs, attention = self.network.decode(self.dropout(inputs), first, self.horizon, feed)
        location, scale, skew, tail = outputs.unflatten(-1, (4, self.series)).unbind(
            -2
        )  # (B, H, S) each
        sign, size = self.shape.sign(), self.shape.abs().clamp(min=1e-4)
        stretched = sign * torch.exp(
            scale[..., None] + skew[..., None] * sign + tail[..., None].exp() * size.log()
        )  # (B, H, S, Q)
        return location * unit, unit[..., None] * (location[..., None] + stretched), attention

    @torch.no_grad()
    def fit_shrink(self, past: np.ndarray, times: np.ndarray, changes: np.ndarray) -> None:
        """Sets, by step, the share (0 to 1) of the location that a point forecast keeps, by least squares on windows (N, C, S)
        with changes (N, H, S): a distribution's location is trained by CRPS, which squared errors punish where it is bold."""
        self.shrink.fill_(1)
        points = np.log(self.predict(past, times)[0] / past[:, -1:]) / self.deviation.cpu().numpy()
        truth = changes / self.deviation.cpu().numpy()
        best = (points * truth).sum((0, 2)) / np.maximum((points**2).sum((0, 2)), 1e-12)
        self.shrink.copy_(torch.from_numpy(best).clamp(0, 1)[:, None].expand_as(self.shrink))

    @torch.no_grad()
    def predict(self, past: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Free-running forecast in prices: point (N, H, S) float64 and quantiles (N, H, S, Q) of prices (N, C, S)."""
        self.eval()
        points, quantiles = [], []
        for start in range(0, len(past), 512):
            place = slice(start, start + 512)
            location, spread, _ = self(past[place], times[place])
            last = past[place, -1:]
            points.append(last * np.exp((location * self.shrink).double().cpu().numpy()))
            quantiles.append((last[..., None] * np.exp(spread.cpu().numpy())).astype(np.float32))
        return np.concatenate(points), np.concatenate(quantiles)


def pinball(quantiles: Tensor, truth: Tensor, levels: Tensor) -> Tensor:
    """CRPS (B, H, S) as twice the mean pinball loss of quantiles (B, H, S, Q): the training objective."""
    error = truth[..., None] - quantiles
    return 2 * torch.maximum(levels * error, (levels - 1) * error).mean(-1)


def save_forecasters(path: Path, models: Sequence[Forecaster], series: tuple[str, ...]) -> None:
    """Writes one forecaster a seed, with the settings that rebuild them, as one safetensors file."""
    arrays = {
        f"{seed}.{name}": tensor.contiguous().cpu()
        for seed, model in enumerate(models)
        for name, tensor in model.state_dict().items()
    }
    facts = {"settings": models[0].settings, "series": series, "seeds": len(models)}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(arrays, metadata={"seq2seq": json.dumps(facts)}))


def load_forecasters(path: Path, device: str = "cpu") -> tuple[list[Forecaster], tuple[str, ...]]:
    """The forecasters that `save_forecasters` wrote and the names of their series. Raises InputError for anything else."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["seq2seq"])
            held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        models = []
        for seed in range(facts["seeds"]):
            model = Forecaster(**facts["settings"]).to(device)
            model.load_state_dict(
                {
                    name.partition(".")[2]: tensor
                    for name, tensor in held.items()
                    if name.startswith(f"{seed}.")
                }
            )
            models.append(model.eval())
    except Exception as error:
        raise InputError(f"{path}: not forecasters that assignment2 saved ({error})") from None
    return models, tuple(facts["series"])
