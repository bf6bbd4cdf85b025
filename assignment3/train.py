"""Assignment 3: a Transformer encoder in TensorFlow on hourly prices of seven coins, behind two normalisations.

Vaswani et al. 2017. `python assignment3/train.py` trains on the built-in sample or on prices it finds; about ten minutes on two
CPU cores. On real coins (`--preset full`, about an hour) expect a CRPS 2.5 % below a random walk with rolling residuals, for
either normalisation, and a point forecast that is no better than no change.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from assignment2.config import Config as Seq2SeqConfig
from assignment2.model import Forecaster as Seq2SeqForecaster
from assignment2.model import save_forecasters
from assignment2.train import teach, train_forecaster
from assignment3.backend import keras
from assignment3.config import Config
from assignment3.figures import draw_figures
from assignment3.model import (
    NORMALISATIONS,
    Forecaster,
    Normalisation,
    course_transformer,
    save_model,
)
from assignment3.scoring import answers, looks
from assignment3.training import fit
from common.backtest import metrics_info
from common.cli import entry, parse
from common.forecast import Group, Windows, assigned_rows, fan_arrays, held_out_rows, print_table
from common.prices import COINS, Prices, check_positive
from common.report import compile_report
from common.run import Run, choose_device, progress, tensors, write_arrays
from common.windows import MinMax, split

HERE = Path(__file__).resolve().parent


def as_assigned(config: Config, run: Run, prices: Prices, device: str) -> dict[str, Any]:
    """The course's experiment: one window, trained and scored on it, behind both normalisations; the Transformer, and the
    Seq2Seq teacher forced, then both without the truth and on the steps after the window. Returns prices."""
    horizon, values = config.horizon, prices.values[-config.assigned_steps - config.horizon :]
    seen, coming = values[:-horizon], values[-horizon:]
    found: dict[str, Any] = {"seen": seen, "coming": coming}
    for name, label in NORMALISATIONS.items():

        def scaled(
            window: np.ndarray, name: str = name
        ) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
            """A window with its targets in the units of its context, and the way back."""
            fit = MinMax.fit(window[:-horizon])
            return (
                (np.log(window), np.exp) if name == "log" else (fit.transform(window), fit.inverse)
            )

        (window, back), (later, back_later) = scaled(seen), scaled(values[horizon:])
        context, target = (
            part[None].astype(np.float32) for part in (window[:-horizon], window[-horizon:])
        )
        keras.utils.set_random_seed(config.seed)
        model = course_transformer(
            context.shape[2], context.shape[1], horizon, config.assigned_blocks
        )
        model.compile(keras.optimizers.Adam(config.assigned_lr), "mse")
        with run.stoppable(lambda: None) as stop_here:
            for epoch in progress(range(1, config.assigned_epochs + 1), f"as assigned, {label}"):
                loss = float(model.train_on_batch(context, target))
                run.log(epoch, epoch, "train", **{f"assigned_{name}": loss})
                stop_here(epoch, loss)
        found |= {
            f"Transformer, {label}, trained window": back(
                model.predict(context, verbose=0)[0].astype(np.float64)
            ),
            f"Transformer, {label}, next steps": back_later(
                model.predict(later[None, :-horizon].astype(np.float32), verbose=0)[0].astype(
                    np.float64
                )
            ),
            "params | Transformer": model.count_params(),
            "weights | Transformer": model.get_weights(),  # MinMax comes last: assignment 4 begins with these
        }
        seq2seq, told = teach(
            run,
            context,
            target,
            later[None, :-horizon],
            config.assigned_units,
            config.assigned_epochs,
            config.assigned_lr,
            config.seed,
            device,
            f"assigned_seq2seq_{name}",
        )
        for way, forecast in told.items():
            found[f"Seq2Seq, {label}, {way}"] = (
                back_later if way.endswith("next steps") else back
            )(forecast)
        found["params | Seq2Seq"] = seq2seq.parameters_trained
    return found


def train_transformer(
    config: Config, run: Run, windows: Windows, normalisation: Normalisation, seed: int
) -> dict[str, Any]:
    """One held-out network, stopped on validation; its weights and how long it took."""
    parts = windows.parts
    forecaster = Forecaster.build(
        windows.prices.series,
        config.context,
        config.horizon,
        normalisation,
        config.decays,
        seed=seed,
        **config.network(),
    )
    known = windows.inputs(parts.train)
    forecaster.fit_scales(*known, forecaster.targets(known[0], windows.future(parts.train)))
    done = fit(
        forecaster,
        windows,
        parts.train,
        run,
        f"{normalisation}-{seed}",
        seed=seed,
        epochs=config.epochs,
        patience=config.patience,
        batch=config.batch,
        lr=config.lr,
        weight_decay=config.weight_decay,
    )
    seen = windows.inputs(parts.validation)
    forecaster.fit_shrink(*seen, forecaster.targets(seen[0], windows.future(parts.validation)))
    return done | {"weights": forecaster.model.get_weights()}


def train_seq2seq(config: Config, run: Run, windows: Windows, device: str) -> Group:
    """Assignment 2's networks on the same windows with as many passes, its other settings being its own."""
    made, models, seconds = (
        Seq2SeqConfig(context=config.context, horizon=config.horizon, epochs=config.epochs),
        [],
        [],
    )
    for seed in range(config.seeds):
        done = run.memo(
            f"forecaster-{seed}", partial(train_forecaster, made, run, windows, seed, device)
        )
        model = Seq2SeqForecaster(
            len(windows.prices.series),
            made.context,
            made.horizon,
            made.units,
            made.decays,
            made.dropout,
        ).to(device)
        model.load_state_dict(tensors(done["weights"]))
        models.append(model.eval())
        seconds.append(done["seconds"])
    return Group(
        "Seq2Seq", "quantile head", models, f"mean of {config.seeds} seeds", float(np.mean(seconds))
    )


