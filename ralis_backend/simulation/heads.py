"""Several small classifiers of points, trained side by side in one batched matrix product.

The fast simulation's segmenter: one hidden layer on a frozen encoder's features. Heads that learn
from different labels but share their start and their draws (common random numbers) differ by their
labels alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from ralis_backend.core.bounds import AMOUNT, COUNT, POSITIVE, Bounds, check_bounds
from ralis_backend.core.regions import VOID

FEATURE_DROPOUT = 0.1
"""Share of the features that a deep pass leaves out; heads are trained without."""


def arithmetic(device: torch.device) -> torch.dtype:
    """What heads compute with on a device: bfloat16, but float32 on a CPU without AVX-512.

    There products of bfloat16 are emulated, which takes many times as long as those of float32.
    """
    is_slow = device.type == "cpu" and "AVX512" not in torch.backends.cpu.get_cpu_capability()
    return torch.float32 if is_slow else torch.bfloat16


@dataclass(frozen=True)
class HeadConfig:
    """A head and how it is trained.

    hidden: width of its one hidden layer.
    dropout: share of hidden units that a training step leaves out.
    learning_rate, weight_decay: of AdamW; the rate falls to zero along a cosine.
    batch_size: points per step.
    class_weight_power: the loss of a class is weighted by its frequency to minus this; 0: equally.
    """

    hidden: int = 128
    dropout: float = 0.3
    learning_rate: float = 4e-3
    weight_decay: float = 1e-2
    batch_size: int = 512
    class_weight_power: float = 0.0

    def __post_init__(self) -> None:
        check_bounds(
            self,
            {
                "hidden": COUNT,
                "dropout": Bounds(0, 1, is_below=True),
                "learning_rate": POSITIVE,
                "weight_decay": AMOUNT,
                "batch_size": COUNT,
                "class_weight_power": AMOUNT,
            },
        )


@dataclass(frozen=True)
class Points:
    """Points of R regions, P each: what heads learn from and are measured on.

    features: (R, P, D) bfloat16. labels: (R, P) uint8 class indices, VOID where not annotated.
    """

    features: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.features)


class Heads:
    """M heads for C classes on D features.

    Args:
        weights: (M, D, hidden), (M, hidden), (M, hidden, C), (M, C).
        config: how they learn.
    """

    def __init__(self, weights: Sequence[torch.Tensor], config: HeadConfig) -> None:
        self.weights = tuple(weights)
        self.config = config

    @classmethod
    def fresh(
        cls,
        num_features: int,
        num_classes: int,
        config: HeadConfig,
        seeds: Sequence[int],
        device: torch.device,
    ) -> Heads:
        """One untrained head for each seed."""
        shapes = ((num_features, config.hidden), (config.hidden, num_classes))
        layers: list[list[torch.Tensor]] = [[], []]
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            for index, shape in enumerate(shapes):
                bound = math.sqrt(6 / shape[0]) if index == 0 else 1 / math.sqrt(shape[0])
                layers[index].append((2 * torch.rand(shape, generator=generator) - 1) * bound)
        first, second = (torch.stack(each).to(device) for each in layers)
        zeros = [torch.zeros(len(seeds), shape[1], device=device) for shape in shapes]
        return cls((first, zeros[0], second, zeros[1]), config)

    def __len__(self) -> int:
        return len(self.weights[0])

    def only(self, index: int) -> Heads:
        """One of the heads, as a set of one."""
        return Heads([each[index : index + 1] for each in self.weights], self.config)

    def copies(self, count: int) -> Heads:
        """`count` copies of a single head."""
        return Heads(
            [each.repeat(count, *[1] * (each.ndim - 1)) for each in self.weights], self.config
        )

    @classmethod
    def joined(cls, parts: Sequence[Heads]) -> Heads:
        """Several sets of heads as one."""
        stacked = [torch.cat(each) for each in zip(*(it.weights for it in parts), strict=True)]
        return cls(stacked, parts[0].config)

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """(M, B, D) or (B, D) bfloat16 features -> (M, B, C) float32."""
        dtype = self._arithmetic
        features = features.to(dtype)  # before `expand`: converting after it copies M times
        if features.ndim == 2:
            features = features.expand(len(self), -1, -1)
        first, first_bias, second, second_bias = (each.to(dtype) for each in self.weights)
        hidden = torch.relu(torch.baddbmm(first_bias[:, None], features, first))
        return torch.baddbmm(second_bias[:, None], hidden, second).float()

    def hidden(self, features: torch.Tensor) -> torch.Tensor:
        """(B, D) bfloat16 features -> (B, hidden) units of the first head, without dropout."""
        first, first_bias, _, _ = self._of_first()
        return torch.relu(torch.addmm(first_bias, features.to(first), first))

    def plain_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(B, hidden) units of the first head -> (B, C) float32."""
        _, _, second, second_bias = self._of_first()
        return torch.addmm(second_bias, hidden, second).float()

    def passes(self, hidden: torch.Tensor, num_passes: int) -> torch.Tensor:
        """(B, hidden) units -> (M, B, C) log probabilities of M passes with dropout, float32.

        Each pass leaves out the same hidden units at every point, and in every call.
        """
        _, _, second, second_bias = self._of_first()
        generator = torch.Generator().manual_seed(0)
        kept = _kept((num_passes, len(second)), self.config.dropout, generator).to(second)
        masked = kept[:, :, None] * second  # (num_passes, hidden, C)
        logits = hidden @ masked.movedim(0, 1).flatten(1)  # (B, num_passes * C)
        split = logits.float().reshape(len(hidden), num_passes, second.shape[1]) + second_bias
        return split.movedim(1, 0).log_softmax(dim=2)

    def deep_passes(self, features: torch.Tensor, num_passes: int) -> torch.Tensor:
        """(B, D) bfloat16 features -> (M, B, C) log probabilities of M passes, float32.

        As `passes`, but each leaves out a tenth of the features as well.
        """
        first, first_bias, second, second_bias = self._of_first()
        features = features.to(first)
        generator = torch.Generator().manual_seed(1)
        seen = []
        for _ in range(num_passes):  # one by one: hidden units of all passes would fill memory
            kept = _kept(len(first), FEATURE_DROPOUT, generator).to(first)
            hidden = torch.relu(torch.addmm(first_bias, features, kept[:, None] * first))
            kept = _kept(len(second), self.config.dropout, generator).to(second)
            logits = torch.addmm(second_bias, hidden, kept[:, None] * second)
            seen.append(logits.float().log_softmax(dim=1))
        return torch.stack(seen)

    @property
    def _arithmetic(self) -> torch.dtype:
        return arithmetic(self.weights[0].device)

    def _of_first(self) -> tuple[torch.Tensor, ...]:
        """The first head's weights, as they are computed with."""
        return tuple(each[0].to(self._arithmetic) for each in self.weights)

    def trained(
        self,
        points: Points,
        labelled: Sequence[np.ndarray],
        num_steps: int,
        seed: int,
    ) -> Heads:
        """The heads after `num_steps` more steps; these stay as they are.

        Args:
            points: of all regions.
            labelled: for each head the indices of the regions that it learns from.
            num_steps: updates.
            seed: of draws and dropout, which all heads share.

        Raises:
            ValueError: if a head has no labelled point to learn from.
        """
        config, device, dtype = self.config, self.weights[0].device, self._arithmetic
        drawn = [_Draws(points.labels, regions, config) for regions in labelled]
        num_classes = self.weights[3].shape[1]
        class_weights = torch.stack([each.class_weights(num_classes) for each in drawn])  # (M, C)
        generator = torch.Generator().manual_seed(seed)
        parameters = [each.clone().requires_grad_() for each in self.weights]
        optimizer = torch.optim.AdamW(
            parameters, lr=config.learning_rate, weight_decay=config.weight_decay
        )
        flat_features = points.features.reshape(-1, points.features.shape[-1])
        flat_labels = points.labels.reshape(-1)
        for step in range(num_steps):
            rate = 0.5 * config.learning_rate * (1 + math.cos(math.pi * step / num_steps))
            optimizer.param_groups[0]["lr"] = rate
            chance = torch.rand(config.batch_size, generator=generator)
            is_kept = torch.rand(config.batch_size, config.hidden, generator=generator)
            kept = (is_kept >= config.dropout).to(device, torch.float32) / (1 - config.dropout)
            index = torch.stack([each.points(chance) for each in drawn]).to(device)  # (M, B)
            first, first_bias, second, second_bias = parameters
            batch = flat_features[index].to(dtype)  # (M, B, D)
            with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
                hidden = torch.relu(torch.baddbmm(first_bias[:, None], batch, first)) * kept
                logits = torch.baddbmm(second_bias[:, None], hidden, second)
            log_p = functional.log_softmax(logits.float(), dim=2)
            targets = flat_labels[index].long()  # (M, B)
            picked = log_p.gather(2, targets[..., None])[..., 0]
            loss = -(picked * class_weights.to(device).gather(1, targets)).mean(dim=1).sum()
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
        return Heads([each.detach() for each in parameters], config)

    def confusion_matrices(self, points: Points) -> np.ndarray:
        """(M, C, C) int64 over all annotated points, a row per true class."""
        num_heads, num_classes = len(self), self.weights[3].shape[1]
        totals = torch.zeros(num_heads, num_classes**2, dtype=torch.int64)
        for features, labels in zip(
            torch.split(points.features, _REGIONS_AT_ONCE),
            torch.split(points.labels, _REGIONS_AT_ONCE),
            strict=True,
        ):
            predicted = self.logits(features.reshape(-1, features.shape[-1])).argmax(dim=2)
            flat = labels.reshape(-1).long()
            is_known = flat != VOID
            pairs = flat[is_known] * num_classes + predicted[:, is_known]  # (M, known)
            for head in range(num_heads):
                totals[head] += torch.bincount(pairs[head], minlength=num_classes**2).cpu()
        return totals.reshape(num_heads, num_classes, num_classes).numpy()


