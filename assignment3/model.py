"""A Transformer encoder (Vaswani et al. 2017) from Keras' own layers, as the course had it and as a distribution forecaster.

Shape letters: B batch, N windows, C context, T tokens, H horizon, S series, I inputs a token, W width, A heads, K key width, Q quantile levels.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from assignment3.backend import keras, layers, ops, tf
from common.backtest import LEVELS
from common.cli import InputError
from common.run import atomic_path
from common.windows import MinMax, calendar, ewma_matrices, steps_ahead

Normalisation = Literal["log", "minmax"]
NORMALISATIONS: dict[Normalisation, str] = {
    "log": "log",
    "minmax": "MinMax",
}  # and what tables call them
LEVELS32 = LEVELS.astype(np.float32)


@keras.saving.register_keras_serializable("assignment3")
class SinusoidalPositions(layers.Layer):
    """Adds to tokens (B, T, W) the position code of Vaswani et al. 2017, section 3.5: sines in the even columns, cosines in the odd ones."""

    def build(self, shape: tuple[int | None, int, int]) -> None:
        position, column = np.arange(shape[1])[:, None], np.arange(shape[2])
        angle = position / 10_000 ** (2 * (column // 2) / shape[2])
        self.code = np.where(column % 2 == 0, np.sin(angle), np.cos(angle)).astype(
            np.float32
        )  # (T, W)
        super().build(shape)

    def call(self, tokens: Any) -> Any:
        return tokens + ops.cast(self.code, tokens.dtype)


@keras.saving.register_keras_serializable("assignment3")
class Attention(layers.MultiHeadAttention):
    """Keras' MultiHeadAttention with the heads brought to the front before its two products: the same numbers from the same
    weights, but two batched matrix products where Keras' einsum transposes the scores (1.25 times as fast a training step)."""

    def _compute_attention(
        self,
        query,
        key,
        value,
        attention_mask=None,
        training=None,
        return_attention_scores=False,
        use_causal_mask=False,
    ):
        query, key, value = (
            ops.transpose(part, (0, 2, 1, 3)) for part in (query, key, value)
        )  # (B, A, T, K)
        scores = ops.matmul(query * self._inverse_sqrt_key_dim, ops.transpose(key, (0, 1, 3, 2)))
        weights = ops.softmax(scores)  # (B, A, T, T)
        output = ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))  # (B, T, A, K)
        return output, weights if return_attention_scores else None


def encoder(
    inputs: Any,
    read: int,
    *,
    width: int,
    blocks: int,
    heads: int,
    key: int,
    feed_forward: int,
    norm: str,
    dropout: float,
) -> Any:
    """Dense embedding, sinusoidal positions and encoder blocks over tokens (B, T, I); the last `read` positions (B, read, W).

    `feed_forward` 0 is the course's single ReLU layer of the width, otherwise the hidden units of the paper's two layers;
    `norm` is "post" (the paper's) or "pre". The last block is computed only where it is read: the rest would change nothing.
    """
    tokens = SinusoidalPositions()(
        layers.Dense(width, name="embedding")(layers.Dropout(dropout)(inputs))
    )  # (B, T, W)

    def before(part: Any) -> Any:
        return layers.LayerNormalization()(part) if norm == "pre" else part

    def after(part: Any, added: Any) -> Any:
        total = layers.Add()([part, added])
        return layers.LayerNormalization()(total) if norm == "post" else total

    for number in range(1, blocks + 1):
        source = before(tokens)
        last = np.s_[:, -read:] if number == blocks else np.s_[:, :]
        here = after(
            tokens[last], Attention(heads, key, name=f"attention_{number}")(source[last], source)
        )
        hidden = layers.Dense(feed_forward or width, "relu", name=f"feed_forward_{number}")(
            before(here)
        )
        tokens = after(
            here,
            layers.Dense(width, name=f"feed_back_{number}")(hidden) if feed_forward else hidden,
        )
    return before(tokens)  # (B, read, W)


