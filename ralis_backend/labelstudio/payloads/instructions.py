"""A project's labels and background -> what its annotators are told, as Label Studio's HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

HEADING = "<h4>How to label a suggested region</h4>"
"""What begins so is ours and kept up to date; anything else is the owner's, and left alone."""

_MOST_NAMED = 4


def instructions(
    labels: Sequence[str], background: str | None, *, is_brush: bool, of_owner: str = ""
) -> str:
    """What to paint, what unpainted means, keys, overlaps, and what comes after the last task.

    Args:
        labels: as they stand in the interface.
        background: the class that unpainted pixels get; None: they say nothing.
        is_brush: whether masks are painted, or polygons drawn.
        of_owner: the pool project's own instructions, HTML; they come first.
    """
    points = [
        "The large picture is one <b>region</b>, enlarged; the small one shows where it lies in "
        "its image. Paint the region only.",
        *_what_to_paint([label for label in labels if label != background], background),
        "What is painted already is the model's guess: repair it, delete it, or submit it as it "
        "is where it is right.",
        *(_SEVERAL_LABELS if len(labels) > 1 else ()),
        _KEYS_OF_BRUSH if is_brush else _KEYS,
        "<b>“No more tasks”</b> means that the round is done: the model is trained now, which "
        "takes minutes. New regions come by themselves: reload, and go on with “Label All "
        "Tasks”.",
    ]
    own = HEADING + "".join(f"<p>• {point}</p>" for point in points)
    return f"{own}<h4>In this project</h4>{of_owner}" if of_owner.strip() else own


_SEVERAL_LABELS = (
    "<b>Press Escape before you choose another label.</b> While a mask is selected, choosing a "
    "label renames that mask.",
    "Where masks overlap, the later one counts: large areas first, small things last.",
)
_KEYS = (
    "Keys: a label's number chooses it; <b>Ctrl+Enter</b> submits, <b>Ctrl+Space</b> skips what "
    "cannot be labelled, <b>Ctrl+Z</b> undoes, Ctrl and the mouse wheel zoom. The eye in the list "
    "of regions hides a mask."
)
_KEYS_OF_BRUSH = (
    f"{_KEYS} <b>[</b> and <b>]</b> make the brush smaller and larger, <b>E</b> is the eraser, "
    "<b>B</b> the brush again: the eraser stays chosen when the next region comes."
)


def _what_to_paint(labels: Sequence[str], background: str | None) -> list[str]:
    shown = [f"<b>{escape(label)}</b>" for label in labels[:_MOST_NAMED]]
    names = " and ".join(shown) if len(labels) <= _MOST_NAMED else "every label"
    if background is None:
        return [
            "Paint what you are sure of. <b>What you leave unpainted counts as not labelled</b>, "
            "and teaches the model nothing.",
            "You need not fill the whole region: under “All that is left unpainted is” choose the "
            "class of the rest.",
        ]
    rest = f"<b>{escape(background)}</b>"
    return [
        f"Paint {names}. <b>What you leave unpainted counts as {rest}</b>: never fill it in.",
        f"Nothing of it there? Submit the region as it is: all of it is {rest} then, which "
        "teaches the model as much.",
        "Nearly all of it one label? Choose that under “All that is left unpainted is”.",
    ]