_REGIONS_AT_ONCE = 512


def _kept(size: int | tuple[int, ...], dropout: float, generator: torch.Generator) -> torch.Tensor:
    """Factors of units: 0 where a pass leaves one out, else what keeps the mean."""
    is_kept = torch.rand(size, generator=generator) >= dropout
    return is_kept / (1 - dropout)


class _Draws:
    """Annotated points of some regions, drawn by numbers in [0, 1)."""

    def __init__(self, labels: torch.Tensor, regions: np.ndarray, config: HeadConfig) -> None:
        chosen = torch.from_numpy(np.asarray(regions, np.int64)).to(labels.device)
        wanted = labels[chosen]  # (L, P)
        row, col = torch.nonzero(wanted != VOID, as_tuple=True)
        self.index = (chosen[row] * labels.shape[1] + col).cpu()
        self.classes = wanted[row, col].cpu().long()
        self.power = config.class_weight_power
        if len(self.index) == 0:
            raise ValueError(
                f"none of {len(chosen)} labelled regions holds an annotated point; draw others"
            )

    def points(self, chance: torch.Tensor) -> torch.Tensor:
        """(B,) numbers in [0, 1) -> (B,) indices of points."""
        return self.index[(chance * len(self.index)).long()]

    def class_weights(self, num_classes: int) -> torch.Tensor:
        """(C,) weights in the loss, 1 on average over the points."""
        frequencies = torch.bincount(self.classes, minlength=num_classes).float()
        frequencies = frequencies / frequencies.sum()
        weights = frequencies.clamp(min=1e-3) ** -self.power
        return weights / (weights * frequencies).sum()
