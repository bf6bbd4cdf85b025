"""A Transformer encoder (Vaswani et al. 2017) from Keras' layers, as the course had it and as a
forecaster of distributions.

Shape letters: B batch, N windows, C context, T tokens, H horizon, S series, I inputs per token,
R positions read out, W width, A heads, K key width, D decays, Q quantile levels.
"""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from assignment3.backend import keras, layers, ops, tf
from assignment3.config import (
    AVERAGED,
    COURSE_ENCODER,
    NORMALISATIONS,
    EncoderSettings,
    ForecasterSettings,
    Normalisation,
    average_label,
    ensemble_label,
)
from common.cli import InputError
from common.files import JsonObject, atomic_path
from common.forecasting.average import Average, HarForecaster
from common.forecasting.ensemble import ModelGroup
from common.forecasting.metrics import LEVELS, kept_shares
from common.forecasting.volatility import WEEK_HOURS, LogHar
from common.forecasting.windows import MinMax, Windows, calendar, ewma_matrices, known_and_ahead

Tensor: TypeAlias = "tf.Tensor | keras.KerasTensor"

LEVELS32 = LEVELS.astype(np.float32)
CALENDAR = 6  # columns of `calendar`
CHANGE_LIMIT = 10  # a change counts for the volatility up to this many usual ones
VARIANCE_FLOOR = 1e-3  # of a series that does not move
LEVEL_10, LEVEL_90 = 9, -10  # where LEVELS holds 10 % and 90 %: half their distance is the spread
BLOCK = 256  # windows that are forecast at once
MAP_WINDOWS = 200  # about as many windows make the mean attention map


# ------------------------------------------------------------------------------------ encoder


@keras.saving.register_keras_serializable("assignment3")
class SinusoidalPositions(layers.Layer):
    """Adds the position code of Vaswani et al. 2017, section 3.5, to tokens (B, T, W).

    Sines stand in the even columns, cosines in the odd ones.
    """

    def build(self, shape: tuple[int | None, int, int]) -> None:
        _, length, width = shape
        position = np.arange(length)[:, None]  # (T, 1)
        column = np.arange(width)
        angle = position / 10_000 ** (2 * (column // 2) / width)  # (T, W)
        code = np.where(column % 2 == 0, np.sin(angle), np.cos(angle))
        self.code = code.astype(np.float32)
        super().build(shape)

    def call(self, tokens: Tensor) -> Tensor:
        return tokens + ops.cast(self.code, tokens.dtype)


@keras.saving.register_keras_serializable("assignment3")
class Attention(layers.MultiHeadAttention):
    """Keras' MultiHeadAttention with the heads brought to the front before its two products.

    The same numbers from the same weights, but two batched matrix products where Keras' einsum
    transposes the scores: a training step is 1.25 times as fast.
    """

    def _compute_attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: None = None,
        training: bool | None = None,
        return_attention_scores: bool = False,
        use_causal_mask: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        query = ops.transpose(query, (0, 2, 1, 3))  # (B, A, R, K)
        key = ops.transpose(key, (0, 2, 1, 3))  # (B, A, T, K)
        value = ops.transpose(value, (0, 2, 1, 3))  # (B, A, T, K)
        columns = ops.transpose(key, (0, 1, 3, 2))  # (B, A, K, T)
        scores = ops.matmul(query * self._inverse_sqrt_key_dim, columns)  # (B, A, R, T)
        weights = ops.softmax(scores)
        output = ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))  # (B, R, A, K)
        return output, weights if return_attention_scores else None


def encoder(inputs: Tensor, read: int, settings: EncoderSettings) -> Tensor:
    """Encoder over tokens (B, T, I); returns the last `read` positions (B, R, W).

    The last block is computed only where it is read: the rest would change nothing.
    """
    embedding = layers.Dense(settings.width, name="embedding")  # draws its seed before the dropout
    dropped = layers.Dropout(settings.dropout)(inputs)
    tokens = SinusoidalPositions()(embedding(dropped))  # (B, T, W)
    for number in range(1, settings.blocks + 1):
        positions = read if number == settings.blocks else None
        tokens = encoder_block(tokens, positions, number, settings)
    return normalised(tokens, settings.norm == "pre")  # (B, R, W)


