"""Networks on code maps."""
@pytest.mark.parametrize("name", ["one-hot", "look-up", "decoded fields", "CNN"])
def test_saved_networks(views, tmp_path, name):
    X, y, codebook = views
    config = dataclasses.replace(Config(), field_maps=2, picture_maps=2, look_up_components=4)
    if name == "CNN":
        model = CNNClassifier(
            codebook,
            (4,),
            epochs=1,
            mirror=True,
            features=SideBySide([(RawCodes(), 0, 288)]),
            random_state=0,
        )
    else:
        model = MLPClassifier(
            (8,),
            epochs=2,
            features=representations(config, X.shape[1], codebook)[name],
            random_state=0,
        )
    model.fit(X, y).save(tmp_path / "m.safetensors")
    back = MLPClassifier.load(tmp_path / "m.safetensors")
    assert type(back) is type(model)
    np.testing.assert_allclose(
        back.predict_proba(X), model.predict_proba(X), atol=5e-3
    )  # float16 weights
    again = clone(model).fit(X, y)
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    with pytest.raises(InputError, match="not a network"):
        MLPClassifier.load(Path(__file__))


def test_the_courses_mlp_has_its_number_of_parameters():
    network = MLPClassifier(Config().course_mlp, epochs=1)
    network.sparse_ = False
    expected = sum(
        a * b + b for a, b in ((144, 640), (640, 1650), (1650, 3000), (3000, 500), (500, 7))
    )
    assert (
        sum(parameter.numel() for parameter in network._build(144, 7).parameters())
        == expected
        == 7_607_457
    )


def test_mlp_penalties_shrink_the_output_weights():
    X, y = problem()
    size = {}
    for penalty in (None, "ridge", "lasso", "elasticnet"):
        model = MLPClassifier(
            (16,),
            epochs=20,
            batch=32,
            learning_rate=1e-2,
            penalty=penalty,
            alpha=0.05,
            random_state=0,
        ).fit(X, y)
        size[penalty] = float(model.network_[-1].weight.detach().abs().sum())
    assert max(size["ridge"], size["lasso"], size["elasticnet"]) < size[None]

