"""sel"""
def test_poisoned_validation_and_test_rows_leave_a_fit_unchanged(views):
    X, y, codebook = views
    config = dataclasses.replace(Config(), field_maps=2, picture_maps=2, look_up_components=4)
    poisoned = X.copy()
    poisoned[80:] = 255 - poisoned[80:]
    for features in representations(config, X.shape[1], codebook).values():
        models = [
            ELMClassifier(30, penalty="ridge", features=features, random_state=0).fit(
                rows[:80], y[:80]
            )
            for rows in (X, poisoned)
        ]
        np.testing.assert_array_equal(models[0].coef_, models[1].coef_)


def test_scores_by_hand():
    labels, predictions = np.array([0, 0, 0, 1]), np.array([[0, 0, 1, 1], [0, 0, 0, 0]])
    found = scores(labels, predictions, intervals=True)
    np.testing.assert_allclose(found["accuracy"], [0.75, 0.75])
    np.testing.assert_allclose(found["balanced_accuracy"], [(2 / 3 + 1) / 2, 0.5])
    np.testing.assert_allclose(found["macro_f1"], [(0.8 + 2 / 3) / 2, (6 / 7) / 2])
    assert found["accuracy_low"][0] <= 0.75 <= found["accuracy_high"][0]

