"""DoRA, PiSSA, dropout, patterns, weights trained whole, convolutions, embeddings, int8, swapping.

Each is compared with its formula in numpy or with the plain network of the effective weights.
"""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from assignment3.optimiser import VectorOptimiser
from assignment4.lora import LoRA, lora_plus, lora_plus_rates
from common.cli import InputError
from tests.assignment4.test_lora import ROUNDING, X, Y, fit, randomise, same, transformer, values

# Keras' quantize on its own
pytestmark = pytest.mark.filterwarnings("ignore:Layer .* does not have a .quantize.")
RNG = np.random.default_rng(5)
IMAGES = RNG.normal(size=(4, 9, 9, 3)).astype(np.float32)
TOKENS = RNG.integers(0, 20, (4, 7))


def dense(units: int = 7) -> keras.Model:
    keras.utils.set_random_seed(1)
    layer = layers.Dense(units, "tanh", bias_initializer="random_normal", name="d")
    return keras.Sequential([keras.Input((5,)), layer])


def convolutions() -> keras.Model:
    keras.utils.set_random_seed(2)
    return keras.Sequential(
        [
            keras.Input((9, 9, 3)),
            layers.Conv2D(6, 3, 2, "same", activation="relu", name="two"),
            layers.Reshape((25, 6)),
            layers.Conv1D(5, 2, padding="causal", dilation_rate=2, name="one"),
            layers.Dense(3, name="head"),
        ]
    )


def words() -> keras.Model:
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [keras.Input((7,), dtype="int32"), layers.Embedding(20, 8, name="table"), layers.Dense(3)]
    )


def inputs_of(model: keras.Model) -> np.ndarray:
    shape = model.input_shape[1:]
    return {(5,): X[:, 0], (9, 9, 3): IMAGES, (7,): TOKENS, (6, 5): X}[shape]


def tuned(lora: LoRA, seed: int = 0) -> None:
    """Moves what the active adapter trains as if it had been trained."""
    rng = np.random.default_rng(seed)
    for variable in lora.trainable_variables:
        variable.assign_add(rng.normal(0, 0.2, variable.shape))


BUILDS = [dense, transformer, convolutions, words]
VARIANTS = [{}, {"dora": True}, {"start": "pissa"}, {"dora": True, "start": "pissa"}]


# ------------------------------------------------------------------- every variant on every layer


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("build", BUILDS)
def test_start_merge_off_files_and_effective_weights(build, options, tmp_path):
    model = build()
    x = inputs_of(model)
    before, base = values(model), model.predict(x, verbose=0)
    lora = LoRA(model)
    lora.add("a", 2, alpha=3, targets=[".*"], **options)

    # the function at the start
    np.testing.assert_allclose(model.predict(x, verbose=0), base, atol=2e-6)
    tuned(lora)
    adapted = model.predict(x, verbose=0)
    assert np.abs(adapted - base).max() > 0.05

    # the update is what is merged, and unmerging puts every bit back
    digest = lora.digest()
    assert digest == lora.base_sha256
    updates = lora.update()
    lora.merge()
    np.testing.assert_allclose(model.predict(x, verbose=0), adapted, atol=1e-5)
    merged = {path: layer.get_weights()[0] for path, layer in lora.targets().items()}
    assert lora.digest() == digest
    lora.unmerge()
    assert np.array_equal(model.predict(x, verbose=0), adapted)
    lora.activate(None)
    assert same(values(model), before)
    for path, layer in lora.targets().items():
        kernel = layer.get_weights()[0]
        np.testing.assert_allclose(
            merged[path], kernel + updates[path].reshape(kernel.shape), atol=1e-6
        )

    # a file goes onto a base of its own
    lora.save(tmp_path / "a.safetensors", "a")
    other = LoRA(build())
    other.load(tmp_path / "a.safetensors", "b")
    np.testing.assert_allclose(other.model.predict(x, verbose=0), adapted, atol=1e-5)
    lora.activate("a")
    lora.detach()
    assert same(values(model), before)


# --------------------------------------------------------------------------------- DoRA and PiSSA


