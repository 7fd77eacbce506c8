"""Work in blocks of rows gives what work on the whole would."""

from __future__ import annotations

import pytest
import torch

from ralis_backend.core.blocks import row_blocks, softmax_
from ralis_backend.core.features import entropy_map, margin_map
from ralis_backend.core.segmenter import ForwardPass

SHAPES = [(19, 300, 500), (3, 1, 2), (2, 5, 1_000_000), (4, 7, 3, 5), (3, 0, 4)]


@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_are_all_rows_in_order(shape):
    maps = torch.rand(shape)
    blocks = list(row_blocks(maps))
    assert torch.equal(torch.cat(blocks, dim=1), maps)
    assert all(block.untyped_storage().data_ptr() == maps.data_ptr() for block in blocks)


def test_a_large_map_comes_in_several_blocks_that_a_cache_holds():
    blocks = list(row_blocks(torch.zeros(19, 300, 500)))
    assert len(blocks) > 3
    assert max(block.numel() for block in blocks) * 4 <= 2**21


@pytest.mark.parametrize("shape", [(19, 300, 500), (3, 1, 2), (1, 40, 50)])
def test_softmax_in_place_is_softmax(shape):
    logits = 30 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    expected = logits.double().softmax(dim=0)
    found = softmax_(logits)
    assert found.data_ptr() == logits.data_ptr()
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-9)


def test_maps_are_the_same_across_the_edges_of_blocks():
    logits = torch.randn(19, 300, 500, generator=torch.Generator().manual_seed(1))
    probabilities = logits.softmax(dim=0)
    probabilities[:, 10] = 1 / 19  # equals: the first class is predicted
    exact = probabilities.double()
    best, second = exact.sort(dim=0, descending=True).values[:2]
    entropy = torch.special.entr(exact).sum(dim=0)
    torch.testing.assert_close(entropy_map(probabilities).double(), entropy, rtol=0, atol=2e-6)
    torch.testing.assert_close(margin_map(probabilities).double(), best - second, rtol=0, atol=1e-6)
    predicted = ForwardPass(probabilities).predicted
    assert torch.equal(predicted.long(), exact.argmax(dim=0))
    assert predicted[10].max() == 0
