import pytest

from ralis_backend.online.paint_alone import is_left_off, kept_off, left_off


def test_nothing_is_left_off_unless_it_did_harm():
    assert not is_left_off(None, 10)
    assert not is_left_off({"steps": 60}, 10)


def test_what_did_harm_is_left_off_until_there_are_twice_as_many_labels():
    metrics = left_off(["unlabelled"], 40, with_it=0.31, without=0.352)
    assert [is_left_off(metrics, count) for count in (40, 79, 80)] == [True, True, False]


def test_people_are_told_what_was_measured_and_when_it_is_tried_again():
    (note,) = left_off(["unlabelled"], 40, with_it=0.31, without=0.352).values()
    assert note["why"] == (
        "held-out mIoU was 0.310 with unlabelled pixels and 0.352 from paint alone; they are tried "
        "again with 80 labelled regions"
    )


@pytest.mark.parametrize(("used", "is_passed_on"), [([], True), (["unlabelled"], False)])
def test_the_note_goes_from_version_to_version_until_the_next_try(used, is_passed_on):
    metrics = left_off(["unlabelled"], 40, 0.3, 0.4)
    assert kept_off(metrics, used) == (metrics if is_passed_on else {})
    assert kept_off({}, used) == kept_off(None, used) == {}
