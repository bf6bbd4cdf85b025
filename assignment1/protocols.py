"""The two protocols of assignment 1: as assigned (the course's nine models) and held out (every choice on validation).

A part of the work is one call of `run.memo`, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, f1_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from assignment1.data import Faces, Split, fingerprints
from assignment1.elm import ELMClassifier, Moments, Penalty
from assignment1.features import (
    CodebookLookup,
    OneHotCodes,
    RandomReceptiveFields,
    RawCodes,
    SideBySide,
    StandardisedIntegers,
)
from assignment1.mlp import CNNClassifier, MLPClassifier
from assignment1.synthetic import draw_faces
from assignment1.vqvae import VQVAE, load_vqvae, psnr
from common.run import Run, peak_mb, progress, write_arrays

PLACES = 144  # columns of one code map in X; the mirror image's follow, then the decoded picture's
PENALTIES: tuple[Penalty, ...] = (None, "ridge", "lasso", "elasticnet")
FAMILIES: dict[str, Literal["gaussian", "binary"]] = {"ELM": "gaussian", "binary ELM": "binary"}
METRICS_INFO = {
    "accuracy": {
        "unit": "share",
        "better": "higher",
        "reference": "1.0: every face right; guessing the largest class gets its share, about 0.25 on FER-2013",
    },
    "accuracy_low": {
        "unit": "share",
        "better": "higher",
        "reference": "2.5 % point of the accuracy under resampling of the test faces",
    },
    "accuracy_high": {
        "unit": "share",
        "better": "higher",
        "reference": "97.5 % point of the accuracy under resampling of the test faces",
    },
    "balanced_accuracy": {
        "unit": "share",
        "better": "higher",
        "reference": "mean recall of the classes; 1/7 = 0.143 for any constant answer",
    },
    "macro_f1": {
        "unit": "share",
        "better": "higher",
        "reference": "mean F1 of the classes; 1.0: every face right",
    },
    "psnr": {
        "unit": "dB",
        "better": "higher",
        "reference": "mean over faces of 10 log10(1 / MSE) for pixels in 0..1; every 3 dB halve the squared error",
    },
    "codes_used": {
        "unit": "codes",
        "better": "higher",
        "reference": "codes of the codebook that occur in the split",
    },
}


def named(penalty: str | None) -> str:
    return "no penalty" if penalty is None else {"elasticnet": "elastic net"}.get(penalty, penalty)


def scores(labels: np.ndarray, predictions: np.ndarray, intervals: bool) -> dict[str, np.ndarray]:
    """Metrics of each seed's predictions (S, n) against labels (n,): name -> (S,); with a 95 % interval of the mean
    accuracy from 2,000 bootstrap resamples of the faces when `intervals`."""
    found = {
        "accuracy": (predictions == labels).mean(1),
        "balanced_accuracy": np.array(
            [balanced_accuracy_score(labels, row) for row in predictions]
        ),
        "macro_f1": np.array(
            [f1_score(labels, row, average="macro", zero_division=0) for row in predictions]
        ),
    }
    if intervals:
        right = (predictions == labels).mean(0)
        drawn = np.random.default_rng(0).integers(len(right), size=(2000, len(right)))
        low, high = np.percentile(right[drawn].mean(1), [2.5, 97.5])
        found |= {"accuracy_low": np.array([low]), "accuracy_high": np.array([high])}
    return found


def rows(
    protocol: str,
    split: str,
    model: str,
    variant: str,
    labels: np.ndarray,
    predictions: np.ndarray,
    params: int | None,
    seconds: float,
) -> list[dict[str, Any]]:
    """Rows of metrics.json for the predictions (S, n) of S seeds."""
    predictions = np.atleast_2d(predictions)
    return [
        {
            "protocol": protocol,
            "split": split,
            "model": model,
            "variant": variant,
            "metric": name,
            "value": float(values.mean()),
            "std": float(values.std(ddof=1)) if len(values) > 1 else None,
            "n_seeds": len(predictions),
            "params": params,
            "seconds": round(float(seconds), 2),
            "peak_mb": peak_mb(),
        }
        for name, values in scores(labels, predictions, intervals=split == "test").items()
    ]


# ----------------------------------------------------------------------------------------------------------- as assigned


def as_assigned(
    config: Any, run: Run, X: np.ndarray, faces: Faces, precision: str
) -> list[dict[str, Any]]:
    """The course's nine models on its random 80/20 split, on standardised indices, scored by accuracy."""
    train, test = train_test_split(np.arange(len(X)), test_size=0.2, random_state=42)
    y, found, kept = faces.truth, [], {}
    X = StandardisedIntegers().fit(X[train, :PLACES]).transform(X[:, :PLACES])

    def mlp() -> dict[str, Any]:
        start = time.perf_counter()
        model = MLPClassifier(
            config.course_mlp,
            "sgd",
            learning_rate=1e-3,
            epochs=12,
            batch=500,
            precision=precision,
            random_state=config.seed,
        )
        model.fit(X[train], y[train])
        return {
            "prediction": model.predict(X[test]),
            "params": model.parameters_,
            "seconds": time.perf_counter() - start,
        }

    kept["MLP"] = {"no penalty": run.memo("assigned-mlp", mlp)}
    for family, units in (("ELM", config.course_units[0]), ("binary ELM", config.course_units[1])):

        def elms(family: str = family, units: int = units) -> dict[str, Any]:
            start, done = time.perf_counter(), {}
            # no intercept: the course's 0.136 is what an all-zero output layer scores, by naming class 0
            model = ELMClassifier(
                units,
                FAMILIES[family],
                weight_scale=1.0,
                fit_intercept=False,
                l1_ratio=0.5,
                random_state=config.seed,
            )
            moments = model.accumulate(X[train], y[train])
            for penalty, alpha in zip(PENALTIES, (0, 0.01, 0.01, 0.1), strict=True):
                model.set_params(penalty=penalty, alpha=alpha).solve(moments)
                done[named(penalty)] = {
                    "prediction": model.predict(X[test]),
                    "params": model.coef_.size,
                    "seconds": time.perf_counter() - start,
                }
            return done

        kept[family] = run.memo(f"assigned-{family}", elms)
    for model, variants in kept.items():
        for variant, part in variants.items():
            found += rows(
                "as-assigned",
                "test",
                model,
                f"integers, {variant}",
                y[test],
                part["prediction"],
                part["params"],
                part["seconds"],
            )
    majority = DummyClassifier().fit(X[train], y[train]).predict(X[test])
    return found + rows("as-assigned", "test", "largest class", "none", y[test], majority, 0, 0.0)