def test_dora_trains_a_unit_whose_weights_are_all_zero():
    """Its direction is 0 / 0; a head that starts at zero has such units."""
    model = dense()
    kernel = model.get_layer("d").kernel
    kernel.assign(kernel.numpy() * (np.arange(7) != 3))
    base = model.predict(X[:, 0], verbose=0)
    lora = LoRA(model)
    lora.add("a", 2, dora=True)
    np.testing.assert_allclose(model.predict(X[:, 0], verbose=0), base, atol=2e-6)
    model.compile(keras.optimizers.Adam(0.05), "mse")
    model.fit(X[:, 0], np.ones((len(X), 7)), epochs=4, verbose=0)
    assert all(np.isfinite(variable).all() for variable in lora.trainable_variables)
    adapted = model.predict(X[:, 0], verbose=0)
    assert np.ptp(adapted[:, 3]) > 1e-3  # it answers to its input now
    lora.merge()
    np.testing.assert_allclose(model.predict(X[:, 0], verbose=0), adapted, atol=1e-5)


def test_dora_is_its_formula_and_its_norm_is_a_constant_of_the_gradient():
    model = dense()
    layer = model.get_layer("d")
    lora = LoRA(model)
    lora.add("a", 2, alpha=6, dora=True)
    tuned(lora)
    x = X[:, 0].astype(np.float64)
    w, bias = (v.numpy().astype(np.float64) for v in (layer.kernel, layer.bias))
    a, b, m = (v.numpy().astype(np.float64) for v in lora.trainable_variables)
    assert lora.count() == a.size + b.size + 7
    direction = w + 3 * a @ b
    norm = np.linalg.norm(direction, axis=0)
    np.testing.assert_allclose(
        model.predict(X[:, 0], verbose=0), np.tanh(x @ (m / norm * direction) + bias), atol=1e-5
    )

    # equation 11: with C = ||V|| held constant, dL/dV = (m / C) dL/dW'
    with tf.GradientTape() as tape:
        h = model(X[:, 0])
        loss = tf.reduce_sum(h**2) / 2
    of_h = h.numpy() * (1 - h.numpy() ** 2)
    of_w = x.T @ of_h
    of_v = m / norm * of_w
    expected = (3 * of_v @ b.T, 3 * a.T @ of_v, (of_w * direction).sum(0) / norm)
    for got, want in zip(tape.gradient(loss, lora.trainable_variables), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)


def test_pissa_starts_from_the_principal_part_and_the_residual_is_the_rest():
    model = dense()
    kernel = model.get_layer("d").kernel.numpy().astype(np.float64)
    lora = LoRA(model)
    lora.add("a", 2, alpha=6, start="pissa")
    a, b = (v.numpy().astype(np.float64) for v in lora.trainable_variables)
    left, singular, right = np.linalg.svd(kernel, full_matrices=False)
    principal = left[:, :2] * singular[:2] @ right[:2]
    np.testing.assert_allclose(3 * a @ b, principal, atol=1e-6)
    factors = lora.adapter("a").factors["d"]
    np.testing.assert_allclose(factors.residual.numpy(), kernel - principal, atol=1e-6)
    assert np.abs(lora.update()["d"]).max() < 1e-6

    # training moves A and B by the gradient through x W_residual + s x A B
    losses = fit_small(model)
    assert losses[-1] < losses[0]
    assert np.array_equal(model.get_layer("d").kernel.numpy(), kernel.astype(np.float32))


def fit_small(model: keras.Model) -> list[float]:
    x = inputs_of(model)
    model.compile(keras.optimizers.Adam(0.02), "mse")
    y = np.zeros(model(x).shape)
    return model.fit(x, y, epochs=3, verbose=0, shuffle=False).history["loss"]


# ------------------------------------------------------------------------------ dropout and alphas


@pytest.mark.parametrize("jit_compile", [False, True])
def test_dropout_is_on_the_adapters_input_in_training_alone(jit_compile):
    model = keras.Sequential([keras.Input((400,)), layers.Dense(3, name="d")])
    lora = LoRA(model)
    lora.add("a", 2, dropout=0.5)
    tuned(lora)
    x = np.ones((2000, 400), np.float32)
    plain = model.predict(x, verbose=0)
    assert np.array_equal(model.predict(x, verbose=0), plain)
    run = tf.function(lambda: model(x, training=True), jit_compile=jit_compile)
    first, second = run().numpy(), run().numpy()
    assert not np.array_equal(first, second)

    # unbiased, and x W itself has no noise: the deviation is that of s (x A) B alone
    np.testing.assert_allclose(first.mean(0), plain[0], atol=0.5)
    update = lora.update()["d"]
    np.testing.assert_allclose(first.std(0), np.linalg.norm(update, axis=0), rtol=0.1)


