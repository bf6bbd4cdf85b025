"""What two processes could gain from sharing each training step, before they exchange anything.

    python benchmarks/halves.py         writes results/halves.json and docs/scale.md

Each of two processes works on half of a batch. The processor seconds of a step on a whole batch
over those on half of it, on one thread, are therefore the most that a second process can gain; the
exchange of the gradients takes from it. A second shard of whole trainings gains 2.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import assignment1.config
import assignment2.config
import assignment5.config
from assignment1.mlp import MLPClassifier
from assignment2.train import Learner, build_forecaster, train_epoch
from assignment5.dit import DiT
from benchmarks.diffusion import training_step
from benchmarks.measure import RESULTS, machine
from common.files import JsonObject, write_json, write_text
from common.forecasting.prices import COINS
from common.forecasting.simulate import simulate
from common.forecasting.volatility import fit_log_har
from common.forecasting.windows import Windows, split
from common.machine import Device, git_state
from common.weights import count_parameters

PAGE = Path(__file__).resolve().parents[1] / "docs" / "scale.md"
BLOCK = re.compile(r"(<!-- halves -->\n).*?(<!-- end -->)", re.DOTALL)
HEAD = "| training step | weights | batch | s | s on half of it | most gained by a second |"
TURNS = 3
Work = Callable[[], int]  # trains and says how many steps it took


@dataclasses.dataclass(frozen=True)
class Halves:
    """Processor seconds of a training step on a batch and on half of it."""

    network: str
    weights: int
    batch: int
    seconds: float
    half_seconds: float


def processor_seconds(*works: Work) -> list[float]:
    """The least processor seconds of a step of each work."""
    least = [float("inf")] * len(works)
    for _ in range(TURNS):
        for number, work in enumerate(works):
            start = time.process_time()
            steps = work()
            least[number] = min(least[number], (time.process_time() - start) / steps)
    return least


def halves(network: str, weights: int, batch: int, of: Callable[[int], Work]) -> Halves:
    """The step of a network, whose work on a batch size `of` makes."""
    whole, half = (round(each, 4) for each in processor_seconds(of(batch), of(batch // 2)))
    return Halves(network, weights, batch, whole, half)


def mlp() -> Halves:
    """Assignment 1's MLP on whitened patches, as the full preset has it."""
    config = assignment1.config.Config.of_preset("full")
    inputs = 32 * config.patches
    rng = np.random.default_rng(0)
    X = rng.standard_normal((4 * config.mlp_batch, inputs), np.float32)
    y = rng.integers(7, size=len(X))

    def of(batch: int) -> Work:
        def epoch() -> int:
            MLPClassifier(config.mlp_copies_hidden, epochs=1, batch=batch, random_state=0).fit(X, y)
            return len(X) // batch

        return epoch

    (hidden,) = config.mlp_copies_hidden
    weights = (inputs + 1) * hidden + (hidden + 1) * 7
    return halves("assignment 1, MLP on patches", weights, config.mlp_batch, of)


def seq2seq() -> Halves:
    """Assignment 2's held-out Seq2Seq, as the full preset has it."""
    config = assignment2.config.Config.of_preset("full")
    prices = simulate(COINS, 1500, 0)
    parts = split(prices.contiguous(), config.context, config.horizon, 100, 100)
    few = dataclasses.replace(parts, train=parts.train[: 2 * config.batch])
    windows = Windows(prices, few, config.context, config.horizon)
    har = fit_log_har(Windows(prices, parts, config.context, config.horizon))

    def of(batch: int) -> Work:
        options = dataclasses.replace(config, batch=batch, epochs=1 + TURNS)
        model = build_forecaster(options, prices)
        model.fit_scales(windows.inputs(few.train), windows.changes(few.train), har)
        learner = Learner(options, model, len(few.train))

        def epoch() -> int:
            train_epoch(options, learner, windows, 0, 0, lambda step, loss: None)
            return learner.batches

        return epoch

    weights = build_forecaster(config, prices).params
    return halves("assignment 2, Seq2Seq", weights, config.batch, of)


def diffusion() -> Halves:
    """Assignment 5's Transformer, as the default preset has it; it is trained by torchrun."""
    config = assignment5.config.Config()
    sizes = (config.side, config.patch, config.width, config.depth, config.heads)

    def of(batch: int) -> Work:
        model = DiT(*sizes)
        options = dataclasses.replace(config, batch=batch)
        step = training_step(model, model, options, Device("cpu", False))

        def once() -> int:
            step()
            return 1

        return once

    weights = count_parameters(DiT(*sizes))
    return halves("assignment 5, Transformer", weights, config.batch, of)


def table(record: JsonObject) -> str:
    """The Markdown table of halves.json, one line per network."""
    lines = [HEAD, "|---" * 6 + "|"]
    for row in record["rows"]:
        each = Halves(**row)
        gain = each.seconds / each.half_seconds
        cells = (
            each.network,
            f"{each.weights:,}",
            f"{each.batch}",
            f"{each.seconds:.3g}",
            f"{each.half_seconds:.3g}",
            f"{gain:.2f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Measures the steps, and writes halves.json and the table."""
    torch.set_num_threads(1)
    rows = []
    for measure in (mlp, seq2seq, diffusion):
        rows.append(measure())
        print(rows[-1], flush=True)
    record = {
        "machine": machine(),
        "commit": git_state()["commit"],
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    write_json(RESULTS / "halves.json", record)
    page = PAGE.read_text(encoding="utf-8")
    write_text(PAGE, BLOCK.sub(lambda block: block[1] + table(record) + block[2], page))


if __name__ == "__main__":
    main()