# -------------------------------------------------------------------------------------------------------------- held out


def representations(
    config: Any, columns: int, codebook: np.ndarray | None, weights: str = "gaussian", seed: int = 0
) -> dict[str, SideBySide]:
    """Name -> transformer of X; the filters of the receptive fields are random too, and follow the family and the seed."""
    views = columns > PLACES
    fields: dict[str, Any] = {"weights": weights, "mirror": views, "random_state": seed}
    found: dict[str, Any] = {
        "integers": StandardisedIntegers(),
        "one-hot": OneHotCodes(config.codes),
    }
    if codebook is not None:
        found["look-up"] = CodebookLookup(codebook, config.look_up_components)
        found["receptive fields"] = RandomReceptiveFields(
            codebook, sizes=config.field_sizes, maps=config.field_maps, **fields
        )
    parts = {
        name: [(part, 0, PLACES * (2 if views and name == "receptive fields" else 1))]
        for name, part in found.items()
    }
    if views:
        pictures = RandomReceptiveFields(
            sizes=config.picture_sizes, maps=config.picture_maps, stride=2, **fields
        )
        parts["decoded fields"] = [*parts["receptive fields"], (pictures, 2 * PLACES, columns)]
        parts["wide fields"] = [
            (clone(part).set_params(maps=maps), first, last)
            for (part, first, last), maps in zip(parts["decoded fields"], config.wide, strict=False)
        ]
    return {name: SideBySide(part) for name, part in parts.items()}


