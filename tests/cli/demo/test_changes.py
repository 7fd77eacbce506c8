from ralis_backend.cli.demo.changes import change, trained


def test_a_change_says_before_after_and_difference():
    assert change(0.393, 0.415) == "mIoU 39.3 → 41.5 (+2.2)"
    assert change(0.5, 0.4) == "mIoU 50.0 → 40.0 (-10.0)"
    assert change(None, 0.4) == change(float("nan"), 0.4) == "mIoU 40.0"
    assert change(0.4, None) == change(0.4, float("nan")) == ""


def test_a_new_version_is_told_with_its_regions_and_scores():
    metrics = {"validation_miou": 0.47, "validation_miou_before": 0.41, "validation_regions": 9}
    assert trained("v2", 48, 24, metrics, is_accepted=True) == (
        "v2: 48 labelled regions (+24) · mIoU 41.0 → 47.0 (+6.0) on 9 held-out regions"
        " · it is in use"
    )
    assert trained("v2", 48, 24, metrics, is_accepted=False).endswith("it is worse and not used")
    assert trained("v1", 24, 0, {}, is_accepted=True) == (
        "v1: 24 labelled regions (+24) · not judged yet · it is in use"
    )


def test_what_people_look_for_counts_where_there_is_a_background():
    metrics = {
        "validation_miou": 0.9,
        "validation_miou_before": 0.9,
        "validation_foreground_miou": 0.31,
        "validation_foreground_miou_before": 0.3,
        "background": "Soil",
        "validation_regions": 6,
    }
    assert "mIoU 30.0 → 31.0 (+1.0) without Soil on 6" in trained(
        "v3", 72, 48, metrics, is_accepted=True
    )
