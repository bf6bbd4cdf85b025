"""Seq2Seq with dot attention, as the course had it and as a forecaster of distributions.

Sutskever et al. 2014, Luong et al. 2015. Shape letters: B batch, N windows, C context, T = C - 1
returns in it, H horizon, S series, I inputs per step, U units, O outputs per step, D decays,
Q quantile levels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from assignment2.config import Start, ensemble_label
from common.cli import InputError
from common.files import JsonObject, atomic_path
from common.forecasting.candles import range_volatility, relative_volume
from common.forecasting.ensemble import ModelGroup
from common.forecasting.metrics import LEVELS, at_once, kept_shares
from common.forecasting.volatility import FITTED, HOURS, LogHar
from common.forecasting.windows import Windows, calendar, ewma_matrices, known_and_ahead

LSTMState: TypeAlias = tuple[Tensor, Tensor]  # of an LSTM: hidden and cell, (1, B, U) each
Feed: TypeAlias = Callable[[Tensor, int], Tensor]  # (output (B, O), step) to the input (B, I)

CALENDAR = 6  # columns of `calendar`
RETURN_LIMIT = 10.0  # a return counts for the volatility up to this many usual ones
VARIANCE_FLOOR = 1e-3  # of a series that does not move
RANGE_LIMIT = 30.0  # a step's range counts up to this many usual changes
STILL = 1e-6  # log return of a price that never moves
LEVEL_10, LEVEL_90 = 9, -10  # where LEVELS holds 10 % and 90 %: half their distance is the spread
BLOCK = 512  # windows that are forecast at once
MAP_WINDOWS = 200  # about as many windows make the mean attention map


class Seq2Seq(nn.Module):
    """LSTM encoder and decoder with dot attention over the encoder's outputs.

    The decoder starts from the encoder's final state; one linear layer reads its output and its
    attention context together. Keras has one bias per LSTM gate and torch has two: the second is
    held at zero and not trained, so that both frameworks' networks are the same function with the
    same number of trained weights (8,078,007 for 7 series and 1,000 units).
    """

    def __init__(self, inputs: int, decoder_inputs: int, units: int, outputs: int):
        super().__init__()
        self.encoder = nn.LSTM(inputs, units, batch_first=True)
        self.decoder = nn.LSTM(decoder_inputs, units, batch_first=True)
        self.head = nn.Linear(2 * units, outputs)
        initialise_as_keras(self.encoder)
        initialise_as_keras(self.decoder)
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def params(self) -> int:
        """How many weights are trained."""
        return sum(weight.numel() for weight in self.parameters() if weight.requires_grad)

    def encode(self, context: Tensor) -> tuple[Tensor, LSTMState]:
        """Outputs (B, C, U) and final state of a context (B, C, I)."""
        return self.encoder(context)

    def step(
        self, inputs: Tensor, memory: Tensor, state: LSTMState
    ) -> tuple[Tensor, Tensor, LSTMState]:
        """Outputs (B, n, O), attention (B, n, C) and state after n decoder inputs (B, n, I)."""
        decoded, state = self.decoder(inputs, state)  # (B, n, U)
        attention = (decoded @ memory.transpose(1, 2)).softmax(-1)  # (B, n, C)
        context = attention @ memory  # (B, n, U)
        return self.head(torch.cat([decoded, context], -1)), attention, state

    def forward(self, context: Tensor, inputs: Tensor) -> Tensor:
        """Teacher forcing: outputs (B, H, O) for the true inputs (B, H, I) of every step."""
        memory, state = self.encode(context)
        outputs, _, _ = self.step(inputs, memory, state)
        return outputs

    def decode(
        self, context: Tensor, first: Tensor, steps: int, feed: Feed | None = None
    ) -> tuple[Tensor, Tensor]:
        """Free-running: outputs (B, H, O) and attention (B, H, C).

        `first` (B, I) is the input of the first step; `feed` makes the next step's input from an
        output, which is fed as it is without one.
        """
        memory, state = self.encode(context)
        outputs: list[Tensor] = []
        attentions: list[Tensor] = []
        inputs = first
        for step in range(steps):
            if step > 0:
                inputs = outputs[-1] if feed is None else feed(outputs[-1], step)
            output, attention, state = self.step(inputs[:, None], memory, state)
            outputs.append(output[:, 0])
            attentions.append(attention[:, 0])
        return torch.stack(outputs, 1), torch.stack(attentions, 1)


def initialise_as_keras(lstm: nn.LSTM) -> None:
    """Keras' initialisation: Glorot, orthogonal per gate, forget gate open, no second bias."""
    weights = dict(lstm.named_parameters())
    nn.init.xavier_uniform_(weights["weight_ih_l0"])
    for gate in weights["weight_hh_l0"].data.chunk(4):
        nn.init.orthogonal_(gate)
    nn.init.zeros_(weights["bias_ih_l0"])
    weights["bias_ih_l0"].data[lstm.hidden_size : 2 * lstm.hidden_size] = 1
    nn.init.zeros_(weights["bias_hh_l0"])
    weights["bias_hh_l0"].requires_grad_(False)


