"""The keys of labels and choices in the interface of regions: the owner's, and free ones of ours.

What has no key there gets the next free one from Label Studio, those of its tools among them: the
eraser's would tick a choice. So everything gets one, if need be one that no hand finds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, cycle
from xml.etree.ElementTree import Element, tostring

from ralis_backend.labelstudio.payloads.answers import questions
from ralis_backend.labelstudio.payloads.label_config import LabelConfig, label_name, parse_xml

TOOL_HOTKEYS = (*"behkmoprvw[]", "shift+r", "ctrl+plus", "ctrl+minus", "shift+2", "shift+1")
"""Of Label Studio's tools for images: the brush's size and the zoom are among them."""
LABEL_STUDIO_HOTKEYS = frozenset(
    {
        *TOOL_HOTKEYS,
        "u",
        *("enter", "escape", "backspace", "delete", "ctrl+backspace"),
        *("ctrl+enter", "ctrl+space", "alt+enter", "ctrl+z", "ctrl+shift+z", "ctrl+d", "ctrl+h"),
        *("alt+r", "alt+h", "alt+l", "alt+m", "alt+.", "alt+left", "alt+right"),
        *("ctrl+left", "ctrl+right", "shift+up", "shift+down", "shift+left", "shift+right"),
        "shift+.",
        *(f"alt+shift+{number}" for number in range(1, 10)),
    }
)
"""All that acts on the screen of a region, as in the key map of Label Studio 1.23.2. No label or
choice gets one from us: it would act twice."""

_ONCE_OURS = frozenset({"shift+1", "shift+2", "shift+r", "[", "]"})
"""What earlier releases gave to labels and choices."""


def _free(*keys: str) -> tuple[str, ...]:
    return tuple(key for key in keys if key not in LABEL_STUDIO_HOTKEYS)


_OF_LABELS = _free(
    *"123456789qtasdfgzxcyijl", *(f"shift+{key}" for key in "qtasdfgzxcyijlbehkmoprvwu")
)
_OF_CHOICES = _free(*"0n-=;',./")
_OF_THE_REST = _free(*(f"shift+{key}" for key in "1234567890"))
_FAR = tuple(
    f"{modifiers}+f{number}"
    for modifiers in ("ctrl+alt+shift", "ctrl+alt", "ctrl+shift", "alt+shift")
    for number in range(13, 20)
)


class Hotkeys:
    """Those that were chosen, and the next free ones for what has none.

    Args:
        elements: of an interface, with their keys; those of labels and choices are taken.
    """

    def __init__(self, elements: Iterable[Element]) -> None:
        chosen = [hotkey(it) for it in elements if it.tag in ("Label", "Choice")]
        self._taken = {key.lower() for key in chosen if key}
        reserved = set(_own_keys().values())
        of_labels = (key for key in _OF_LABELS if key not in self._taken | reserved)
        self._far = cycle(_FAR)
        self._of_labels: Iterator[str] = chain(of_labels, self._far)

    def for_label(self) -> str:
        """The next free one."""
        return next(self._of_labels)

    def for_choice(self, own: str = "") -> str:
        """A choice's own, if it has one and that is free; else another one."""
        wanted = _free(own, *_OF_CHOICES) if own else _OF_THE_REST
        found = next((key for key in wanted if key not in self._taken), None) or self.far()
        self._taken.add(found)
        return found

    def far(self) -> str:
        """One that nobody presses by accident: for what is out of sight."""
        return next(self._far)


def hotkey(element: Element) -> str:
    """The key of a label or choice, empty for none; Label Studio reads attributes in any case."""
    return next((it for name, it in element.attrib.items() if name.lower() == "hotkey"), "")


def with_hotkeys(xml: str, pool: LabelConfig) -> str:
    """An interface of regions in which every label and choice has a key of its own; else as it is.

    Those that we made before had none for some choices, or one of Label Studio's, and whoever
    changes the layout may leave some out: the key of a tool would then choose a class. What the
    owner of the pool chose stays, whatever it is, and so do keys of other people's questions.
    """
    root = parse_xml(xml)
    chosen = {(name, label_name(it), hotkey(it)) for name, it in _keyed(parse_xml(pool.xml))}
    wanting = [
        element
        for name, element in _keyed(root)
        if not (key := hotkey(element))
        or (
            key.lower() in _ONCE_OURS
            and (element.tag == "Label" or name.rstrip("_") in questions())
            and (name, label_name(element), key) not in chosen
        )
    ]
    if not wanting:
        return xml
    own = _own_keys()
    for element in wanting:
        for name in [it for it in element.attrib if it.lower() == "hotkey"]:
            del element.attrib[name]
    keys = Hotkeys(root.iter())
    for element in wanting:
        is_label = element.tag == "Label"
        key = keys.for_label() if is_label else keys.for_choice(own.get(label_name(element), ""))
        element.set("hotkey", key)
    return tostring(root, encoding="unicode")


def _own_keys() -> dict[str, str]:
    """The keys that choices of questions have by themselves, by their texts."""
    asked = (choice for question in questions().values() for choice in question.choices)
    return {choice.text: choice.hotkey for choice in asked if choice.hotkey}


def _keyed(root: Element) -> Iterator[tuple[str, Element]]:
    """Labels and choices, each with the name of its control."""
    for control in root.iter():
        if control.get("toName"):
            for element in control.iter():
                if element.tag in ("Label", "Choice"):
                    yield control.get("name", ""), element