def new_elm(
    config: Any, family: str, representation: str, features: SideBySide, seed: int
) -> ELMClassifier:
    fields = "fields" in representation
    units = (
        config.wide[2]
        if representation == "wide fields"
        else config.field_units
        if fields
        else config.units
    )
    # fields are so alike that a fit without a penalty needs float64 moments; the widest ELMs have a ridge penalty only
    return ELMClassifier(
        units,
        FAMILIES[family],
        "relu" if fields else "tanh",
        "ridge" if representation == "wide fields" else None,
        direct_links=fields,
        precision="float64" if fields and representation != "wide fields" else "auto",
        features=features,
        random_state=seed,
    )


def alpha_grid(config: Any, penalty: Penalty, moments: Moments) -> np.ndarray:
    """Descending: ridge over seven decades, the others from where every weight is zero."""
    if penalty is None:
        return np.zeros(1)
    if penalty == "ridge":
        return np.logspace(5, -2, config.alphas)
    return moments.largest_alpha(1.0 if penalty == "lasso" else 0.5) * np.logspace(
        0, -2.5, config.alphas
    )


def elm_cell(
    config: Any,
    X: np.ndarray,
    y: np.ndarray,
    split: Split,
    elm: ELMClassifier,
    chosen: dict[str, float] | None,
) -> dict[str, Any]:
    """One random hidden layer, all penalties: predictions on validation and test under the `chosen` alphas, which are
    chosen here on validation (with the whole paths in the result) when they are None."""
    start = time.perf_counter()
    moments = elm.accumulate(X[split.train], y[split.train])
    eigen = moments.eigen()
    hidden = {
        name: elm.hidden(X[part])
        for name, part in (("validation", split.validation), ("test", split.test))
    }
    result: dict[str, Any] = {
        "seconds": time.perf_counter() - start,
        "alphas": dict(chosen or {}),
        "paths": {},
        "parts": {},
    }

    def answer(beta: np.ndarray, name: str) -> np.ndarray:
        elm.set_output(moments, beta)
        return elm.classes_[(hidden[name] @ elm.coef_ + elm.intercept_).argmax(1)]

    for penalty in PENALTIES:
        if chosen is None:
            alphas = alpha_grid(config, penalty, moments)
            betas = moments.path(penalty, alphas, 0.5, eigen)
            accuracy = [
                (answer(beta, "validation") == y[split.validation]).mean() for beta in betas
            ]
            result["paths"][named(penalty)] = {
                "alphas": alphas,
                "accuracy": np.array(accuracy),
                "share_used": (betas != 0).any(2).mean(1),
            }
            result["alphas"][named(penalty)] = float(alphas[int(np.argmax(accuracy))])
            beta = betas[int(np.argmax(accuracy))]
        else:
            beta = moments.path(penalty, [chosen[named(penalty)]], 0.5, eigen)[0]
        result["parts"][named(penalty)] = {name: answer(beta, name) for name in hidden} | {
            "params": beta.size + beta.shape[1]
        }
    return result


def wide_cell(
    config: Any,
    X: np.ndarray,
    y: np.ndarray,
    split: Split,
    elm: ELMClassifier,
    chosen: dict[str, float] | None,
) -> dict[str, Any]:
    """As elm_cell, for the ridge penalty alone: one Cholesky factor an alpha is cheaper than an eigendecomposition there."""
    start = time.perf_counter()
    moments = elm.accumulate(X[split.train], y[split.train])
    result: dict[str, Any] = {
        "seconds": time.perf_counter() - start,
        "alphas": dict(chosen or {}),
        "paths": {},
    }
    hidden = {
        name: elm.hidden(X[part])
        for name, part in (("validation", split.validation), ("test", split.test))
    }
    answers, alphas = [], np.logspace(4.5, 2, 6) if chosen is None else [chosen["ridge"]]
    for alpha in alphas:
        elm.set_params(alpha=alpha).solve(moments)
        answers.append(
            {
                name: elm.classes_[(rows @ elm.coef_ + elm.intercept_).argmax(1)]
                for name, rows in hidden.items()
            }
        )
    accuracy = np.array(
        [(answer["validation"] == y[split.validation]).mean() for answer in answers]
    )
    if chosen is None:
        result["alphas"]["ridge"] = float(alphas[int(accuracy.argmax())])
        result["paths"]["ridge"] = {
            "alphas": alphas,
            "accuracy": accuracy,
            "share_used": np.ones(len(alphas)),
        }
    result["parts"] = {
        "ridge": answers[int(accuracy.argmax())] | {"params": elm.coef_.size + elm.intercept_.size}
    }
    return result


