"""Representations of a code map."""


def test_one_hot_and_look_up_are_the_same_up_to_a_linear_map(views):
    X, _, codebook = views
    codes = X[:, :144]
    one_hot = OneHotCodes(256).fit(codes).transform(codes)
    assert one_hot.shape == (120, 144 * 256)
    np.testing.assert_array_equal(one_hot.sum(1), 144)
    lookup = CodebookLookup(codebook, components=None, power=0.0).fit(codes)
    flat = lookup.transform(codes)
    block = one_hot[:, :256] @ lookup.table_  # the first place
    np.testing.assert_allclose(block, flat[:, :16], rtol=1e-6)


def test_principal_codes_keep_distances_and_whiten(views):
    X, _, codebook = views
    kept = principal_codes(codebook, X[:, :144], None, 0.0)
    distances = [
        np.linalg.norm(table[:20, None] - table[None, :20], axis=2) for table in (kept, codebook)
    ]
    ratio = distances[0][np.triu_indices(20, 1)] / distances[1][np.triu_indices(20, 1)]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-3)
    white = principal_codes(codebook, X[:, :144], 5, 1.0)[X[:, :144].ravel()]
    np.testing.assert_allclose(np.cov(white.T), np.eye(5), atol=0.01)


def test_receptive_field_response_by_hand(views):
    """One filter, one size, pooled over the whole map: mean over places of relu of a plain correlation."""
    X, _, codebook = views
    fields = RandomReceptiveFields(
        codebook, components=2, sizes=(3,), maps=1, pool=1, random_state=0
    ).fit(X[:, :144])
    table = fields.table_[X[0, :144].astype(int)].reshape(12, 12, 2)
    padded = np.pad(table, ((1, 1), (1, 1), (0, 0)))
    kernel, offset = fields.filters_[0][0], fields.offsets_[0][0]
    places = [
        max(0.0, (padded[i : i + 3, j : j + 3].transpose(2, 0, 1) * kernel).sum() + offset)
        for i in range(12)
        for j in range(12)
    ]
    expected = (np.mean(places) - fields.mean_[0]) / fields.scale_[0]
    np.testing.assert_allclose(fields.transform(X[:1, :144])[0, 0], expected, rtol=1e-3, atol=1e-4)


def test_mirror_fields_do_not_change_when_a_picture_is_flipped(views):
    X = views[0]
    pictures = X[:, 288:]
    fields = RandomReceptiveFields(sizes=(9,), maps=4, stride=2, mirror=True, random_state=0).fit(
        pictures
    )
    flipped = pictures.reshape(-1, 48, 48)[:, :, ::-1].reshape(len(pictures), -1)
    np.testing.assert_allclose(fields.transform(pictures), fields.transform(flipped), atol=1e-3)
    binary = (
        RandomReceptiveFields(sizes=(9,), maps=4, stride=2, weights="binary", random_state=0)
        .fit(pictures)
        .filters_[0]
    )
    np.testing.assert_allclose(np.abs(binary).std((1, 2, 3)), 0, atol=1e-6)
    with pytest.raises(ValueError, match="square"):
        RandomReceptiveFields(sizes=(3,)).fit(np.zeros((5, 50)))


def test_bad_codes_are_refused(views):
    with pytest.raises(ValueError, match=r"0\.\.255"):
        OneHotCodes(256).fit(np.full((3, 4), 256))
    with pytest.raises(ValueError, match="whole"):
        CodebookLookup(views[2]).fit(np.full((3, 4), 0.5))


