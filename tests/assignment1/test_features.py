"""Representations of a code map: look-up, receptive fields, and the matrix of views."""

from __future__ import annotations

import numpy as np
import pytest

from assignment1.config import Config
from assignment1.elm import ELMClassifier
from assignment1.features import (
    CodebookLookup,
    OneHotCodes,
    RandomReceptiveFields,
    principal_codes,
)
from assignment1.representations import representations
from assignment1.variants import PENALTIES, REPRESENTATIONS
from assignment1.views import Dataset, Views


def test_one_hot_and_look_up_are_the_same_up_to_a_linear_map(data: Dataset):
    codes = data.views.codes
    one_hot = OneHotCodes(256).fit(codes).transform(codes)
    assert one_hot.shape == (120, 144 * 256)
    np.testing.assert_array_equal(one_hot.sum(1), 144)
    lookup = CodebookLookup(data.codebook, components=None, power=0.0).fit(codes)
    flat = lookup.transform(codes)
    block = one_hot[:, :256] @ lookup.table_  # the first place
    np.testing.assert_allclose(block, flat[:, :16], rtol=1e-6)


def test_principal_codes_keep_distances_and_whiten(data: Dataset):
    codes = data.views.codes
    kept = principal_codes(data.codebook, codes, None, 0.0)
    distances = [
        np.linalg.norm(table[:20, None] - table[None, :20], axis=2)
        for table in (kept, data.codebook)
    ]
    ratio = distances[0][np.triu_indices(20, 1)] / distances[1][np.triu_indices(20, 1)]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-3)
    white = principal_codes(data.codebook, codes, 5, 1.0)[codes.ravel()]
    np.testing.assert_allclose(np.cov(white.T), np.eye(5), atol=0.01)


def test_receptive_field_response_by_hand(data: Dataset):
    """One filter pooled over the whole map: the mean of relu of a plain correlation."""
    codes = data.views.codes
    fields = RandomReceptiveFields(
        data.codebook, components=2, sizes=(3,), maps=1, pool=1, random_state=0
    ).fit(codes)
    table = fields.table_[codes[0].astype(int)].reshape(12, 12, 2)
    padded = np.pad(table, ((1, 1), (1, 1), (0, 0)))
    kernel = fields.filters_[0][0]
    offset = fields.offsets_[0][0]
    responses = [
        max(0.0, (padded[i : i + 3, j : j + 3].transpose(2, 0, 1) * kernel).sum() + offset)
        for i in range(12)
        for j in range(12)
    ]
    expected = (np.mean(responses) - fields.mean_[0]) / fields.scale_[0]
    np.testing.assert_allclose(fields.transform(codes[:1])[0, 0], expected, rtol=1e-3, atol=1e-4)


def test_mirror_fields_do_not_change_when_a_picture_is_flipped(data: Dataset):
    pictures = data.views.pictures
    fields = RandomReceptiveFields(sizes=(9,), maps=4, stride=2, mirror=True, random_state=0)
    fields.fit(pictures)
    flipped = pictures.reshape(-1, 48, 48)[:, :, ::-1].reshape(len(pictures), -1)
    np.testing.assert_allclose(fields.transform(pictures), fields.transform(flipped), atol=1e-3)
    with pytest.raises(ValueError, match="square"):
        RandomReceptiveFields(sizes=(3,)).fit(np.zeros((5, 50)))


def test_binary_filters_are_signs_of_one_size(data: Dataset):
    fields = RandomReceptiveFields(sizes=(9,), maps=4, stride=2, weights="binary", random_state=0)
    filters = fields.fit(data.views.pictures).filters_[0]
    np.testing.assert_allclose(np.abs(filters).std((1, 2, 3)), 0, atol=1e-6)


def test_bad_codes_are_refused(data: Dataset):
    with pytest.raises(ValueError, match=r"0\.\.255"):
        OneHotCodes(256).fit(np.full((3, 4), 256))
    with pytest.raises(ValueError, match="whole"):
        CodebookLookup(data.codebook).fit(np.full((3, 4), 0.5))


def test_the_layout_says_where_each_view_is(data: Dataset):
    views = data.views
    X = views.matrix
    layout = views.layout
    np.testing.assert_array_equal(X[:, slice(*layout.codes)], views.codes)
    both = np.hstack([views.codes, views.mirror])
    np.testing.assert_array_equal(X[:, slice(*layout.codes_and_mirror)], both)
    np.testing.assert_array_equal(X[:, slice(*layout.pictures)], views.pictures)
    copied = np.hstack([views.pictures, views.copies])
    np.testing.assert_array_equal(X[:, slice(*layout.pictures_and_copies)], copied)
    assert layout.copies == 2
    alone = Views(views.codes)
    np.testing.assert_array_equal(alone.matrix, views.codes)
    assert alone.layout.pictures is None


def test_what_there_is_decides_which_representations_are_tried(data: Dataset, small: Config):
    full = representations(small, data.views.layout, data.codebook)
    assert tuple(full) == REPRESENTATIONS
    assert [len(item.penalties) for item in full.values()] == [len(PENALTIES)] * 5 + [1]
    codes = Views(data.views.codes).layout
    assert tuple(representations(small, codes, data.codebook)) == REPRESENTATIONS[:4]
    assert tuple(representations(small, codes, None)) == REPRESENTATIONS[:2]


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_poisoned_validation_and_test_rows_leave_a_fit_unchanged(
    data: Dataset, small: Config, name: str
):
    features = representations(small, data.views.layout, data.codebook)[name].features
    X = data.views.matrix
    poisoned = X.copy()
    poisoned[80:] = 255 - poisoned[80:]
    model = ELMClassifier(30, penalty="ridge", features=features, random_state=0)
    clean = model.fit(X[:80], data.labels[:80]).coef_
    np.testing.assert_array_equal(model.fit(poisoned[:80], data.labels[:80]).coef_, clean)