def held_out(
    config: Any,
    run: Run,
    X: np.ndarray,
    faces: Faces,
    split: Split,
    codebook: np.ndarray | None,
    precision: str,
    device: str,
) -> dict[str, Any]:
    """Every model, penalty and representation; returns {"rows", "predictions", "paths", "best"}.

    `best` names, for each family, the variant with the highest validation accuracy.
    """
    y = faces.truth
    table: dict[tuple[str, str], dict[str, Any]] = {}
    paths: dict[str, Any] = {}

    def keep(model: str, variant: str, parts: list[dict[str, Any]], seconds: float) -> None:
        table[model, variant] = {
            name: np.stack([part[name] for part in parts]) for name in ("validation", "test")
        } | {"params": parts[0].get("params"), "seconds": seconds}

    for family in FAMILIES:
        for name in representations(config, X.shape[1], codebook):
            work = wide_cell if name == "wide fields" else elm_cell
            chosen: Any = None
            cells: list[Any] = []
            for seed in progress(range(config.seeds), f"{family}, {name}"):

                def cell(
                    family: str = family,
                    name: str = name,
                    seed: int = seed,
                    chosen: Any = chosen,
                    work: Any = work,
                ) -> dict[str, Any]:
                    features = representations(
                        config, X.shape[1], codebook, FAMILIES[family], seed
                    )[name]
                    return work(
                        config, X, y, split, new_elm(config, family, name, features, seed), chosen
                    )

                cells.append(run.memo(f"elm-{family}-{name}-{seed}", cell))
                chosen = cells[0]["alphas"]
            paths[f"{family}, {name}"] = cells[0]["paths"]
            run.note(**{f"alphas: {family}, {name}": chosen})
            for penalty in chosen:
                keep(
                    family,
                    f"{name}, {penalty}",
                    [part["parts"][penalty] for part in cells],
                    np.mean([part["seconds"] for part in cells]),
                )

    def timed(model: Any) -> dict[str, Any]:
        start = time.perf_counter()
        model.fit(X[split.train], y[split.train])
        for record in getattr(model, "history_", []):
            run.log(
                record["epoch"],
                record["epoch"],
                "train",
                **{f"{type(model).__name__}_loss": record["loss"]},
            )
        return {
            name: model.predict(X[part])
            for name, part in (("validation", split.validation), ("test", split.test))
        } | {"params": getattr(model, "parameters_", None), "seconds": time.perf_counter() - start}

    for name, features in representations(config, X.shape[1], codebook).items():
        for penalty in PENALTIES if name != "wide fields" else ("ridge",):

            def mlp(
                name: str = name, features: SideBySide = features, penalty: Penalty = penalty
            ) -> dict[str, Any]:
                return timed(
                    new_mlp(config, name, features, penalty, X.shape[1], precision, device)
                )

            part = run.memo(f"mlp-{name}-{penalty}", mlp)
            keep("MLP", f"{name}, {named(penalty)}", [part], part["seconds"])
    one_hot = representations(config, X.shape[1], codebook)["one-hot"]
    found: dict[str, tuple[str, Callable[[], Any]]] = {
        "largest class": ("none", lambda: DummyClassifier()),
        "linear": (
            "one-hot, ridge",
            lambda: make_pipeline(one_hot, LogisticRegression(C=config.linear_c, max_iter=200)),
        ),
    }
    if codebook is not None:
        found["CNN"] = ("look-up", lambda: new_cnn(config, X.shape[1], codebook, precision, device))
    for model, (variant, make) in found.items():

        def baseline(make: Callable[[], Any] = make) -> dict[str, Any]:
            return timed(make())

        part = run.memo(f"baseline-{model}", baseline)
        keep(model, variant, [part], part["seconds"])

    best: dict[str, tuple[str, float]] = {}
    for (model, variant), part in table.items():
        accuracy = (part["validation"] == y[split.validation]).mean()
        if accuracy > best.get(model, ("", -1.0))[1]:
            best[model] = (variant, float(accuracy))
    run.note(
        best_on_validation={
            model: {"variant": variant, "accuracy": value}
            for model, (variant, value) in best.items()
        }
    )
    all_rows = [
        row
        for (model, variant), part in table.items()
        for name, at in (("validation", split.validation), ("test", split.test))
        for row in rows(
            "held-out", name, model, variant, y[at], part[name], part["params"], part["seconds"]
        )
    ]
    predictions = {
        f"{model} | {variant}": part["test"].astype(np.uint8)
        for (model, variant), part in table.items()
    }
    return {
        "rows": all_rows,
        "predictions": predictions,
        "paths": paths,
        "best": {model: variant for model, (variant, _) in best.items()},
    }


