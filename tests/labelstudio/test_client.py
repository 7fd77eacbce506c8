"""Answers that a healthy Label Studio does not give; the healthy ones are in tests/e2e."""

from __future__ import annotations

import base64
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from ralis_backend.labelstudio import client as module
from ralis_backend.labelstudio.client import LabelStudioClient
from ralis_backend.labelstudio.errors import LabelStudioError, NotFound, Unauthorised, Unavailable
from ralis_backend.labelstudio.token_auth import REFRESH_EARLY_S
from ralis_backend.online.tool import ToolNotFound, ToolUnavailable
from tests.labelstudio.fake_label_studio import streamed

LEGACY = "0123456789abcdef0123456789abcdef01234567"
PERSONAL = "header.refresh-secret.signature"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(module, "RETRY_PAUSES_S", (0.0, 0.0))


def client_of(answer, api_key=LEGACY):
    return LabelStudioClient(
        "http://ls.test/", api_key, timeout_s=1, transport=httpx.MockTransport(answer)
    )


def access_token(expires):
    content = base64.urlsafe_b64encode(json.dumps({"exp": expires}).encode()).decode()
    return f"header.{content.rstrip('=')}.signature"


class Exchange:
    """A server that hands out access tokens and accepts only the newest."""

    def __init__(self, lifetime_s=300.0):
        self.lifetime_s = lifetime_s
        self.num_exchanges = 0
        self.token = ""
        self._lock = threading.Lock()

    def __call__(self, request):
        if request.url.path == "/api/token/refresh/":
            assert "authorization" not in request.headers
            assert json.loads(request.content) == {"refresh": PERSONAL}
            with self._lock:
                self.num_exchanges += 1
                self.token = access_token(time.time() + self.lifetime_s + self.num_exchanges)
                return httpx.Response(200, json={"access": self.token})
        if request.headers["authorization"] != f"Bearer {self.token}":
            return httpx.Response(401, json={"detail": "Given token not valid"})
        return httpx.Response(200, json={"email": "a@b.co"})


def test_a_legacy_token_is_sent_as_it_is():
    def answer(request):
        assert request.headers["authorization"] == f"Token {LEGACY}"
        return httpx.Response(200, json={"email": "a@b.co"})

    assert client_of(answer).whoami() == {"email": "a@b.co"}


def test_a_personal_token_is_exchanged_once_for_many_threads():
    server = Exchange()
    client = client_of(server, PERSONAL)
    with ThreadPoolExecutor(8) as threads:
        users = list(threads.map(lambda _: client.whoami(), range(40)))
    assert users == [{"email": "a@b.co"}] * 40
    assert server.num_exchanges == 1


def test_an_access_token_is_exchanged_before_it_expires():
    server = Exchange(lifetime_s=REFRESH_EARLY_S - 5)
    client = client_of(server, PERSONAL)
    client.whoami()
    client.whoami()
    assert server.num_exchanges == 2


def test_a_refused_access_token_is_exchanged_once_more():
    server = Exchange()
    client = client_of(server, PERSONAL)
    client.whoami()
    server.token = "revoked by a restart"
    assert client.whoami() == {"email": "a@b.co"}
    assert server.num_exchanges == 2


def test_a_personal_token_that_is_not_accepted_says_so_without_showing_it():
    client = client_of(
        lambda request: httpx.Response(401, json={"detail": "Token is blacklisted"}), PERSONAL
    )
    with pytest.raises(Unauthorised, match="personal access token") as caught:
        client.whoami()
    assert "refresh-secret" not in str(caught.value)
    assert "make a new one" in str(caught.value)


def test_a_refused_legacy_token_says_that_new_installations_switch_them_off():
    client = client_of(lambda request: httpx.Response(401, json={"detail": "Invalid token."}))
    with pytest.raises(Unauthorised, match="Legacy tokens are off") as caught:
        client.whoami()
    assert LEGACY not in str(caught.value)