def encoder_block(
    tokens: Tensor, read: int | None, number: int, settings: EncoderSettings
) -> Tensor:
    """One block over tokens (B, T, W), for the last `read` positions (None: for all)."""
    pre = settings.norm == "pre"
    post = settings.norm == "post"
    last = np.s_[:, :] if read is None else np.s_[:, -read:]

    # Attention, and the sum with what it read for:
    source = normalised(tokens, pre)
    attend = Attention(settings.heads, settings.key, name=f"attention_{number}")
    attended = attend(source[last], source)  # (B, R, W)
    here = normalised(layers.Add()([tokens[last], attended]), post)

    # Feed-forward: one ReLU layer of the width (the course), or two layers (the paper):
    units = settings.feed_forward or settings.width
    hidden = layers.Dense(units, "relu", name=f"feed_forward_{number}")(normalised(here, pre))
    if settings.feed_forward:
        hidden = layers.Dense(settings.width, name=f"feed_back_{number}")(hidden)
    return normalised(layers.Add()([here, hidden]), post)


def normalised(tokens: Tensor, wanted: bool) -> Tensor:
    """Layer normalisation where it is wanted."""
    return layers.LayerNormalization()(tokens) if wanted else tokens


def course_transformer(
    series: int, context: int, horizon: int, blocks: int = COURSE_ENCODER.blocks
) -> keras.Model:
    """The course's network: normalised prices (B, C, S) to the next ones (B, H, S).

    It has 549,319 weights for 7 series and 4 blocks.
    """
    inputs = keras.Input((context, series))
    tokens = encoder(inputs, horizon, dataclasses.replace(COURSE_ENCODER, blocks=blocks))
    return keras.Model(inputs, layers.Dense(series, name="head")(tokens))


# ----------------------------------------------------------------------------------- held out


