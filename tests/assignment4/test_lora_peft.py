"""Adapter folders of PEFT against a torch twin of the network, and PEFT itself if there is one."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import torch
from keras import layers
from safetensors.numpy import load_file, save_file

from assignment4.lora import LoRA
from common.cli import InputError
from tests.assignment4.test_lora import X, randomise, transformer, values

IMAGES = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
TOKENS = np.random.default_rng(1).integers(0, 20, (4, 5))
CASES = [
    {},
    {"rank_stabilised": True, "alpha": 5},
    {"rank_pattern": {"ff": 3}, "alpha_pattern": {"conv": 9.0}, "alpha": 4, "dropout": 0.1},
    {"rank_pattern": {"ff": 3}, "rank_stabilised": True},
    {"dora": True, "alpha": 3},
    {"start": "pissa"},
    {"bias": "lora_only"},
    {"bias": "all"},
    {"modules_to_save": ["^head$", "^norm$"]},
]


def network() -> keras.Model:
    """Images (8, 8, 3) and tokens (5,) -> (3,): every kind of layer that PEFT adapts as we do."""
    keras.utils.set_random_seed(0)
    images, tokens = keras.Input((8, 8, 3)), keras.Input((5,), dtype="int32")
    x = layers.Conv2D(6, 3, name="conv", activation="relu")(images)
    x = layers.GlobalAveragePooling2D()(x)
    y = layers.Embedding(20, 6, name="table")(tokens)
    y = layers.EinsumDense("abc,cde->abde", (5, 2, 3), bias_axes="de", name="split")(y)
    y = layers.GlobalAveragePooling1D()(layers.Reshape((5, 6))(y))
    h = layers.LayerNormalization(name="norm", epsilon=1e-5)(x + y)
    h = layers.Dense(8, "tanh", name="ff")(h)
    model = keras.Model([images, tokens], layers.Dense(3, name="head")(h))
    for weight in model.weights:
        if weight.name in ("bias", "beta"):
            weight.assign(keras.random.normal(weight.shape, seed=1))
    return model


class Twin(torch.nn.Module):
    """The same network in torch, with the weights of a Keras model."""

    def __init__(self, model: keras.Model):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 6, 3)
        self.table = torch.nn.Embedding(20, 6)
        self.split = torch.nn.Linear(6, 6)
        self.norm = torch.nn.LayerNorm(6)
        self.ff = torch.nn.Linear(6, 8)
        self.head = torch.nn.Linear(8, 3)
        for name, module in self.named_children():
            kernel, *bias = (torch.tensor(value) for value in model.get_layer(name).get_weights())
            if name == "conv":
                kernel = kernel.permute(3, 2, 0, 1)
            elif kernel.ndim > 1 and name != "table":
                kernel = kernel.reshape(module.in_features, -1).T
            module.weight.data = kernel.contiguous()
            if bias:
                module.bias.data = bias[0].flatten()

    def forward(self, images, tokens):
        x = torch.relu(self.conv(images)).mean((2, 3))
        y = self.split(self.table(tokens)).mean(1)
        return self.head(torch.tanh(self.ff(self.norm(x + y))))


def outputs(twin: torch.nn.Module) -> np.ndarray:
    with torch.no_grad():
        images = torch.tensor(IMAGES).permute(0, 3, 1, 2)
        return twin.eval()(images, torch.tensor(TOKENS)).numpy()


def read_into(twin: Twin, folder: Path) -> None:
    """What PEFT does with its files: W + s B A, DoRA, and weights in their places."""
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = {
        name.removeprefix("base_model.model."): torch.tensor(value)
        for name, value in load_file(folder / "adapter_model.safetensors").items()
    }
    for name, module in twin.named_children():

        def own(pattern: str, default: float, name: str = name) -> float:
            matches = (v for k, v in config[pattern].items() if re.match(rf"(.*\.)?({k})$", name))
            return next(matches, default)

        kinds = (
            (".lora_embedding_A", ".lora_embedding_B")
            if name == "table"
            else (
                ".lora_A.weight",
                ".lora_B.weight",
            )
        )
        if name + kinds[0] in tensors:
            a, b = (tensors.pop(name + kind) for kind in kinds)
            rank = own("rank_pattern", config["r"])
            assert len(a) == b.shape[1]
            scale = own("alpha_pattern", config["lora_alpha"]) / (
                rank**0.5 if config["use_rslora"] else rank
            )
            update = b.flatten(1) @ a.flatten(1)
            update = update.T if name == "table" else update.reshape(module.weight.shape)
            weight = module.weight.data + scale * update
            if config["use_dora"]:
                kept = 1 if name == "table" else 0
                axes = tuple(axis for axis in range(weight.ndim) if axis != kept)
                magnitude = tensors.pop(f"{name}.lora_magnitude_vector").flatten()
                shape = [-1 if axis == kept else 1 for axis in range(weight.ndim)]
                norm = weight.square().sum(axes, keepdim=True).sqrt()
                weight = magnitude.reshape(shape) * weight / norm
            module.weight.data = weight
        for part in ("weight", "bias"):
            for key in (f"{name}.{part}", f"{name}.base_layer.{part}"):
                if key in tensors:
                    getattr(module, part).data = tensors.pop(key)
    assert not tensors


def trained(options: dict) -> tuple[LoRA, np.ndarray]:
    """An adapter whose variables were moved, and what the network gives."""
    lora = LoRA(network(), base_name="twin")
    lora.add("a", 2, targets=[".*"], **options)
    rng = np.random.default_rng(4)
    for variable in lora.trainable_variables:
        variable.assign_add(rng.normal(0, 0.2, variable.shape))
    return lora, lora.model.predict([IMAGES, TOKENS], verbose=0)


def test_the_twin_is_the_network():
    expected = network().predict([IMAGES, TOKENS], verbose=0)
    np.testing.assert_allclose(outputs(Twin(network())), expected, atol=1e-5)


@pytest.mark.parametrize("options", CASES, ids=str)
def test_a_folder_gives_the_same_outputs_in_torch_and_back(options, tmp_path):
    lora, expected = trained(options)
    lora.save_peft(tmp_path / "peft")
    twin = Twin(network())
    read_into(twin, tmp_path / "peft")
    np.testing.assert_allclose(outputs(twin), expected, atol=1e-5)
    again = LoRA(network())
    again.load_peft(tmp_path / "peft", "b")
    got = again.model.predict([IMAGES, TOKENS], verbose=0)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert again.adapter("b").whole.keys() == lora.adapter("a").whole.keys()

    # a second time the same files
    again.save_peft(tmp_path / "again")
    first, second = (
        load_file(tmp_path / name / "adapter_model.safetensors") for name in ("peft", "again")
    )
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_the_fields_and_names_of_a_folder(tmp_path):
    lora = LoRA(transformer(), base_name="small")
    lora.add("a", 2, alpha=4, targets=["attention/query", "ff"], rank_pattern={"ff": 3})
    lora.save_peft(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config == {
        "peft_type": "LORA",
        "base_model_name_or_path": "small",
        "r": 2,
        "lora_alpha": 4.0,
        "target_modules": ["attention.query", "ff"],
        "rank_pattern": {"^ff": 3},
        "alpha_pattern": {"^ff": 6.0},  # PEFT divides it by 3
        "use_rslora": False,
        "use_dora": False,
        "lora_dropout": 0.0,
        "bias": "none",
        "modules_to_save": None,
        "inference_mode": True,
    }
    shapes = {k: v.shape for k, v in load_file(tmp_path / "adapter_model.safetensors").items()}
    assert shapes == {
        "base_model.model.attention.query.lora_A.weight": (2, 8),
        "base_model.model.attention.query.lora_B.weight": (8, 2),
        "base_model.model.ff.lora_A.weight": (3, 8),
        "base_model.model.ff.lora_B.weight": (8, 3),
    }


# ------------------------------------------------------------------------------------- PEFT itself


@pytest.mark.parametrize("options", CASES, ids=str)
def test_peft_reads_what_we_write(options, tmp_path):
    peft = pytest.importorskip("peft")
    lora, expected = trained(options)
    lora.save_peft(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        twin = peft.PeftModel.from_pretrained(Twin(network()), tmp_path)
    np.testing.assert_allclose(outputs(twin), expected, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True, "rank_pattern": {"ff": 3}, "alpha_pattern": {"conv": 7}},
        {"use_dora": True},
        {"bias": "all", "modules_to_save": ["head"]},
        {"bias": "lora_only"},
        {"init_lora_weights": "gaussian"},
    ],
    ids=str,
)
def test_we_read_what_peft_writes(options, tmp_path):
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    names = ["conv", "table", "split", "ff"]
    config = peft.LoraConfig(r=2, lora_alpha=3, target_modules=names, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        twin = peft.get_peft_model(Twin(network()), config)
        for parameter in twin.parameters():
            if parameter.requires_grad:
                parameter.data += 0.2 * torch.randn_like(parameter)
        twin.save_pretrained(tmp_path)
    lora = LoRA(network())
    lora.load_peft(tmp_path, "a")
    got = lora.model.predict([IMAGES, TOKENS], verbose=0)
    np.testing.assert_allclose(got, outputs(twin), atol=1e-5)


# -------------------------------------------------------------------------------------- bad inputs


def configure(**facts: object):
    def edit(folder: Path) -> None:
        file = folder / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | facts))

    return edit


def rename(old: str, new: str):
    def edit(folder: Path) -> None:
        file = folder / "adapter_model.safetensors"
        save_file({k.replace(old, new): v for k, v in load_file(file).items()}, file)

    return edit


def widen(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({k: np.concatenate([v, v], 1) for k, v in tensors.items()}, file)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "adapter_config.json").unlink(), "is not there; a PEFT adapter"),
        (configure(peft_type="IA3"), "is IA3 of rank 2; LORA can be read"),
        (configure(r="two"), "is damaged (ValueError"),
        (configure(init_lora_weights="pissa_niter_4"), "began with pissa_niter_4, which changes"),
        (rename("ff.", "other."), "adapts other; the layers of this model are embed, "),
        (rename("lora_B", "lora_C"), "has not both factors of ff"),
        (rename("ff.lora_B", "ff.lora_B.more"), "has not both factors of ff"),
        (widen, "ff has A (2, 16) and B (8, 4); the layer is 8 x 8"),
    ],
)
def test_bad_folders(damage, message, tmp_path):
    lora = LoRA(transformer())
    lora.add("a", 2, targets=["ff"])
    randomise(lora)
    lora.save_peft(tmp_path)
    damage(tmp_path)
    before = values(lora.model)
    with pytest.raises(InputError, match=re.escape(message)):
        lora.load_peft(tmp_path, "b")
    assert lora.names == ("a",)
    assert all(np.array_equal(a, b) for a, b in zip(values(lora.model), before, strict=True))
    assert lora.model.predict(X, verbose=0).shape == (16, 6, 3)
