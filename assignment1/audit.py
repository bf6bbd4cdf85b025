"""An audit of duplicates among faces, and a split in which no duplicates stand on two sides.

Shape letters: N rows, H W = 48 x 48 grey levels, P pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from scipy.fft import dctn
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from assignment1.data import Faces, Split
from common.cli import InputError

HASH_BITS = 3  # perceptual hashes of near duplicates differ in at most so many bits
CORRELATION = 0.98  # and their pixels correlate at least so much
BANDS = 4  # of 16 bits: hashes that differ in at most 3 bits agree in one of them
ROWS_AT_ONCE = 4096
TEST_SHARE = 1 / 7  # of the groups, where the data have no test part (FER-2013's share)


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    groups int64 (N,): duplicates share a number; unfit bool (N,): rows unfit for training, that
    is, constant images and all members of a group whose labels disagree; counts for the record.
    """

    groups: np.ndarray
    unfit: np.ndarray
    counts: dict[str, int]


# --------------------------------------------------------------------------------- duplicates


def fingerprints(rows: np.ndarray) -> np.ndarray:
    """uint64 (N,): a 63-bit hash of the exact content of each row (blake2b)."""
    digests = [blake2b(row.tobytes(), digest_size=8).digest() for row in rows]
    return np.array([int.from_bytes(digest, "big") >> 1 for digest in digests], dtype=np.uint64)


