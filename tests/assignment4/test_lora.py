"""LoRA: its formula against numpy and Keras, gradients, merging, switching, adapter files.

Keras' own LoRA is compared where it is right, and tested for what it does otherwise.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from safetensors.numpy import load_file, save_file

from assignment4.lora import AdapterCheckpoint, LoRA
from common.cli import InputError

ROOT = Path(__file__).resolve().parents[2]
RNG = np.random.default_rng(3)
ROUNDING = 5e-6  # of outputs of order 1
X = RNG.normal(size=(16, 6, 5)).astype(np.float32)
Y = RNG.normal(size=(16, 6, 3)).astype(np.float32)
SIZES = {"embed": (5, 8), "ff": (8, 8), "head": (8, 3)} | {
    f"attention/{part}": (8, 8) for part in ("query", "key", "value", "attention_output")
}


def transformer(seed: int = 0, normalise: bool = False) -> keras.Model:
    """(6, 5) -> (6, 3): embedding, attention, feed-forward layer and head; no bias is zero."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((6, 5))
    x = layers.Dense(8, name="embed")(inputs)
    x = layers.LayerNormalization(name="norm")(
        x + layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    )
    if normalise:
        x = layers.BatchNormalization(name="batch_norm")(x)
    x = layers.Dense(8, "relu", name="ff")(x)
    model = keras.Model(inputs, layers.Dense(3, name="head")(x), name="small")
    for weight in model.trainable_weights:
        if weight.name in ("bias", "beta"):
            weight.assign(keras.random.normal(weight.shape, seed=seed))
    return model


def randomise(lora: LoRA, seed: int = 0) -> None:
    """Gives the active adapter factors as if it had been trained."""
    rng = np.random.default_rng(seed)
    for variable in lora.trainable_variables:
        variable.assign(rng.normal(0, 0.3, variable.shape))


def fit(model: keras.Model, epochs: int = 4, jit_compile: bool = False) -> list[float]:
    """The loss of each epoch."""
    model.compile(keras.optimizers.Adam(0.02), "mse", jit_compile=jit_compile)
    return model.fit(X, Y, batch_size=8, epochs=epochs, verbose=0, shuffle=False).history["loss"]


def values(model: keras.Model) -> list[np.ndarray]:
    return [weight.numpy() for weight in model.weights]


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return len(a) == len(b) and all(
        x.dtype == y.dtype and x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True)
    )