def test_a_server_without_token_exchange_is_named_as_the_wrong_server():
    client = client_of(lambda request: httpx.Response(404, text="<html>"), PERSONAL)
    with pytest.raises(LabelStudioError, match="LABEL_STUDIO_URL probably points"):
        client.whoami()


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_reading_is_tried_again_on_server_errors(status):
    calls = []

    def answer(request):
        calls.append(request)
        if len(calls) < 3:
            return httpx.Response(status, text="<html>busy</html>")
        return httpx.Response(200, json={"release": "1.23.2"})

    assert client_of(answer).version() == "1.23.2"


def test_writing_is_not_tried_again():
    calls = []

    def answer(request):
        calls.append(request)
        return httpx.Response(503)

    with pytest.raises(Unavailable, match="503"):
        client_of(answer).annotate(1, result=[])
    assert len(calls) == 1


@pytest.mark.parametrize("error", [httpx.ConnectError("refused"), httpx.ReadTimeout("slow")])
def test_no_answer_is_unavailable_for_the_worker(error):
    def answer(request):
        raise error

    with pytest.raises(ToolUnavailable, match=r"http://ls\.test"):
        client_of(answer).project(1)


def test_what_is_gone_is_not_found_for_the_worker():
    client = client_of(lambda request: httpx.Response(404, json={"detail": "Not found."}))
    with pytest.raises(ToolNotFound, match="Not found"):
        client.project(1)
    with pytest.raises(NotFound):
        client.delete_webhook(1)
    assert client.next_task(1) is None


def test_a_web_page_instead_of_json_is_named_as_the_wrong_server():
    client = client_of(lambda request: httpx.Response(200, html="<html>Log in</html>"))
    with pytest.raises(LabelStudioError, match="another server or to a login page"):
        client.version()


@pytest.mark.parametrize(
    "target", ["https://me:secret@ls.test/api/version", "/user/login/?next=secret"]
)
def test_a_redirect_is_not_followed_but_reported(target):
    calls = []

    def answer(request):
        calls.append(request)
        return httpx.Response(302, headers={"location": target})

    with pytest.raises(LabelStudioError, match="redirects to") as caught:
        client_of(answer).version()
    assert len(calls) == 1
    assert "secret" not in str(caught.value)


def test_broken_json_is_unavailable():
    answer = httpx.Response(200, text='{"release": ', headers={"content-type": "application/json"})
    with pytest.raises(Unavailable, match="broken JSON"):
        client_of(lambda request: answer).version()


def test_predictions_that_were_dropped_silently_are_reported():
    client = client_of(lambda request: httpx.Response(201, json={"created": 1}))
    with pytest.raises(LabelStudioError, match="stored 1 of 2 predictions"):
        client.import_predictions(1, [{"task": 1}, {"task": 2}])


def test_an_address_without_scheme_is_explained():
    client = LabelStudioClient("localhost:8080", LEGACY)
    with pytest.raises(LabelStudioError, match="is no address"):
        client.version()


def test_a_blocked_address_names_the_switches():
    detail = {"detail": "URL resolves to a reserved network address (block: 127.0.0.0/8)"}
    client = client_of(lambda request: httpx.Response(403, json=detail))
    with pytest.raises(Unauthorised, match="SSRF_PROTECTION_ENABLED=false"):
        client.create_webhook(1, "http://127.0.0.1:9090/webhook", {})


def test_a_download_is_tried_again_on_server_errors():
    answers = [httpx.Response(500), httpx.ConnectError("refused"), httpx.Response(200, text="a")]

    def answer(request):
        following = answers.pop(0)
        if isinstance(following, Exception):
            raise following
        return streamed(following)

    assert client_of(answer).download("/data/upload/1/a.png", 10).content == b"a"


def test_a_download_stops_at_the_limit():
    client = client_of(lambda request: streamed(httpx.Response(200, content=b"x" * 1000)))
    assert client.download("/data/upload/1/a.png", 1000).content == b"x" * 1000
    with pytest.raises(ValueError, match="larger than 999 bytes"):
        client.download("/data/upload/1/a.png", 999)


# The token that Label Studio hands over


