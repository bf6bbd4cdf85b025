"""Assignment 2: Seq2Seq LSTM with attention and teacher forcing on hourly prices of seven coins.

Sutskever et al. 2014, Luong et al. 2015, Bengio et al. 2015. `python assignment2/train.py` trains on the built-in sample or
on prices it finds; about 3 minutes on two CPU cores. On real coins expect a CRPS about 3 % below a random walk with rolling
residuals, and a point forecast that is hardly better than no change.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from assignment2.config import Config
from assignment2.figures import draw_figures
from assignment2.model import Forecaster, Seq2Seq, pinball, save_forecasters
from assignment2.scoring import answers, looks
from common.backtest import metrics_info
from common.cli import entry, parse
from common.forecast import Group, Windows, assigned_rows, fan_arrays, held_out_rows, print_table
from common.prices import COINS, Prices, check_positive
from common.report import compile_report
from common.run import Run, choose_device, progress, tensors, write_arrays
from common.windows import MinMax, split

HERE = Path(__file__).resolve().parent


def teach(
    run: Run,
    context: np.ndarray,
    target: np.ndarray,
    later: np.ndarray,
    units: int,
    epochs: int,
    lr: float,
    seed: int,
    device: str,
    name: str,
) -> tuple[Seq2Seq, dict[str, np.ndarray]]:
    """The course's Seq2Seq, teacher forced on one window, context (1, C, S) and target (1, H, S); its answers (H, S) with the
    truth and without it, and on the context `later` (1, C, S), as it can only be used: without."""
    torch.manual_seed(seed)
    known, truth, coming = (
        torch.from_numpy(part).float().to(device) for part in (context, target, later)
    )
    shifted = torch.cat(
        [torch.zeros_like(truth[:, :1]), truth[:, :-1]], 1
    )  # the truth, one step late
    series, horizon = truth.shape[2], truth.shape[1]
    model = Seq2Seq(series, series, units, series).to(device)
    optimiser = torch.optim.Adam(
        [p for p in model.parameters() if p.requires_grad], lr=lr, eps=1e-7
    )
    with run.stoppable(lambda: None) as stop_here:
        for epoch in progress(range(1, epochs + 1), "as assigned"):
            loss = torch.nn.functional.mse_loss(model(known, shifted), truth)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            run.log(epoch, epoch, "train", **{name: loss.item()})
            stop_here(epoch, loss.item())
    with torch.no_grad():
        told = {
            "teacher forced, trained window": model(known, shifted),
            "free-running, trained window": model.decode(known, shifted[:, 0], horizon)[0],
            "free-running, next steps": model.decode(coming, shifted[:, 0], horizon)[0],
        }
    return model, {way: answer[0].double().cpu().numpy() for way, answer in told.items()}


def as_assigned(config: Config, run: Run, prices: Prices, device: str) -> dict[str, Any]:
    """The course's experiment: one window, trained and scored on it, teacher forced; then the same weights without the truth.

    Returns prices: the window and the five steps after it, and each way of forecasting.
    """
    horizon, seen = (
        config.horizon,
        prices.values[-config.assigned_steps - config.horizon : -config.horizon],
    )
    scaler = MinMax.fit(seen)  # over the whole window, target included, as the course did
    window = scaler.transform(seen)[None]  # (1, 101, S)
    model, told = teach(
        run,
        window[:, :-horizon],
        window[:, -horizon:],
        window[:, horizon:],
        config.assigned_units,
        config.assigned_epochs,
        config.assigned_lr,
        config.seed,
        device,
        "assigned_mse",
    )
    return {
        "seen": seen,
        "coming": prices.values[-horizon:],
        "params": model.parameters_trained,
    } | {way: scaler.inverse(answer) for way, answer in told.items()}


def train_forecaster(
    config: Config, run: Run, windows: Windows, seed: int, device: str
) -> dict[str, Any]:
    """One held-out network; returns the weights with the best validation CRPS. Every draw is a function of (seed, epoch),
    so a resumed run is the same run."""
    start = time.perf_counter()
    torch.manual_seed(seed)
    model = Forecaster(
        len(windows.prices.series),
        config.context,
        config.horizon,
        config.units,
        config.decays,
        config.dropout,
    ).to(device)
    train, validation = windows.parts.train, windows.parts.validation
    model.fit_scales(*windows.inputs(train), windows.changes(train))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    per_epoch = max(len(train) // config.batch, 1)
    total, first = config.epochs * per_epoch, 0
    optimiser = torch.optim.AdamW(trained, lr=config.lr, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.lr, total_steps=total, pct_start=0.15
    )
    unit = (
        model.deviation * model.spread
    )  # the usual size of a change, so that coins and steps weigh alike
    size = unit.cpu().numpy()
    best: dict[str, Any] = {
        "crps": windows.crps(model, size, validation),
        "epoch": 0,
        "weights": {k: v.clone() for k, v in model.state_dict().items()},
    }
    run.log(seed * total, 0, "validation", **{f"crps_seed{seed}": best["crps"]})
    if kept := run.load(f"forecaster-{seed}"):
        first, best = kept["epoch"], tensors(kept["best"])
        model.load_state_dict(tensors(kept["model"]))
        optimiser.load_state_dict(tensors(kept["optimiser"]))
        schedule.load_state_dict(kept["schedule"])
    with run.stoppable(lambda: None) as stop_here:
        for epoch in progress(range(first, config.epochs), f"Seq2Seq, seed {seed}"):
            if epoch - best["epoch"] >= config.patience:
                break
            model.train()
            torch.manual_seed(seed * 1000 + epoch)
            rng, losses = np.random.default_rng((seed, epoch)), []
            order = rng.permutation(train)
            for place in range(per_epoch):
                at = order[place * config.batch : (place + 1) * config.batch]
                step = epoch * per_epoch + place
                truth = torch.from_numpy(windows.changes(at)).float().to(device)  # (B, H, S)
                share = config.teacher_forcing * max(
                    0.0, 1 - step / max(config.teacher_until * total, 1)
                )
                forced = torch.from_numpy(rng.random((len(at), config.horizon)) < share).to(device)
                _, quantiles, _ = model(*windows.inputs(at), truth, forced)
                loss = (pinball(quantiles, truth, model.levels) / unit).mean()
                optimiser.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(trained, 1.0)
                optimiser.step()
                schedule.step()
                losses.append(loss.item())
                stop_here(step, losses[-1])
            crps = windows.crps(model, size, validation)
            run.log(
                (epoch + 1) * per_epoch,
                epoch + 1,
                "train",
                **{f"loss_seed{seed}": float(np.mean(losses))},
            )
            run.log((epoch + 1) * per_epoch, epoch + 1, "validation", **{f"crps_seed{seed}": crps})
            if crps < best["crps"]:
                best = {
                    "crps": crps,
                    "epoch": epoch + 1,
                    "weights": {k: v.clone() for k, v in model.state_dict().items()},
                }
            run.save(
                f"forecaster-{seed}",
                {
                    "epoch": epoch + 1,
                    "best": best,
                    "model": model.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "schedule": schedule.state_dict(),
                },
            )
    model.load_state_dict(best["weights"])
    model.fit_shrink(*windows.inputs(validation), windows.changes(validation))
    return {"weights": model.state_dict(), "seconds": time.perf_counter() - start}


def main(config: Config) -> dict[str, Any]:
    # data: checked before anything is written
    prices = config.prices(COINS)
    check_positive(prices, "Seq2Seq forecasts log returns")
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
        models, seconds = [], []
        for seed in range(config.seeds):
            done = run.memo(
                f"forecaster-{seed}", partial(train_forecaster, config, run, windows, seed, device)
            )
            model = Forecaster(
                len(prices.series),
                config.context,
                config.horizon,
                config.units,
                config.decays,
                config.dropout,
            ).to(device)
            model.load_state_dict(tensors(done["weights"]))
            models.append(model.eval())
            seconds.append(done["seconds"])
        save_forecasters(folder / "model.seq2seq.safetensors", models, prices.series)
        # evaluation on the test part, once; record
        group = Group(
            "Seq2Seq",
            "quantile head",
            models,
            f"mean of {len(models)} seeds",
            float(np.mean(seconds)),
        )
        table, ridge = (
            assigned_rows(assigned["seen"], assigned["coming"], answers(assigned)),
            windows.ridge(),
        )
        for name in ("validation", "test"):
            rows, means = held_out_rows(windows, [group], getattr(parts, name), name, ridge)
            table += rows
        arrays = fan_arrays(windows, means["Seq2Seq", "quantile head"])
        arrays |= looks(windows, models[0], arrays["fan_origin"]) | {
            f"assigned | {way}": answer for way, answer in assigned.items() if way != "params"
        }
        write_arrays(folder / "predictions.npz", **arrays)
        results = run.finish(table, metrics_info())
        draw_figures(folder)
        compile_report(folder, HERE / "report.typ", folder / "report.pdf")
    print_table(results, folder)
    return results


if __name__ == "__main__":
    entry(lambda: main(parse(Config)))
