import math

import pytest
from PIL import Image

from ralis_backend.online.report import (
    CurvePoint,
    curve_table,
    draw_curve,
    notes,
    slice_text,
    validation_text,
)

POINTS = [
    CurvePoint("v1", 24, 0.0123, 0.31, 0.28),
    CurvePoint("v2", 48, 0.0246, 0.405, math.nan),
]


def test_the_table_is_in_percent_and_leaves_missing_scores_empty():
    assert curve_table(POINTS) == [
        ("v1", "24", "1.23", "31.0", "28.0"),
        ("v2", "48", "2.46", "40.5", ""),
    ]


def test_the_curve_is_a_picture(tmp_path):
    draw_curve(POINTS, tmp_path / "deep/curve.png", "Street")
    with Image.open(tmp_path / "deep/curve.png") as image:
        assert min(image.size) > 400
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["curve.png"]


def test_without_scores_there_is_still_a_picture(tmp_path):
    draw_curve([CurvePoint("v1", 3, 0.1, math.nan, math.nan)], tmp_path / "curve.png", "Street")


def test_no_point_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no version has been evaluated"):
        draw_curve([], tmp_path / "curve.png", "Street")


def test_what_was_not_learned_and_what_cannot_be_used_any_more_is_said():
    lines = notes([
        ("v1", {"weights_error": "v1.safetensors is truncated"}),
        ("v2", {"left_out": ["task 5: the image file is empty"], "strategy_note": "no policy"}),
    ])  # fmt: skip
    assert lines == [
        "v1 cannot be used any more: v1.safetensors is truncated",
        "v2 has not learned from task 5: the image file is empty",
        "v2: no policy",
    ]


def test_what_is_not_background_is_said_apart():
    metrics = {
        "background": "Background",
        "validation_regions": 7,
        "validation_miou": 0.682,
        "validation_foreground_miou": 0.375,
        "validation_iou": {"Crack": 0.375, "Background": 0.989},
        "random_slice": {
            "pixel_accuracy": [0.981, 0.97, 0.99],
            "regions": 4,
            "foreground_miou": 0.21,
            "right": [1],
            "pixels": [1],
        },
    }
    assert validation_text(metrics) == "0.682, 0.375 without Background"
    assert slice_text(metrics).endswith("4 regions, mIoU without background 0.210")
    (first, *_) = notes([("v2", metrics)])
    assert first == "v2: IoU on 7 regions held out: Crack 0.375, Background 0.989"
    assert validation_text({"validation_miou": 0.5}) == "0.500"
    assert validation_text({}) == ""
    unknown = {**metrics, "validation_foreground_miou": None}
    assert validation_text(unknown) == "0.682, unknown without Background"
    unseen = {**metrics["random_slice"], "foreground_miou": None}
    assert slice_text({"random_slice": unseen}).endswith("nothing but background there")
