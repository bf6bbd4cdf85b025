"""The benchmark's plain network is ours, and it counts every product."""

from __future__ import annotations

import dataclasses
import json
import sys

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from assignment5.config import Config
from assignment5.dit import DiT
from benchmarks import diffusion as bench
from tests.assignment5.helpers import TINY


def test_the_benchmarks_plain_network_is_ours_and_the_rows_are_whole(tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    ours, plain = DiT(16, 4, 48, 2, 12), bench.PlainDiT(16, 4, 48, 2, 12)
    for parameter in ours.parameters():  # adaLN-Zero would hide everything
        torch.nn.init.normal_(parameter, std=0.1)
    names = {"projection": "out", "up": "mlp.0", "down": "mlp.2", "modulation": "modulation.1"}
    state = {
        ".".join(names.get(word, word) for word in key.split(".")): value
        for key, value in ours.state_dict().items()
    }
    state["embed.weight"] = state["embed.weight"].reshape(48, 4, 4, 3).permute(0, 3, 1, 2)
    plain.load_state_dict(state | {"positions": ours.positions})
    x, variance = torch.randn(2, 3, 16, 16), torch.tensor([0.2, 0.9])
    assert torch.allclose(
        ours(x, variance), plain(x, variance), atol=0.02
    )  # their GELU is the tanh form
    monkeypatch.setitem(sys.modules, "diffusers", None)  # as where it is not installed
    sizes = {"side": 16, "width": 48, "depth": 1, "batch": 4, "unet_widths": (8, 16)}
    config = dataclasses.replace(Config(), **sizes)
    rows = bench.main(config, 1, tmp_path / "d.json")
    assert "diffusers is not installed" in capsys.readouterr().err
    written = json.loads((tmp_path / "d.json").read_text())["rows"]
    assert written == [dataclasses.asdict(row) for row in rows]
    assert all(row.ratio > 0 for row in rows)


def test_the_benchmark_counts_every_product():
    config = dataclasses.replace(TINY, skips=False)
    model = DiT(config.side, config.patch, config.width, config.depth, config.heads)
    with (
        FlopCounterMode(display=False) as counted,
        sdpa_kernel(SDPBackend.MATH),
        torch.no_grad(),
    ):  # (the fused one is not counted)
        model(torch.randn(config.batch, 3, config.side, config.side), torch.rand(config.batch))
    assert (
        sum(2 * many * n * k * m for many, n, k, m in bench.shapes(config))
        == counted.get_total_flops()
    )
