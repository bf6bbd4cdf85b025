"""Assignment 4: the coins' Transformer goes to currencies and oil: from scratch, fine-tuned, or by LoRA at several ranks.

Hu et al. 2021. `python assignment4/train.py` adapts the newest run of assignment 3 to the currencies that it finds or simulates.
`--preset full` trains about two hundred networks, two hours on two CPU cores; what they score is in README.md.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from assignment3.backend import keras
from assignment3.model import Forecaster, course_transformer, load_model
from assignment3.training import fit
from assignment4.config import Config
from assignment4.figures import draw_figures
from assignment4.scoring import (
    FORGETTING,
    answers,
    coins_of,
    forgetting,
    keep_adapter,
    pairs,
    save_scales,
)
from assignment4.strategies import (
    PRETRAINED,
    Strategy,
    Weights,
    base_files,
    course_strategies,
    kernels,
    part_name,
    prepare,
    strategies,
    trained_weights,
)
from common.backtest import metrics_info
from common.cli import InputError, entry, parse
from common.forecast import Group, Windows, assigned_rows, fan_arrays, held_out_rows, print_table
from common.prices import CURRENCIES, Prices, check_positive
from common.report import compile_report
from common.run import Run, newest_run, progress, sha256, write_arrays
from common.windows import MinMax, split

HERE = Path(__file__).resolve().parent


def as_assigned(
    config: Config, run: Run, prices: Prices, base: Path, horizon: int
) -> dict[str, Any]:
    """The course's experiment: one window of the target, MinMax; from scratch for many passes, the network of the coins' window
    tuned for one and two. Returns prices, each strategy's answer on its window and on the steps after it."""
    values = prices.values[-config.assigned_steps - horizon :]
    seen, later = values[:-horizon], values[horizon:]
    found: dict[str, Any] = {"seen": seen, "coming": values[-horizon:]}
    scaler, after = MinMax.fit(seen[:-horizon]), MinMax.fit(later[:-horizon])
    context, target = (
        scaler.transform(part)[None].astype(np.float32)
        for part in (seen[:-horizon], seen[-horizon:])
    )
    for strategy in course_strategies(config.assigned_ranks):
        model = load_model(base / "model.assigned-minmax.keras")
        if strategy.kind == "scratch":
            keras.utils.set_random_seed(config.seed)
            model = course_transformer(context.shape[2], context.shape[1], horizon)
        lora = prepare(model, strategy, config.seed)
        model.compile(keras.optimizers.Adam(config.assigned_lr), "mse")
        passes = (config.assigned_epochs,) if strategy.kind == "scratch" else (1, 2)
        with run.stoppable(lambda: None) as stop_here:
            for epoch in progress(range(1, passes[-1] + 1), f"as assigned, {strategy.name}"):
                loss = float(model.train_on_batch(context, target))
                run.log(epoch, epoch, "train", **{f"assigned {strategy.name}": loss})
                stop_here(epoch, loss)
                if epoch in passes:
                    name = f"{strategy.name}, {epoch} epoch{'s' if epoch > 1 else ''}"
                    found[f"{name}, trained window"] = scaler.inverse(
                        model.predict(context, verbose=0)[0].astype(np.float64)
                    )
                    told = model.predict(
                        after.transform(later[None, :-horizon]).astype(np.float32), verbose=0
                    )[0]
                    found[f"{name}, next steps"] = after.inverse(told.astype(np.float64))
                    found[f"params | {name}"] = lora.count() if lora else trained_weights(model)
    return found


