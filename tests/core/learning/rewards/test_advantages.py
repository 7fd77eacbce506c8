from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing

from ralis_backend.core.learning.rewards.advantages import (
    CREDITS,
    NORMALISATIONS,
    centred_scores,
    per_image,
    relative_rewards,
    spatial_differences,
    synchronised,
)


def _two_maps_that_differ_in_a_block() -> torch.Tensor:
    actions = torch.zeros((2, 1, 4, 4), dtype=torch.int64)
    actions[0, 0, 1:3, 2:4] = 1
    return actions


def test_two_maps_that_differ_in_a_block_move_that_block_alone():
    scores = torch.tensor([[0.75], [0.25]])
    advantages = spatial_differences(_two_maps_that_differ_in_a_block(), scores)
    # 4 of 16 cells differ: 0.5 / (1 / 4) = 2 for the better map, -2 for the other
    expected = torch.zeros(2, 1, 4, 4)
    expected[0, 0, 1:3, 2:4] = 2
    expected[1, 0, 1:3, 2:4] = -2
    torch.testing.assert_close(advantages, expected, atol=1e-4, rtol=0)
    assert (advantages[expected == 0] == 0).all()


def test_spatial_differences_equal_a_slow_obvious_loop():
    generator = torch.Generator().manual_seed(0)
    actions = torch.randint(0, 3, (4, 2, 3, 5), generator=generator)
    scores = torch.rand((4, 2), generator=generator)
    expected = torch.zeros(4, 2, 3, 5)
    for i in range(4):
        for j in range(4):
            for b in range(2):
                if i == j:
                    continue
                differs = (actions[i, b] != actions[j, b]).float()
                gain = (scores[i, b] - scores[j, b]) / (differs.mean() + 1e-6)
                expected[i, b] += differs * gain / 3
    advantages = spatial_differences(actions, scores)
    torch.testing.assert_close(advantages, expected)
    torch.testing.assert_close(advantages.sum(dim=0), torch.zeros(2, 3, 5), atol=1e-5, rtol=0)


@pytest.mark.parametrize("credit", CREDITS)
@pytest.mark.parametrize("normalise", NORMALISATIONS)
def test_equal_scores_move_nothing(credit, normalise):
    actions = torch.randint(0, 3, (4, 2, 3, 5), generator=torch.Generator().manual_seed(0))
    advantages = CREDITS[credit](actions, torch.full((4, 2), 0.3))
    everywhere = torch.ones(2, 3, 5, dtype=torch.bool)
    assert not NORMALISATIONS[normalise](advantages, everywhere).any()


@pytest.mark.parametrize("normalise", NORMALISATIONS.values())
@pytest.mark.parametrize("value", [0.1, 0.3, 0.7])
def test_rounding_of_a_mean_over_many_pixels_is_no_difference(normalise, value):
    """The mean of so many float32 values is off by a few of the last bits."""
    values = torch.full((8, 4, 191, 64), value)
    assert not normalise(values, torch.ones(4, 191, 64, dtype=torch.bool)).any()


@pytest.mark.parametrize("num_maps", [3, 7, 11, 32])
def test_rounding_of_a_mean_over_maps_is_no_difference(num_maps):
    values = torch.tensor([0.1, 0.3, 0.7, 0.9]).repeat(num_maps, 1)  # equal in each of four images
    assert not centred_scores(torch.zeros(num_maps, 4, 2, 2, dtype=torch.int64), values).any()
    assert not relative_rewards(values[..., None, None]).any()


def test_small_differences_count_as_before():
    scores = torch.tensor([[0.7], [0.7007]])
    known = torch.ones(1, 1, 1, dtype=torch.bool)
    centred = centred_scores(torch.zeros(2, 1, 1, 1, dtype=torch.int64), scores)
    expected = torch.tensor([[-1.0], [1.0]])[..., None, None] * 0.00035 / 0.000351
    torch.testing.assert_close(synchronised(centred, known), expected, atol=1e-3, rtol=0)


def test_identical_maps_move_nothing():
    actions = torch.ones((3, 1, 2, 2), dtype=torch.int64)
    assert not spatial_differences(actions, torch.tensor([[0.1], [0.5], [0.9]])).any()


def test_without_psd_a_whole_map_is_credited_with_its_score():
    advantages = centred_scores(_two_maps_that_differ_in_a_block(), torch.tensor([[0.75], [0.25]]))
    torch.testing.assert_close(advantages[0], torch.full((1, 4, 4), 0.25))
    torch.testing.assert_close(advantages[1], torch.full((1, 4, 4), -0.25))


def test_relative_rewards_are_high_where_few_maps_are_right_and_0_where_none_is():
    rewards = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    expected = torch.tensor([[3.0, 0, 0], [-1, 0, 0], [-1, 0, 0], [-1, 0, 0]])
    assert torch.equal(relative_rewards(rewards[:, None, None])[:, 0, 0], expected)


def test_normalisation_is_over_samples_and_images_and_leaves_out_what_is_unknown():
    values = torch.tensor([[[[1.0, 9.0]], [[3.0, 5.0]]]])  # G=1, B=2, one row, two columns
    known = torch.tensor([[[True, False]], [[True, True]]])
    # of 1, 3, 5: mean 3, variance 8 / 3
    expected = torch.tensor([[[[-2.0, 0.0]], [[0.0, 2.0]]]]) / (8 / 3) ** 0.5
    torch.testing.assert_close(synchronised(values, known), expected, atol=1e-5, rtol=0)


def test_without_synchronisation_each_image_is_by_itself():
    values = torch.tensor([[[[1.0, 3.0]], [[10.0, 50.0]]]])
    known = torch.ones(2, 1, 2, dtype=torch.bool)
    expected = torch.tensor([[[[-1.0, 1.0]], [[-1.0, 1.0]]]])
    torch.testing.assert_close(per_image(values, known), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("normalise", NORMALISATIONS.values())
def test_a_batch_of_which_nothing_is_known_is_0(normalise):
    values = torch.rand((2, 1, 2, 2), generator=torch.Generator().manual_seed(0))
    assert not normalise(values, torch.zeros(1, 2, 2, dtype=torch.bool)).any()


def _values() -> tuple[torch.Tensor, torch.Tensor]:
    """What four images have: two a process."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn((3, 4, 2, 5), generator=generator) * torch.arange(1, 5)[:, None, None]
    return values, torch.rand((4, 2, 5), generator=generator) < 0.7


def _normalise_a_share(rank: int, folder: str) -> None:
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    values, known = _values()
    share = slice(2 * rank, 2 * rank + 2)
    found = synchronised(values[:, share], known[share])
    distributed.destroy_process_group()
    Path(folder, f"{rank}.txt").write_text(" ".join(map(repr, found.flatten().tolist())))


@pytest.mark.e2e
def test_normalisation_is_the_same_on_one_and_on_two_processes(tmp_path):
    multiprocessing.spawn(_normalise_a_share, args=(str(tmp_path),), nprocs=2)
    shares = [
        torch.tensor([float(each) for each in (tmp_path / f"{rank}.txt").read_text().split()])
        for rank in (0, 1)
    ]
    found = torch.cat([each.reshape(3, 2, 2, 5) for each in shares], dim=1)
    torch.testing.assert_close(found, synchronised(*_values()), atol=1e-5, rtol=1e-5)