def test_dropout_reaches_convolutions_and_fit():
    model = convolutions()
    lora = LoRA(model)
    lora.add("a", 2, targets=["one", "two"], dropout=0.3)
    tuned(lora)
    first, second = (model(IMAGES, training=True).numpy() for _ in range(2))
    assert not np.array_equal(first, second)
    assert np.array_equal(model(IMAGES), model(IMAGES))
    assert fit_small(model)


def test_alpha_patterns_are_scales_of_single_layers(tmp_path):
    lora = LoRA(transformer())
    lora.add("a", 2, alpha=4, alpha_pattern={"^ff$": 10, "f": 7}, rank_pattern={"ff": 3})
    randomise(lora)
    for path, factors in lora.adapter("a").factors.items():
        a, b = factors.matrices()
        scale = 5 if path == "ff" else 2
        np.testing.assert_allclose(lora.update()[path], scale * a @ b, rtol=1e-6)
    out = lora.model.predict(X, verbose=0)
    lora.save(tmp_path / "a.safetensors")
    again = LoRA(transformer())
    again.load(tmp_path / "a.safetensors", "a")
    assert np.array_equal(again.model.predict(X, verbose=0), out)


# ---------------------------------------------------------------------------- weights trained whole


def test_modules_to_save_belong_to_their_adapter(tmp_path):
    model = transformer(normalise=True)
    before, base = values(model), model.predict(X, verbose=0)
    lora = LoRA(model)
    lora.add("a", 2, modules_to_save=["^head$", "norm"])
    names = [v.path.split("/")[-2:] for v in lora.trainable_variables]
    assert {tuple(name) for name in names if name[0] in ("head", "norm", "batch_norm")} == {
        ("head", "kernel"),
        ("head", "bias"),
        ("norm", "gamma"),
        ("norm", "beta"),
        ("batch_norm", "gamma"),
        ("batch_norm", "beta"),
    }
    assert "head" not in lora.update()
    assert np.allclose(model.predict(X, verbose=0), base, rtol=0, atol=ROUNDING)
    losses = fit(model)
    assert losses[-1] < losses[0]
    trained = model.predict(X, verbose=0)
    assert not np.array_equal(
        model.get_layer("head").kernel, transformer().get_layer("head").kernel
    )
    assert lora.digest() == lora.base_sha256
    lora.save(tmp_path / "a.safetensors")

    # off, another one, back, merged and off again
    with lora.disabled():
        assert same(values(model), before)
    lora.add("b", 2, targets=["ff"])
    assert np.array_equal(model.predict(X, verbose=0), base)
    assert len(lora.trainable_variables) == 2
    lora.activate("a")
    assert np.array_equal(model.predict(X, verbose=0), trained)
    lora.merge()
    assert model.trainable_variables == []
    np.testing.assert_allclose(model.predict(X, verbose=0), trained, atol=1e-5)
    lora.detach()
    assert same(values(model), before)
    lora = LoRA(model)
    lora.load(tmp_path / "a.safetensors", "a")
    assert np.array_equal(model.predict(X, verbose=0), trained)
    assert len(lora.trainable_variables) == len(names)


@pytest.mark.parametrize(
    ("bias", "trained"),
    [("none", set()), ("lora_only", {"ff/bias"}), ("all", None)],
)
def test_bias_says_which_biases_are_trained(bias, trained):
    model = transformer()
    every = {v.path for v in model.weights if v.name in ("bias", "beta")}
    lora = LoRA(model)
    lora.add("a", 2, targets=["ff"], bias=bias)
    got = {v.path for v in lora.trainable_variables if not v.name.startswith("lora")}
    assert {path.split("small/")[-1] for path in got} == (every if trained is None else trained)
    fit(model)
    lora.activate(None)
    assert same(values(model), values(transformer()))


# ----------------------------------------------------------------------- convolutions, embeddings


