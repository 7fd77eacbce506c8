import numpy as np
import pytest

from ralis_backend.cli.demo import demo_images
from ralis_backend.cli.demo.evaluation import score, spread
from ralis_backend.core.segmenter import SegmenterSpec, build


def test_a_score_is_one_matrix_over_all_images(dataset):
    from ralis_backend.core.features import predicted_mask
    from ralis_backend.core.metrics import confusion_matrix, mean_iou_of_present

    segmenter = build(SegmenterSpec(2, encoder_weights=None))
    samples = demo_images.from_dataset(dataset, None).test
    seen = []
    result = score(segmenter, samples, lambda: seen.append(1))
    predictions = [predicted_mask(segmenter.forward_pass(s.image())) for s in samples]
    together = confusion_matrix(np.stack(predictions), np.stack([s.mask() for s in samples]), 2)
    assert result.miou == pytest.approx(mean_iou_of_present(together))
    assert (len(seen), result.num_images, len(result.class_ious)) == (3, 3, 2)


def test_no_image_gives_no_score():
    result = score(build(SegmenterSpec(2, encoder_weights=None)), [], lambda: None)
    assert np.isnan(result.miou)


def test_a_limited_evaluation_is_spread_over_the_split(dataset):
    samples = demo_images.from_dataset(dataset, None).samples
    assert [s.key for s in spread(samples, 2)] == ["d_v/x0", "d_v/x4"]
    assert len(spread(samples, 99)) == len(spread(samples, None)) == 5


def test_a_project_s_classes_are_brought_to_the_masks_values(dataset):
    segmenter = build(SegmenterSpec(2, encoder_weights=None))
    samples = demo_images.from_dataset(dataset, None).test
    plain = score(segmenter, samples, lambda: None)
    turned = score(segmenter, samples, lambda: None, [1, 0], 0)
    assert turned.miou != plain.miou
    assert turned.foreground_miou == turned.class_ious[1]
    assert plain.foreground_miou is None
