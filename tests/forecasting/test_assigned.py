"""The course's protocol: the truth of a forecast follows from its window, not from its label."""

from __future__ import annotations

import numpy as np

from common.forecasting.assigned import CourseForecast, CourseWindow, assigned_rows, course_arrays

SEEN = np.array([[1.0], [2.0], [4.0], [7.0]])
COMING = np.array([[8.0], [10.0]])


def course(*forecasts: CourseForecast) -> CourseWindow:
    return CourseWindow(SEEN, COMING, forecasts)


def test_each_window_has_its_truth_and_no_change_its_last_price():
    values = np.array([[4.0], [8.0]])
    rows = assigned_rows(
        course(
            CourseForecast("Net", "free, next steps", "trained", values, 5),
            CourseForecast("Net", "", "next", values, 5),
        )
    )
    assert [(row.model, row.variant, row.split) for row in rows] == [
        ("Net", "free, next steps, trained window", "train"),
        ("Net", "next steps", "test"),
        ("no change", "trained window", "train"),
        ("no change", "next steps", "test"),
    ]
    # by hand: against 4, 7 and 8, 10; no change is 2 and then 7
    assert [row.value for row in rows] == [0.5, 10.0, (4 + 25) / 2, (1 + 9) / 2]
    assert [row.params for row in rows] == [5, 5, 0, 0]


def test_arrays_are_named_by_the_model_where_there_are_several():
    one = CourseForecast("A", "free", "next", COMING, 1)
    other = CourseForecast("B", "", "trained", COMING, 1)
    assert list(course_arrays(course(one))) == [
        "assigned | seen",
        "assigned | coming",
        "assigned | free, next steps",
    ]
    assert list(course_arrays(course(one, other)))[2:] == [
        "assigned | A, free, next steps",
        "assigned | B, trained window",
    ]