def perceptual_hash(images: np.ndarray) -> np.ndarray:
    """uint64 (N,): signs of the 8 x 8 lowest DCT coefficients against their median.

    The mean is left out (pHash, Zauner 2010).
    """
    hashes = np.empty(len(images), np.uint64)
    for start in range(0, len(images), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        block = images[rows].astype(np.float32)
        low = dctn(block, axes=(1, 2))[:, :8, :8].reshape(len(block), 64)[:, 1:]  # (n, 63)
        bits = low > np.median(low, axis=1, keepdims=True)
        padded = np.pad(bits, ((0, 0), (1, 0)))  # (n, 64)
        hashes[rows] = np.packbits(padded, axis=1).view(">u8")[:, 0]
    return hashes


def near_duplicates(images: np.ndarray) -> np.ndarray:
    """int64 (P, 2): pairs of near the same perceptual hash whose pixels correlate.

    Only rows that share a band of the hash are compared.
    """
    hashes = perceptual_hash(images)
    candidates = [np.empty((0, 2), np.int64)]
    for band in range(BANDS):
        key = (hashes >> np.uint64(16 * band)) & np.uint64(0xFFFF)
        order = np.argsort(key, kind="stable")
        for step in range(1, len(order)):
            same = np.flatnonzero(key[order[:-step]] == key[order[step:]])
            if not same.size:
                break
            i = order[same]
            j = order[same + step]
            close = np.bitwise_count(hashes[i] ^ hashes[j]) <= HASH_BITS
            candidates.append(np.stack([i[close], j[close]], axis=1))
    pairs = np.unique(np.sort(np.concatenate(candidates), axis=1), axis=0)

    correlated = np.zeros(len(pairs), bool)
    for start in range(0, len(pairs), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        a = centred_pixels(images[pairs[rows, 0]])
        b = centred_pixels(images[pairs[rows, 1]])
        norm = np.sqrt((a * a).sum(1) * (b * b).sum(1))
        correlated[rows] = (a * b).sum(1) >= CORRELATION * np.maximum(norm, 1e-6)
    return pairs[correlated]


def centred_pixels(images: np.ndarray) -> np.ndarray:
    """Images (N, H, W) as rows float32 (N, H W) of mean 0."""
    rows = images.reshape(len(images), -1).astype(np.float32)
    return rows - rows.mean(1, keepdims=True)


# -------------------------------------------------------------------------------------- audit


def audit(faces: Faces) -> Audit:
    """Groups of exact and near duplicates, rows unfit for training, and counts."""
    rows = faces.given
    count = len(rows)
    _, exact = np.unique(fingerprints(rows), return_inverse=True)
    first = np.unique(exact, return_index=True)[1]  # the first row of each exact group
    flat = rows.reshape(count, -1)
    constant = flat.min(1) == flat.max(1)

    # near duplicates among the first rows; constant images resemble each other too much
    pairs = np.stack([np.arange(count), first[exact]], axis=1)
    if faces.images is not None:
        near = first[near_duplicates(rows[first])]
        near = near[~(constant[near[:, 0]] | constant[near[:, 1]])]
        pairs = np.concatenate([pairs, near])

    # groups are the connected components of the pairs
    graph = coo_array((np.ones(len(pairs)), pairs.T), shape=(count, count))
    groups = connected_components(graph, directed=False)[1]
    conflicting = conflicts(groups, faces.truth)
    counts = {
        "rows": count,
        "exact_duplicates": count - int(exact.max()) - 1,
        "near_duplicates": int(exact.max()) - int(groups.max()),
        "groups_with_conflicting_labels_exact": int(conflicts(exact, faces.truth).sum()),
        "groups_with_conflicting_labels": int(conflicting.sum()),
        "training_rows_with_a_twin_in_another_part": twins_elsewhere(groups, faces.part),
        "constant_images": int(constant.sum()),
    }
    return Audit(groups, constant | conflicting[groups], counts)


def conflicts(groups: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """bool (number of groups,): whether the labels (N,) of a group's members disagree."""
    number = groups.max() + 1
    low = np.full(number, labels.max())
    high = np.full(number, labels.min())
    np.minimum.at(low, groups, labels)
    np.maximum.at(high, groups, labels)
    return low < high


def twins_elsewhere(groups: np.ndarray, part: np.ndarray) -> int:
    """How many training rows share a group with a row of another part."""
    parts_of_group = np.zeros(len(groups), int)
    for name in np.unique(part):
        parts_of_group += np.isin(groups, groups[part == name])
    return int((parts_of_group > 1)[part == "train"].sum())


# -------------------------------------------------------------------------------------- split


def held_out_split(faces: Faces, audited: Audit, seed: int, validation: float = 0.1) -> Split:
    """Train, validation and test rows; the test part is kept whole, its twins leave the others.

    The parts are those of the data. Where there is no test part, the private one is it, or else
    TEST_SHARE of the training groups; where there is no validation part, the share `validation` of
    them. Groups are drawn class by class. Raises InputError when a part ends with fewer than two
    classes.
    """
    rng = np.random.default_rng(seed)
    groups = audited.groups
    labels = faces.truth
    private = faces.part == "private"
    test = faces.part == "test"
    given = (faces.part == "validation") & ~audited.unfit
    pool = (faces.part == "train") & ~audited.unfit
    if not test.any():
        test = private
    if not test.any():
        apart = pool & ~np.isin(groups, groups[given])
        test = draw_groups(groups, labels, np.flatnonzero(apart), TEST_SHARE, rng)
    aside = np.isin(groups, groups[test | private])
    pool &= ~aside
    if (faces.part == "validation").any():
        chosen = given & ~aside
        pool &= ~np.isin(groups, groups[chosen])
    else:
        chosen = draw_groups(groups, labels, np.flatnonzero(pool), validation, rng)

    split = Split(np.flatnonzero(pool & ~chosen), np.flatnonzero(chosen), np.flatnonzero(test))
    for name, rows in vars(split).items():
        classes = len(np.unique(labels[rows]))
        if classes < 2:
            raise InputError(
                f"the {name} part ends with {classes} classes in {len(rows)} rows; "
                "at least two are needed: give more data"
            )
    return split


def draw_groups(
    groups: np.ndarray, labels: np.ndarray, rows: np.ndarray, share: float, rng: np.random.Generator
) -> np.ndarray:
    """Boolean mask over all rows: those of `rows` in a random share of each class's groups."""
    names, first = np.unique(groups[rows], return_index=True)
    label_of_group = labels[rows][first]
    chosen = []
    for label in np.unique(label_of_group):
        members = rng.permutation(names[label_of_group == label])
        chosen.append(members[: round(share * len(members))])
    mask = np.zeros(len(groups), bool)
    mask[rows[np.isin(groups[rows], np.concatenate(chosen))]] = True
    return mask