def test_a_token_handed_over_later_is_used_from_then_on():
    seen, tokens = [], [None, LEGACY]

    def answer(request):
        seen.append(request.headers.get("authorization"))
        return httpx.Response(200, json={"email": "a@b.co"})

    client = client_of(answer, lambda: tokens.pop(0))
    client.whoami()
    client.whoami()
    assert seen == [None, f"Token {LEGACY}"]


@pytest.mark.parametrize(
    ("token", "advice"),
    [(None, "set it to a token from Account"), (LEGACY, "since legacy tokens are off")],
)
def test_without_a_key_a_refusal_says_that_it_is_not_set(token, advice):
    client = client_of(lambda request: httpx.Response(401), lambda: token)
    with pytest.raises(Unauthorised, match=advice) as caught:
        client.whoami()
    assert "LABEL_STUDIO_API_KEY is not set" in str(caught.value)
    assert LEGACY not in str(caught.value)


@pytest.mark.parametrize("key", ["two words-secret", "secret\nnext", "secret’"])
def test_a_key_that_cannot_be_sent_is_refused_without_showing_it(key):
    with pytest.raises(ValueError, match="copy the token anew") as caught:
        LabelStudioClient("http://ls.test", key)
    assert "secret" not in str(caught.value)


def test_spaces_around_a_key_are_left_out():
    client = client_of(
        lambda request: httpx.Response(200, json={"it": request.headers["authorization"]}),
        f" {LEGACY}\n",
    )
    assert client.whoami() == {"it": f"Token {LEGACY}"}


def test_the_token_exchange_waits_no_longer_than_the_call_itself():
    timeouts = []

    def answer(request):
        timeouts.append(request.extensions["timeout"]["read"])
        return Exchange.__call__(server, request)

    server = Exchange()
    client_of(answer, PERSONAL).whoami()
    assert timeouts == [1, 1]


# Lists


class TaskList:
    """Tasks in pages, as the data manager gives them; some vanish after the first page."""

    def __init__(self, ids, vanishing=()):
        self.ids = list(ids)
        self.vanishing = set(vanishing)

    def __call__(self, request):
        query = json.loads(request.url.params["query"])
        newest = query["filters"]["items"][-1]["value"]
        left = [task_id for task_id in self.ids if task_id > newest]
        page = left[: int(request.url.params["page_size"])]
        self.ids = [task_id for task_id in self.ids if task_id not in self.vanishing]
        tasks = [{"id": task_id} for task_id in page]
        return httpx.Response(200, json={"tasks": tasks, "total": len(left)})


def test_no_task_is_left_out_when_others_are_deleted_between_pages(monkeypatch):
    monkeypatch.setattr(module, "PAGE_SIZE", 3)
    client = client_of(TaskList(range(1, 11), vanishing=(1, 2, 3)))
    assert [task["id"] for task in client.tasks(1)] == list(range(1, 11))
    client = client_of(TaskList(range(1, 5), vanishing=(4,)))
    assert [task["id"] for task in client.tasks(1)] == [1, 2, 3]
    assert list(client_of(TaskList([])).tasks(1)) == []


@pytest.mark.parametrize(
    "answer", [{"tasks": [{"id": 1}]}, {"tasks": None, "total": 1}, [], {"tasks": [{}], "total": 1}]
)
def test_a_page_that_is_cut_is_no_page(answer):
    client = client_of(lambda request: httpx.Response(200, json=answer))
    with pytest.raises(Unavailable, match="a page of tasks"):
        list(client.tasks(1))


def test_an_export_that_is_no_list_is_none():
    client = client_of(lambda request: httpx.Response(200, json={"detail": "busy"}))
    with pytest.raises(Unavailable, match="the export of project 1"):
        list(client.annotated_tasks(1, [1]))


@pytest.mark.parametrize("depth", [1500, 200_000])
def test_one_annotation_nested_without_end_costs_the_others_nothing(depth):
    deep = '{"a":[' * depth + '"\\"]}\\u00e9"' + "]}" * depth
    content = (
        f'[{{"id": 1, "annotations": [{{"id": 9, "result": {deep}}}], "x": "[["}}, {{"id": 2}}]'
    )
    answer = httpx.Response(
        200, content=content.encode(), headers={"content-type": "application/json"}
    )
    first, second = client_of(lambda request: answer).annotated_tasks(1, [1, 2])
    assert (first["id"], first["annotations"][0]["id"], first["x"]) == (1, 9, "[[")
    assert second == {"id": 2}


