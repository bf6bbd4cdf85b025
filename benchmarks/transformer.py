"""Times assignment 3's training step against a plain torch twin, Keras' own layers and fit, and its matrix products alone; and
assignment 4's LoRA step and optimiser memory against full fine-tuning."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from assignment3.backend import keras, layers, tf
from assignment3.model import course_transformer
from assignment4.lora import LoRA
from common.run import git_state, peak_mb, versions, write_json

RESULT = Path(__file__).resolve().parent / "results" / "transformer.json"
BATCH, CONTEXT, SERIES, HORIZON, WIDTH, HEADS, KEY, BLOCKS = 32, 96, 7, 5, 64, 8, 64, 4


def step_of(
    model: keras.Model, x: np.ndarray, y: np.ndarray
) -> tuple[Callable[[], float], keras.Optimizer]:
    """One training step of a Keras model in this repository's loop, and its optimiser."""
    optimiser = keras.optimizers.AdamW(1e-3, global_clipnorm=1.0)
    trained = model.trainable_variables
    optimiser.build(trained)

    @tf.function
    def step(inputs: tf.Tensor, truth: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(inputs, training=True) - truth) ** 2)
        optimiser.apply(tape.gradient(loss, trained), trained)
        return loss

    inputs, truth = tf.constant(x), tf.constant(y)
    return lambda: float(step(inputs, truth)), optimiser


def plain_keras() -> keras.Model:
    """The same network from Keras' MultiHeadAttention, every position of every block computed, compiled for fit."""
    inputs = keras.Input((CONTEXT, SERIES))
    tokens = layers.Dense(WIDTH)(inputs)
    for _ in range(BLOCKS):
        tokens = layers.LayerNormalization()(
            layers.Add()([tokens, layers.MultiHeadAttention(HEADS, KEY)(tokens, tokens)])
        )
        tokens = layers.LayerNormalization()(
            layers.Add()([tokens, layers.Dense(WIDTH, "relu")(tokens)])
        )
    model = keras.Model(inputs, layers.Dense(SERIES)(tokens[:, -HORIZON:]))
    model.compile(keras.optimizers.AdamW(1e-3, global_clipnorm=1.0), "mse")
    return model


