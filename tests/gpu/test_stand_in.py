"""The stand-in refuses what CUDA refuses, and nothing else."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

CPU = torch.arange(3)


@pytest.mark.parametrize(
    "call",
    [
        lambda held: held + CPU,
        lambda held: torch.cat([held, CPU]),
        lambda held: torch.where(held > 1, held, CPU),
        lambda held: CPU[held],
        lambda held: nn.functional.pad(held.float(), (0, 1)) @ torch.ones(4),
        lambda held: nn.Linear(3, 1)(held.float()),
        lambda held: held.index_add_(0, held, CPU),
        lambda held: held.clone().__setitem__(held, CPU),
        lambda held: torch.rand(3, generator=torch.Generator(), device=held.device),
    ],
)
def test_tensors_on_two_devices_are_refused(device, call):
    with pytest.raises(RuntimeError, match=r"same device|on cpu|Expected a 'cuda'|indices"):
        call(torch.arange(3, device=device))


def test_numpy_takes_no_tensor_from_the_device(device):
    held = torch.arange(3, device=device)
    for convert in (torch.Tensor.numpy, np.asarray):
        with pytest.raises(TypeError, match="cuda"):
            convert(held)
    assert held.cpu().numpy().tolist() == [0, 1, 2]


def test_what_crosses_devices_on_purpose_is_allowed(device):
    held = torch.zeros(3, device=device)
    held[:] = CPU.float()
    held.copy_(CPU)
    assert held[CPU].tolist() == [0, 1, 2]
    assert (held * torch.tensor(2.0)).tolist() == [0, 2, 4]
    held[CPU == 1] = torch.tensor(5.0)
    assert held.to(CPU).device.type == "cpu"
    assert CPU.to(held).device.type == "cuda"
    assert CPU.device.type == "cpu"


def test_modules_their_copies_and_gradients_stay_where_they_are(device):
    layer = copy.deepcopy(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).to(device))
    layer.load_state_dict({name: each.cpu() for name, each in layer.state_dict().items()})
    optimizer = torch.optim.AdamW(layer.parameters())
    torch.autograd.backward(layer(torch.ones(4, 3, device=device)).sum())
    nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
    optimizer.step()
    held = [*layer.parameters(), *layer.buffers(), layer[0].weight.grad]
    assert {each.device.type for each in held} == {"cuda"}
