"""docs/openapi.yaml describes every route, and what it describes is what the app answers."""

import jsonschema
import pytest
import yaml

from tests import REPOSITORY
from tests.app.calls import CONFIG, PROJECT, UID, created, setup, task

DOCUMENT = yaml.safe_load((REPOSITORY / "docs" / "openapi.yaml").read_text())
OPERATIONS = [(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods]
BODIES = {
    "/setup": {"project": UID, "schema": CONFIG},
    "/predict": {"project": UID, "label_config": CONFIG, "tasks": [task(1), {"id": 2}]},
    "/webhook": created(),
    "/train": {"project": PROJECT},
    "/validate": {"config": CONFIG},
    "/delete": {"project": UID},
}


def check(answer, path, method):
    described = DOCUMENT["paths"][path][method]["responses"]
    assert str(answer.status_code) in described, (path, method, answer.status_code)
    response = described[str(answer.status_code)]
    if "$ref" in response:
        response = DOCUMENT["components"]["responses"][response["$ref"].rsplit("/")[-1]]
    assert answer.mimetype in response["content"]
    if answer.mimetype == "application/json":
        schema = response["content"][answer.mimetype]["schema"]
        jsonschema.validate(answer.json, {**schema, "components": DOCUMENT["components"]})


def test_every_route_is_described_and_no_other(client):
    routes = {
        (rule.rule, method.lower())
        for rule in client.application.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    assert routes == set(OPERATIONS)


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_what_is_answered_is_described(client, path, method):
    setup(client)
    arguments = {"json": BODIES.get(path, {})} if method == "post" else {}
    answer = client.open(path, method=method, **arguments)
    assert answer.status_code in (200, 201)
    check(answer, path, method)


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
@pytest.mark.parametrize(
    ("body", "kind"),
    [(b"{", "application/json"), (b"{}", "application/json"), (b"x", "text/plain")],
)
def test_what_is_refused_is_described(client, path, method, body, kind):
    check(client.open(path, method=method, data=body, content_type=kind), path, method)


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_whom_it_serves_is_described(guarded, path, method):
    answer = guarded.open(path, method=method)
    assert (answer.status_code == 200) is (DOCUMENT["paths"][path][method].get("security") == [])
    check(answer, path, method)
