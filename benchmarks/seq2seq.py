"""Times assignment 2: the course's 300 epochs on one window, and scoring 8,000 origins.

python benchmarks/seq2seq.py            writes benchmarks/results/seq2seq.json
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import torch
from keras import layers

from assignment2.model import Seq2Seq
from benchmarks.measure import RESULTS, Comparison, Work, seconds_in_turns, write
from common.forecasting.metrics import crps_quantiles, interval
from common.machine import peak_mb

CONTEXT, HORIZON, SERIES, UNITS, WEIGHTS = 96, 5, 7, 1000, 8_078_007
TURNS = 3  # of a third of the epochs each


def our_epochs(context: np.ndarray, fed: np.ndarray, target: np.ndarray, epochs: int) -> Work:
    """`epochs` steps of the course's network in this repository."""
    torch.manual_seed(0)
    model = Seq2Seq(SERIES, SERIES, UNITS, SERIES)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(trained, lr=1e-3, eps=1e-7)
    known, shifted, truth = (torch.from_numpy(array) for array in (context, fed, target))

    def run() -> None:
        for _ in range(epochs):
            loss = torch.nn.functional.mse_loss(model(known, shifted), truth)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            loss.item()

    return run


def keras_epochs(context: np.ndarray, fed: np.ndarray, target: np.ndarray, epochs: int) -> Work:
    """The same network from Keras' layers, as the course built it, and its model.fit."""
    keras.utils.set_random_seed(0)
    known, shifted = keras.Input((CONTEXT, SERIES)), keras.Input((HORIZON, SERIES))
    encoder = layers.LSTM(UNITS, return_sequences=True, return_state=True)
    memory, hidden, cell = encoder(known)
    decoder = layers.LSTM(UNITS, return_sequences=True)
    decoded = decoder(shifted, initial_state=[hidden, cell])
    attended = layers.Attention()([decoded, memory])
    output = layers.Dense(SERIES)(layers.Concatenate()([decoded, attended]))
    model = keras.Model([known, shifted], output)
    model.compile("adam", "mse")
    assert model.count_params() == WEIGHTS
    model.fit([context, fed], target, epochs=3, verbose=0)  # traced before it is timed
    return lambda: model.fit([context, fed], target, epochs=epochs, verbose=0)


def score(quantiles: np.ndarray, actual: np.ndarray) -> None:
    """CRPS and the ends of two intervals."""
    crps_quantiles(quantiles, actual)
    for share in (0.80, 0.95):
        interval(quantiles, share)


def main() -> None:
    """Measures and writes results/seq2seq.json."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=300, help="epochs on the one window")
    epochs = parser.parse_args().epochs
    rng = np.random.default_rng(0)

    # the course's window
    window = rng.random((1, CONTEXT + HORIZON, SERIES), dtype=np.float32)
    context, target = window[:, :CONTEXT], window[:, CONTEXT:]
    fed = np.concatenate([np.zeros_like(target[:, :1]), target[:, :-1]], 1)
    our_epochs(context, fed, target, 3)()  # warm-up
    ours, other = seconds_in_turns(
        our_epochs(context, fed, target, epochs // TURNS),
        keras_epochs(context, fed, target, epochs // TURNS),
        rounds=TURNS,
        pick=sum,
    )
    case = f"{epochs} as-assigned epochs, {WEIGHTS:,} weights"
    rows = [Comparison.of(case, ours, "Keras on TensorFlow, model.fit", other)]

    # scoring
    quantiles = np.sort(rng.standard_normal((8000, HORIZON, SERIES, 99), dtype=np.float32), -1)
    actual = rng.standard_normal((8000, HORIZON, SERIES))
    (seconds,) = seconds_in_turns(lambda: score(quantiles, actual), rounds=1)
    case = "scoring 8,000 origins x 5 steps x 7 series x 99 quantiles"
    rows.append(Comparison(case, ours_seconds=round(seconds, 3), peak_mb=peak_mb()))
    write(RESULTS / "seq2seq.json", rows)


if __name__ == "__main__":
    main()