def test_a_convolutions_factors_are_a_convolution_and_a_product():
    model = convolutions()
    lora = LoRA(model)
    lora.add("a", 2, targets=["two"])
    randomise(lora)
    a, b = lora.trainable_variables
    assert (a.shape, b.shape) == ((3, 3, 3, 2), (2, 6))
    delta = np.einsum("hwir,ro->hwio", a.numpy(), b.numpy())
    plain = convolutions()
    plain.get_layer("two").kernel.assign_add(delta)
    np.testing.assert_allclose(
        model.predict(IMAGES, verbose=0), plain.predict(IMAGES, verbose=0), atol=1e-5
    )


def test_embeddings_are_adapted_by_name_and_only_where_an_index_points():
    model = words()
    lora = LoRA(model)
    lora.add("without", 2)
    assert "table" not in lora.update()
    lora.add("a", 2, targets=["table"])
    fit_small(model)
    a, b = lora.trainable_variables
    assert (a.shape, b.shape) == ((20, 2), (2, 8))
    seen = np.isin(np.arange(20), TOKENS)
    assert 0 < seen.sum() < 20
    changed = np.abs(lora.update()["table"]).max(1) > 0
    assert np.array_equal(changed, seen)


# ----------------------------------------------------------------------------------------- mixing


@pytest.mark.parametrize("rank", [None, 1, 3])
def test_a_mix_is_the_weighted_sum_of_the_updates(rank, tmp_path):
    model = transformer()
    lora = LoRA(model)
    lora.add("a", 2, alpha=5)
    tuned(lora, 0)
    lora.add("b", 1, alpha=3, rank_stabilised=True, targets=["ff", "head"], alpha_pattern={"ff": 9})
    tuned(lora, 1)
    lora.add("c", 1, start="pissa", targets=["ff"])
    tuned(lora, 2)
    shares = {"a": 0.3, "b": -1.2, "c": 0.5}
    updates = {name: lora.update(name) for name in shares}
    lora.combine("mix", shares, rank)
    assert lora.active == "mix"
    for path, update in lora.update().items():
        parts = [
            share * updates[name][path] for name, share in shares.items() if path in updates[name]
        ]
        exact = sum(parts)
        left, values_, right = np.linalg.svd(exact, full_matrices=False)
        best = exact if rank is None else left[:, :rank] * values_[:rank] @ right[:rank]
        np.testing.assert_allclose(update, best, atol=2e-6)
    ranks = {path: each.rank for path, each in lora.adapter().factors.items()}
    if rank is None:
        assert ranks["embed"] == 2
        assert ranks["ff"] == 2 + 1 + 2  # that of PiSSA counts twice
        assert ranks["head"] == 3
    else:
        assert set(ranks.values()) == {rank}
    out = model.predict(X, verbose=0)
    lora.save(tmp_path / "mix.safetensors")
    again = LoRA(transformer())
    again.load(tmp_path / "mix.safetensors", "a")
    np.testing.assert_allclose(again.model.predict(X, verbose=0), out, atol=1e-6)


def test_a_mix_of_one_is_the_adapter_and_whole_weights_are_mixed_too():
    model = transformer()
    lora = LoRA(model)
    heads = {}
    for seed, name in enumerate(("a", "b")):
        lora.add(name, 2, targets=["ff"], modules_to_save=["^head$"])
        tuned(lora, seed)
        heads[name] = model.get_layer("head").kernel.numpy()
    out = model.predict(X, verbose=0)
    lora.combine("same", {"b": 1.0})
    np.testing.assert_allclose(model.predict(X, verbose=0), out, atol=1e-6)
    lora.combine("mean", {"a": 0.5, "b": 0.5})
    mean = (heads["a"] + heads["b"]) / 2
    np.testing.assert_allclose(model.get_layer("head").kernel, mean, atol=1e-6)
    lora.add("d", 2, targets=["ff"], dora=True)
    for shares, rank, message in (
        ({"d": 1.0}, None, "adapter d is DoRA"),
        ({"a": np.nan}, None, "each a finite number"),
        ({}, None, "at least one"),
        ({"a": 1.0}, 0, "rank 0"),
        ({"none": 1.0}, None, "no adapter none"),
    ):
        with pytest.raises(InputError, match=message):
            lora.combine("x", shares, rank)


# --------------------------------------------------------------------------------------- swapping


