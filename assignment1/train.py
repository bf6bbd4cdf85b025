"""Assignment 1: extreme learning machines and MLPs on 12 x 12 VQ-VAE codes of faces, with four output penalties."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from assignment1 import data
from assignment1.vqvae import VQVAE, load_vqvae, psnr
from common.cli import BaseConfig, entry, parse
from common.run import Run, progress, tensors

HERE = Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Config(BaseConfig):
    """Assignment 1: ELM, binary-weight ELM and MLP on VQ-VAE codes of faces."""

    source: Literal["auto", "fer2013", "codemaps", "synthetic"] = "auto"
    """where the faces come from; auto: --data, else the data folder, else the built-in synthetic sample"""
    seed: int = 0
    """of the split, the VQ-VAE and the synthetic faces; the ELMs use 0 .. seeds-1"""
    seeds: int = 10
    """how many random hidden layers every ELM is drawn with"""
    synthetic_faces: int = 6000
    """how many faces the built-in sample has"""
    validation: float = 0.1
    """share of the training part that all choices are made on"""
    codes: int = 256
    """size m of the VQ-VAE's codebook"""
    code_dim: int = 128
    """dimension d of a code"""
    vq_width: int = 96
    """channels of the VQ-VAE at 12 x 12"""
    vq_fine_width: int = 32
    """channels of the VQ-VAE at 24 x 24"""
    vq_epochs: int = 6
    """passes of the VQ-VAE over the training part"""
    vq_batch: int = 32
    """faces in a batch of the VQ-VAE"""
    vq_lr: float = 1e-3
    """peak learning rate of the VQ-VAE (AdamW, cosine to zero)"""
    vq_warmup: int = 300
    """steps as a plain autoencoder before k-means places the codes"""
    commitment: float = 0.25
    """weight of the commitment term (van den Oord et al., eq. 3)"""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """arithmetic of the VQ-VAE's and MLP's training; auto: bfloat16 where the processor has it"""

    @classmethod
    def presets(cls) -> dict[str, dict[str, Any]]:
        return {"smoke": {"synthetic_faces": 700, "vq_epochs": 2, "vq_warmup": 10, "seeds": 2}, "full": {"vq_epochs": 12}}


def train_vqvae(config: Config, run: Run, train: np.ndarray, validation: np.ndarray, device: str) -> dict[str, np.ndarray]:
    """Trains on faces uint8 (N, 48, 48); returns the weights. Every random draw is a function of (seed, step), so a resumed run is the same run."""
    torch.manual_seed(config.seed)
    model = VQVAE(config.codes, config.code_dim, config.vq_width, config.vq_fine_width).to(device, memory_format=torch.channels_last)
    model.mean.fill_(train.mean() / 255)
    model.std.fill_(train.std() / 255)
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.vq_lr, betas=(0.9, 0.99), weight_decay=1e-4)
    autocast = torch.autocast(device, torch.bfloat16, enabled=use_bfloat16(config.precision, device))
    per_epoch = max(len(train) // config.vq_batch, 1)
    total, step = config.vq_epochs * per_epoch, 0

    def save() -> None:
        run.save("vqvae", {"step": step, "model": model.state_dict(), "optimiser": optimiser.state_dict()})

    if kept := run.load("vqvae"):
        step = kept["step"]
        model.load_state_dict(tensors(kept["model"]))
        optimiser.load_state_dict(tensors(kept["optimiser"]))
    with run.stoppable(save) as stop_here:
        for step in progress(range(step, total), "VQ-VAE"):
            epoch, place = divmod(step, per_epoch)
            rng = np.random.default_rng((config.seed, step))
            order = np.random.default_rng((config.seed, epoch, 1)).permutation(len(train))
            batch = train[order[place * config.vq_batch : (place + 1) * config.vq_batch]]
            if rng.random() < 0.5:
                batch = batch[:, :, ::-1]
            pixels = torch.from_numpy(np.ascontiguousarray(batch)).to(device)[:, None] / 255
            reconstruction, commitment = model.losses(pixels, rng, step >= config.vq_warmup, autocast)
            loss = reconstruction + config.commitment * commitment
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for group in optimiser.param_groups:
                group["lr"] = config.vq_lr * min(1, (step + 1) / 100) * (1 + np.cos(np.pi * step / total)) / 2
            optimiser.step()
            step += 1
            if step % 50 == 0:
                run.log(step, epoch, "train", vq_reconstruction=reconstruction.item(), vq_commitment=commitment.item())
            if step % per_epoch == 0:
                codemaps = model.eval().encode(validation)
                run.log(step, epoch + 1, "validation", vq_psnr=psnr(validation, model.decode(codemaps)).mean(), vq_codes_used=len(np.unique(codemaps)))
                model.train()
                save()
            stop_here(step, loss.item())
    return model.state_dict()


def use_bfloat16(precision: str, device: str) -> bool:
    if precision == "auto":
        return torch.cuda.is_bf16_supported() if device == "cuda" else torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return precision == "bfloat16"


def main(config: Config) -> dict[str, Any]:
    faces = data.load(config.source, config.data, config.synthetic_faces, config.seed)
    groups, unfit, counts = data.audit(faces)
    split = data.held_out_split(faces, groups, unfit, config.seed, config.validation)
    folder = config.out or HERE / "results" / f"{faces.source}-{config.preset}"
    device = ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
    with Run(config, folder, __file__, faces.source, faces.provenance) as run:
        run.note(audit=counts, split={name: len(rows) for name, rows in vars(split).items()}, device=device)
        vqvae = VQVAE(config.codes, config.code_dim, config.vq_width, config.vq_fine_width)
        vqvae.load_state_dict(tensors(run.memo("vqvae", lambda: train_vqvae(config, run, faces.images[split.train], faces.images[split.validation], device))))


if __name__ == "__main__":
    entry(lambda: main(parse(Config)))
