"""A device -> whether what segmenters do works on it: not every operation exists on each."""

from __future__ import annotations

import math

import torch


def why_not(device: str) -> str | None:
    """One step of training and one look of a small network; None where both work.

    Compared with the processor, since a device may also answer with nonsense.
    """
    try:
        losses = [_loss_after_a_step(torch.device(each)) for each in ("cpu", device)]
    except Exception as error:  # a missing operation, too little memory, a broken driver
        return f"{type(error).__name__}: {str(error)[:200]}"
    if not math.isclose(*losses, rel_tol=0.02):
        return f"it computes a loss of {losses[1]:.4g} where the processor has {losses[0]:.4g}"
    return None


def _loss_after_a_step(device: torch.device) -> float:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(2, 3, 32, 48, generator=generator).to(device)
    pixels = pixels.to(memory_format=torch.channels_last)
    masks = torch.randint(0, 3, (2, 32, 48), generator=generator).to(device)
    masks[:, :4] = 255
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, stride=2, padding=1),
            torch.nn.BatchNorm2d(8),
            torch.nn.ReLU6(),
            torch.nn.Conv2d(8, 3, 1),
            torch.nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
        )
    network.to(device).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.01)
    for _ in range(2):
        loss = torch.nn.functional.cross_entropy(network(pixels), masks, ignore_index=255)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
    probabilities = network.eval()(pixels).softmax(dim=1)
    entropy = -(probabilities * probabilities.clamp(min=1e-12).log()).sum(dim=1)
    pooled = torch.nn.functional.adaptive_avg_pool2d(entropy[:, None], (4, 6))
    return float(loss.detach().cpu() + pooled.mean().detach().cpu())