def adapt(
    config: Config,
    run: Run,
    windows: Windows,
    base: Path,
    strategy: Strategy,
    seed: int,
    lr: float,
    name: str,
    *,
    share: float = 1.0,
    epochs: int = 0,
) -> dict[str, Any]:
    """One pretrained network to the last `share` of the target's training part: its plain weights (an adapter merged), how many
    were trained, and the singular values of what every affine map changed by."""
    parts = windows.parts
    train = parts.train[-max(int(share * len(parts.train)), config.batch) :]
    keras.utils.set_random_seed(seed)  # a loaded network draws its dropout's seeds anew
    model = load_model(base)
    if strategy.kind == "scratch":
        settings = model.get_layer("quantiles").settings | {"series": windows.prices.series}
        model = Forecaster.build(seed=seed, **settings).model
    known, validation = windows.inputs(train), windows.inputs(parts.validation)
    scaled = Forecaster(model)
    scaled.fit_scales(
        *known,
        scaled.targets(known[0], windows.future(train)),
        keep_shape=strategy.kind != "scratch",
    )
    lora, before = prepare(model, strategy, seed, config.alpha), kernels(model)
    params, done, tuned = (
        trained_weights(model),
        {"seconds": 0.0},
        Forecaster(model),
    )  # made after the adapter, so that it traces that
    if params:
        passes, patience = (
            round(most / share**0.5) for most in (epochs or config.epochs, config.patience)
        )  # few data: few steps a pass
        done = fit(
            tuned,
            windows,
            train,
            run,
            name,
            seed=seed,
            epochs=passes,
            patience=patience,
            batch=config.batch,
            lr=lr,
            weight_decay=config.weight_decay,
        )
    if lora is not None and share == 1 and not epochs and strategy in kept(config):
        lora.save(
            checkpoint(run.folder, name)
        )  # before the shrinkage, which is no part of its base
    tuned.fit_shrink(*validation, tuned.targets(validation[0], windows.future(parts.validation)))
    if lora is not None:
        lora.merge()
    changed = {
        path: np.linalg.svd(kernel - before[path], compute_uv=False)
        for path, kernel in kernels(model).items()
    }
    return done | {
        "weights": model.get_weights(),
        "params": params,
        "singular": changed,
        "shrink": tuned.fitted.fitted_shrink.numpy(),
    }


def kept(config: Config) -> list[Strategy]:
    """The strategies whose adapters the run folder keeps."""
    return [
        strategy
        for strategy in strategies(config.ranks, config.rank)
        if strategy.kind == "lora"
        and strategy.rank in (2, config.rank)
        and strategy.targets is None
        and not strategy.rank_stabilised
    ]


def checkpoint(folder: Path, name: str) -> Path:
    """Where the adapter of one training waits until the learning rates are chosen."""
    return folder / "checkpoints" / f"adapter-{name}.safetensors"


def choose_rates(config: Config, train: Any) -> dict[Strategy, float]:
    """The learning rate of each strategy: of its candidates the one with the best validation CRPS of the first seed."""
    found = {}
    for strategy in strategies(config.ranks, config.rank):
        candidates = config.lora_lrs if strategy.kind in ("lora", "head") else config.lrs
        tries = {
            lr: 0.0
            if len(candidates) == 1 or strategy.kind == "none"
            else train(strategy, 0, lr)["crps"]
            for lr in candidates
        }
        found[strategy] = min(tries, key=tries.__getitem__)
    return found