class Block(layers.Layer):
    """A subclassed layer that holds its affine maps in a list."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.parts = [layers.Dense(7, name="part"), layers.Dense(5, name="part")]

    def build(self, shape):
        self.parts[0].build(shape)
        self.parts[1].build((*shape[:-1], 7))

    def call(self, x):
        return x + self.parts[1](self.parts[0](x))


class Custom(keras.Model):
    """A subclassed model."""

    def __init__(self):
        super().__init__()
        self.block = Block(name="block")
        self.inner = keras.Sequential([layers.Dense(4, "tanh", name="deep")], name="inner")

    def call(self, x):
        return self.inner(self.block(x))


# -------------------------------------------------------------------------------------- mathematics


def test_every_affine_map_is_found_at_any_nesting():
    assert {path: LoRA(transformer()).targets()[path].name for path in SIZES} == {
        path: path.split("/")[-1] for path in SIZES
    }
    inner = keras.Sequential([keras.Input((5,)), layers.Dense(4, name="deep")], name="inner")
    shared = layers.Dense(4, name="shared")
    inputs = keras.Input((5,))
    outer = keras.Model(inputs, shared(shared(inner(inputs))))
    assert list(LoRA(outer).targets()) == ["inner/deep", "shared"]
    custom = Custom()
    custom(X)
    lora = LoRA(custom)
    assert list(lora.targets()) == ["block/part", "block/part:1", "inner/deep"]
    lora.add("a", 2)
    assert [id(v) for v in custom.trainable_variables] == [id(v) for v in lora.trainable_variables]
    before = custom.predict(X, verbose=0)
    randomise(lora)
    assert not np.allclose(custom.predict(X, verbose=0), before)


@pytest.mark.parametrize("build", [transformer, lambda: transformer(normalise=True)])
def test_a_new_adapter_changes_nothing_but_rounding_and_off_is_the_base_to_the_bit(build):
    model = build()
    base, eager = model.predict(X, verbose=0), model(X).numpy()
    lora = LoRA(model)
    lora.add("a", 2)
    assert lora.active == "a"
    # W + 0 is W, but some processors multiply by a sum in another order than by a variable
    assert np.allclose(model.predict(X, verbose=0), base, rtol=0, atol=ROUNDING)
    assert np.allclose(model(X).numpy(), eager, rtol=0, atol=ROUNDING)
    fit(model)
    trained = model.predict(X, verbose=0)
    assert np.abs(trained - base).max() > 0.01
    with lora.disabled():
        assert lora.active is None
        assert np.array_equal(model.predict(X, verbose=0), base)
    assert lora.active == "a"
    assert np.array_equal(model.predict(X, verbose=0), trained)
    lora.activate(None)
    assert model.trainable_variables == lora.trainable_variables == []
    assert np.array_equal(model.predict(X, verbose=0), base)
    assert np.array_equal(model(X).numpy(), eager)


@pytest.mark.parametrize(("stabilised", "scale"), [(False, 6 / 4), (True, 6 / 2)])
def test_dense_with_relu_is_the_formula(stabilised, scale):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input((5,)), layers.Dense(7, "relu", bias_initializer="random_normal", name="d")]
    )
    lora = LoRA(model)
    lora.add("a", 4, alpha=6, rank_stabilised=stabilised)
    randomise(lora)
    w, bias = (v.numpy().astype(np.float64) for v in (model.layers[0].kernel, model.layers[0].bias))
    a, b = (v.numpy().astype(np.float64) for v in lora.trainable_variables)
    x = X[:, 0].astype(np.float64)
    expected = np.maximum(x @ w + bias + scale * (x @ a) @ b, 0)
    assert 0 < (expected == 0).mean() < 1
    np.testing.assert_allclose(model.predict(X[:, 0], verbose=0), expected, atol=1e-5)
    np.testing.assert_allclose(lora.update()["d"], scale * a @ b, atol=1e-12)


def test_attention_is_the_plain_block_with_w_plus_s_a_b():
    model, plain = transformer(), transformer()
    lora = LoRA(model)
    lora.add("a", 3, alpha=5, targets=["^attention/"])
    randomise(lora)
    for path, layer in LoRA(plain).targets().items():
        if path.startswith("attention"):
            layer.kernel.assign_add(
                lora.update()[path].reshape(layer.kernel.shape)
            )  # its kernels are inputs first, then outputs
    assert np.abs(plain.predict(X, verbose=0) - transformer().predict(X, verbose=0)).max() > 0.1
    np.testing.assert_allclose(model.predict(X, verbose=0), plain.predict(X, verbose=0), atol=1e-5)


EQUATIONS = [
    ("abc,cd->abd", (6, 4), "d", (6, 5)),
    ("abc,dc->abd", (6, 4), "d", (6, 5)),  # output axis first
    ("...x,xy->...y", 4, "y", (6, 5)),
    ("ab...,bc->ac...", (4, 5), None, (6, 5)),
    ("abc,cde->abde", (6, 2, 3), "de", (6, 5)),
    ("abc,dce->abde", (6, 2, 3), "e", (6, 5)),  # the summed axis in the middle
    ("abc,bcd->ad", (4,), "d", (6, 5)),
    ("abc,cd->ad", (4,), None, (6, 5)),  # b is summed over, but is no axis of the kernel
]


@pytest.mark.parametrize(("equation", "shape", "bias", "inputs"), EQUATIONS)
def test_einsum_dense_of_any_matrix_form(equation, shape, bias, inputs):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input(inputs),
            layers.EinsumDense(equation, shape, "tanh", bias, bias_initializer="random_normal"),
        ]
    )
    layer, lora = model.layers[0], LoRA(model)
    base = model.predict(X, verbose=0)
    lora.add("a", 2, alpha=3)
    # two axes are summed here as one, in another order
    np.testing.assert_allclose(model.predict(X, verbose=0), base, atol=1e-6)
    randomise(lora)
    a, b = (v.numpy() for v in lora.trainable_variables)
    _, kernel, out = re.split(",|->", equation)
    r_in, r_out = ("".join(k for k in kernel if (k in out) is made) for made in (False, True))
    delta = 1.5 * np.einsum(f"{r_in}z,z{r_out}->{kernel}", a, b)
    expected = np.einsum(equation, X, layer.kernel.numpy() + delta) + (
        0 if layer.bias is None else layer.bias.numpy()
    )
    got = model.predict(X, verbose=0)
    np.testing.assert_allclose(got, np.tanh(expected), atol=1e-5)
    lora.merge()
    np.testing.assert_allclose(layer.kernel.numpy(), lora._originals[0] + delta, atol=1e-6)
    np.testing.assert_allclose(model.predict(X, verbose=0), got, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 2, 4, 8])
def test_count_and_scale_for_every_rank(rank):
    model = transformer()
    lora = LoRA(model)
    chosen = [path for path, size in SIZES.items() if min(size) >= rank]
    lora.add("a", rank, alpha=16, targets=[f"^{path}$" for path in chosen])
    assert (
        lora.count()
        == sum(rank * sum(SIZES[path]) for path in chosen)
        == sum(math.prod(v.shape) for v in model.trainable_variables)
    )
    lora.add("s", rank, alpha=16, targets=[f"^{path}$" for path in chosen], rank_stabilised=True)
    assert lora.adapter("a").scale == 16 / rank
    assert lora.adapter("s").scale == 16 / math.sqrt(rank)
    lora.add("default", rank, targets=[chosen[0]])
    assert lora.adapter("default").scale == 1


def test_a_layer_may_have_a_rank_of_its_own_under_the_same_scale(tmp_path):
    lora = LoRA(transformer())
    lora.add("a", 8, alpha=16, targets=["ff", "head"], rank_pattern={"head": 3})
    randomise(lora)
    assert lora.count() == 8 * (8 + 8) + 3 * (8 + 3)
    a, b = (v.numpy() for v in lora.trainable_variables[2:])
    np.testing.assert_allclose(lora.update()["head"], 2 * a @ b, rtol=1e-5, atol=1e-6)
    lora.save(tmp_path / "a.safetensors")
    again = LoRA(transformer())
    again.load(tmp_path / "a.safetensors", "b")
    assert np.array_equal(again.model.predict(X, verbose=0), lora.model.predict(X, verbose=0))
    with pytest.raises(InputError, match="rank 9: head is 8 x 3"):
        lora.add("c", 2, rank_pattern={"head": 9})


def test_a_layer_narrower_than_the_rank_has_as_much_as_it_has_room_for():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5,)), layers.Dense(16), layers.Dense(1)])
    lora = LoRA(model)
    lora.add("oil", rank=3, alpha=16)
    assert [tuple(v.shape) for v in lora.trainable_variables] == [(5, 3), (3, 16), (16, 1), (1, 1)]
    randomise(lora)
    a, b = (v.numpy().astype(np.float64) for v in lora.trainable_variables[2:])
    np.testing.assert_allclose(list(lora.update().values())[1], 16 / 3 * a @ b)
    lora.add("b", rank=5, rank_pattern={".*": 1})
    assert lora.count() == 5 + 16 + 16 + 1


def test_a_is_gaussian_with_variance_one_over_in_and_comes_from_the_seed():
    model = keras.Sequential([keras.Input((400,)), layers.Dense(300)])
    lora = LoRA(model)
    lora.add("a", 100, seed=1)
    a, b = (v.numpy() for v in lora.trainable_variables)
    assert not b.any()
    z = a.ravel() * math.sqrt(400)
    assert abs(z.mean()) < 0.02
    assert abs(z.var() - 1) < 0.03
    assert abs((z**4).mean() - 3) < 0.2  # a uniform distribution has 1.8
    lora.add("b", 100, seed=1)
    assert np.array_equal(lora.trainable_variables[0], a)
    lora.add("c", 100, seed=2)
    assert not np.array_equal(lora.trainable_variables[0], a)


# ---------------------------------------------------------------------------------- Keras' own LoRA


@pytest.mark.parametrize("equation", [None, "abc,cd->abd", "abc,cde->abde"])
def test_agrees_with_keras_forward_where_keras_is_right(equation):
    def make():
        keras.utils.set_random_seed(2)
        shape = (6, 2, 3) if equation and equation.endswith("abde") else (6, 4)
        layer = (
            layers.Dense(4, "relu")
            if equation is None
            else layers.EinsumDense(equation, shape, "relu")
        )
        return keras.Sequential([keras.Input((6, 5)), layer])

    theirs, ours = make(), make()
    theirs.layers[0].enable_lora(3, lora_alpha=6)
    lora = LoRA(ours)
    lora.add("a", 3, alpha=6)
    randomise(lora)
    layer, (a, b) = theirs.layers[0], (v.numpy() for v in lora.trainable_variables)
    if equation == "abc,cde->abde":
        # Keras has A (c, d, r) and B (r, e), which is not of rank r as a matrix c x de; with our A
        # on d = 0 and zeros elsewhere both are the same
        layer.lora_kernel_a.assign(np.stack([a, 0 * a], axis=1))
        layer.lora_kernel_b.assign(b[:, 0])
        lora.trainable_variables[1].assign(np.stack([b[:, 0], 0 * b[:, 0]], axis=1))
    else:
        layer.lora_kernel_a.assign(a)
        layer.lora_kernel_b.assign(b)
    np.testing.assert_allclose(ours.predict(X, verbose=0), theirs.predict(X, verbose=0), atol=1e-5)


def test_keras_dense_loses_alpha_ours_keeps_it():
    layer = layers.Dense(8, lora_rank=4, lora_alpha=16)
    layer.build((None, 5))
    assert layer.lora_alpha == 4
    model = keras.Sequential([keras.Input((5,)), layers.Dense(8)])
    lora = LoRA(model)
    lora.add("a", 4, alpha=16)
    randomise(lora)
    a, b = (v.numpy() for v in lora.trainable_variables)
    np.testing.assert_allclose(next(iter(lora.update().values())), 4 * a @ b, rtol=1e-5)


def test_keras_overwrites_the_base_on_save_ours_does_not(tmp_path):
    theirs = transformer()
    kernel = theirs.get_layer("ff").kernel.numpy()
    theirs.get_layer("ff").enable_lora(2)
    theirs.get_layer("ff").lora_kernel_b.assign(np.ones((2, 8)))
    theirs.save(tmp_path / "theirs.keras")
    assert not np.array_equal(
        keras.saving.load_model(tmp_path / "theirs.keras").get_layer("ff")._kernel, kernel
    )

    ours = transformer()
    lora = LoRA(ours)
    base = ours.predict(X, verbose=0)
    lora.add("a", 2)
    randomise(lora)
    adapted = ours.predict(X, verbose=0)
    ours.save(tmp_path / "ours.keras")
    assert np.array_equal(ours.predict(X, verbose=0), adapted)
    loaded = keras.saving.load_model(tmp_path / "ours.keras")
    assert same(values(loaded), values(transformer()))
    assert np.array_equal(loaded.predict(X, verbose=0), base)
    assert len(loaded.trainable_variables) == len(transformer().trainable_variables)
    lora.merge()
    merged = ours.predict(X, verbose=0)
    ours.save(tmp_path / "merged.keras")
    assert np.array_equal(
        keras.saving.load_model(tmp_path / "merged.keras").predict(X, verbose=0), merged
    )
    lora.unmerge()
    assert np.array_equal(ours.predict(X, verbose=0), adapted)


def test_keras_attention_forgets_its_lora_on_load_ours_does_not(tmp_path):
    theirs = transformer()
    theirs.get_layer("attention").query_dense.enable_lora(2)
    theirs.save(tmp_path / "theirs.keras")
    assert (
        not keras.saving.load_model(tmp_path / "theirs.keras")
        .get_layer("attention")
        .query_dense.lora_enabled
    )

    ours = LoRA(transformer())
    ours.add("a", 2, targets=["attention"])
    randomise(ours)
    ours.model.save(tmp_path / "ours.keras")
    ours.save(tmp_path / "a.safetensors")
    again = LoRA(keras.saving.load_model(tmp_path / "ours.keras"))
    again.load(tmp_path / "a.safetensors", "a")
    assert np.array_equal(again.model.predict(X, verbose=0), ours.model.predict(X, verbose=0))


def test_keras_trains_biases_and_norms_ours_does_not():
    theirs = transformer()
    for layer in LoRA(theirs).targets().values():
        layer.enable_lora(2)
    assert {"bias", "gamma", "beta"} < {v.name for v in theirs.trainable_variables}
    lora = LoRA(transformer())
    lora.add("a", 2)
    assert {v.name for v in lora.model.trainable_variables} == {"lora_a", "lora_b"}


# ----------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("jit_compile", [False, True])
def test_fit_trains_the_adapter_alone(jit_compile):
    model = transformer(normalise=True)
    before = values(model)
    lora = LoRA(model)
    lora.add("a", 2)
    start = [v.numpy() for v in lora.trainable_variables]
    losses = fit(model, jit_compile=jit_compile)
    assert losses[-1] < losses[0]
    assert all(
        not np.array_equal(v, old) for v, old in zip(lora.trainable_variables, start, strict=True)
    )
    lora.activate(None)
    assert same(values(model), before)


def test_gradients_of_a_tape_are_those_of_the_formula():
    model = keras.Sequential([keras.Input((5,)), layers.Dense(4)])
    lora = LoRA(model)
    lora.add("a", 2, alpha=6)
    randomise(lora)
    assert [id(v) for v in model.trainable_variables] == [id(v) for v in lora.trainable_variables]
    x = X[:, 0]

    @tf.function
    def gradients():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x) ** 2) / 2
        return tape.gradient(loss, model.trainable_variables)

    a, b = (v.numpy() for v in lora.trainable_variables)
    h = model.predict(x, verbose=0)
    for got, expected in zip(gradients(), (3 * x.T @ h @ b.T, 3 * (x @ a).T @ h), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_a_layer_that_the_user_froze_still_gets_a_trainable_adapter():
    model = transformer()
    model.get_layer("ff").trainable = False
    was = [w.trainable for w in model.weights]
    lora = LoRA(model)
    lora.add("a", 2, targets=["ff"])
    assert len(model.trainable_variables) == 2
    assert lora.detach() is model
    assert [w.trainable for w in model.weights] == was
    assert model.get_layer("ff").trainable is False


def test_switching_inside_fit_and_after_compiling():
    model = transformer()
    lora = LoRA(model)
    base = model.predict(X, verbose=0)
    lora.add("a", 2)
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            with lora.disabled():
                seen.append(np.array_equal(model.predict(X, verbose=0), base))

    model.compile("adam", "mse")
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[Watch()])
    assert seen == [True, True]


# ---------------------------------------------------------------------------- merging and switching


def test_merge_agrees_and_unmerge_restores_every_bit():
    model = transformer()
    before = values(model)
    lora = LoRA(model)
    digest = lora.base_sha256
    outputs = {}
    for seed, name in enumerate(("a", "b")):
        lora.add(name, 3, alpha=4)
        randomise(lora, seed)
        outputs[name] = model.predict(X, verbose=0)
    for _ in range(3):
        for name in ("a", "b"):
            lora.activate(name)
            lora.merge()
            assert lora.merged
            assert model.trainable_variables == []
            assert not same(values(model), before)
            assert lora.digest() == digest
            np.testing.assert_allclose(model.predict(X, verbose=0), outputs[name], atol=5e-6)
            lora.unmerge()
            assert np.array_equal(model.predict(X, verbose=0), outputs[name])
    lora.merge()
    with lora.disabled():
        assert same(values(model), before)
    assert lora.merged
    lora.activate("a")  # unmerges b
    assert np.array_equal(model.predict(X, verbose=0), outputs["a"])
    lora.merge()
    lora.detach()
    assert same(values(model), before)
    assert not any("call" in vars(layer) for layer in model._flatten_layers())
    assert len(model.trainable_variables) == len(transformer().trainable_variables)


def test_adapters_switch_back_and_forth():
    model = transformer()
    lora = LoRA(model)
    expected: dict[str | None, np.ndarray] = {None: model.predict(X, verbose=0)}
    patterns = {"all": None, "attention": ["attention"], "dense": ["ff", "head"]}
    for seed, (adapter, targets) in enumerate(patterns.items()):
        lora.add(adapter, 2, targets=targets)
        randomise(lora, seed)
        expected[adapter] = model.predict(X, verbose=0)
    assert lora.names == ("all", "attention", "dense")
    order = ("all", None, "dense", "attention", "all", "dense", None, "attention")
    for name in order:
        lora.activate(name)
        assert np.array_equal(model.predict(X, verbose=0), expected[name])
        assert len(model.trainable_variables) == len(lora.trainable_variables)


def test_targets_by_regular_expression():
    lora = LoRA(transformer())
    lora.add("a", 2, targets=["^attention/"])
    assert set(lora.update()) == {path for path in SIZES if path.startswith("attention/")}
    lora.add("b", 2, targets=["query$", "ff"])
    assert set(lora.update()) == {"attention/query", "ff"}
    assert lora.count("b") == 2 * 2 * (8 + 8)


# -------------------------------------------------------------------------------------------- files

FRESH = """
import sys, keras, numpy as np
from pathlib import Path
from assignment4.lora import LoRA
folder = Path(sys.argv[1])
lora = LoRA(keras.saving.load_model(folder / "base.keras"))
lora.load(folder / "a.safetensors", "a")
np.save(folder / "fresh.npy", lora.model.predict(np.load(folder / "x.npy"), verbose=0))
"""


def test_adapter_file_in_this_process_and_in_a_fresh_one(tmp_path):
    model = transformer()
    lora = LoRA(model, base_name="small transformer")
    lora.add("a", 2, alpha=8, rank_stabilised=True)
    fit(model)
    trained = model.predict(X, verbose=0)
    lora.save(tmp_path / "a.safetensors")
    assert (
        sum((tmp_path / name).stat().st_size for name in ("a.safetensors", "a.json"))
        <= 4 * lora.count() + 4096
    )
    facts = json.loads((tmp_path / "a.json").read_text())
    assert (facts["base"], facts["base_name"], facts["rank"], facts["alpha"]) == (
        lora.base_sha256,
        "small transformer",
        2,
        8,
    )
    assert facts["trained_weights"] == lora.count() == 2 * sum(map(sum, SIZES.values()))
    assert {path: tuple(size) for path, (_, *size, _) in facts["targets"].items()} == SIZES
    assert [(position, rank) for position, *_, rank in facts["targets"].values()] == [
        (position, 2) for position in range(len(SIZES))
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "a.safetensors"]

    lora.activate(None)
    lora.load(tmp_path / "a.safetensors", "b")
    assert lora.names == ("a", "b")
    assert np.array_equal(model.predict(X, verbose=0), trained)
    transformer().save(tmp_path / "base.keras")
    np.save(tmp_path / "x.npy", X)
    process = subprocess.run(
        [sys.executable, "-c", FRESH, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.returncode == 0, process.stderr
    assert np.array_equal(np.load(tmp_path / "fresh.npy"), trained)


def test_adapter_finds_its_layers_when_keras_numbers_them_anew(tmp_path):
    def make():
        keras.utils.set_random_seed(0)
        return keras.Sequential([keras.Input((5,)), layers.Dense(6, "tanh"), layers.Dense(4)])

    first, second = LoRA(make()), LoRA(make())
    assert first.base_sha256 == second.base_sha256
    assert set(first.targets()).isdisjoint(second.targets())
    first.add("a", 2)
    randomise(first)
    first.save(tmp_path / "a.safetensors")
    second.load(tmp_path / "a.safetensors", "a")
    assert np.array_equal(
        first.model.predict(X[:, 0], verbose=0), second.model.predict(X[:, 0], verbose=0)
    )


# --------------------------------------------------------------------------------------- bad inputs


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"name": "a"}, "an adapter a is there already"),
        ({"rank": 0, "targets": ["embed"]}, "rank 0: embed is 5 x 8, so its rank goes from 1 to 5"),
        ({"rank": 4, "targets": ["head"]}, "rank 4: head is 8 x 3, so its rank goes from 1 to 3; "),
        ({"rank": 9, "targets": ["ff"]}, "rank 9: ff is 8 x 8, so its rank goes from 1 to 8"),
        ({"rank": 9}, "from 1 to 8; targets= names other layers, and rank_pattern= gives single"),
        ({"rank": 4, "rank_pattern": {"head": 4}}, "rank 4: head is 8 x 3"),
        ({"alpha": 0}, "alpha 0"),
        ({"alpha": -1.0}, "alpha -1.0"),
        ({"alpha": math.nan}, "alpha nan"),
        ({"alpha": math.inf}, "alpha inf"),
        (
            {"targets": ["ff", "nothing"]},
            "targets: nothing matches no layer; the layers are embed, ",
        ),
        ({"targets": ["("]}, "targets: ( is no regular expression"),
        ({"targets": []}, "targets: no pattern given"),
    ],
)
def test_bad_adds(words, message):
    model = transformer()
    lora = LoRA(model)
    lora.add("a", 2)
    before = model.predict(X, verbose=0)
    with pytest.raises(InputError, match=re.escape(message)):
        lora.add(**({"name": "b", "rank": 2} | words))
    assert lora.names == ("a",)
    assert lora.active == "a"
    assert np.array_equal(model.predict(X, verbose=0), before)


def single(layer: layers.Layer, shape: tuple[int, ...] = (6, 5)) -> keras.Model:
    return keras.Sequential([keras.Input(shape), layer])


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            lambda: layers.EinsumDense("abc,bcd->abd", (6, 4), name="batched"),
            "batched: abc,bcd->abd cannot be split",
        ),
        (
            lambda: layers.Dense(4, dtype="mixed_float16", name="half"),
            "half computes in mixed_float16",
        ),
        (lambda: layers.Dense(4, lora_rank=2, name="theirs"), "theirs has Keras' own LoRA"),
    ],
)
def test_layers_that_are_refused_by_name(layer, message):
    lora = LoRA(single(layer()))
    with pytest.raises(InputError, match=re.escape(message)):
        lora.add("a", 1)


def frozen() -> None:
    model = transformer()
    model.trainable = False
    LoRA(model).add("a", 2)


def twice() -> None:
    model = transformer()
    LoRA(model).add("a", 2)
    LoRA(model)


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (
            lambda: LoRA(keras.Sequential([layers.Dense(4, name="unbuilt")])),
            "unbuilt has no weights to adapt yet",
        ),
        (
            lambda: LoRA(single(layers.LSTM(8))),
            "Conv or Embedding layer, so LoRA has nothing to adapt; it is made of LSTM",
        ),
        (
            lambda: LoRA(keras.Sequential([layers.LSTM(8)], name="unknown")),
            "unknown has no weights to adapt yet",
        ),
        (frozen, "small.trainable is False"),
        (twice, "small has an adapter of another LoRA"),
        (lambda: LoRA(transformer()).activate("a"), "no adapter a; there are: none"),
        (lambda: LoRA(transformer()).merge(), "no adapter is active"),
        (lambda: LoRA(transformer()).unmerge(), "no adapter is merged"),
        (lambda: LoRA(transformer()).count(), "no adapter is active"),
        (lambda: LoRA(transformer()).update("a"), "no adapter a"),
        (lambda: LoRA(transformer()).save(Path("a.safetensors")), "no adapter is active"),
    ],
)
def test_bad_uses(work, message):
    with pytest.raises(InputError, match=re.escape(message)):
        work()


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> dict[str, bytes]:
    """The two files of an adapter."""
    folder = tmp_path_factory.mktemp("adapter")
    lora = LoRA(transformer())
    lora.add("a", 2)
    lora.save(folder / "a.safetensors")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def change(**facts: object):
    def edit(folder: Path) -> None:
        file = folder / "a.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | facts))

    return edit


def shorten(folder: Path) -> None:
    """One factor fewer, with the digest put right."""
    factors = load_file(folder / "a.safetensors")["factors"]
    save_file({"factors": factors[1:]}, folder / "a.safetensors")
    change(safetensors=hashlib.sha256((folder / "a.safetensors").read_bytes()).hexdigest())(folder)


def retarget(*embed: int):
    """Replaces the first layer's position, in, out and rank in the file."""

    def edit(folder: Path) -> None:
        change(
            targets=json.loads((folder / "a.json").read_text())["targets"] | {"embed": list(embed)}
        )(folder)

    return edit


