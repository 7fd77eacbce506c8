"""A segmenter -> an ONNX file that computes the same, checked against it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ralis_backend.core.files import writing
from ralis_backend.core.segmenter.protocol import Segmenter


def export_onnx(segmenter: Segmenter, path: Path, size: tuple[int, int] = (256, 256)) -> None:
    """Write the segmenter as an ONNX file, checked against this one.

    Its input `image` is (1, 3, H, W) float32, RGB in 0..255, H and W any multiples of the
    stride; its output `probabilities` is (1, C, H, W).

    Args:
        segmenter: of any kind.
        path: the file to write.
        size: (height, width) that the network is traced at, rounded up to the stride.

    Raises:
        RuntimeError: if the written file computes something else than the segmenter.
    """
    stride = segmenter.stride
    traced = tuple(max(2, -(-side // stride)) * stride for side in size)
    network = _Exported(segmenter).to("cpu").eval()
    try:
        with writing(path) as partial:
            _write_onnx(network, partial, (traced[0], traced[1]), stride)
            _compare_onnx(network, partial, (traced[0], traced[1]), stride)
    finally:
        segmenter.model.to(segmenter.device)


class _Exported(nn.Module):
    """The network with the normalisation before it and the softmax behind it."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.network = segmenter.model
        self.register_buffer("mean", torch.tensor(segmenter.mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(segmenter.std).view(1, 3, 1, 1) * 255)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        pixels = (image - self.mean) / self.std
        logits: torch.Tensor = self.network(pixels)
        return logits.softmax(dim=1)


def _write_onnx(network: nn.Module, path: Path, size: tuple[int, int], stride: int) -> None:
    rows = torch.export.Dim("height_in_strides", min=1, max=512)
    cols = torch.export.Dim("width_in_strides", min=1, max=512)
    torch.onnx.export(
        network,
        (torch.rand(1, 3, *size) * 255,),
        str(path),
        input_names=["image"],
        output_names=["probabilities"],
        dynamic_shapes={"image": {2: stride * rows, 3: stride * cols}},
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def _compare_onnx(network: nn.Module, path: Path, size: tuple[int, int], stride: int) -> None:
    import onnxruntime  # loaded here alone: the server never needs it

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    for height, width in (size, (size[0] + stride, size[1] + 2 * stride)):
        image = torch.rand((1, 3, height, width), generator=generator) * 255
        (written,) = session.run(None, {"image": image.numpy()})
        with torch.inference_mode():
            difference = float((network(image) - torch.from_numpy(written)).abs().max())
        if not difference < 1e-3:
            raise RuntimeError(
                f"the ONNX file's probabilities differ from the segmenter's by {difference:.2g} at "
                f"{height} x {width} pixels, expected less than 0.001; it was not written"
            )