def test_annotations_are_asked_for_by_task_in_bounded_parts(monkeypatch):
    monkeypatch.setattr(module, "EXPORT_SIZE", 2)
    asked = []

    def answer(request):
        asked.append([int(task_id) for task_id in request.url.params.get_list("ids[]")])
        return httpx.Response(200, json=[{"id": task_id} for task_id in asked[-1]])

    found = list(client_of(answer).annotated_tasks(1, [5, 6, 7]))
    assert asked == [[5, 6], [7]]
    assert [task["id"] for task in found] == [5, 6, 7]
    assert list(client_of(answer).annotated_tasks(1, [])) == []


def test_a_download_that_trickles_is_given_up(monkeypatch):
    monkeypatch.setattr(module, "MAX_DOWNLOAD_S", -1.0)
    client = client_of(lambda request: streamed(httpx.Response(200, content=b"x")))
    with pytest.raises(Unavailable, match="did not arrive"):
        client.download("/data/upload/1/a.png", 10)


@pytest.mark.parametrize("key", ["abc", "0" * 39, "g" * 40, "ey.two", "a" * 200])
def test_a_mistyped_token_is_called_so_and_not_a_legacy_token(key):
    advice = LabelStudioClient("http://ls.test", key).auth.advice()
    assert "is neither kind of token" in advice
    assert "Legacy tokens are off" not in advice
    assert key not in advice or len(key) < 4


@pytest.mark.parametrize("key", ["0123456789abcdef0123456789abcdef01234567", "ey.two.three"])
def test_what_looks_like_a_token_is_taken_for_one(key):
    assert "Legacy tokens are off" in LabelStudioClient("http://ls.test", key).auth.advice()


PROJECT = {"id": 1, "created_at": "2026-01-01T00:00:00Z", "label_config": "<View/>"}


@pytest.mark.parametrize(
    ("call", "content", "said"),
    [
        ("project", {"id": 1, "title": "x"}, "project 1 with something else than an object with "
         "'created_at' (text)"),
        ("project", {**PROJECT, "label_config": None}, "an object with 'label_config' (text)"),
        ("project", {**PROJECT, "id": "1"}, "an object with 'id' (a whole number)"),
        ("project", [], "project 1 with something else than a JSON object"),
        ("task", [], "task 1 with something else than a JSON object"),
        ("prediction", [1], "prediction 1 with something else than a JSON object"),
        ("predictions", {"detail": "busy"}, "the predictions of task 1 with something else than a "
         "list"),
        ("predictions", [{"model_version": "v1"}], "an object with 'id' (a whole number)"),
        ("model_versions", {"v1": "many"}, "an object with 'v1' (a whole number)"),
        ("backends", [{"id": 1}], "an object with 'url' (text)"),
        ("webhooks", ["x"], "the webhooks of project 1 with something else than a JSON object"),
        ("views", [{}], "the tabs of project 1 with something else than an object with 'id'"),
        ("next_task", 7, "the next task with something else than a JSON object"),
    ],
)  # fmt: skip
def test_an_answer_without_what_is_needed_says_what_is_missing(call, content, said):
    client = client_of(lambda request: httpx.Response(200, json=content))
    with pytest.raises(Unavailable) as caught:
        getattr(client, call)(1)
    assert said in str(caught.value)


@pytest.mark.parametrize("content", [{}, {"results": None}, {"results": [{"title": "x"}]}])
def test_a_list_of_projects_that_is_none_is_no_end_of_the_list(content):
    client = client_of(lambda request: httpx.Response(200, json=content))
    with pytest.raises(Unavailable, match="its projects"):
        list(client.projects())


def test_uploaded_files_without_a_path_are_not_taken():
    client = client_of(lambda request: httpx.Response(200, json=[{"id": 7}]))
    with pytest.raises(Unavailable, match=r"its uploaded files .* 'file' \(text\)"):
        client.file_paths(1, [7])
