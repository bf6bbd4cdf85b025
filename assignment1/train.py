"""Assignment 1: extreme learning machines and MLPs on 12 x 12 VQ-VAE codes of faces, with four output penalties."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from assignment1 import data
from assignment1.config import Config
from assignment1.figures import draw_figures
from assignment1.protocols import (
    METRICS_INFO,
    as_assigned,
    held_out,
    print_table,
    save_arrays,
    save_models,
    vqvae_rows,
)
from assignment1.vqvae import VQVAE, code_views, psnr
from common.cli import entry, parse
from common.report import compile_report
from common.run import Run, choose_device, progress, tensors

HERE = Path(__file__).resolve().parent


def train_vqvae(
    config: Config, run: Run, train: np.ndarray, validation: np.ndarray, device: str, precision: str
) -> dict[str, Any]:
    """Trains on faces uint8 (N, 48, 48); returns the weights. Every random draw is a function of (seed, step), so a resumed run is the same run."""
    torch.manual_seed(config.seed)
    model = VQVAE(config.codes, config.code_dim, config.vq_width, config.vq_fine_width)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    model.mean.fill_(train.mean() / 255)
    model.std.fill_(train.std() / 255)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=config.vq_lr, betas=(0.9, 0.99), weight_decay=1e-4
    )
    autocast = torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")
    per_epoch = max(len(train) // config.vq_batch, 1)
    total, step = config.vq_epochs * per_epoch, 0

    def save() -> None:
        run.save(
            "vqvae",
            {"step": step, "model": model.state_dict(), "optimiser": optimiser.state_dict()},
        )

    if kept := run.load("vqvae"):
        step = kept["step"]
        model.load_state_dict(tensors(kept["model"]))
        optimiser.load_state_dict(tensors(kept["optimiser"]))
    with run.stoppable(save) as stop_here:
        for now in progress(range(step, total), "VQ-VAE"):
            epoch, place = divmod(now, per_epoch)
            rng = np.random.default_rng((config.seed, now))
            order = np.random.default_rng((config.seed, epoch, 1)).permutation(len(train))
            batch = train[order[place * config.vq_batch : (place + 1) * config.vq_batch]]
            if rng.random() < 0.5:
                batch = batch[:, :, ::-1]
            pixels = torch.from_numpy(np.ascontiguousarray(batch)).to(device)[:, None] / 255
            reconstruction, commitment = model.losses(
                pixels, rng, now >= config.vq_warmup, autocast
            )
            loss = reconstruction + config.commitment * commitment
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for group in optimiser.param_groups:
                group["lr"] = (
                    config.vq_lr * min(1, (now + 1) / 100) * (1 + np.cos(np.pi * now / total)) / 2
                )
            optimiser.step()
            step = now + 1
            if step % 50 == 0 or step in (1, total):
                run.log(
                    step,
                    epoch,
                    "train",
                    vq_reconstruction=reconstruction.item(),
                    vq_commitment=commitment.item(),
                )
            if step % per_epoch == 0:
                codemaps = model.eval().encode(validation)
                quality = psnr(validation, model.decode(codemaps)).mean()
                run.log(
                    step,
                    epoch + 1,
                    "validation",
                    vq_psnr=quality,
                    vq_codes_used=len(np.unique(codemaps)),
                )
                model.train()
                save()
            stop_here(step, loss.item())
    return model.state_dict()


def main(config: Config) -> dict[str, Any]:
    # data: checked and audited before anything is written
    faces = data.load(config.source, config.data, config.synthetic_faces, config.seed)
    groups, unfit, counts = data.audit(faces)
    split = data.held_out_split(faces, groups, unfit, config.seed, config.validation)
    folder = config.out or HERE / "results" / f"{faces.source}-{config.preset}"
    device, bfloat16 = choose_device(config.device)
    precision = (
        {True: "bfloat16", False: "float32"}[bfloat16]
        if config.precision == "auto"
        else config.precision
    )

    with Run(config, folder, __file__, faces.source, faces.provenance) as run:
        run.note(
            audit=counts,
            split={name: len(part) for name, part in vars(split).items()},
            device=device,
            precision=precision,
        )
        if notice := faces.provenance.get("notice"):
            print(f"notice: {notice}", file=sys.stderr)

        # codes: a VQ-VAE trained on the training part only (or the user's own code maps)
        table, vqvae, codemaps, codebook = [], None, faces.given, faces.codebook
        if faces.images is not None:
            vqvae = VQVAE(config.codes, config.code_dim, config.vq_width, config.vq_fine_width).to(
                device
            )
            state = run.memo(
                "vqvae",
                lambda: train_vqvae(
                    config,
                    run,
                    faces.given[split.train],
                    faces.given[split.validation],
                    device,
                    precision,
                ),
            )
            vqvae.load_state_dict(tensors(state))
            vqvae.eval().save(folder / "vqvae.safetensors")
            codemaps = run.memo("codemaps", lambda: {"maps": vqvae.encode(faces.given)})["maps"]
            codebook = vqvae.codebook.vectors.cpu().numpy()
            table += vqvae_rows(vqvae, faces, split, codemaps)
        X = run.memo("views", lambda: {"X": code_views(codemaps, vqvae)})["X"]

        # models: as the course had them, then with every choice made on validation
        table += as_assigned(config, run, X, faces, precision)
        found = held_out(config, run, X, faces, split, codebook, precision, device)
        table += found["rows"]

        # record: the final models, the metrics, and what figures and report are made from
        save_models(config, run, X, faces, split, codebook, found["best"], precision, device)
        save_arrays(folder, faces, split, vqvae, found)
        results = run.finish(table, METRICS_INFO)
        draw_figures(folder)
        compile_report(folder, HERE / "report.typ", folder / "report.pdf")
    print_table(results, folder)
    return results


if __name__ == "__main__":
    entry(lambda: main(parse(Config)))