# ----------------------------------------------------------------------------------- held out


class Forecaster(nn.Module):
    """Seq2Seq that forecasts the distribution of each series' change from its last price.

    Inputs are log returns over their usual size, the window's volatility at several speeds, and
    the calendar; with `candles` also the range of every step, its volatility at the same speeds,
    and its volume. For step h and series s the network puts out a location m, a log scale d, a skew
    a and a tail k; with sigma the volatility at the origin and z the training part's quantiles of
    changes over sigma (`shape`, in units of their `spread`),

        quantile = sigma spread (m + exp(d + a sign(z)) sign(z) |z|^exp(k))

    so an untrained network (its head is zero) is no change, with the intervals of the model that
    `start` names: a log-HAR-t, or a random walk scaled by EWMA volatility. What is trained is paid
    only for what lies beyond that.
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
        start: Start = "ewma",
        bins: int = HOURS,
        candles: bool = False,
    ):
        super().__init__()
        self.settings: JsonObject = {
            "series": series,
            "context": context,
            "horizon": horizon,
            "units": units,
            "decays": decays,
            "dropout": dropout,
            "start": start,
            "bins": bins,
        }
        if candles:  # (a network of closes has the settings that it always had)
            self.settings["candles"] = True
        self.horizon = horizon
        self.series = series
        self.start = start
        self.candles = candles

        # What is fitted in closed form before training, and `shrink` after it:
        self.register_buffer("levels", torch.tensor(LEVELS, dtype=torch.float32))  # (Q,)
        self.register_buffer("deviation", torch.ones(series))  # of a step's log return
        self.register_buffer("shape", torch.zeros(horizon, series, len(LEVELS)))
        self.register_buffer("spread", torch.ones(horizon, series))
        self.register_buffer("shrink", torch.ones(horizon, series))  # of the location, for a point
        smooth = torch.from_numpy(ewma_matrices(context - 1, decays))  # (D, T, T)
        self.register_buffer("smooth", smooth, persistent=False)
        if start == "har":
            blank = LogHar.blank(series, context, horizon, bins, candles=candles)
            for name, array in blank.arrays.items():
                self.register_buffer(f"har_{name}", torch.from_numpy(array))

        # What is trained:
        of_candles = 2 + len(decays) if candles else 0
        inputs = series * (1 + len(decays) + of_candles) + CALENDAR
        self.network = Seq2Seq(inputs, series + CALENDAR, units, 4 * series)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.network.head.weight)

    @property
    def params(self) -> int:
        """How many weights are trained."""
        return self.network.params

    def inputs(
        self, past: np.ndarray, times: np.ndarray, candles: np.ndarray | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the network reads of prices (B, C, S) and times datetime64 (B, C + H).

        Candles (B, C, 3, S) are needed where it reads them.
        Encoder inputs (B, T, I), the scale of the changes ahead (B, H, S), or (B, 1, S) where it
        is the same for all of them, and the calendar of the steps ahead (B, H, 6).
        """
        device = self.deviation.device
        returns = np.diff(np.log(past), axis=1).astype(np.float32)
        scaled = torch.from_numpy(returns).to(device) / self.deviation  # (B, T, S)
        volatility = self.volatility(scaled.clamp(-RETURN_LIMIT, RETURN_LIMIT))

        known, ahead = known_and_ahead(times, past.shape[1], self.horizon)
        known_hours = torch.from_numpy(calendar(known[:, 1:])).to(device)  # (B, T, 6)
        hours_ahead = torch.from_numpy(calendar(ahead)).to(device)
        columns = [torch.asinh(scaled), volatility.log().flatten(2), known_hours]
        if self.candles:
            columns += self.candle_columns(past, candles)
        if self.start == "har":
            scale = self.har.scale(past, np.concatenate([known, ahead], 1), candles)
            sigma = torch.from_numpy(scale.astype(np.float32)).to(device)
        else:
            sigma = volatility[:, -1:, -1] * self.deviation
        return torch.cat(columns, -1), sigma, hours_ahead

    def volatility(self, sizes: Tensor) -> Tensor:
        """Root mean squares (B, T, D, S) at several speeds of sizes (B, T, S) in usual changes."""
        variance = torch.einsum("dtc,bcs->btds", self.smooth, sizes.square())
        return variance.add(VARIANCE_FLOOR).sqrt()

    def candle_columns(self, past: np.ndarray, candles: np.ndarray | None) -> list[Tensor]:
        """Log ranges, their volatility at each speed and log volume: (B, T, S or D S) each.

        Raises ValueError without candles.
        """
        if candles is None:
            raise ValueError("a network with candles was given closes alone")
        device = self.deviation.device
        ranges = torch.from_numpy(range_volatility(past, candles).astype(np.float32)).to(device)
        ranges = (ranges / self.deviation).clamp(max=RANGE_LIMIT)  # (B, T, S)
        volume = torch.from_numpy(relative_volume(candles).astype(np.float32)).to(device)
        each = ranges.square().add(VARIANCE_FLOOR).sqrt().log()
        return [each, self.volatility(ranges).log().flatten(2), volume]

    @property
    def har(self) -> LogHar:
        """The log-HAR-t that the network starts from."""
        arrays = {name: getattr(self, f"har_{name}").cpu().numpy() for name in FITTED}
        return LogHar(**arrays, candles=self.candles)

    @torch.no_grad()
    def fit_scales(
        self, inputs: Sequence[np.ndarray], changes: np.ndarray, har: LogHar | None = None
    ) -> None:
        """Sets deviation, shape and spread from training windows and log returns (N, H, S).

        `inputs` are what Windows.inputs gives: prices (N, C, S), times and perhaps candles. `har`
        is the log-HAR-t to start from, where the network starts from one.
        """
        past = inputs[0]
        last_returns = np.diff(np.log(past[:, -2:]), axis=1)
        deviation = last_returns.std((0, 1))  # (S,)
        deviation = np.where(deviation > 0, deviation, STILL)
        self.deviation.copy_(torch.from_numpy(deviation))

        if har is None:
            shape = self.shape_of(inputs, changes)
        else:
            for name, array in har.arrays.items():
                getattr(self, f"har_{name}").copy_(torch.from_numpy(array))
            shape = torch.from_numpy(har.shape).float()
        spread = (shape[..., LEVEL_90] - shape[..., LEVEL_10]) / 2
        spread[spread == 0] = 1  # a price that rests most of the time
        self.shape.copy_(shape / spread[..., None])
        self.spread.copy_(spread)

    def shape_of(self, inputs: Sequence[np.ndarray], changes: np.ndarray) -> Tensor:
        """Quantiles (H, S, Q) of changes (N, H, S) over the volatility at their origin."""
        together = min(1024, at_once(self.horizon, self.series))
        volatilities = [
            self.inputs(*(array[start : start + together] for array in inputs))[1]
            for start in range(0, len(changes), together)
        ]
        sigma = torch.cat(volatilities).cpu().numpy()  # (N, 1, S)
        scaled = np.quantile(changes / sigma, self.levels.cpu().numpy(), axis=0)  # (Q, H, S)
        return torch.from_numpy(scaled).float().permute(1, 2, 0)

    def forward(
        self,
        past: np.ndarray,
        times: np.ndarray,
        candles: np.ndarray | None = None,
        truth: Tensor | None = None,
        forced: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Location (B, H, S), quantiles (B, H, S, Q) of the log return, and attention (B, H, T).

        From prices (B, C, S), times (B, C + H) and, where it reads them, candles (B, C, 3, S).
        Free-running unless `truth` (B, H, S) and `forced` bool (B, H) are given: the step after a
        forced one is fed the true change, every other one the network's own location (scheduled
        sampling, Bengio et al. 2015).
        """
        inputs, sigma, hours = self.inputs(past, times, candles)
        unit = sigma * self.spread  # (B, H, S)

        def feed(output: Tensor, step: int) -> Tensor:
            change = output[:, : self.series]
            if truth is not None and forced is not None:
                true_change = truth[:, step - 1] / unit[:, step - 1]
                change = torch.where(forced[:, step - 1, None], true_change, change)
            return torch.cat([torch.asinh(change), hours[:, step]], -1)

        first = torch.cat([torch.zeros_like(sigma[:, 0]), hours[:, 0]], -1)
        outputs, attention = self.network.decode(self.dropout(inputs), first, self.horizon, feed)
        location, quantiles = self.distribution(outputs)
        return location * unit, unit[..., None] * quantiles, attention

    def distribution(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Location (B, H, S) and quantiles (B, H, S, Q) of outputs (B, H, 4 S), in `unit`s."""
        parameters = outputs.unflatten(-1, (4, self.series, 1))  # (B, H, 4, S, 1)
        location, scale, skew, tail = parameters.unbind(2)  # (B, H, S, 1) each
        sign = self.shape.sign()  # (H, S, Q)
        size = self.shape.abs().clamp(min=1e-4)
        stretched = sign * torch.exp(scale + skew * sign + tail.exp() * size.log())  # (B, H, S, Q)
        return location[..., 0], location + stretched

    @torch.no_grad()
    def fit_shrink(self, inputs: Sequence[np.ndarray], changes: np.ndarray) -> None:
        """Sets the share (0 to 1) of the location that a point forecast keeps, by step and series.

        By least squares on windows, as Windows.inputs gives them, with changes (N, H, S): a
        location is trained by CRPS, and squared errors punish it where it is bold. No share is kept
        where no change is not beaten there significantly.
        """
        self.shrink.fill_(1)
        deviation = self.deviation.cpu().numpy()
        together = at_once(self.horizon, self.series)
        points = [
            self.predict(*(array[start : start + together] for array in inputs))[0]
            for start in range(0, len(changes), together)
        ]
        last = inputs[0][:, -1:]  # (N, 1, S)
        location = np.log(np.concatenate(points) / last) / deviation  # (N, H, S)
        truth = changes / deviation
        self.shrink.copy_(torch.from_numpy(kept_shares(location, truth)))

    @torch.no_grad()
    def predict(
        self, past: np.ndarray, times: np.ndarray, candles: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Free-running forecast in prices, of prices (N, C, S) at times datetime64 (N, C).

        Candles (N, C, 3, S) are needed where it reads them. Point forecast (N, H, S) float64 and
        quantiles (N, H, S, Q) float32.
        """
        self.eval()
        points = []
        quantiles = []
        together = min(BLOCK, at_once(self.horizon, self.series))
        for start in range(0, len(past), together):
            block = slice(start, start + together)
            ranges = None if candles is None else candles[block]
            location, distribution, _ = self(past[block], times[block], ranges)
            last = past[block, -1:]  # (B, 1, S)
            change = (location * self.shrink).double().cpu().numpy()
            points.append(last * np.exp(change))
            prices = last[..., None] * np.exp(distribution.cpu().numpy())
            quantiles.append(prices.astype(np.float32))
        return np.concatenate(points), np.concatenate(quantiles)


def pinball(quantiles: Tensor, truth: Tensor, levels: Tensor) -> Tensor:
    """CRPS (B, H, S) as twice the mean pinball loss of quantiles (B, H, S, Q): the objective."""
    error = truth[..., None] - quantiles  # (B, H, S, Q)
    return 2 * torch.maximum(levels * error, (levels - 1) * error).mean(-1)


def range_loss(quantiles: Tensor, ranges: Tensor) -> Tensor:
    """How far the spread of log returns misses the ranges that came, as a variance over a batch.

    Of the logarithm of the 80 % interval of quantiles (B, H, S, Q) over the volatility by ranges
    (B, H, S) of the same steps: a range tells far more about a scale than one change does. A
    constant factor between the two costs nothing, so that the level is left to the CRPS.
    """
    spread = (quantiles[..., LEVEL_90] - quantiles[..., LEVEL_10]).clamp(min=STILL)
    return (spread / ranges.clamp(min=STILL)).log().var(0, correction=0).mean()


@torch.no_grad()
def attention_maps(
    windows: Windows, forecaster: Forecaster, origin: np.ndarray
) -> dict[str, np.ndarray]:
    """Attention (H, T) of a network: its mean over the test part, and at one origin (1,)."""
    test = windows.parts.test
    origins = test[:: max(len(test) // MAP_WINDOWS, 1)]
    together = at_once(windows.horizon, len(windows.prices.series))
    maps = []
    for start in range(0, len(origins), together):
        _, _, attention = forecaster(*windows.inputs(origins[start : start + together]))
        maps.append(attention.cpu().numpy())
    _, _, one = forecaster(*windows.inputs(origin))
    return {
        "attention_mean": np.concatenate(maps).mean(0),
        "attention_one": one.cpu().numpy().mean(0),
    }


def seq2seq_group(forecasters: Sequence[Forecaster], seconds: float | None = None) -> ModelGroup:
    """The forecasters, one per seed, as tables report them; `seconds` of one training."""
    ensemble = ensemble_label(len(forecasters))
    return ModelGroup("Seq2Seq", "quantile head", forecasters, ensemble, seconds)


# -------------------------------------------------------------------------------------- files


def save_forecasters(
    path: Path, forecasters: Sequence[Forecaster], series: tuple[str, ...]
) -> None:
    """Saves one forecaster per seed and the settings that rebuild them as one safetensors file."""
    arrays = {
        f"{seed}.{name}": tensor.contiguous().cpu()
        for seed, forecaster in enumerate(forecasters)
        for name, tensor in forecaster.state_dict().items()
    }
    about = {"settings": forecasters[0].settings, "series": series, "seeds": len(forecasters)}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(arrays, metadata={"seq2seq": json.dumps(about)}))


def load_forecasters(path: Path, device: str = "cpu") -> tuple[list[Forecaster], tuple[str, ...]]:
    """The forecasters that `save_forecasters` wrote and the names of their series.

    Raises InputError for any other file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["seq2seq"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        forecasters = []
        for seed in range(about["seeds"]):
            prefix = f"{seed}."
            weights = {
                name.removeprefix(prefix): array
                for name, array in arrays.items()
                if name.startswith(prefix)
            }
            forecaster = Forecaster(**about["settings"]).to(device)
            forecaster.load_state_dict(weights)
            forecasters.append(forecaster.eval())
    except Exception as error:  # safetensors, json and torch each raise their own
        raise InputError(f"{path}: not forecasters that assignment2 saved ({error})") from None
    return forecasters, tuple(about["series"])
