import gc
import importlib
import io
import json
import threading
import tracemalloc
from dataclasses import replace

import pytest
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge

from ralis_backend.app import create_app, json_body
from ralis_backend.app.json_body import Bounds
from ralis_backend.labelstudio.payloads.events import read_hint
from ralis_backend.online.store import unpack
from ralis_backend.online.tool import Hint
from tests.app.calls import CONFIG, PROJECT, UID, basic, created, settings, setup, task

ROUTES = importlib.import_module("ralis_backend.app.routes")  # the name is its function's as well


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'{"score": NaN}', "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"a": ' * 65 + b"1" + b"}" * 65, "application/json", 400),
        (b'{"a": ' + b"9" * 5000 + b"}", "application/json", 400),
        (b"project=1", "application/x-www-form-urlencoded", 415),
    ],
)
def test_a_bad_body_is_refused_as_json(client, body, content_type, status):
    for path in ("/setup", "/predict", "/webhook", "/validate", "/delete"):
        answer = client.post(path, data=body, content_type=content_type)
        assert answer.status_code == status
        assert answer.json["error"]


def test_brackets_in_strings_do_not_count_as_nesting(client):
    setup(client)
    body = json.dumps({**created(), "note": '[{"' * 200 + "\\"})
    answer = client.post("/webhook", data=body, content_type="application/json")
    assert answer.status_code == 201


def test_a_large_body_is_refused_with_and_without_its_length(learner):
    client = create_app(settings(max_request_bytes=2048), learner).test_client()
    body = json.dumps({"project": UID, "schema": "x" * 5000}).encode()
    declared = client.post("/setup", data=body, content_type="application/json")
    assert declared.status_code == 413
    streamed = client.post(
        "/setup",
        input_stream=io.BytesIO(body),
        content_type="application/json",
        environ_overrides={"wsgi.input_terminated": True},
        headers={"Transfer-Encoding": "chunked"},
    )
    assert streamed.status_code == 413
    assert streamed.json["error"]


def looked_at(body):
    """The bytes that are looked at to tell whether a body may be parsed."""
    return sum(len(chunk) for chunk in json_body._without_escapes(body))


@pytest.mark.parametrize(
    "body",
    [
        b'"' + b'\\"' * 500_000,
        b'"' + b"\\" * 500_001,
        b'"' * 1_000_001,
        b'{"a": "' + b"x" * 1_000_000,
        b"\\" * 1_000_001 + b'"',
    ],
)
def test_an_unclosed_string_is_looked_at_once(body):
    assert looked_at(body) <= len(body)
    json_body._check_size(body)


def test_escapes_take_no_memory_besides_the_body():
    body = b'{"a": "' + b"\\n" * 8_000_000 + b'"}'
    tracemalloc.start()
    json_body._check_size(body)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 40_000_000


@pytest.mark.parametrize(
    ("text", "depth"),
    [
        (r'"[[[" [', 1),
        (r'"\\" [[', 2),
        (r'"\"[[" [', 1),
        (r'"\\\"[[[" [[', 2),
        (r'{"a": "\\", "b": [1, "]]]"]}', 2),
    ],
)
@pytest.mark.parametrize("chunk", [1, 2, 3, 1 << 20])
def test_brackets_count_outside_strings_wherever_a_chunk_ends(monkeypatch, text, depth, chunk):
    monkeypatch.setattr(json_body, "_CHUNK", chunk)
    monkeypatch.setattr(json_body, "MAX_DEPTH", depth)
    json_body._check_size(text.encode())
    monkeypatch.setattr(json_body, "MAX_DEPTH", depth - 1)
    with pytest.raises(BadRequest, match="nests deeper"):
        json_body._check_size(text.encode())


ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le")
BOUNDS = {
    "containers": "{},",
    "strings": '"",',
    "commas": "1.5,",
    "parsed_bytes": "12345678,",
}


@pytest.mark.parametrize(("name", "value"), BOUNDS.items())
def test_a_body_that_grows_when_parsed_is_refused(name, value):
    most = 9000 if name == "parsed_bytes" else 1000
    bounds = replace(json_body.WIDE, **{name: most})
    json_body._check_size(f"[{value * 998}1]".encode(), bounds)
    with pytest.raises(RequestEntityTooLarge):
        json_body._check_size(f"[{value * 1001}1]".encode(), bounds)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_is_utf_8_with_or_without_a_byte_order_mark(client, encoding):
    is_read = encoding in ("utf-8", "utf-8-sig")
    body = json.dumps({"config": CONFIG}).encode(encoding)
    answer = client.post("/validate", data=body, content_type="application/json")
    assert answer.status_code == (200 if is_read else 400)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("hidden", [*BOUNDS.values(), "[" * 65 + "]" * 65 + ","])