@pytest.mark.parametrize("options", [*VARIANTS, {"modules_to_save": ["head"]}], ids=str)
def test_swap_changes_the_adapter_without_a_new_trace(options):
    model = transformer()
    lora = LoRA(model)
    expected = {}
    for seed, name in enumerate(("a", "b")):
        lora.add(name, 2, alpha=3 + seed, targets=["ff|embed"], **options)
        tuned(lora, seed)
        expected[name] = model.predict(X, verbose=0)
    updates = {name: lora.update(name) for name in ("a", "b")}
    traces = []

    @tf.function
    def forward(x):
        traces.append(1)
        return model(x)

    for name in ("b", "a", "b", "a"):
        lora.swap(name)
        assert lora.active == name
        np.testing.assert_allclose(forward(X), expected[name], atol=1e-6)
        for other in ("a", "b"):
            for path, update in lora.update(other).items():
                np.testing.assert_array_equal(update, updates[other][path])
    assert len(traces) == 1
    lora.activate("b")
    assert np.array_equal(model.predict(X, verbose=0), expected["b"])
    lora.activate(None)
    assert same(values(model), values(transformer()))


def test_fit_trains_the_swapped_adapter_with_the_same_function():
    model = transformer()
    lora = LoRA(model)
    for name in ("a", "b"):
        lora.add(name, 2)
    fit(model, epochs=1)
    function = model.train_function
    untouched = lora.update("a")
    lora.swap("a")
    model.fit(X, Y, epochs=1, verbose=0)
    assert model.train_function is function
    assert any(np.abs(lora.update("a")[path] - old).max() > 0 for path, old in untouched.items())


# ------------------------------------------------------------------------------------------- int8


def quantised() -> keras.Model:
    model = transformer()
    model.quantize("int8")
    return model


def test_an_int8_base_is_adapted_beside_its_kernels(tmp_path):
    model = quantised()
    before, base = values(model), model.predict(X, verbose=0)
    lora = LoRA(model)
    lora.add("a", 2, alpha=3)
    assert np.array_equal(model.predict(X, verbose=0), base)
    losses = fit(model)
    assert losses[-1] < losses[0]
    trained = model.predict(X, verbose=0)
    lora.save(tmp_path / "a.safetensors")

    # in one layer: the quantised product, s (x A) B, bias and activation
    layer = model.get_layer("ff")
    x = RNG.normal(size=(4, 8)).astype(np.float32)
    got = layer(x).numpy()
    a, b = lora.adapter("a").factors["ff"].matrices()
    lora.activate(None)
    assert same(values(model), before)
    assert np.array_equal(model.predict(X, verbose=0), base)
    layer.activation = keras.activations.linear
    np.testing.assert_allclose(got, np.maximum(layer(x) + 1.5 * x @ a @ b, 0), atol=1e-5)

    other = LoRA(quantised())
    other.load(tmp_path / "a.safetensors", "a")
    np.testing.assert_allclose(other.model.predict(X, verbose=0), trained, atol=1e-6)


@pytest.mark.parametrize("options", [{"dora": True}, {"start": "pissa"}], ids=str)
def test_what_an_int8_base_refuses(options):
    lora = LoRA(quantised())
    with pytest.raises(InputError, match="is quantised to int8; DoRA and PiSSA need W in float32"):
        lora.add("a", 2, **options)
    lora.add("a", 2)
    with pytest.raises(InputError, match="is quantised to int8, which W \\+ s A B is not"):
        lora.merge()
    assert not lora.merged


# ------------------------------------------------------------------------------ LoRA+ and the step


@pytest.mark.parametrize("kind", ["SGD", "Adam", "Nadam", "RMSprop"])
def test_lora_plus_multiplies_the_step_of_b_alone(kind):
    steps = {}
    for ratio in (1, 4):
        model = dense()
        lora = LoRA(model)
        lora.add("a", 2)
        tuned(lora)
        before = [v.numpy() for v in lora.trainable_variables]
        optimizer = getattr(keras.optimizers, kind)(0.01)
        model.compile(lora_plus(optimizer, lora, ratio), "mse")
        model.train_on_batch(X[:, 0], np.ones((16, 7)))
        after = [v.numpy() for v in lora.trainable_variables]
        steps[ratio] = [new - old for new, old in zip(after, before, strict=True)]
    np.testing.assert_allclose(steps[4][0], steps[1][0], atol=1e-7)
    np.testing.assert_allclose(steps[4][1], 4 * steps[1][1], rtol=1e-3, atol=1e-6)