def main(config: Config) -> dict[str, Any]:
    # data: checked before anything is written
    prices = config.prices(COINS)
    check_positive(prices, "the logarithm needs prices above zero")
    parts = split(
        prices.contiguous(),
        config.context,
        config.horizon,
        config.test_steps,
        config.validation_steps,
    )
    windows = Windows(prices, parts, config.context, config.horizon)
    device, _ = choose_device(config.device)
    folder = config.out or HERE / "results" / f"{prices.source}-{config.preset}"
    with Run(config, folder, __file__, prices.source, prices.provenance) as run:
        run.note(parts=parts.dates(prices.times), device=device)
        # models: as the course had it, then on many windows with every choice made on validation
        assigned = run.memo("as-assigned", lambda: as_assigned(config, run, prices, device))
        course = course_transformer(
            len(prices.series),
            config.assigned_steps - config.horizon,
            config.horizon,
            config.assigned_blocks,
        )
        course.set_weights(assigned["weights | Transformer"])
        save_model(folder / "model.assigned-minmax.keras", course)
        groups: list[Group] = []
        for normalisation, label in NORMALISATIONS.items():
            models, seconds = [], []
            for seed in range(config.seeds):
                done = run.memo(
                    f"{normalisation}-{seed}",
                    partial(train_transformer, config, run, windows, normalisation, seed),
                )
                model = Forecaster.build(
                    prices.series,
                    config.context,
                    config.horizon,
                    normalisation,
                    config.decays,
                    seed=seed,
                    **config.network(),
                )
                model.model.set_weights(done["weights"])
                save_model(folder / f"model.{normalisation}-{seed}.keras", model.model)
                models.append(model)
                seconds.append(done["seconds"])
            groups.append(
                Group(
                    "Transformer",
                    label,
                    models,
                    f"{label}, mean of {config.seeds} seeds",
                    float(np.mean(seconds)),
                )
            )
        groups.append(train_seq2seq(config, run, windows, device))
        save_forecasters(
            folder / "model.seq2seq.safetensors", groups[-1].forecasters, prices.series
        )
        # evaluation on the test part, once; record
        best, table = (
            [(group.model, group.mean) for group in groups],
            assigned_rows(assigned["seen"], assigned["coming"], answers(assigned)),
        )
        pairs = list(combinations(best, 2))
        ridge = windows.ridge()
        for name in ("validation", "test"):
            rows, means = held_out_rows(windows, groups, getattr(parts, name), name, ridge, pairs)
            table += rows
        arrays = fan_arrays(windows, means["Transformer", "log"])
        arrays |= looks(windows, groups[0].forecasters[0], arrays["fan_origin"])
        write_arrays(
            folder / "predictions.npz",
            **arrays,
            **{
                f"assigned | {name}": value
                for name, value in assigned.items()
                if isinstance(value, np.ndarray)
            },
        )
        results = run.finish(table, metrics_info())
        draw_figures(folder)
        compile_report(folder, HERE / "report.typ", folder / "report.pdf")
    print_table(results, folder)
    return results


if __name__ == "__main__":
    entry(lambda: main(parse(Config)))
