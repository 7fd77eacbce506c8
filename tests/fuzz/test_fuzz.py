"""A minute of random and adversarial input for all that decodes; `make fuzz` goes on for hours."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from label_studio_sdk.converter.brush import decode_rle

from ralis_backend.labelstudio.payloads.brush_rle import RleError, decode
from tests.fuzz.targets import (
    TARGETS,
    annotation_json,
    read_json,
    read_label_config,
    read_rle,
    read_weights,
    safetensors_file,
)

pytestmark = [pytest.mark.e2e, pytest.mark.filterwarnings("ignore")]

fuzz = settings(deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_seeds_are_read_or_refused(name):
    target = TARGETS[name]
    source = random.Random(name)
    for _ in range(1500):
        content = bytearray(source.choice(target.seeds))
        for _ in range(source.randint(1, 8)):
            place = source.randrange(len(content) + 1)
            how = source.randrange(4)
            if how == 0 and content:
                content[place % len(content)] = source.choice([0, 1, 127, 128, 254, 255])
            elif how == 1 and content:
                content[place % len(content)] ^= 1 << source.randrange(8)
            elif how == 2:
                del content[place : place + source.randint(1, 9)]
            else:
                content[place:place] = source.randbytes(source.randint(1, 9))
        target.read(bytes(content))


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_cut_off_anywhere_are_read_or_refused(name):
    for seed in TARGETS[name].seeds:
        for length in range(0, len(seed), max(1, len(seed) // 200)):
            TARGETS[name].read(seed[:length])


@settings(fuzz, max_examples=1000)
@given(content=st.binary(max_size=200))
def test_noise_is_refused(content):
    for target in TARGETS.values():
        target.read(content)


# The run-length coding


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, int, int]:
    """A header that fits its size, with any parameters, then records that nearly fit."""
    height, width = draw(st.integers(1, 8)), draw(st.integers(1, 9))
    word_size = draw(st.sampled_from([8, 8, 8, 1, 7, 9, 31, 32]))
    sizes = draw(st.sampled_from([(3, 4, 8, 16), (1, 1, 1, 1), (16, 16, 16, 16), (2, 5, 9, 13)]))
    count = height * width * 4 + draw(st.sampled_from([0, 0, 0, 0, -4, 4, 1]))
    bits = f"{max(0, count):032b}{word_size - 1:05b}" + "".join(f"{it - 1:04b}" for it in sizes)
    for _ in range(draw(st.integers(0, 30))):
        kind, size = draw(st.integers(0, 1)), draw(st.integers(0, 3))
        length = draw(st.integers(1, min(2 ** sizes[size], 40)))
        words = 1 if kind else length
        bits += f"{kind}{size:02b}{length - 1:0{sizes[size]}b}"
        largest = 2 ** min(word_size, draw(st.sampled_from([1, 8, 8, 32]))) - 1
        values = draw(st.lists(st.integers(0, largest), min_size=words, max_size=words))
        bits += "".join(f"{value:0{word_size}b}" for value in values)
    bits += "0" * (-len(bits) % 8 + 8 * draw(st.integers(0, 3)))
    return int("1" + bits, 2).to_bytes(len(bits) // 8 + 1)[1:], height, width


@settings(fuzz, max_examples=150)
@given(stream=streams())
def test_what_our_decoder_reads_label_studios_reads_alike(stream):
    content, height, width = stream
    try:
        alpha = decode(content, height, width)
    except RleError:
        return
    try:
        values = decode_rle(list(content))
    except OverflowError:  # of words of more than 8 bits, which nobody writes
        return
    theirs = np.asarray(values).reshape(height, width, 4)[:, :, 3]
    np.testing.assert_array_equal(alpha, theirs)


@settings(fuzz, max_examples=200)
@given(stream=streams(), size=st.binary(min_size=2, max_size=2))
def test_a_stream_of_any_size_is_read_or_refused(stream, size):
    read_rle(size + stream[0])


# JSON

_numbers = (
    st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from([0, -1, 1e308, 2**31, 2**63, 10**400, 1e-320, float("nan")])
)
_texts = st.text(max_size=8) | st.sampled_from([
    "brushlabels", "mask", "prediction", "road",
    "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59",
    "9" * 5000, "1.5", "http://[", "/data/upload/1/a.png", "\ud800", "\x00", "2025-01-01",
])  # fmt: skip
_values = st.recursive(
    st.none() | st.booleans() | _numbers | _texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts, inner, max_size=4),
    max_leaves=6,
)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value) if isinstance(value, list) and len(value) < 30 else inner
    return [path, *(found for key, it in inner for found in _paths(it, (*path, key)))]


_ALL_PATHS = _paths(annotation_json())[1:]


def _replaced(value: Any, path: tuple[Any, ...], new: Any) -> None:
    try:
        for key in path[:-1]:
            value = value[key]
        value[path[-1]] = new
    except (TypeError, KeyError, IndexError):
        pass  # what was there has been replaced already


@settings(fuzz, max_examples=800)
@given(changes=st.lists(st.tuples(st.sampled_from(_ALL_PATHS), _values), min_size=1, max_size=3))
def test_an_annotation_with_anything_in_any_place_is_read_or_refused(changes):
    value = copy.deepcopy(annotation_json())
    for path, new in changes:
        _replaced(value, path, new)
    read_json(value)


@settings(fuzz, max_examples=500)
@given(value=_values)
def test_any_json_is_refused_or_read(value):
    read_json(value)


# Label configs

_names = st.text(max_size=6) | st.sampled_from(["mask", "image", "a b", "&#10;", "ё", "x" * 300])


@st.composite
def configs(draw: st.DrawFn) -> str:
    """A labelling interface that is nearly right."""
    tag = st.sampled_from(["View", "Image", "BrushLabels", "PolygonLabels", "RectangleLabels",
                           "Label", "Choices", "Choice", "Header", "Style"])  # fmt: skip
    names = ["name", "value", "toName", "alias", "background", "hotkey", "valueList"]
    attributes = st.dictionaries(
        st.sampled_from(names),
        _names
        | st.sampled_from(["$image", "hsl(1,2%,3%)", "rgb(999,0,0)", "#123", "rgba(1,2,3,4)"]),
        max_size=4,
    )

    def element(depth: int) -> str:
        name = draw(tag)
        written = "".join(f' {key}="{_escaped(value)}"' for key, value in draw(attributes).items())
        inner = "".join(element(depth - 1) for _ in range(draw(st.integers(0, 3)) if depth else 0))
        return f"<{name}{written}>{inner}</{name}>"

    labels = "".join(
        f'<Label value="{_escaped(draw(_names))}" background="{_escaped(draw(_names))}"/>'
        for _ in range(draw(st.integers(0, 4)))
    )
    return (
        f'<View><Image name="image" value="$image"/><BrushLabels name="{_escaped(draw(_names))}" '
        f'toName="image">{labels}</BrushLabels>{element(2)}</View>'
    )


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")


@settings(fuzz, max_examples=400)
@given(xml=configs())
def test_any_labelling_interface_is_read_or_refused(xml):
    read_label_config(xml.encode(errors="surrogatepass"))


# Weights

_TENSOR = {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]}


@settings(fuzz, max_examples=400)
@given(
    key=st.sampled_from([*_TENSOR, "more"]),
    value=_values | st.lists(_numbers, max_size=4) | st.sampled_from(["F64", "BF16", "F4", "I8"]),
    metadata=_values,
    content=st.binary(max_size=8),
)
def test_any_header_of_weights_is_read_or_refused(key, value, metadata, content):
    header = {"__metadata__": metadata, "a": {**_TENSOR, key: value}}
    read_weights(safetensors_file(header, content))
    ours = {"format": "ralis-weights", "format_version": "1", "metadata": json.dumps(metadata)}
    read_weights(safetensors_file({"__metadata__": ours, "a": _TENSOR}, content))