def new_mlp(
    config: Any,
    representation: str,
    features: SideBySide,
    penalty: Penalty,
    columns: int,
    precision: str,
    device: str,
) -> MLPClassifier:
    """The held-out MLP; behind a look-up it also sees the mirror image's codes, as the receptive fields do."""
    mirror = representation == "look-up" and columns > PLACES
    if mirror:
        features = SideBySide([(features.parts[0][0], 0, 2 * PLACES)])
    return MLPClassifier(
        config.mlp_hidden,
        "adamw",
        config.mlp_lr,
        config.mlp_epochs,
        config.mlp_batch,
        config.mlp_weight_decay,
        config.mlp_dropout,
        0.1,
        penalty,
        config.mlp_alpha,
        mirror=mirror,
        features=features,
        precision=precision,
        device=device,
        random_state=config.seed,
    )


def new_cnn(
    config: Any, columns: int, codebook: np.ndarray, precision: str, device: str
) -> CNNClassifier:
    views = 2 if columns > PLACES else 1
    table = (
        CodebookLookup(codebook, config.look_up_components)
        .fit(np.arange(len(codebook))[None])
        .table_
    )
    return CNNClassifier(
        table,
        (config.cnn_width,),
        epochs=config.cnn_epochs,
        mirror=views == 2,
        precision=precision,
        device=device,
        features=SideBySide([(RawCodes(), 0, PLACES * views)]),
        random_state=config.seed,
    )


# ----------------------------------------------------------------------------------------------------------- the records


def vqvae_rows(
    vqvae: VQVAE, faces: Faces, split: Split, codemaps: np.ndarray
) -> list[dict[str, Any]]:
    """PSNR and codes in use on validation and test."""
    found, params = (
        [],
        sum(parameter.numel() for parameter in vqvae.parameters()) + vqvae.codebook.vectors.numel(),
    )
    for name in ("validation", "test"):
        part = getattr(split, name)
        quality = psnr(faces.given[part], vqvae.decode(codemaps[part]))
        for metric, value in (
            ("psnr", quality.mean()),
            ("codes_used", len(np.unique(codemaps[part]))),
        ):
            found.append(
                {
                    "protocol": "held-out",
                    "split": name,
                    "model": "VQ-VAE",
                    "variant": "12 x 12 indices",
                    "metric": metric,
                    "value": float(value),
                    "n_seeds": 1,
                    "params": params,
                }
            )
    return found


