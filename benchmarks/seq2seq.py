"""Times assignment 2 against Keras: the course's 300 epochs on one window, and the scoring of 8,000 origins."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import numpy as np
import torch

from assignment2.model import Seq2Seq
from common.backtest import crps_quantiles, interval
from common.run import git_state, peak_mb, versions, write_json

RESULT = Path(__file__).resolve().parent / "results" / "seq2seq.json"


def ours(context: np.ndarray, fed: np.ndarray, target: np.ndarray, epochs: int) -> float:
    """Seconds of `epochs` steps of the course's network in this repository."""
    torch.manual_seed(0)
    model = Seq2Seq(7, 7, 1000, 7)
    optimiser = torch.optim.Adam(
        [p for p in model.parameters() if p.requires_grad], lr=1e-3, eps=1e-7
    )
    arrays = [torch.from_numpy(array) for array in (context, fed, target)]
    start = time.perf_counter()
    for _ in range(epochs):
        loss = torch.nn.functional.mse_loss(model(*arrays[:2]), arrays[2])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        loss.item()
    return time.perf_counter() - start


def keras_model() -> object:
    """The same network from Keras' layers, as the course built it, compiled."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    past, fed = keras.Input((96, 7)), keras.Input((5, 7))
    memory, hidden, cell = layers.LSTM(1000, return_sequences=True, return_state=True)(past)
    decoded = layers.LSTM(1000, return_sequences=True)(fed, initial_state=[hidden, cell])
    attended = layers.Attention()([decoded, memory])
    model = keras.Model([past, fed], layers.Dense(7)(layers.Concatenate()([decoded, attended])))
    model.compile("adam", "mse")
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=300)
    epochs = parser.parse_args().epochs
    rng = np.random.default_rng(0)
    window = rng.random((1, 101, 7), dtype=np.float32)
    context, target = window[:, :96], window[:, 96:]
    fed = np.concatenate([np.zeros_like(target[:, :1]), target[:, :-1]], 1)
    ours(context, fed, target, 3)  # warm-up
    model = keras_model()
    assert model.count_params() == 8_078_007
    model.fit([context, fed], target, epochs=3, verbose=0)  # traced
    # in turns, so that a machine that slows down slows both
    parts = [
        (
            ours(context, fed, target, epochs // 3),
            keras_seconds(model, context, fed, target, epochs // 3),
        )
        for _ in range(3)
    ]
    mine, other = (sum(part[side] for part in parts) for side in (0, 1))
    rows = [
        {
            "case": f"{epochs} as-assigned epochs, 8,078,007 weights",
            "ours_seconds": round(mine, 2),
            "other": "Keras on TensorFlow, model.fit",
            "other_seconds": round(other, 2),
            "ratio": round(mine / other, 3),
            "peak_mb": peak_mb(),
        }
    ]
    quantiles = np.sort(rng.standard_normal((8000, 5, 7, 99), dtype=np.float32), -1)
    actual = rng.standard_normal((8000, 5, 7))
    start = time.perf_counter()
    crps_quantiles(quantiles, actual)
    for share in (0.80, 0.95):
        interval(quantiles, share)
    rows.append(
        {
            "case": "scoring 8,000 origins x 5 steps x 7 series x 99 quantiles",
            "ours_seconds": round(time.perf_counter() - start, 3),
            "other": None,
            "other_seconds": None,
            "ratio": None,
            "peak_mb": peak_mb(),
        }
    )
    for row in rows:
        print(" | ".join(f"{key} {value}" for key, value in row.items() if value is not None))
    machine = {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": sys.version.split()[0],
        **versions(),
    }
    write_json(RESULT, {"machine": machine, "commit": git_state()["commit"], "rows": rows})


def keras_seconds(
    model: object, context: np.ndarray, fed: np.ndarray, target: np.ndarray, epochs: int
) -> float:
    """Seconds of model.fit on the one window."""
    start = time.perf_counter()
    model.fit([context, fed], target, epochs=epochs, verbose=0)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
