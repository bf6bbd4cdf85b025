"""What in the tuned recipe matters: trainings with one thing changed, scored on validation only.

    python assignment5/ablate.py --source flowers

Every row stands in results/<source>-ablation, also those that lost. The committed run
results/flowers-ablation is interrupted: three of its rows are missing, and the options in its
run.json were edited by hand when it was resumed.
"""

from __future__ import annotations

from assignment5.ablation import SCORED, AblateConfig
from common.cli import entry, read_options

if __name__ == "__main__":  # before the heavy imports: --help and a refusal answer at once
    OPTIONS = read_options(AblateConfig)

from collections.abc import Sequence
from pathlib import Path

from assignment5 import data
from assignment5.denoiser import Denoiser
from assignment5.evaluation import METRICS_INFO, Judge, Scores, judges_of, sampled_rows
from assignment5.feature_net import imagenet_spaces, train_features
from assignment5.sampling import NoiseSets
from assignment5.train import arithmetic, check_sizes, codec_for, parts_line, train
from common.results import Results, Row
from common.run import Run
from common.shard import Shard

HERE = Path(__file__).resolve().parent


def score(denoiser: Denoiser, noises: NoiseSets, judges: Sequence[Judge]) -> Scores:
    """The rows of one training."""
    rows = []
    for sampling in SCORED:
        rows += sampled_rows(denoiser, sampling, noises, judges)
    return Scores.of(rows)


def print_row(name: str, network: str, rows: Sequence[Row], seconds: float) -> None:
    """One line: KID by number of steps, and the seconds of training."""
    kids = [
        f"{row.horizon} steps, {row.series}: {row.value:.4f} ± {row.std or 0:.4f}"
        for row in rows
        if row.metric == "kid"
    ]
    print(f"{network:12s} {name:40s} KID {'; '.join(kids)}  {seconds:.0f} s", flush=True)


def main(config: AblateConfig) -> Results:
    """Trains and scores every row, of a shard its own; returns what metrics.json holds."""
    # Setup data: checked before anything is written:
    images = data.load_for(config)
    split = data.split_of(images, config.seed)
    check_sizes(config, images, split)
    parts = split.of(images)
    device = arithmetic(config)
    noises = NoiseSets(config.seeds, config.samples, config.side)
    folder = config.out or HERE / "results" / f"{images.source}-ablation"

    shard = Shard.of(config.shard)

    rows: list[Row] = []
    about = (images.source, images.provenance)
    with Run(config, folder, __file__, *about, shard=shard, choosing=("rows",)) as run:
        print(parts_line(split, images.pixels.shape[1]), flush=True)

        # Features to score in:
        features = run.memo("features", train_features, config, run, images, split, device)
        spaces = [features.space(device.name), *imagenet_spaces(config.imagenet, device.name)]
        judges = judges_of(spaces, parts.validation, "validation", parts.train)

        # One training per row:
        for job in shard.share(config.jobs()):
            codec = codec_for(job, run, parts, device)
            trained = run.memo(job.name, train, job, run, parts, device, codec)
            denoiser = Denoiser.of(job, trained, device, images.class_names)
            scores = run.memo(f"{job.name} scores", score, denoiser, noises, judges).as_rows()
            rows += scores
            # written after every row, so that a stopped ablation shows what it has
            run.finish(rows, METRICS_INFO)
            print_row(job.name, job.network, scores, trained.seconds)
        return run.finish(rows, METRICS_INFO)  # (a shard may have no row)


if __name__ == "__main__":
    entry(main, OPTIONS)
