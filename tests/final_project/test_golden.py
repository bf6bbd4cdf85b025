"""Our forward pass against the published classes themselves, weights ported.

Inputs and outputs were computed by the official code (github.com/ParsaEsmati/SEA, commit 59dffe0,
CC0-1.0) at small sizes. Its attention rotates neighbouring numbers, ours the halves of a head, and
its patches are flattened field by field, ours node by node: the port permutes what that permutes.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from final_project.autoencoder import PublishedAutoencoder
from final_project.exchange import Norm, key
from final_project.temporal import Temporal
from final_project.temporal_config import TemporalConfig

FILE = Path(os.environ.get("ADL_DATA_DIR") or "nowhere") / "sea_official_golden.npz"
HEADS = 8
CLOSE = 1e-5

pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not FILE.exists(), reason=f"no {FILE.name} in ADL_DATA_DIR"),
]
Weights = dict[str, Tensor]


def golden(model: str) -> tuple[Weights, dict[str, Tensor]]:
    """The official weights by name, and the inputs and outputs, of one model."""
    weights = {}
    arrays = {}
    with np.load(FILE, allow_pickle=False) as archive:
        for name in archive:
            if name.startswith(f"{model}/weights/"):
                weights[name.removeprefix(f"{model}/weights/")] = torch.from_numpy(archive[name])
            elif name.startswith(f"{model}/"):
                arrays[name.removeprefix(f"{model}/")] = torch.from_numpy(archive[name])
    return weights, arrays


def difference(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest value."""
    return float((found - expected).abs().max() / expected.abs().max())


def copy(layer: nn.Module, weights: Weights, name: str) -> None:
    """The weight, and the bias where there is one, of a layer."""
    layer.get_parameter("weight").data.copy_(weights[f"{name}.weight"])
    if f"{name}.bias" in weights:
        layer.get_parameter("bias").data.copy_(weights[f"{name}.bias"])


def halves(rows: Tensor) -> Tensor:
    """Rows (D, ...) of queries or keys whose pairs (2 i, 2 i + 1) become (i, i + d / 2)."""
    heads = rows.unflatten(0, (HEADS, -1))  # (H, d, ...)
    return torch.cat([heads[:, 0::2], heads[:, 1::2]], 1).flatten(0, 1)


def copy_attention(attention: nn.Module, weights: Weights, name: str) -> None:
    for kind in ("weight", "bias"):
        q, k, v = (weights[f"{name}.{part}.{kind}"] for part in "qkv")
        attention.get_parameter(f"q.{kind}").data.copy_(halves(q))
        attention.get_parameter(f"kv.{kind}").data.copy_(torch.cat([halves(k), v]))
    copy(attention.get_submodule("out"), weights, f"{name}.projection")


def copy_norm(norm: Norm, weights: Weights, name: str) -> None:
    copy(norm, weights, name)
    if norm.conditioner is not None:
        for number in (0, 2):
            copy(norm.conditioner[number], weights, f"{name}.cond_mlp.{number}")


def ported(weights: Weights, groups: int, latents: int, adaptive: bool) -> Temporal:
    """Our model with the official weights."""
    config = TemporalConfig.published(adaptive=adaptive)
    model = Temporal(config, groups, latents, 1).eval()
    for number, block in enumerate(model.blocks):
        name = f"blocks.{number}"
        for layer in (0, 1, 3):
            copy(block.tipi[layer], weights, f"{name}.ib.layers.{layer}")
        for i, stream in enumerate(block.streams):
            copy_norm(stream.norm1, weights, f"{name}.ln.exp.{i}.0")
            copy_norm(stream.norm2, weights, f"{name}.ln.exp.{i}.2")
            copy_norm(stream.norm_low, weights, f"{name}.ln_cross.{i}")
            copy_attention(stream.attention, weights, f"{name}.attn.self.{i}")
            for layer in (0, 1, 3):
                copy(stream.mlp[layer], weights, f"{name}.mlp.{i}.layers.{layer}")
            copy(stream.down, weights, f"{name}.cross_down.{i}")
            copy(stream.up, weights, f"{name}.cross_up.{i}")
            copy(stream.projection, weights, f"{name}.proj.{i}")
        for i, j in block.pairs:
            copy_attention(block.cross[key(i, j)], weights, f"{name}.cross_attn.{i}.{j}")
    for i, norm in enumerate(model.norm):
        copy_norm(norm, weights, f"ln.{i}")
    return model


@pytest.mark.parametrize(
    ("name", "adaptive"), [("temporal_adaln_2", True), ("temporal_ln_3", False)]
)
def test_the_temporal_model_is_the_published_one(name, adaptive):
    weights, arrays = golden(name)
    groups, latents = arrays["z"].shape[2:]
    model = ported(weights, groups, latents, adaptive)
    with torch.no_grad():
        found = model(arrays["z"], arrays["theta"])
    assert difference(found, arrays["out"]) < CLOSE

    # (another order of the norms, or no exchange, would be seen)
    swapped = ported(weights, groups, latents, adaptive)
    for block in swapped.blocks:
        for stream in block.streams:
            stream.norm1, stream.norm2 = stream.norm2, stream.norm1
    with torch.no_grad():
        assert difference(swapped(arrays["z"], arrays["theta"]), arrays["out"]) > 100 * CLOSE


def test_the_autoencoder_is_the_published_one():
    weights, arrays = golden("autoencoder")
    _, patches, nodes, _ = arrays["patches"].shape
    groups = ((0, 1), (2,))
    latent = weights["encode.encoders.0.layer2.bias"].shape[0]
    hidden = weights["encode.encoders.0.layer1.weight"].shape[0]
    blocks = sum(name.endswith("ln_exp1_1.weight") for name in weights)
    table = np.arange(patches * nodes).reshape(patches, nodes)
    model = PublishedAutoencoder(table, groups, latent, hidden, blocks, HEADS).eval()

    for g, group in enumerate(groups):
        by_node = np.arange(nodes * len(group)).reshape(len(group), nodes).T.ravel()
        encoder, decoder = model.embed[g], model.decoders[g]
        first, second = "layer1.weight", "layer2"
        encoder[0].weight.data.copy_(weights[f"encode.encoders.{g}.{first}"][:, by_node])
        copy(encoder[2], weights, f"encode.encoders.{g}.{second}")
        decoder[0].weight.data.copy_(weights[f"decode.decoders.{g}.{first}"])
        decoder[2].weight.data.copy_(weights[f"decode.decoders.{g}.{second}.weight"][by_node])
        decoder[2].bias.data.copy_(weights[f"decode.decoders.{g}.{second}.bias"][by_node])
    for number, layer in enumerate(model.layers):
        name = f"encode.blocks.{number}"
        for kind in ("weight", "bias"):
            parts = [weights[f"{name}.attn_1.{part}.{kind}"] for part in "qkv"]
            layer.qkv.get_parameter(kind).data.copy_(torch.cat(parts))
        copy(layer.out, weights, f"{name}.attn_1.projection")
        copy(layer.norm1, weights, f"{name}.ln_exp1_1")
        copy(layer.norm2, weights, f"{name}.ln_exp1_2")
        for part in (0, 1, 3):
            copy(layer.mlp[part], weights, f"{name}.mlp_1.layers.{part}")
    copy(model.norm, weights, "encode.ln")

    with torch.no_grad():
        code = model.encode_patches(arrays["patches"])
        decoded = model.decode_patches(arrays["latent"])
    assert difference(code, arrays["latent"]) < CLOSE
    assert difference(decoded, arrays["reconstruction"]) < CLOSE