def rewrite(name: str, work):
    return lambda folder: (folder / name).write_bytes(work((folder / name).read_bytes()))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "a.safetensors").unlink(), "a.safetensors is not there"),
        (lambda folder: (folder / "a.json").unlink(), "a.json is not there"),
        (rewrite("a.json", lambda text: text[:200]), "a.json is damaged"),
        (rewrite("a.json", lambda text: b"[]"), "a.json is damaged"),
        (rewrite("a.json", lambda text: b"\xff\xfe"), "a.json is damaged"),
        (change(rank="2"), "a.json is damaged"),
        (retarget(0, 5), "a.json is damaged"),
        (rewrite("a.safetensors", lambda content: content[:-4]), "a.safetensors is damaged"),
        (rewrite("a.safetensors", lambda content: content[:4]), "a.safetensors is damaged"),
        (
            rewrite("a.safetensors", lambda content: content[:-1] + b"\x01"),
            "a.safetensors is damaged",
        ),
        (change(format=3), "a.json has format 3; the formats 1 and 2 can be read"),
        (change(base="0" * 64), f"was trained on the base {'0' * 64}, this base is "),
        (shorten, "holds factors of shape (207,); a.json speaks of 208 weights"),
        (retarget(0, 5, 8, 3), "holds factors of shape (208,); a.json speaks of 221 weights"),
        (retarget(0, 8, 5, 2), "embed is 8 x 5 in the file; the model's is 5 x 8"),
        (retarget(70, 5, 8, 2), "adapts embed, layer 70; this model has the layers 0 to 6"),
    ],
)
def test_bad_adapter_files(tmp_path, adapter, damage, message):
    for name, content in adapter.items():
        (tmp_path / name).write_bytes(content)
    damage(tmp_path)
    lora = LoRA(transformer())
    with pytest.raises(InputError, match=re.escape(message)):
        lora.load(tmp_path / "a.safetensors", "a")
    assert lora.names == ()
    assert len(lora.model.trainable_variables) == len(transformer().trainable_variables)