@keras.saving.register_keras_serializable("assignment3")
class Quantiles(layers.Layer):
    """Turns a head's outputs (B, H, 4 S) into a location (B, H, S) and quantiles (B, H, S, Q).

    Both are in units of a log-HAR-t's scale and its `spread`. With location m, log scale d, skew a,
    log tail k and the log-HAR-t's own quantiles z (`shape`, over their spread),

        quantile = m + exp(d + a sign(z)) sign(z) |z|^exp(k)

    so a head of zeros is the log-HAR-t, and training is paid only for what lies beyond it. The
    layer holds all else that is fitted in closed form: the log-HAR-t (`har_...`), `deviation` (S)
    of a step's path change, `shrink` (H, S), the share of the location that a point forecast keeps,
    and the fields of ForecasterSettings.
    """

    def __init__(self, settings: JsonObject, **options: object):
        super().__init__(**options)
        self.settings = dict(settings)

    def get_config(self) -> JsonObject:
        return {**super().get_config(), "settings": self.settings}

    def build(self, shape: tuple[int | None, int, int]) -> None:
        horizon = shape[1]
        series = shape[2] // 4
        self.fitted_shape = self.fitted("shape", (horizon, series, len(LEVELS)))
        self.fitted_spread = self.fitted("spread", (horizon, series))
        self.fitted_shrink = self.fitted("shrink", (horizon, series))
        self.fitted_deviation = self.fitted("deviation", (series,))
        blank = LogHar.blank(series, self.settings["context"], horizon, WEEK_HOURS)
        self.fitted_har = {
            name: self.fitted(f"har_{name}", array.shape)
            for name, array in blank.arrays.items()
            if name != "shape"
        }
        self.fitted_log = self.fitted("har_log", (1,))  # 1: its scales are of log returns
        super().build(shape)

    def fitted(self, name: str, shape: tuple[int, ...]) -> keras.Variable:
        """A variable that is fitted in closed form, not trained."""
        return self.add_weight(shape=shape, initializer="ones", trainable=False, name=name)

    @property
    def har(self) -> LogHar:
        """The log-HAR-t that a head of zeros is."""
        arrays = {name: variable.numpy() for name, variable in self.fitted_har.items()}
        shape = self.fitted_shape.numpy() * self.fitted_spread.numpy()[..., None]
        log = bool(self.fitted_log.numpy()[0] > 0)
        return LogHar(**arrays, shape=shape, log=log, candles=False)

    @har.setter
    def har(self, har: LogHar) -> None:
        for name, variable in self.fitted_har.items():
            variable.assign(getattr(har, name))
        self.fitted_log.assign([float(har.log)])
        spread = (har.shape[..., LEVEL_90] - har.shape[..., LEVEL_10]) / 2  # (H, S)
        spread = np.where(spread > 0, spread, 1)  # a price that rests most of the time
        self.fitted_spread.assign(spread)
        self.fitted_shape.assign(har.shape / spread[..., None])

    def call(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        location, scale, skew, log_tail = ops.split(outputs, 4, -1)  # (B, H, S) each
        tail = ops.exp(log_tail)
        sign = ops.sign(self.fitted_shape)  # (H, S, Q)
        size = ops.log(ops.maximum(ops.abs(self.fitted_shape), 1e-4))
        exponent = scale[..., None] + skew[..., None] * sign + tail[..., None] * size
        stretched = sign * ops.exp(exponent)  # (B, H, S, Q)
        return location, location[..., None] + stretched


class Forecaster:
    """A Transformer that forecasts the distribution of each series' change from its last price.

    It works on a path of one of two normalisations. "log": the path is the logarithm of the
    price. "minmax": the path is the price between the least (0) and the largest (1) of its own
    context; it also takes prices below zero. Each token holds, for one step of the context, the
    path's change and its distance to the last price over their usual sizes, the window's
    volatility at several speeds, and the calendar `horizon` steps later, so that the last
    `horizon` tokens, which are read out, know the hours that they forecast.
    """

    def __init__(self, model: keras.Model):
        self.model = model
        self.fitted = model.get_layer("quantiles")
        self.settings: JsonObject = self.fitted.settings
        self.context: int = self.settings["context"]
        self.horizon: int = self.settings["horizon"]
        self.normalisation: Normalisation = self.settings["normalisation"]
        self.smooth = ewma_matrices(self.context - 1, self.settings["decays"])  # (D, T, T)

        tokens_like = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)  # (N, T, I)

        # no Python branch depends on a tensor: without autograph tracing takes less
        @tf.function(input_signature=[tokens_like], autograph=False)
        def network(tokens: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return model(tokens, training=False)

        self._network = network

    @classmethod
    def build(cls, settings: ForecasterSettings, seed: int) -> Forecaster:
        """An untrained forecaster: once fit_scales has run, it is the log-HAR-t."""
        keras.utils.set_random_seed(seed)
        series = len(settings.series)
        columns = series * (2 + len(settings.decays)) + CALENDAR
        inputs = keras.Input((settings.context - 1, columns))  # (B, T, I)
        tokens = encoder(inputs, settings.horizon, settings)  # (B, H, W)
        head = layers.Dense(4 * series, kernel_initializer="zeros", name="head")
        distribution = Quantiles(as_json(settings), name="quantiles")(head(tokens))
        return cls(keras.Model(inputs, distribution, name="forecaster"))

    @property
    def params(self) -> int:
        """How many weights the network has, without what is fitted in closed form."""
        return self.model.count_params() - self.fitted.count_params()

    @property
    def size(self) -> np.ndarray:
        """The usual size (H, S) of a path change."""
        steps = np.sqrt(np.arange(1, self.horizon + 1))
        return steps[:, None] * self.fitted.fitted_deviation.numpy()

    # -- prices and paths

    def _path(self, past: np.ndarray, prices: np.ndarray) -> np.ndarray:
        """Prices (N, ., S) in the units of the window `past` (N, C, S)."""
        if self.normalisation == "log":
            return np.log(prices)
        return MinMax.fit(past, 1).transform(prices)

    def _prices(self, past: np.ndarray, changes: np.ndarray) -> np.ndarray:
        """Prices (N, H, S, ...) for path changes (N, H, S, ...) from the window's last price."""
        aligned = (..., *(None,) * (changes.ndim - 3))
        last = past[:, -1:][aligned]
        if self.normalisation == "log":
            return last * np.exp(changes)
        return last + changes * MinMax.fit(past, 1).span[aligned]

    def targets(self, past: np.ndarray, future: np.ndarray) -> np.ndarray:
        """Path changes (N, H, S) from the last of prices (N, C, S) to the next prices (N, H, S)."""
        return self._path(past, future) - self._path(past, past[:, -1:])

    # -- what the network reads

    def inputs(self, past: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the network reads of prices (N, C, S) and times datetime64 (N, C + H).

        Tokens float32 (N, T, I) with T = C - 1, and the unit of the outputs (N, H, S).
        """
        deviation = self.fitted.fitted_deviation.numpy()
        path = self._path(past, past)
        changes = (np.diff(path, axis=1) / deviation).astype(np.float32)  # (N, T, S)
        distance = (path[:, 1:] - path[:, -1:]) / (deviation * np.sqrt(self.context))
        level = distance.astype(np.float32)  # (N, T, S)

        squares = np.clip(changes, -CHANGE_LIMIT, CHANGE_LIMIT) ** 2
        variance = np.einsum("dtc,ncs->ntds", self.smooth, squares, optimize=True)
        volatility = np.sqrt(variance + VARIANCE_FLOOR)  # (N, T, D, S)

        hours = np.concatenate(known_and_ahead(times, past.shape[1], self.horizon), 1)
        later = calendar(hours[:, self.horizon + 1 :])  # (N, T, 6)
        columns = [
            np.arcsinh(changes),
            np.arcsinh(level),
            np.log(volatility).reshape(*changes.shape[:2], -1),
            later,
        ]
        return np.concatenate(columns, -1), self._unit(past, hours)

    def _unit(self, past: np.ndarray, hours: np.ndarray) -> np.ndarray:
        """The log-HAR-t's scale times its spread (N, H, S), as a change of the path."""
        har = self.fitted.har
        unit = har.scale(past, hours) * self.fitted.fitted_spread.numpy()
        if self.normalisation == "log":
            return unit
        dollars = unit * past[:, -1:] if har.log else unit
        return dollars / MinMax.fit(past, 1).span

    # -- what is fitted in closed form

    def fit_scales(self, past: np.ndarray, har: LogHar, keep_shape: bool = False) -> None:
        """Sets the log-HAR-t to start from, and the deviation of training windows (N, C, S).

        With `keep_shape` the shape stays that of what the network was trained on before.
        """
        shape = self.fitted.fitted_shape.numpy()
        path = self._path(past, past[:, -2:])
        deviation = np.diff(path, axis=1).std((0, 1))  # (S,)
        self.fitted.fitted_deviation.assign(np.maximum(deviation, 1e-12))
        self.fitted.har = har.by_hour_of_week()
        if keep_shape:
            self.fitted.fitted_shape.assign(shape)

    def fit_shrink(self, past: np.ndarray, times: np.ndarray, changes: np.ndarray) -> None:
        """Sets the share (0 to 1) of the location that a point forecast keeps, by step and series.

        By least squares on windows with path changes (N, H, S): a location is trained by CRPS,
        and squared errors punish it where it is bold. No share is kept where no change is not
        beaten there significantly.
        """
        deviation = self.fitted.fitted_deviation.numpy()
        locations = [self.outputs(past[block], times[block])[0] for block in blocks(len(past))]
        location = np.concatenate(locations) / deviation  # (N, H, S)
        truth = changes / deviation
        self.fitted.fitted_shrink.assign(kept_shares(location, truth))

    # -- forecasts

    def outputs(self, past: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Location (N, H, S) and quantiles (N, H, S, Q) of the path change."""
        tokens, unit = self.inputs(past, times)
        location, quantiles = self._network(tokens)
        return np.asarray(location) * unit, np.asarray(quantiles) * unit[..., None]

    def predict(self, past: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Forecast in prices, of prices (N, C, S) at times datetime64 (N, C).

        Point forecast (N, H, S) float64 and quantiles (N, H, S, Q) float32.
        """
        shrink = self.fitted.fitted_shrink.numpy()
        points = []
        quantiles = []
        for block in blocks(len(past)):
            location, distribution = self.outputs(past[block], times[block])
            points.append(self._prices(past[block], location.astype(np.float64) * shrink))
            quantiles.append(self._prices(past[block], distribution).astype(np.float32))
        return np.concatenate(points), np.concatenate(quantiles)

    def attention(self, past: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Attention (N, A, H, T) of the last block's heads."""
        layer = self.model.get_layer(f"attention_{self.settings['blocks']}")
        until_layer = keras.Model(self.model.input, layer.input)
        tokens, _ = self.inputs(past, times)
        query, value = until_layer(tokens)
        _, weights = layer(query, value, return_attention_scores=True)
        return np.asarray(weights)


def blocks(windows: int) -> Iterator[slice]:
    """Slices of at most BLOCK windows."""
    for start in range(0, windows, BLOCK):
        yield slice(start, start + BLOCK)


def pinball(quantiles: Tensor, truth: Tensor) -> Tensor:
    """CRPS (B, H, S) as twice the mean pinball loss of quantiles (B, H, S, Q): the objective."""
    error = truth[..., None] - quantiles  # (B, H, S, Q)
    return 2 * ops.mean(ops.maximum(LEVELS32 * error, (LEVELS32 - 1) * error), -1)


def attention_maps(
    windows: Windows, forecaster: Forecaster, origin: np.ndarray
) -> dict[str, np.ndarray]:
    """Attention (A, H, T) of the last block: its test mean, and that at one origin (1,)."""
    test = windows.parts.test
    origins = test[:: max(len(test) // MAP_WINDOWS, 1)]
    return {
        "attention_mean": forecaster.attention(*windows.inputs(origins)).mean(0),
        "attention_one": forecaster.attention(*windows.inputs(origin)).mean(0),
    }


def transformer_group(
    forecasters: Sequence[Forecaster], normalisation: Normalisation, seconds: float | None = None
) -> ModelGroup:
    """The forecasters of one normalisation as tables report them; `seconds` of one training."""
    label = NORMALISATIONS[normalisation]
    ensemble = ensemble_label(len(forecasters), normalisation)
    return ModelGroup("Transformer", label, forecasters, ensemble, seconds)


def average_group(seq2seqs: ModelGroup, transformers: ModelGroup, har: LogHar) -> ModelGroup:
    """The average of Seq2Seq, Transformer and log-HAR-t, seed by seed, as tables report it."""
    linear = HarForecaster(har, seq2seqs.forecasters[0].settings)
    averages = [
        Average([*pair, linear])
        for pair in zip(seq2seqs.forecasters, transformers.forecasters, strict=True)
    ]
    return ModelGroup("average", AVERAGED, averages, average_label(len(averages)))


# -------------------------------------------------------------------------------------- files


def as_json(settings: ForecasterSettings) -> JsonObject:
    """The settings as the JSON object that a saved network holds."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(settings).items()
    }


def save_model(path: Path, model: keras.Model) -> None:
    """Saves a network as one .keras file; a forecaster's holds its settings and scales too."""
    with atomic_path(path) as temporary:
        model.save(temporary)
        with zipfile.ZipFile(temporary) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        # Keras stores the parts uncompressed, an eighth larger
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for name, content in parts.items():
                archive.writestr(name, content)


def load_model(path: Path) -> keras.Model:
    """The network that `save_model` wrote. Raises InputError for any other file."""
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist; make it with: python assignment3/train.py")
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # zipfile, h5py and Keras each raise their own on a damaged file
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: not a network that assignment3 saved ({reason})") from None


def forecaster_files(folder: Path, normalisation: Normalisation) -> list[Path]:
    """The forecasters' files of a run folder and one normalisation, by seed.

    Raises InputError where there is none.
    """
    files = Path(folder).glob(f"model.{normalisation}-*.keras")
    by_seed = sorted(files, key=lambda file: int(file.stem.rpartition("-")[2]))
    if not by_seed:
        raise InputError(
            f"{folder} holds no model.{normalisation}-0.keras; "
            "make it with: python assignment3/train.py"
        )
    return by_seed


def load_all(folder: Path, normalisation: Normalisation) -> list[Forecaster]:
    """The forecasters of a run folder and one normalisation, by seed."""
    return [Forecaster(load_model(file)) for file in forecaster_files(folder, normalisation)]