def main(config: Config) -> dict[str, Any]:
    # data and base: checked before anything is written
    prices = config.prices(CURRENCIES)
    log = config.normalisation == "log"
    if log:
        check_positive(prices, "--normalisation log needs prices above zero; minmax takes any")
    base = config.base or newest_run(PRETRAINED)
    files = base_files(base, config.normalisation, len(prices.series))
    shared = Forecaster(load_model(files[0]))
    widest = max(min(matrix.shape) for matrix in kernels(shared.model).values())
    for rank in (*config.ranks, config.rank, *config.assigned_ranks):
        if not 1 <= rank <= widest:
            raise InputError(
                f"--ranks {rank}: from 1 to {widest}, the width of the base's widest layer, is allowed"
            )
    parts = split(
        prices.contiguous(),
        shared.context,
        shared.horizon,
        config.test_steps,
        config.validation_steps,
    )
    windows, (coins, which) = (
        Windows(prices, parts, shared.context, shared.horizon, log),
        coins_of(base),
    )
    folder = config.out or HERE / "results" / f"{prices.source}-{config.preset}"
    with Run(
        config,
        folder,
        __file__,
        prices.source,
        prices.provenance | {"base": [base.name, *(sha256(file)[:16] for file in files)]},
    ) as run:
        run.note(parts=parts.dates(prices.times), coins=which)
        # models: as the course had it, then every strategy with its own learning rate, for few passes, and on less data
        assigned = run.memo(
            "as-assigned", lambda: as_assigned(config, run, prices, base, shared.horizon)
        )
        made: dict[str, dict[str, Any]] = {}

        def train(strategy: Strategy, seed: int, lr: float, **less: Any) -> dict[str, Any]:
            name = part_name(strategy, seed, lr, less)
            if name not in made:
                made[name] = run.memo(
                    name,
                    lambda: adapt(
                        config,
                        run,
                        windows,
                        files[seed % len(files)],
                        strategy,
                        seed,
                        lr,
                        name,
                        **less,
                    ),
                )
            return made[name]

        def group(strategy: Strategy, variant: str, brief: bool, **less: Any) -> Group:
            done = [train(strategy, seed, rates[strategy], **less) for seed in range(config.seeds)]
            seconds = float(np.mean([one["seconds"] for one in done]))
            models = [Weights(shared, one["weights"], one["params"]) for one in done]
            return Group(
                strategy.name,
                variant,
                models,
                f"{variant}, mean of {config.seeds} seeds",
                seconds,
                brief,
            )

        rates = choose_rates(config, train)
        run.note(learning_rates={strategy.name: rate for strategy, rate in rates.items()})
        main_three = [
            strategy
            for strategy in rates
            if strategy.name in ("from scratch", "full fine-tuning", f"LoRA, rank {config.rank}")
        ]
        whole = [
            group(strategy, "to convergence", strategy not in main_three) for strategy in rates
        ]
        few = [
            group(strategy, f"{epochs} epoch{'s' * (epochs > 1)}", True, epochs=epochs)
            for epochs in (1, 2)
            for strategy in main_three[1:]
        ]
        less = [
            group(strategy, f"{100 * share:g} % of the data", True, share=share)
            for share in config.shares
            for strategy in main_three
        ]
        adapters = {}
        for strategy, seed in product(kept(config), range(config.seeds)):
            adapters[f"r{strategy.rank}-{seed}"] = train(strategy, seed, rates[strategy])
            keep_adapter(
                checkpoint(folder, part_name(strategy, seed, rates[strategy], {})),
                folder / f"adapter.r{strategy.rank}-{seed}.safetensors",
            )
        save_scales(
            folder / "scales.safetensors", shared, windows, config.normalisation, files, adapters
        )
        # evaluation on the test part, once; record
        table, ridge = (
            assigned_rows(assigned["seen"], assigned["coming"], answers(assigned)),
            windows.ridge(),
        )
        for name, groups, shares in (
            ("validation", whole, []),
            ("test", [*whole, *few, *less], less),
        ):
            rows, means = held_out_rows(
                windows,
                groups,
                getattr(parts, name),
                name,
                ridge,
                pairs(whole, shares, config.rank),
            )
            table += rows
        table += forgetting(coins, files, whole)
        chosen = f"LoRA, rank {config.rank}"
        singular = {
            f"singular | {strategy.name} | {path}": values
            for strategy, rate in rates.items()
            for path, values in train(strategy, 0, rate)["singular"].items()
        }
        write_arrays(
            folder / "predictions.npz",
            **fan_arrays(windows, means[chosen, "to convergence"]),
            **singular,
            **{
                f"assigned | {name}": value
                for name, value in assigned.items()
                if isinstance(value, np.ndarray)
            },
        )
        results = run.finish(table, metrics_info(log) | FORGETTING)
        draw_figures(folder)
        compile_report(folder, HERE / "report.typ", folder / "report.pdf")
    print_table(results, folder)
    return results


if __name__ == "__main__":
    entry(lambda: main(parse(Config)))