def test_another_base_a_taken_name_and_bad_places(tmp_path, adapter):
    for name, content in adapter.items():
        (tmp_path / name).write_bytes(content)
    other, lora = LoRA(transformer(seed=1)), LoRA(transformer())
    with pytest.raises(InputError, match=f"{lora.base_sha256}, this base is {other.base_sha256}"):
        other.load(tmp_path / "a.safetensors", "a")
    lora.load(tmp_path / "a.safetensors", "a")
    with pytest.raises(InputError, match="an adapter a is there already"):
        lora.load(tmp_path / "a.safetensors", "a")
    with pytest.raises(InputError, match=r"ends in \.safetensors"):
        lora.save(tmp_path / "a.npz")
    with pytest.raises(InputError, match="cannot be written"):
        lora.save(tmp_path / "missing" / "a.safetensors")
    lora.model.get_layer("norm").gamma.assign(np.zeros(8))
    with pytest.raises(InputError, match="it is not saved; say which of the two"):
        lora.save(tmp_path / "b.safetensors")
    with pytest.raises(InputError, match="say which of the two"):
        lora.save(tmp_path / "b.safetensors", base="0" * 64)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "a.safetensors"]
    # whoever knows which weights it was trained on can save it
    for base in (lora.base_sha256, lora.digest()):
        lora.save(tmp_path / "b.safetensors", base=base)
        assert json.loads((tmp_path / "b.json").read_text())["base"] == base