def course_transformer(series: int, context: int, horizon: int, blocks: int = 4) -> keras.Model:
    """The course's network: normalised prices (B, C, S) to the next ones (B, H, S); 549,319 weights for 7 series and 4 blocks."""
    inputs = keras.Input((context, series))
    tokens = encoder(
        inputs,
        horizon,
        width=64,
        blocks=blocks,
        heads=8,
        key=64,
        feed_forward=0,
        norm="post",
        dropout=0.0,
    )
    return keras.Model(inputs, layers.Dense(series, name="head")(tokens))


# ------------------------------------------------------------------------------------------------------------ held out


@keras.saving.register_keras_serializable("assignment3")
class Quantiles(layers.Layer):
    """Turns a head's outputs (B, H, 4 S) into a location (B, H, S) and quantiles (B, H, S, Q), in units of sigma and spread.

    With location m, log scale d, skew a, log tail k and the training part's own quantiles z (`shape`, in units of their `spread`),

        quantile = m + exp(d + a sign(z)) sign(z) |z|^exp(k)

    so a head of zeros is no change, with the intervals of an EWMA-scaled random walk. It also holds what else was fitted and
    must be saved: `deviation` (S) of a step's change and `shrink` (H, S), the share of the location that a point forecast keeps,
    and the settings that a Forecaster is rebuilt from.
    """

    def __init__(self, settings: dict[str, Any], **options: Any):
        super().__init__(**options)
        self.settings = dict(settings)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "settings": self.settings}

    def build(self, shape: tuple[int | None, int, int]) -> None:
        horizon, series = shape[1], shape[2] // 4
        for name, size in (
            ("shape", (horizon, series, len(LEVELS))),
            ("spread", (horizon, series)),
            ("shrink", (horizon, series)),
            ("deviation", (series,)),
        ):
            setattr(
                self,
                f"fitted_{name}",
                self.add_weight(shape=size, initializer="ones", trainable=False, name=name),
            )
        super().build(shape)

    def call(self, outputs: Any) -> tuple[Any, Any]:
        location, scale, skew, tail = ops.split(outputs, 4, -1)  # (B, H, S) each
        sign, size = (
            ops.sign(self.fitted_shape),
            ops.log(ops.maximum(ops.abs(self.fitted_shape), 1e-4)),
        )
        stretched = sign * ops.exp(
            scale[..., None] + skew[..., None] * sign + ops.exp(tail)[..., None] * size
        )  # (B, H, S, Q)
        return location, location[..., None] + stretched


