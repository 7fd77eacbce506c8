from pathlib import Path

import pytest

from ralis_backend.cli.export import COCO_FORMATS, export
from ralis_backend.online.export.coco import SEGMENTATIONS
from ralis_backend.online.export.formats import FORMATS


def test_every_segmentation_of_coco_is_a_format():
    assert set(COCO_FORMATS) == set(SEGMENTATIONS)
    assert set(COCO_FORMATS.values()) <= set(FORMATS)


@pytest.mark.parametrize("value", ["", "RLE", "mask"])
def test_an_unknown_segmentation_names_those_there_are(value):
    with pytest.raises(ValueError, match=f"is '{value}', expected rle or polygon"):
        export(1, Path("out"), "coco", value)


def test_a_segmentation_without_coco_is_refused():
    with pytest.raises(ValueError, match="goes with --format coco, not with 'png'"):
        export(1, Path("out"), "png", "polygon")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"version": "v3"}, "--version and --until-converged go with --model"),
        ({"until_converged": True}, "--version and --until-converged go with --model"),
        ({"model": True, "version": "3"}, "is '3', expected a version such as v3"),
        ({"model": True, "version": "v3", "until_converged": True}, "leave --version out"),
        ({"model": True, "all_labels": True}, "--all-labels goes with --until-converged"),
    ],
)
def test_options_of_the_model_that_do_not_go_together_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        export(1, Path("out"), **options)
