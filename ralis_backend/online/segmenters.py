"""A project's version -> its segmenter."""

from __future__ import annotations

from ralis_backend.core.segmenter import Segmenter, SegmenterSpec, build, load
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Project, Version


def load_segmenter(
    store: Store,
    project: Project,
    version: Version | None,
    spec: SegmenterSpec,
    *,
    seed: int,
    device: str,
) -> Segmenter:
    """The segmenter of a version; before the first, one with a random head.

    Its head is brought to the project's number of classes where labels were added since.

    Args:
        store: where the weights lie.
        project: gives the classes.
        version: None before the first.
        spec: the segmenter before the first version.
        seed: of its random head.
        device: as torch names it.
    """
    num_classes = max(1, len(project.classes))
    if version is None or version.weights_key is None:
        return build(spec.for_classes(num_classes), seed=seed, device=device)
    segmenter = load(store.blobs.path(version.weights_key), device)
    return segmenter if segmenter.num_classes == num_classes else segmenter.resized(num_classes)