class Forecaster:
    """A Transformer that tells the distribution of each series' change from its last price, behind one of two normalisations.

    "log": the path is the logarithm of the price. "minmax": the path is the price between the least (0) and the largest (1)
    of its own context; it also takes prices below zero. Tokens are, for each step of the context, the path's change and
    its distance to the last price over their usual sizes, the window's volatility at several speeds, and the calendar
    `horizon` steps later, so that the last `horizon` tokens, which are read out, know the hours that they forecast.
    """

    def __init__(self, model: keras.Model):
        self.model, self.fitted = model, model.get_layer("quantiles")
        self.settings = self.fitted.settings
        self.context, self.horizon, self.normalisation = (
            self.settings[name] for name in ("context", "horizon", "normalisation")
        )
        self.smooth = ewma_matrices(self.context - 1, self.settings["decays"])  # (D, T, T)
        shape = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)
        self._outputs = tf.function(
            lambda tokens: model(tokens, training=False), input_signature=[shape]
        )

    @classmethod
    def build(
        cls,
        series: Sequence[str],
        context: int,
        horizon: int,
        normalisation: Normalisation,
        decays: tuple[float, ...],
        *,
        seed: int,
        **network: Any,
    ) -> Forecaster:
        """An untrained forecaster of the named series; `network` goes to `encoder`."""
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((context - 1, len(series) * (2 + len(decays)) + 6))
        tokens = encoder(inputs, horizon, **network)
        outputs = layers.Dense(4 * len(series), kernel_initializer="zeros", name="head")(tokens)
        settings = {
            "series": list(series),
            "context": context,
            "horizon": horizon,
            "normalisation": normalisation,
            "decays": list(decays),
            **network,
        }
        return cls(
            keras.Model(inputs, Quantiles(settings, name="quantiles")(outputs), name="forecaster")
        )

    @property
    def params(self) -> int:
        """How many weights the network has, without what is fitted in closed form."""
        return self.model.count_params() - self.fitted.count_params()

    @property
    def size(self) -> np.ndarray:
        """The usual size (H, S) of a path change."""
        return np.asarray(self.fitted.fitted_deviation) * np.asarray(self.fitted.fitted_spread)

    def _path(self, past: np.ndarray, prices: np.ndarray) -> np.ndarray:
        """Prices (N, ., S) in the units of the window `past` (N, C, S)."""
        return (
            np.log(prices) if self.normalisation == "log" else MinMax.fit(past, 1).transform(prices)
        )

    def _prices(self, past: np.ndarray, changes: np.ndarray) -> np.ndarray:
        """Prices (N, H, S, ...) for path changes (N, H, S, ...) from the window's last price."""
        more = (...,) + (None,) * (changes.ndim - 3)
        last = past[:, -1:][more]
        return (
            last * np.exp(changes)
            if self.normalisation == "log"
            else last + changes * MinMax.fit(past, 1).span[more]
        )

    def targets(self, past: np.ndarray, future: np.ndarray) -> np.ndarray:
        """Path changes (N, H, S) from the last price of windows (N, C, S) to the prices (N, H, S) after them."""
        return self._path(past, future) - self._path(past, past[:, -1:])

    def inputs(self, past: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens float32 (N, C - 1, I) and the unit of the outputs (N, H, S) of prices (N, C, S) at times datetime64 (N, C)."""
        deviation, path = np.asarray(self.fitted.fitted_deviation), self._path(past, past)
        changes = (np.diff(path, axis=1) / deviation).astype(np.float32)  # (N, T, S)
        squares = np.clip(changes, -10, 10) ** 2
        volatility = np.sqrt(
            np.einsum("dtc,ncs->ntds", self.smooth, squares, optimize=True) + 1e-3
        )  # (N, T, D, S)
        level = ((path[:, 1:] - path[:, -1:]) / (deviation * np.sqrt(self.context))).astype(
            np.float32
        )
        moments = np.concatenate([times, steps_ahead(times, self.horizon)], 1)[
            :, self.horizon + 1 :
        ]  # (N, T)
        tokens = [
            np.arcsinh(changes),
            np.arcsinh(level),
            np.log(volatility).reshape(*changes.shape[:2], -1),
            calendar(moments),
        ]
        return np.concatenate(tokens, -1), (volatility[:, -1, -1] * deviation)[
            :, None
        ] * np.asarray(self.fitted.fitted_spread)

    def fit_scales(
        self, past: np.ndarray, times: np.ndarray, changes: np.ndarray, keep_shape: bool = False
    ) -> None:
        """Sets deviation, spread and shape from the training part's windows (N, C, S) and their path changes (N, H, S); with
        `keep_shape` the shape stays that of what the network was trained on before."""
        path = self._path(past, past[:, -2:])
        self.fitted.fitted_deviation.assign(np.maximum(np.diff(path, axis=1).std((0, 1)), 1e-12))
        self.fitted.fitted_spread.assign(np.ones((self.horizon, past.shape[2])))
        scaled = np.quantile(
            changes / in_blocks(lambda *part: self.inputs(*part)[1], past, times), LEVELS, axis=0
        )  # (Q, H, S)
        spread = np.maximum((scaled[-10] - scaled[9]) / 2, 1e-12)
        self.fitted.fitted_spread.assign(spread)
        if not keep_shape:
            self.fitted.fitted_shape.assign(np.moveaxis(scaled / spread, 0, -1))

    def fit_shrink(self, past: np.ndarray, times: np.ndarray, changes: np.ndarray) -> None:
        """Sets, by step, the share (0 to 1) of the location that a point forecast keeps, by least squares on windows with
        path changes (N, H, S): a location is trained by CRPS, and squared errors punish it where it is bold."""
        deviation = np.asarray(self.fitted.fitted_deviation)
        location, truth = (
            in_blocks(lambda *part: self.outputs(*part)[0], past, times) / deviation,
            changes / deviation,
        )
        best = (location * truth).sum((0, 2)) / np.maximum((location**2).sum((0, 2)), 1e-12)
        self.fitted.fitted_shrink.assign(
            np.broadcast_to(np.clip(best, 0, 1)[:, None], truth.shape[1:])
        )

    def outputs(self, past: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Location (N, H, S) and quantiles (N, H, S, Q) of the path change."""
        tokens, unit = self.inputs(past, times)
        location, quantiles = self._outputs(tokens)
        return np.asarray(location) * unit, np.asarray(quantiles) * unit[..., None]

    def predict(self, past: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Forecast in prices: point (N, H, S) float64 and quantiles float32 (N, H, S, Q) of prices (N, C, S)."""

        def block(part: np.ndarray, moments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            location, quantiles = self.outputs(part, moments)
            point = self._prices(
                part, location.astype(np.float64) * np.asarray(self.fitted.fitted_shrink)
            )
            return point, self._prices(part, quantiles).astype(np.float32)

        return in_blocks(block, past, times)


def in_blocks(
    work: Callable[..., Any], past: np.ndarray, times: np.ndarray, size: int = 256
) -> Any:
    """`work` on blocks of windows, its arrays (or tuples of arrays) put together again."""
    parts = [
        work(past[start : start + size], times[start : start + size])
        for start in range(0, len(past), size)
    ]
    return (
        tuple(map(np.concatenate, zip(*parts, strict=True)))
        if isinstance(parts[0], tuple)
        else np.concatenate(parts)
    )


def pinball(quantiles: Any, truth: Any) -> Any:
    """CRPS (B, H, S) as twice the mean pinball loss of quantiles (B, H, S, Q): the training objective."""
    error = truth[..., None] - quantiles
    return 2 * ops.mean(ops.maximum(LEVELS32 * error, (LEVELS32 - 1) * error), -1)


def save_model(path: Path, model: keras.Model) -> None:
    """Writes a network as one .keras file; a forecaster's holds all that was fitted and its settings too."""
    with atomic_path(path) as temporary:
        model.save(temporary)
        with zipfile.ZipFile(temporary) as plain:
            parts = {name: plain.read(name) for name in plain.namelist()}
        with zipfile.ZipFile(
            temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=9
        ) as packed:  # Keras stores it unpacked, an eighth larger
            for name, content in parts.items():
                packed.writestr(name, content)


def load_model(path: Path) -> keras.Model:
    """The network that `save_model` wrote. Raises InputError for anything else."""
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist; make it with: python assignment3/train.py")
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # zipfile, h5py and Keras each raise their own on a damaged file
        raise InputError(
            f"{path}: not a network that assignment3 saved ({' '.join(str(error).split())[:200]})"
        ) from None


def forecaster_files(folder: Path, normalisation: str) -> list[Path]:
    """The forecasters' files of a run folder behind one normalisation, by seed. Raises InputError where there is none."""
    files = sorted(
        Path(folder).glob(f"model.{normalisation}-*.keras"),
        key=lambda file: int(file.stem.rpartition("-")[2]),
    )
    if not files:
        raise InputError(
            f"{folder} holds no model.{normalisation}-0.keras; make it with: python assignment3/train.py"
        )
    return files


def load_all(folder: Path, normalisation: str) -> list[Forecaster]:
    """The forecasters of a run folder behind one normalisation, by seed."""
    return [Forecaster(load_model(file)) for file in forecaster_files(folder, normalisation)]