def save_models(
    config: Any,
    run: Run,
    X: np.ndarray,
    faces: Faces,
    split: Split,
    codebook: np.ndarray | None,
    best: dict[str, str],
    precision: str,
    device: str,
) -> None:
    """Writes the best variant of each family (first seed) into the run folder, with a temperature set on validation."""
    train, validation, y = split.train, split.validation, faces.truth
    for family, weights in FAMILIES.items():
        representation, penalty = best[family].rsplit(", ", 1)

        def elm(
            family: str = family,
            weights: str = weights,
            representation: str = representation,
            penalty: str = penalty,
        ) -> dict[str, Any]:
            features = representations(config, X.shape[1], codebook, weights, 0)[representation]
            model = new_elm(config, family, representation, features, 0)
            alpha = run.record["notes"][f"alphas: {family}, {representation}"][penalty]
            model.set_params(penalty={named(p): p for p in PENALTIES}[penalty], alpha=alpha).fit(
                X[train], y[train]
            )
            model.calibrate(X[validation], y[validation]).save(
                run.folder / f"model.{family.replace(' ', '-')}.npz"
            )
            return {"temperature": model.temperature}

        run.memo(f"model-{family}", elm)

    def mlp() -> dict[str, Any]:
        representation, penalty = best["MLP"].rsplit(", ", 1)
        features = representations(config, X.shape[1], codebook)[representation]
        model = new_mlp(
            config,
            representation,
            features,
            {named(p): p for p in PENALTIES}[penalty],
            X.shape[1],
            precision,
            device,
        ).fit(X[train], y[train])
        model.save(run.folder / "model.MLP.safetensors")
        return {"parameters": model.parameters_}

    run.memo("model-MLP", mlp)


def save_arrays(
    folder: Path, faces: Faces, split: Split, vqvae: VQVAE | None, found: dict[str, Any]
) -> None:
    """Writes what figures are made from, and fingerprints of the faces that choices were made on (for evaluate.py)."""
    write_arrays(folder / "predictions.npz", labels=faces.truth[split.test], **found["predictions"])
    curves = {
        f"{cell} | {penalty} | {name}": values
        for cell, paths in found["paths"].items()
        for penalty, path in paths.items()
        for name, values in path.items()
    }
    write_arrays(folder / "paths.npz", **curves)
    if vqvae is not None:
        drawn, expression = draw_faces(
            64, seed=12345
        )  # never faces of the data set: figures must not show them
        drawn = drawn[np.unique(expression, return_index=True)[1]]
        maps = vqvae.encode(drawn)
        decoded = np.round(255 * vqvae.decode(maps)).astype(np.uint8)
        write_arrays(
            folder / "reconstructions.npz", images=drawn, codemaps=maps, reconstructions=decoded
        )
        known = faces.given[np.concatenate([split.train, split.validation])]
        write_arrays(folder / "training_faces.npz", fingerprints=fingerprints(known))


def print_table(results: dict[str, Any], folder: Path) -> None:
    """The best rows of a run on the terminal."""
    print(f"\n{'model':14s} {'variant':34s} {'protocol':12s} accuracy on test")
    shown = [
        row for row in results["rows"] if row["metric"] == "accuracy" and row["split"] == "test"
    ]
    for row in sorted(shown, key=lambda row: (row["protocol"], -row["value"]))[:24]:
        deviation = (
            f" ± {row['std']:.3f} ({row['n_seeds']} seeds)" if row["std"] is not None else ""
        )
        print(
            f"{row['model']:14s} {row['variant']:34s} {row['protocol']:12s} {row['value']:.3f}{deviation}"
        )
    print(f"\nfigures, metrics.json and report.pdf are in {folder}")


def load_models(folder: Path, device: str = "cpu") -> tuple[VQVAE | None, dict[str, Any]]:
    """The saved VQ-VAE (None where a run began with code maps) and classifiers of a finished run. Raises InputError."""
    vqvae = (
        load_vqvae(folder / "vqvae.safetensors", device)
        if (folder / "vqvae.safetensors").exists()
        else None
    )
    models: dict[str, Any] = {
        family: ELMClassifier.load(folder / f"model.{family.replace(' ', '-')}.npz")
        for family in FAMILIES
    }
    return vqvae, models | {"MLP": MLPClassifier.load(folder / "model.MLP.safetensors", device)}
