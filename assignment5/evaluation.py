"""Scores of trained denoisers: sampled images against held-out ones, as rows of metrics.json."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from assignment5.calibration import Gaussian, Kind, agreement, calibration_sets
from assignment5.codec import there_and_back
from assignment5.config import GIVEN, SAMPLERS, Config, SamplerName, Sampling
from assignment5.conversion import to_float
from assignment5.data import Parts
from assignment5.dcgan import Gan
from assignment5.denoiser import Denoiser
from assignment5.diffusion import Diffusion, separate
from assignment5.feature_net import Describe, FeatureSpace, TrainedFeatures
from assignment5.quality import kid, nearest_distance, neighbour_scores, resampled_kids
from assignment5.sampling import NoiseSets, sample
from common.files import JsonObject
from common.results import Metric, Row, mean_and_std, print_table
from common.run import progress

TEST_SAMPLERS: tuple[SamplerName, ...] = ("ddim", "dpm++")  # those scored on the test part
MEASURES = ("kid", "precision", "recall", "density", "coverage")  # which are calibrated
METRICS_INFO = {
    "kid": Metric(
        "squared MMD",
        "lower",
        "kernel inception distance to held-out images; 0: the same distribution. In features of a "
        "network trained here (series: own network) the order of models depends on that network. "
        "± is over sets of noise, with one training per network; where n_seeds counts several "
        "trainings of the feature network, it is over these, with the same images for each",
    ),
    "kid_error": Metric(
        "squared MMD",
        "lower",
        "standard error of kid over real images and noises together (a bootstrap in which both "
        "are reweighted); not over trainings. 0: the next images would give the same",
    ),
    "order_agreement": Metric(
        "pairs",
        "higher",
        "how rightly the measure named in `variant` orders images whose order of quality is known "
        "(real, then coarse or shuffled, then Gaussians): pairs in order less pairs against it; "
        "1.0: all in order, 0: a coin",
    ),
    "precision": Metric(
        "share",
        "higher",
        "share of samples inside the real images' neighbourhoods; not evidence of quality here: "
        "it does not tell a Gaussian of the pixels (0.942 on Oxford Flowers 102) from training "
        "images (0.959)",
    ),
    "recall": Metric(
        "share",
        "higher",
        "share of real images inside the samples' neighbourhoods",
    ),
    "density": Metric(
        "ratio",
        "higher",
        "real neighbourhoods around a sample, over k; 1.0: as among real images",
    ),
    "coverage": Metric(
        "share",
        "higher",
        "share of real images with a sample in their neighbourhood; 1.0: all",
    ),
    "nearest_ratio": Metric(
        "ratio",
        "higher",
        "median distance to the nearest training image over that of held-out images; "
        "1.0: as far, well below 1: copies",
    ),
    "copies": Metric(
        "share",
        "lower",
        "share of samples nearer to a training image than 99 % of held-out images are; "
        "0.01 is expected",
    ),
    "noise_error": Metric(
        "sd of the noise",
        "lower",
        "mean absolute error of the predicted noise; 0.8: no knowledge",
    ),
    "feature_accuracy": Metric(
        "share",
        "higher",
        "the feature network's accuracy on validation images; 1.0: all right",
    ),
}


@dataclass(frozen=True)
class Scores:
    """Rows as JSON objects, which a run can store as a finished part."""

    rows: list[JsonObject]

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Scores:
        """The stored form of rows."""
        return cls([asdict(row) for row in rows])

    def as_rows(self) -> list[Row]:
        """The rows again."""
        return [Row(**row) for row in self.rows]


# ------------------------------------------------------------------------------- sets of images


class View:
    """Real images in the features of one network, and the training images where they are given."""

    def __init__(self, describe: Describe, real: np.ndarray, train: np.ndarray | None = None):
        self.describe = describe
        self.real = describe(real)  # (N, F)
        self.train: np.ndarray | None = None
        if train is not None:
            self.train = describe(train)
            # how far held-out images are from the training part
            self.real_distance = nearest_distance(self.real, self.train)  # (N,)

    def scores(self, features: np.ndarray) -> dict[str, float]:
        """Every metric of samples (M, F)."""
        scores = {"kid": kid(self.real, features), **neighbour_scores(self.real, features)}
        if self.train is not None:
            distance = nearest_distance(features, self.train)  # (M,)
            near = np.quantile(self.real_distance, 0.01)
            usual = np.median(self.real_distance)
            if usual > 0:  # (features in which held-out images are training images give no ratio)
                scores["nearest_ratio"] = float(np.median(distance) / usual)
            scores["copies"] = float((distance < near).mean())
        return scores


class Judge:
    """Scores sets of images against real ones in one space of features.

    Without training images there are no scores of memorisation.
    """

    def __init__(
        self, space: FeatureSpace, real: np.ndarray, split: str, train: np.ndarray | None = None
    ):
        self.space = space
        self.split = split
        self.views = [View(describe, real, train) for describe in space.trainings]

    def scores(self, images: np.ndarray) -> dict[str, float]:
        """Every metric of images uint8 (M, S, S, 3), the mean over the space's trainings."""
        return {metric: float(values.mean()) for metric, values in self.tables([images]).items()}

    def tables(self, sets: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Every metric (V, Z) of Z sets of images by V trainings; kid_error (V, 1) of all sets."""
        scores = []
        kids = []
        for view in self.views:
            features = [view.describe(images) for images in sets]
            scores.append([view.scores(each) for each in features])
            kids.append(resampled_kids(view.real, features))  # (D,)
        shared = [name for name in scores[0][0] if all(name in of_view[0] for of_view in scores)]
        tables = {
            name: np.array([[of_set[name] for of_set in of_view] for of_view in scores])
            for name in shared
        }
        # every training with the same weights, so that the error is that of their mean
        error = np.mean(kids, axis=0).std(ddof=1)
        return {**tables, "kid_error": np.full((len(kids), 1), error)}

    def rows(
        self,
        sets: Sequence[np.ndarray],
        model: str,
        variant: str,
        horizon: int | None = None,
        params: int | None = None,
        seconds: float | None = None,
    ) -> list[Row]:
        """One row per metric: mean and deviation over the space's trainings.

        With one training the deviation is over the sets of images.
        """
        several = len(self.views) > 1
        rows = []
        for metric, table in self.tables(sets).items():
            value, std = mean_and_std(table.mean(1) if several else table[0])
            row = Row(
                protocol="held-out",
                split=self.split,
                model=model,
                variant=variant,
                metric=metric,
                value=value,
                std=None if metric == "kid_error" else std,
                n_seeds=len(self.views) if several else len(sets),
                series=self.space.name,
                horizon=horizon,
                params=params,
                seconds=seconds,
            )
            rows.append(row)
        return rows


def judges_of(
    spaces: Sequence[FeatureSpace], real: np.ndarray, split: str, train: np.ndarray | None
) -> list[Judge]:
    """One judge per space of features."""
    return [Judge(space, real, split, train) for space in spaces]


def baseline_rows(judge: Judge, train: np.ndarray, sets: int, count: int) -> list[Row]:
    """Rows of the floor, training images (N, S, S, 3) themselves, and of a Gaussian.

    The Gaussian has the training images' mean and covariance.
    """
    gaussian = Gaussian(train)
    real = []
    drawn = []
    for seed in range(sets):
        rng = np.random.default_rng((seed, 9))
        chosen = rng.choice(len(train), min(count, len(train)), replace=False)
        real.append(train[chosen])
        drawn.append(gaussian.draw(count, rng))
    return [
        *judge.rows(real, "training images", "as they are"),
        *judge.rows(drawn, "Gaussian", "mean and covariance"),
    ]


def calibration_rows(
    judges: Sequence[Judge], train: np.ndarray, other: np.ndarray, sets: int, count: int
) -> list[Row]:
    """Rows of images whose order of quality is known, and of how rightly each measure orders them.

    train : uint8 (N, S, S, 3) that they are made of; other : a held-out part that the judges do
    not score against. The rows of `baseline_rows` are among them.
    """
    kinds = list(calibration_sets(train, other, sets, count))
    rows = []
    for judge in judges:
        of_judge = baseline_rows(judge, train, sets, count)
        for kind, images in kinds:
            of_judge += judge.rows(images, kind.model, kind.variant)
        rows += [*of_judge, *agreement_rows(of_judge, judge)]
    return rows


def agreement_rows(rows: Sequence[Row], judge: Judge) -> list[Row]:
    """How rightly each measure orders the rows of images whose order is known."""
    found = []
    for metric in MEASURES:
        sign = 1 if METRICS_INFO[metric].better == "lower" else -1
        scored = [row for row in rows if row.metric == metric]
        value = agreement({Kind(row.model, row.variant): sign * row.value for row in scored})
        if value is None:
            continue
        row = Row(
            protocol="held-out",
            split=judge.split,
            model="calibration",
            variant=metric,
            metric="order_agreement",
            value=value,
            series=judge.space.name,
        )
        found.append(row)
    return found


def sampled_rows(
    denoiser: Denoiser, sampling: Sampling, noises: NoiseSets, judges: Sequence[Judge]
) -> list[Row]:
    """Rows of a denoiser's samples; `horizon` is the number of network evaluations."""
    start = time.perf_counter()
    sets = [sample(denoiser.model, noise, sampling, denoiser.bfloat16) for noise in noises]
    seconds = round(time.perf_counter() - start, 2)
    rows = []
    for judge in judges:
        rows += judge.rows(
            sets,
            model=denoiser.config.network,
            variant=sampling.variant(denoiser.recipe),
            horizon=sampling.evaluations,
            params=denoiser.params,
            seconds=seconds,
        )
    return rows


def codec_rows(
    denoisers: Sequence[Denoiser], judges: Sequence[Judge], train: np.ndarray, config: Config
) -> list[Row]:
    """Rows of training images (N, S, S, 3) coded and decoded: the floor of what codes can draw."""
    codecs = [denoiser.model.codec for denoiser in denoisers if denoiser.model.codec is not None]
    if not codecs:
        return []
    sets = []
    for seed in range(config.seeds):
        rng = np.random.default_rng((seed, 9))  # the images of `baseline_rows`
        chosen = rng.choice(len(train), min(config.samples, len(train)), replace=False)
        sets.append(there_and_back(codecs[0], train[chosen]))
    return [row for judge in judges for row in judge.rows(sets, "codes", "there and back")]


def gan_rows(gan: Gan, judges: Sequence[Judge], sets: int, count: int) -> list[Row]:
    """Rows of a GAN's images; it has no place in the order that measures are judged by."""
    images = [gan.draw(count, seed) for seed in range(sets)]
    rows = []
    for judge in judges:
        rows += judge.rows(
            images, "DCGAN", "as published", params=gan.params, seconds=gan.training_seconds
        )
    return rows


@torch.inference_mode()
def noise_error(model: Diffusion, pixels: np.ndarray) -> float:
    """Mean absolute error of the noise in images uint8 (N, S, S, 3), whatever the target.

    The noises are fixed, the times spread over [0, 1].
    """
    model.eval()
    device = model.mean.device
    generator = torch.Generator().manual_seed(0)
    errors = []
    for part in torch.from_numpy(pixels).split(256):
        x0 = model.normalise(to_float(part.to(device)))  # (B, 3, S, S)
        noises = torch.randn(x0.shape, generator=generator).to(device)
        times = torch.rand((len(part), 1, 1, 1), generator=generator).to(device)
        signal, noise = model.schedule.rates(times)
        x = signal * x0 + noise * noises
        output = model.network(x, noise.flatten() ** 2)
        _, predicted = separate(model.target, x, output, signal, noise)
        errors.append((predicted - noises).abs().mean((1, 2, 3)).cpu())  # (B,)
    return float(torch.cat(errors).mean())


# -------------------------------------------------------------------------------- a run's tables


def score_all(
    config: Config,
    denoisers: Sequence[Denoiser],
    spaces: Sequence[FeatureSpace],
    parts: Parts,
    gan: Gan | None = None,
) -> Scores:
    """Samplers compared on the validation part, then every network scored on the test part."""
    noises = NoiseSets(config.seeds, config.samples, config.side)
    rows = compare_samplers(config, denoisers[0], spaces, parts)
    judges = judges_of(spaces, parts.test, "test", parts.train)
    rows += calibration_rows(judges, parts.train, parts.validation, config.seeds, config.samples)
    rows += codec_rows(denoisers, judges, parts.train, config)
    if gan is not None:
        rows += gan_rows(gan, judges, config.seeds, config.samples)
    for denoiser in progress(denoisers, "scores"):
        for sampler in TEST_SAMPLERS:
            for steps in config.steps:
                rows += sampled_rows(denoiser, Sampling(sampler, steps), noises, judges)
        rows.append(noise_error_row(denoiser, parts.validation))
    return Scores.of(rows)


def compare_samplers(
    config: Config, denoiser: Denoiser, spaces: Sequence[FeatureSpace], parts: Parts
) -> list[Row]:
    """Rows of the samplers at every number of network evaluations, on the validation part."""
    noises = NoiseSets(config.seeds, config.samples, config.side)
    judges = judges_of(spaces, parts.validation, "validation", parts.train)
    samplings = [
        Sampling.of_evaluations(sampler, count) for sampler in SAMPLERS for count in config.sweep
    ]
    rows = []
    for sampling in progress(samplings, "samplers"):
        rows += sampled_rows(denoiser, sampling, noises, judges)
    return rows


def score_times(
    config: Config, denoisers: Sequence[Denoiser], space: FeatureSpace, parts: Parts
) -> Scores:
    """How far apart a sampler's times should be, for each network, sampler and number of steps.

    Every exponent of config.powers is scored on the validation part, the best one on the test
    part where it is not 1 (`score_all` has those). There is no row where 1 is the only exponent.
    """
    if set(config.powers) == {1}:
        return Scores([])
    noises = NoiseSets(config.seeds, config.samples, config.side)
    on_validation = judges_of([space], parts.validation, "validation", parts.train)
    on_test = judges_of([space], parts.test, "test", parts.train)
    cells = [
        (denoiser, sampler, steps)
        for denoiser in denoisers
        for sampler in TEST_SAMPLERS
        for steps in config.steps
    ]
    rows: list[Row] = []
    for denoiser, sampler, steps in progress(cells, "times"):
        compared = denoiser is denoisers[0] and steps in config.sweep  # by `compare_samplers`
        kids = []
        for power in config.powers:
            sampling = Sampling(sampler, steps, power)
            tried = sampled_rows(denoiser, sampling, noises, on_validation)
            kids += [row.value for row in tried if row.metric == "kid"]
            if power != 1 or not compared:
                rows += tried
        best = config.powers[int(np.argmin(kids))]
        if best != 1:
            rows += sampled_rows(denoiser, Sampling(sampler, steps, best), noises, on_test)
    return Scores.of(rows)


def noise_error_row(denoiser: Denoiser, pixels: np.ndarray) -> Row:
    """The error of the predicted noise on the validation part, with the seconds of training."""
    return Row(
        protocol="held-out",
        split="validation",
        model=denoiser.config.network,
        variant=denoiser.recipe,
        metric="noise_error",
        value=noise_error(denoiser.model, pixels),
        n_seeds=1,
        params=denoiser.params,
        seconds=None if denoiser.seconds is None else round(denoiser.seconds, 1),
    )


def accuracy_row(trainings: Sequence[TrainedFeatures]) -> Row:
    """How good the feature network is at what it was trained for, over its trainings."""
    value, std = mean_and_std([trained.accuracy for trained in trainings])
    return Row(
        protocol="held-out",
        split="validation",
        model="feature network",
        variant=trainings[0].task,
        metric="feature_accuracy",
        value=value,
        std=std,
        n_seeds=len(trainings),
    )


def print_scores(rows: Sequence[JsonObject], split: str = "test") -> None:
    """KID, recall and coverage of sampled images on one part, the best KID first."""
    scored = [
        {**row, "evaluations": row["horizon"] or "-"}
        for row in rows
        if row["split"] == split and row["series"]
    ]
    kids = [row for row in scored if row["metric"] == "kid"]
    others = [row for row in scored if row["metric"] != "kid"]
    where = "given images" if split == GIVEN else f"{split} part"
    print_table(
        [*sorted(kids, key=lambda row: row["value"]), *others],
        {
            "kid": "KID",
            "kid_error": "its error",
            "recall": "recall",
            "coverage": "coverage",
            "nearest_ratio": "nearest",
        },
        index=("series", "model", "variant", "evaluations"),
        title=f"{where}; ± over sets of noise (feature networks where several were trained)",
    )
    print_table(
        [row for row in scored if row["metric"] == "order_agreement"],
        {name: name for name in MEASURES},
        across="variant",
        index=("series",),
        title="Which measure orders images of known quality rightly? (1: all pairs, 0: a coin)",
    )