def test_no_encoding_hides_what_the_bounds_refuse(monkeypatch, client, encoding, hidden):
    few = replace(json_body.WIDE, containers=1000, strings=1000, commas=1000, parsed_bytes=9000)
    monkeypatch.setattr(json_body, "WIDE", few)
    monkeypatch.setattr(json_body._check_size, "__defaults__", (few,))
    # An escaped quote: with a zero between its bytes the bounds would take its quote for a string's
    # end, and all that follows for text.
    body = '{"q": "\\"", "config": ' + json.dumps(CONFIG) + ', "x": [' + hidden * 1001 + "0]}"
    answer = client.post("/validate", data=body.encode(encoding), content_type="application/json")
    assert answer.status_code in (400, 413)


def test_bytes_that_are_no_utf_8_are_refused_within_text(client):
    answer = client.post(
        "/validate", data=b'{"config": "\xed\xa0\x80"}', content_type="application/json"
    )
    assert (answer.status_code, "not UTF-8" in answer.json["error"]) == (400, True)


@pytest.mark.parametrize("chunk", [1, 2, 7, 1 << 20])
@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ('{"a": [1, [2, "]"], {"b": 3}], "c": "[[{"}', '{"a": [1, [], {}], "c": "[[{"}'),
        (r'{"a": "\\\"[", "b": [[{}, "\""], 2]}', r'{"a": "\\\"[", "b": [[], 2]}'),
        ("[[[[]]]]", "[[[]]]"),
        ("[]", "[]"),
        ("", ""),
    ],
)
def test_what_is_too_deep_leaves_empty_brackets(monkeypatch, text, kept, chunk):
    monkeypatch.setattr(json_body, "_CHUNK", chunk)
    assert b"".join(json_body._check(text.encode(), json_body.WIDE, 2)).decode() == kept


def annotated(num_values):
    """A webhook with a painted picture of so many bytes, which comes with its prediction."""
    result = [{"id": "a", "type": "brushlabels", "value": {"rle": [255] * num_values}}]
    annotation = created()["annotation"]
    prediction = {**annotation["prediction"], "result": result}
    return created(annotation={**annotation, "result": result, "prediction": prediction})


def test_a_painted_pictures_webhook_is_read_however_long_its_masks(own_secret, store):
    client, headers = own_secret
    setup(client, headers=basic("ralis", "secret"))
    body = annotated(json_body.NARROW.commas)
    assert client.post("/webhook", json=body, headers=headers(UID)).status_code == 201
    (event,) = store.events.unread(store.projects.get(UID))
    assert read_hint(event.action, unpack(event.payload)) == Hint(frozenset({1}), frozenset({11}))


@pytest.mark.parametrize("with_password", [False, True])
def test_a_webhook_is_read_however_deep_its_results_nest(own_secret, store, with_password):
    client, headers = own_secret
    setup(client, headers=basic("ralis", "secret"))
    deep = "[" * 3000 + "]" * 3000
    body = json.dumps(annotated(1)).replace("[255]", deep)
    sent = basic("ralis", "secret") if with_password else headers(UID)
    answer = client.post("/webhook", data=body, headers=sent, content_type="application/json")
    assert answer.status_code == 201
    (event,) = store.events.unread(store.projects.get(UID))
    assert read_hint(event.action, unpack(event.payload)) == Hint(frozenset({1}), frozenset({11}))


@pytest.mark.parametrize(
    "much",
    [
        {"tasks": [task(number) for number in range(1, 20)]},
        {"tasks": [{"id": 1, "data": {"text": "x" * 5000}}]},
        {"tasks": [{"id": 1, "predictions": [{"result": ["x" * 10_000]}]}]},
    ],
)
def test_a_webhook_of_too_much_has_its_project_read(own_secret, store, monkeypatch, much):
    narrow = Bounds(body_bytes=9000, parsed_bytes=4000, containers=50, strings=1000, commas=1000)
    monkeypatch.setattr(ROUTES, "NARROW", narrow)
    client, headers = own_secret
    setup(client, headers=basic("ralis", "secret"))
    body = {"action": "TASKS_CREATED", "project": PROJECT, **much}
    assert client.post("/webhook", json=body, headers=headers(UID)).status_code == 201
    (event,) = store.events.unread(store.projects.get(UID))
    assert read_hint(event.action, unpack(event.payload)).is_unclear
    with_password = client.post("/webhook", json=body, headers=basic("ralis", "secret"))
    assert with_password.status_code == 201


def test_a_webhook_of_too_much_without_a_secret_is_refused(client, monkeypatch):
    monkeypatch.setattr(ROUTES, "WIDE", replace(json_body.WIDE, containers=5))
    assert client.post("/webhook", json=created()).status_code == 413


def test_the_garbage_collector_is_off_while_any_thread_parses():
    collection = json_body._Collection()
    has_begun, may_end = threading.Event(), threading.Event()

    def parse():
        with collection.off():
            has_begun.set()
            may_end.wait(10)

    thread = threading.Thread(target=parse)
    with collection.off():
        thread.start()
        has_begun.wait(10)
    assert not gc.isenabled()
    may_end.set()
    thread.join()
    assert gc.isenabled()


def test_a_garbage_collector_that_was_off_stays_off():
    gc.disable()
    try:
        with pytest.raises(BadRequest):
            json_body._parsed(b"{")
        assert not gc.isenabled()
    finally:
        gc.enable()