# -------------------------------------------------------------------------------------- quantised


def regression() -> tuple[keras.Model, LoRA]:
    """A network of five inputs, and an adapter on it that was trained."""
    keras.utils.set_random_seed(0)
    hidden = layers.Dense(16, "relu", name="hidden")
    model = keras.Sequential([keras.Input((5,)), hidden, layers.Dense(1, name="out")])
    lora = LoRA(model)
    lora.add("a", rank=1)
    randomise(lora)
    return model, lora


@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
def test_quantising_past_an_adapter_is_refused(tmp_path, mode):
    model, lora = regression()
    x = X[:, 0]
    adapted = model.predict(x, verbose=0)
    for part in (model, model.get_layer("hidden")):
        with pytest.raises(InputError, match=r"adapter a is on, .* call merge\(\) first"):
            part.quantize(mode)
    assert np.array_equal(model.predict(x, verbose=0), adapted)
    lora.save(tmp_path / "a.safetensors")
    # without the adapter Keras' own method is back
    with warnings.catch_warnings(action="ignore"):
        lora.detach().quantize("int8")
    assert model.get_layer("hidden").quantization_mode == "int8"


@pytest.mark.filterwarnings("ignore:Layer InputLayer")  # Keras on its own
def test_a_merged_adapter_is_quantised_with_the_base_and_can_still_be_saved(tmp_path):
    model, lora = regression()
    x = X[:, 0]
    adapted = model.predict(x, verbose=0)
    lora.save(tmp_path / "before.safetensors")
    lora.merge()
    model.quantize("int8")
    quantised = model.predict(x, verbose=0)
    np.testing.assert_allclose(quantised, adapted, atol=0.05 * np.abs(adapted).max())
    lora.save(tmp_path / "after.safetensors")
    before, after = ((tmp_path / f"{name}.json").read_text() for name in ("before", "after"))
    assert before == after
    for change in (lora.unmerge, lora.detach, lambda: lora.activate(None)):
        with pytest.raises(InputError, match="hidden is quantised to int8, so that no adapter can"):
            change()
    assert np.array_equal(model.predict(x, verbose=0), quantised)
    again, other = regression()
    other.detach()
    other = LoRA(again)
    other.load(tmp_path / "after.safetensors", "a")
    assert np.array_equal(again.predict(x, verbose=0), adapted)


