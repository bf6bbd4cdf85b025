"""Times a training step of assignment 3, and LoRA of assignment 4 against full fine-tuning.

    python benchmarks/transformer.py            writes benchmarks/results/transformer.json

Assignment 3's step is compared with a torch twin, with Keras' own layers and model.fit, and with
the matrix products alone. Ours skips the last block's positions that the head does not read;
the twin and the products compute them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from assignment3.backend import keras, layers, tf
from assignment3.model import course_transformer
from assignment4.lora import LoRA
from benchmarks.measure import RESULTS, Comparison, Work, seconds_in_turns, write

BATCH, CONTEXT, SERIES, HORIZON, WIDTH, HEADS, KEY, BLOCKS = 32, 96, 7, 5, 64, 8, 64, 4
WEIGHTS = 549_319
RANKS = (2, 7)  # the head is 7 wide
FIT_BATCHES = 8  # in one call of model.fit
ROUNDS, EACH, WARM_UP = 5, 8, 3


def our_step(
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
    """The same network from Keras' MultiHeadAttention, every position computed, for model.fit."""
    inputs = keras.Input((CONTEXT, SERIES))
    tokens = layers.Dense(WIDTH)(inputs)
    for _ in range(BLOCKS):
        attended = layers.MultiHeadAttention(HEADS, KEY)(tokens, tokens)
        tokens = layers.LayerNormalization()(layers.Add()([tokens, attended]))
        forward = layers.Dense(WIDTH, "relu")(tokens)
        tokens = layers.LayerNormalization()(layers.Add()([tokens, forward]))
    model = keras.Model(inputs, layers.Dense(SERIES)(tokens[:, -HORIZON:]))
    model.compile(keras.optimizers.AdamW(1e-3, global_clipnorm=1.0), "mse")
    return model


class Block(nn.Module):
    """One encoder block as a torch user writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(WIDTH, HEADS * KEY)
        self.key = nn.Linear(WIDTH, HEADS * KEY)
        self.value = nn.Linear(WIDTH, HEADS * KEY)
        self.out = nn.Linear(HEADS * KEY, WIDTH)
        self.feed_forward = nn.Linear(WIDTH, WIDTH)
        self.first = nn.LayerNorm(WIDTH)
        self.second = nn.LayerNorm(WIDTH)

    def heads(self, projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (HEADS, KEY)).transpose(1, 2)  # (B, H, T, K)

    def forward(self, tokens: Tensor) -> Tensor:
        query, key = self.heads(self.query(tokens)), self.heads(self.key(tokens))
        value = self.heads(self.value(tokens))
        attended = nn.functional.scaled_dot_product_attention(query, key, value)
        attended = attended.transpose(1, 2).flatten(-2)  # (B, T, H K)
        tokens = self.first(tokens + self.out(attended))
        return self.second(tokens + self.feed_forward(tokens).relu())


def torch_step(x: np.ndarray, y: np.ndarray) -> Work:
    """One training step of the torch twin."""
    blocks = [Block() for _ in range(BLOCKS)]
    model = nn.Sequential(nn.Linear(SERIES, WIDTH), *blocks, nn.Linear(WIDTH, SERIES))
    assert sum(parameter.numel() for parameter in model.parameters()) == WEIGHTS
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3)
    inputs, truth = torch.from_numpy(x), torch.from_numpy(y)

    def step() -> float:
        loss = nn.functional.mse_loss(model(inputs)[:, -HORIZON:], truth)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        return loss.item()

    return step


def matrix_products() -> Work:
    """The matrix products of one step of the plain network, forward and twice backward."""
    tokens, heads = BATCH * CONTEXT, BATCH * HEADS
    projections = 3 * [(1, tokens, WIDTH, HEADS * KEY)]
    block = [
        *projections,
        (1, tokens, HEADS * KEY, WIDTH),
        (1, tokens, WIDTH, WIDTH),
        (heads, CONTEXT, KEY, CONTEXT),
        (heads, CONTEXT, CONTEXT, KEY),
    ]
    ends = [(1, tokens, SERIES, WIDTH), (1, HORIZON * BATCH, WIDTH, SERIES)]
    pairs = []
    for count, n, k, m in ends + BLOCKS * block:
        for a, b, c in ((n, k, m), (n, m, k), (k, n, m)):
            pairs.append((torch.randn(count, a, b), torch.randn(count, b, c)))

    def products() -> None:
        for left, right in pairs:
            torch.matmul(left, right)

    return products


def bytes_of(optimiser: keras.Optimizer) -> int:
    """What an optimiser stores beside the weights."""
    return sum(int(np.prod(variable.shape)) * 4 for variable in optimiser.variables)


def compare_steps(x: np.ndarray, y: np.ndarray) -> list[Comparison]:
    """Our training step, the others' and the products."""
    model = course_transformer(SERIES, CONTEXT, HORIZON, BLOCKS)
    plain = plain_keras()
    assert model.count_params() == plain.count_params() == WEIGHTS
    step, _ = our_step(model, x, y)
    many_x, many_y = np.repeat(x, FIT_BATCHES, 0), np.repeat(y, FIT_BATCHES, 0)
    ours, twin, products, fit = seconds_in_turns(
        step,
        torch_step(x, y),
        matrix_products(),
        lambda: plain.fit(many_x, many_y, batch_size=BATCH, verbose=0),
        rounds=ROUNDS,
        each=EACH,
        warm_up=WARM_UP,
    )
    case = f"training step, {WEIGHTS:,} weights, batch {BATCH}, context {CONTEXT}"
    return [
        Comparison.of(case, ours, "torch twin", twin),
        Comparison.of(case, ours, "Keras' own layers, model.fit", fit / FIT_BATCHES),
        Comparison.of(case, ours, "its matrix products alone (torch)", products),
    ]


def compare_lora(x: np.ndarray, y: np.ndarray) -> list[Comparison]:
    """LoRA's training step and the memory of its optimiser, against full fine-tuning."""
    full, full_optimiser = our_step(course_transformer(SERIES, CONTEXT, HORIZON, BLOCKS), x, y)
    full_bytes = bytes_of(full_optimiser)
    base = course_transformer(SERIES, CONTEXT, HORIZON, BLOCKS)
    rows = []
    for rank in RANKS:
        lora = LoRA(base)
        lora.add("one", rank)
        adapted, optimiser = our_step(base, x, y)
        ours, other = seconds_in_turns(adapted, full, rounds=ROUNDS, each=EACH, warm_up=WARM_UP)
        weights = f"LoRA, rank {rank}, every affine map, {lora.count():,} weights"
        rows.append(Comparison.of(f"{weights}: training step", ours, "full fine-tuning", other))
        stored = bytes_of(optimiser)
        rows.append(
            Comparison(
                case=f"LoRA, rank {rank}: bytes that the optimiser stores ({stored:,})",
                other=f"full fine-tuning ({full_bytes:,})",
                ratio=round(stored / full_bytes, 4),
            )
        )
        lora.detach()
    return rows


def main() -> None:
    """Measures and writes results/transformer.json."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((BATCH, CONTEXT, SERIES), np.float32)
    y = rng.standard_normal((BATCH, HORIZON, SERIES), np.float32)
    keras.utils.set_random_seed(0)
    torch.manual_seed(0)
    write(RESULTS / "transformer.json", [*compare_steps(x, y), *compare_lora(x, y)])


if __name__ == "__main__":
    main()