class Block(nn.Module):
    """One encoder block as a torch user writes it."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, HEADS * KEY) for _ in range(3))
        self.out, self.forward_part = nn.Linear(HEADS * KEY, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = (
            part(tokens).unflatten(-1, (HEADS, KEY)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        attended = (
            nn.functional.scaled_dot_product_attention(query, key, value)
            .transpose(1, 2)
            .flatten(-2)
        )
        tokens = self.first(tokens + self.out(attended))
        return self.second(tokens + self.forward_part(tokens).relu())


def torch_step(x: np.ndarray, y: np.ndarray) -> Callable[[], float]:
    """One training step of the torch twin."""
    model = nn.Sequential(
        nn.Linear(SERIES, WIDTH), *(Block() for _ in range(BLOCKS)), nn.Linear(WIDTH, SERIES)
    )
    assert sum(parameter.numel() for parameter in model.parameters()) == 549_319
    optimiser, inputs, truth = (
        torch.optim.AdamW(model.parameters(), 1e-3),
        torch.from_numpy(x),
        torch.from_numpy(y),
    )

    def step() -> float:
        loss = nn.functional.mse_loss(model(inputs)[:, -HORIZON:], truth)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        return loss.item()

    return step


def floor() -> Callable[[], None]:
    """The matrix products of one step of the plain network, forward and twice backward, and nothing else."""
    tokens = BATCH * CONTEXT
    flat = [(tokens, SERIES, WIDTH), (HORIZON * BATCH, WIDTH, SERIES)]
    flat += BLOCKS * [
        *3 * [(tokens, WIDTH, HEADS * KEY)],
        (tokens, HEADS * KEY, WIDTH),
        (tokens, WIDTH, WIDTH),
    ]
    pairs = [
        (torch.randn(a, b), torch.randn(b, c))
        for n, k, m in flat
        for a, b, c in ((n, k, m), (n, m, k), (k, n, m))
    ]
    heads = BATCH * HEADS
    for n, k, m in BLOCKS * [(CONTEXT, KEY, CONTEXT), (CONTEXT, CONTEXT, KEY)]:
        pairs += [
            (torch.randn(heads, a, b), torch.randn(heads, b, c))
            for a, b, c in ((n, k, m), (n, m, k), (k, n, m))
        ]

    def products() -> None:
        for left, right in pairs:
            torch.matmul(left, right)

    return products


def seconds(*steps: Callable[[], Any], rounds: int = 5, each: int = 8) -> list[float]:
    """Median seconds of each step, in turns, so that a machine that slows down slows all."""
    times: list[list[float]] = [[] for _ in steps]
    for step in steps:
        for _ in range(3):
            step()
    for _ in range(rounds):
        for number, step in enumerate(steps):
            for _ in range(each):
                start = time.perf_counter()
                step()
                times[number].append(time.perf_counter() - start)
    return [float(np.median(found)) for found in times]


def bytes_of(optimiser: keras.Optimizer) -> int:
    """What an optimiser keeps beside the weights."""
    return sum(int(np.prod(variable.shape)) * 4 for variable in optimiser.variables)


def main() -> None:
    rng = np.random.default_rng(0)
    x, y = (
        rng.standard_normal((BATCH, CONTEXT, SERIES), np.float32),
        rng.standard_normal((BATCH, HORIZON, SERIES), np.float32),
    )
    keras.utils.set_random_seed(0)
    torch.manual_seed(0)
    model, plain = course_transformer(SERIES, CONTEXT, HORIZON, BLOCKS), plain_keras()
    assert model.count_params() == plain.count_params() == 549_319
    ours, _ = step_of(model, x, y)
    many = np.repeat(x, 8, 0), np.repeat(y, 8, 0)  # eight batches a call of fit
    mine, twin, products, eight = seconds(
        ours, torch_step(x, y), floor(), lambda: plain.fit(*many, batch_size=BATCH, verbose=0)
    )
    case = f"training step, {model.count_params():,} weights, batch {BATCH}, context {CONTEXT}"
    rows = [
        {
            "case": case,
            "ours_seconds": mine,
            "other": other,
            "other_seconds": its,
            "ratio": mine / its,
            "peak_mb": peak_mb(),
        }
        for other, its in (
            ("torch twin", twin),
            ("Keras' own layers, model.fit", eight / 8),
            ("its matrix products alone (torch)", products),
        )
    ]
    full, of_full = step_of(course_transformer(SERIES, CONTEXT, HORIZON, BLOCKS), x, y)
    base = course_transformer(SERIES, CONTEXT, HORIZON, BLOCKS)
    for rank in (2, 7):  # the head is 7 wide
        lora = LoRA(base)
        lora.add("one", rank)
        adapted, of_lora = step_of(base, x, y)
        mine, its = seconds(adapted, full)
        case = f"LoRA, rank {rank}, every affine map, {lora.count():,} weights: training step"
        rows.append(
            {
                "case": case,
                "ours_seconds": mine,
                "other": "full fine-tuning",
                "other_seconds": its,
                "ratio": mine / its,
                "peak_mb": peak_mb(),
            }
        )
        rows.append(
            {
                "case": f"LoRA, rank {rank}: bytes that the optimiser keeps ({bytes_of(of_lora):,})",
                "ours_seconds": None,
                "other": f"full fine-tuning ({bytes_of(of_full):,})",
                "other_seconds": None,
                "ratio": bytes_of(of_lora) / bytes_of(of_full),
                "peak_mb": None,
            }
        )
        lora.detach()
    for row in rows:
        for key in ("ours_seconds", "other_seconds", "ratio"):
            row[key] = None if row[key] is None else round(row[key], 4)
        print(" | ".join(f"{key} {value}" for key, value in row.items() if value is not None))
    machine = {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": sys.version.split()[0],
        **versions(),
    }
    write_json(RESULT, {"machine": machine, "commit": git_state()["commit"], "rows": rows})


if __name__ == "__main__":
    main()