@pytest.mark.filterwarnings("ignore:Layer InputLayer")  # Keras on its own
def test_a_base_that_is_quantised_alone_leaves_its_adapters_to_be_saved(tmp_path):
    model, lora = regression()
    lora.activate(None)
    model.quantize("int8")
    with pytest.raises(InputError, match="is quantised to int8"):
        lora.activate("a")
    lora.save(tmp_path / "a.safetensors", "a")
    assert json.loads((tmp_path / "a.json").read_text())["base"] == lora.base_sha256


# ------------------------------------------------------------------------------------- checkpoints


def test_a_checkpoint_of_the_adapter_keeps_the_best_epoch(tmp_path):
    model, lora = regression()
    model.compile(keras.optimizers.Adam(0.5), "mse")  # so fast that the last epoch is not the best
    x, y = X[:, 0], 3 * X[:, 0, :1]
    best = AdapterCheckpoint(lora, tmp_path / "best.safetensors")
    last = keras.callbacks.ModelCheckpoint(tmp_path / "last.weights.h5", save_weights_only=True)
    fitted = model.fit(x, y, validation_data=(x, y), epochs=12, verbose=0, callbacks=[best, last])
    losses = fitted.history["val_loss"]
    assert best.best == min(losses) < losses[-1]
    lora.load(tmp_path / "best.safetensors", "best")
    assert model.evaluate(x, y, verbose=0) == pytest.approx(min(losses), rel=1e-5)
    # Keras' weights file holds the base
    base, other = regression()
    other.detach()
    base.load_weights(tmp_path / "last.weights.h5")
    assert LoRA(base).base_sha256 == lora.base_sha256


def test_a_checkpoint_can_follow_any_value_of_the_logs(tmp_path):
    model, lora = regression()
    checkpoint = AdapterCheckpoint(lora, tmp_path / "a.safetensors", "r2", larger_is_better=True)
    checkpoint.set_model(model)
    for epoch, value in enumerate((0.1, 0.3, 0.2)):
        checkpoint.on_epoch_end(epoch, {"r2": value})
    assert checkpoint.best == 0.3
    with pytest.raises(InputError, match="monitor r2: the logs have loss"):
        checkpoint.on_epoch_end(3, {"loss": 1.0})
    with pytest.raises(InputError, match=r"ends in \.safetensors"):
        AdapterCheckpoint(lora, tmp_path / "a.h5")
