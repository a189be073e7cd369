"""When the held-out AUC stands still."""

import pytest
from pydantic import TypeAdapter, ValidationError

from ktodata.errors import SettingError
from ktodata.train.early_stop import EarlyStop, EarlyStopSettings, best, check_can_stop_early


def looks(*aucs):
    return [{"step": 10 * (number + 1), "auc": {"value": auc, "low": 0.0, "high": 1.0}} for number, auc in enumerate(aucs)]


@pytest.mark.parametrize(
    ("aucs", "min_delta", "stop"),
    [
        ((), 0.0, False),
        ((0.5,), 0.0, False),  # the first look is the best so far
        ((0.7, 0.6), 0.0, False),  # one look without a better one
        ((0.7, 0.6, 0.65), 0.0, True),  # two: patience is out, although the last is better than the one before
        ((0.7, 0.7, 0.7), 0.0, True),  # as good is not better
        ((0.7, 0.6, 0.71), 0.0, False),
        ((0.7, 0.6, 0.71), 0.05, True),  # better by 0.01 only
        ((0.70, 0.74, 0.76), 0.05, False),  # 0.76 is measured against 0.70, the last that counted
        ((0.5, 0.4, 0.3), 0.5, True),
    ],
)
def test_stops_after_two_looks_without_a_better_auc(aucs, min_delta, stop):
    assert EarlyStop(patience=2, min_delta=min_delta).should_stop(looks(*aucs)) is stop


def test_asked_look_by_look_it_stops_once_and_where_it_should():
    held_out = looks(0.6, 0.7, 0.8, 0.79, 0.78, 0.77, 0.9)
    stops = [EarlyStop(patience=3).should_stop(held_out[:number]) for number in range(1, 8)]
    assert stops == [False, False, False, False, False, True, False]
    assert best(held_out[:6]) == 30


def test_the_earliest_of_equals_is_the_best():
    assert best(looks(0.6, 0.8, 0.8)) == 20


@pytest.mark.parametrize(
    ("labels", "message"), [([True] * 9, "9 desirable and 0 undesirable"), ([True, False, False], "1 desirable")]
)
def test_without_two_rows_of_each_label_there_is_no_auc_to_stop_by(labels, message):
    with pytest.raises(SettingError, match=message):
        check_can_stop_early(labels, 10)


def test_without_a_look_before_the_end_nothing_can_stop_early():
    with pytest.raises(SettingError, match="set eval_every_steps"):
        check_can_stop_early([True, True, False, False], None)
    check_can_stop_early([True, True, False, False], 5)


def test_settings_are_checked():
    settings = TypeAdapter(EarlyStopSettings)
    assert settings.validate_python({"patience": 2}) == {"patience": 2}
    for wrong in ({"patience": 0}, {"min_delta": 2.0}, {"patients": 2}):
        with pytest.raises(ValidationError):
            settings.validate_python(wrong)