def test_lora_plus_for_all_weights_as_one_vector_is_that_of_single_variables():
    changed = []
    for vector in (False, True):
        model = transformer()
        lora = LoRA(model)
        lora.add("a", 2, dora=True)
        tuned(lora)
        trained = lora.trainable_variables
        before = [v.numpy() for v in trained]
        optimizer = keras.optimizers.SGD(0.01)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(X) - 1) ** 2)
        gradients = tape.gradient(loss, trained)
        if vector:
            VectorOptimiser(optimizer, trained, lora_plus_rates(lora, 4)).apply(gradients)
        else:
            optimizer.build(trained)
            lora_plus(optimizer, lora, 4).apply(gradients, trained)
        changed.append([v.numpy() - old for v, old in zip(trained, before, strict=True)])
    for ours, theirs in zip(*changed, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_the_step_of_an_adapter_makes_no_gradient_of_a_kernel():
    """No product that the gradients depend on has the shape of a kernel, but for A B itself."""
    rank = 2  # no other axis of the model has this length

    def kernel_gradients(model: keras.Model) -> int:
        @tf.function
        def step(x):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(model(x) ** 2)
            return tape.gradient(loss, model.trainable_variables)

        # what TensorFlow runs of the graph: all that an output needs
        waiting = list(step.get_concrete_function(tf.TensorSpec((32, 6, 11))).graph.outputs)
        needed = {}
        while waiting:
            operation = waiting.pop().op
            if operation.name not in needed:
                needed[operation.name] = operation
                waiting += operation.inputs
        kernels = {(11, 13), (13, 17), (17, 13)}
        return sum(
            operation.type in ("MatMul", "BatchMatMulV2", "Einsum", "Sum")
            and tuple(operation.outputs[0].shape) in kernels
            and not any(rank in tuple(factor.shape) for factor in operation.inputs)
            for operation in needed.values()
        )

    inputs = keras.Input((6, 11))
    h = layers.Dense(13, "relu")(inputs)
    model = keras.Model(inputs, layers.Dense(13)(layers.EinsumDense("abc,cd->abd", (6, 17))(h)))
    assert kernel_gradients(model) >= 3
    LoRA(model).add("a", rank)
    assert kernel_gradients(model) == 0


# -------------------------------------------------------------------------------------- bad inputs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": 1.0}, "dropout 1.0: it must be at least 0 and below 1"),
        ({"start": "eva"}, "start eva: it is one of gaussian, pissa"),
        ({"bias": "some"}, "bias some: it is one of none, all, lora_only"),
        ({"alpha_pattern": {"ff": -1}}, "alpha -1"),
        ({"alpha_pattern": {"none": 1}}, "alpha_pattern: none matches no layer"),
        ({"rank_pattern": {"none": 1}}, "rank_pattern: none matches no layer"),
        ({"modules_to_save": ["none"]}, "modules_to_save: none matches no layer"),
        ({"modules_to_save": [".*"]}, "modules_to_save: it names every layer"),
    ],
)
def test_bad_options(options, message):
    lora = LoRA(transformer())
    with pytest.raises(InputError, match=re.escape(message)):
        lora.add("a", 2, **options)
    assert lora.names == ()


def test_bad_swaps_and_ratios():
    lora = LoRA(transformer())
    lora.add("a", 2)
    lora.add("b", 3)
    with pytest.raises(InputError, match="adapter a has other layers, ranks or options than b"):
        lora.swap("a")
    lora.activate(None)
    with pytest.raises(InputError, match="activate one first"):
        lora.swap("a")
    with pytest.raises(InputError, match="ratio 0"):
        lora_plus(keras.optimizers.SGD(), lora, 0)
    with pytest.raises(InputError, match="ratio inf"):
        lora_plus_rates(lora, float("inf"))


def test_a_convolution_in_groups_is_refused():
    model = keras.Sequential([keras.Input((9, 9, 4)), layers.Conv2D(4, 3, groups=2, name="split")])
    with pytest.raises(InputError, match="split has 2 groups"):
        LoRA(model).add("a", 1)
