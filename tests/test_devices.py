"""Which device is chosen; and that nothing on it is of a kind that Apple's does not have."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ralis_backend.core.features import describe_parts
from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.learning.crops import LabelledImage
from ralis_backend.core.learning.finetune import finetune
from ralis_backend.core.regions import grid
from ralis_backend.core.segmenter import SegmenterSpec, build
from ralis_backend.core.segmenter import trial as module
from ralis_backend.core.segmenter.trial import why_not
from ralis_backend.wiring import find_device


class OnDevice(TorchDispatchMode):
    """Refuses what Apple's device refuses: numbers of 64 bits with a point."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else (made,):
            if isinstance(each, torch.Tensor) and each.dtype == torch.float64:
                raise TypeError(f"{func} makes float64")
        return made


def test_training_and_describing_need_no_float64():
    pixels = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    mask = (pixels[..., 0] > 127).astype(np.uint8)
    regions = tuple(grid((64, 96), (32, 32)))
    image = LabelledImage(lambda: pixels, mask, regions)
    with OnDevice():
        segmenter = build(SegmenterSpec(2, encoder_weights=None))
        config = FinetuneConfig(steps=1, batch_size=2, crop_size=(32, 32))
        finetune(segmenter, [image], config, seed=0)
        features, _ = describe_parts(segmenter.parts(pixels, segmenter.offers), (64, 96), regions)
    assert "embeddings" in features


@pytest.fixture
def apple(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)


def test_apples_device_is_chosen_where_a_trial_on_it_works(apple, monkeypatch):
    compute = module._loss_after_a_step
    monkeypatch.setattr(module, "_loss_after_a_step", lambda device: compute(torch.device("cpu")))
    assert find_device("auto") == "mps"


def test_apples_device_that_fails_or_answers_nonsense_is_not_chosen(apple, monkeypatch, caplog):
    assert find_device("auto") == "cpu"  # this torch has none
    assert "mps is there and not used" in caplog.text
    monkeypatch.setattr(module, "_loss_after_a_step", lambda device: float(device.type == "cpu"))
    assert "where the processor has" in why_not("mps")
    assert find_device("auto") == "cpu"


def test_without_it_nothing_is_tried(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    monkeypatch.setattr(module, "why_not", lambda device: pytest.fail("it was tried"))
    assert find_device("auto") == "cpu"
    assert why_not("cpu") is None


@pytest.mark.parametrize("name", ["foo", "cuda:77", "meta", "", "cpu:x"])
def test_a_device_that_is_not_there_is_refused_with_what_to_take_instead(name):
    with pytest.raises(
        ValueError, match=rf"device '{name}' cannot be used: .*expected auto, .*cpu"
    ):
        find_device(name)


def test_apples_device_that_is_asked_for_in_vain_is_refused():
    if not torch.backends.mps.is_available():
        with pytest.raises(ValueError, match="device 'mps' cannot be used"):
            find_device("mps")


def test_the_processor_is_always_there():
    assert find_device("cpu") == "cpu"
