import logging
from datetime import UTC, datetime

import numpy as np
import pytest

from ralis_backend.core.regions import Region
from ralis_backend.labelstudio import plugin as backend_module
from ralis_backend.labelstudio.plugin import RalisBackend
from ralis_backend.online.learner import SuggestionFailure
from ralis_backend.online.tool import ImageSuggestion, SuggestedRegion

UID = "3.1763700000"
CONFIG = """<View><Image name="image" value="$photo"/>
<BrushLabels name="brush" toName="image"><Label value="road"/><Label value="sky"/></BrushLabels>
</View>"""


class FakeLearner:
    """Answers with one region per task; remembers what it was told."""

    def __init__(self, known=(UID,)):
        self.known = set(known)
        self.events = []
        self.requests = []
        self.strategies = {}
        self.asked = []

    def register(self, uid, label_config, classes, extra_params):
        self.known.add(uid)
        self.strategies[uid] = extra_params.get("strategy")
        return "v2"

    def model_version(self, uid):
        return "v2" if uid in self.known else "v0"

    def class_names(self, uid):
        if uid not in self.known:
            raise ValueError("unknown")
        return ("road", "sky")

    def suggest(self, uid, tasks):
        self.asked = list(tasks)
        return [self._one(task) for task in tasks]

    def _one(self, task):
        if task.image == "bad":
            return SuggestionFailure(task.id, "no such image")
        usefulness = float("nan") if task.image == "odd" else 0.75
        region = SuggestedRegion(Region(0, 0, 4, 6), 1, 0.75, "uncertain")
        mask = np.zeros((8, 6), np.uint8)
        return ImageSuggestion(task.id, (8, 6), (region,), mask, "v2", usefulness)

    def learn(self, uid, event, payload):
        self.events.append((uid, event, payload))

    def request_training(self, uid):
        self.requests.append(uid)

    def status(self, uid=None):
        return {uid: {} for uid in self.known}


def hosted(learner, project_id=UID):
    return RalisBackend.bind(learner)(project_id=project_id, label_config=CONFIG)


def task(task_id=1, image="a.png"):
    return {
        "id": task_id,
        "project": 3,
        "created_at": "2025-11-21T04:41:00.5Z",
        "data": {"photo": image},
    }


def test_hosting_without_a_learner_says_what_to_host_instead():
    with pytest.raises(RuntimeError, match=r"ralis_backend\.app\.plugin"):
        RalisBackend(label_config=CONFIG)


def test_two_bound_classes_keep_their_own_learners():
    first, second = FakeLearner(), FakeLearner()
    assert RalisBackend.bind(first).learner is first
    assert RalisBackend.bind(second).learner is second
    assert RalisBackend.learner is None


def test_tasks_are_read_with_the_key_of_the_label_config():
    learner = FakeLearner()
    hosted(learner).predict([task()])
    (asked,) = learner.asked
    assert (asked.id, asked.image) == (1, "a.png")
    assert asked.created_at == datetime(2025, 11, 21, 4, 41, 0, 500_000, UTC)


def test_images_that_were_uploaded_before_the_label_config_are_suggested_on():
    early = {**task(), "data": {"$undefined$": "a.png"}}
    (answer,) = hosted(FakeLearner()).predict([early])
    assert answer["result"]


def test_one_answer_per_task_in_order_whatever_is_wrong_with_some(caplog):
    tasks = [task(1, "bad"), task(2), {"id": 3}, None, task(4, "odd"), task(5)]
    with caplog.at_level(logging.WARNING):
        answers = hosted(FakeLearner()).predict(tasks)
    assert "task number 4 of the list" in caplog.text
    assert len(answers) == len(tasks)
    assert [bool(answer["result"]) for answer in answers] == [False, True, False, False, True, True]
    assert all(np.isfinite(answer["score"]) for answer in answers)
    assert answers[0]["score"] > answers[1]["score"], "what failed comes last"
    assert {answer["model_version"] for answer in answers} == {"ralis-v2"}


def test_a_failing_formatter_costs_one_task_its_answer(monkeypatch):
    def fail(*_):
        raise ValueError("mask and image differ in size")

    monkeypatch.setattr(backend_module, "image_prediction", fail)
    assert hosted(FakeLearner()).predict([task()])[0]["result"] == []


def test_a_bare_project_id_means_the_newest_project_with_it():
    learner = FakeLearner(known=("3.100", "3.1763700000", "31.1863700000"))
    assert hosted(learner, "3")._uid(()) == "3.1763700000"
    assert hosted(learner, None)._uid([task()]) == "3.1763700000"
    assert hosted(learner, "4")._uid(()) is None


def test_an_unknown_project_of_another_host_gets_empty_answers():
    answers = hosted(FakeLearner(known=()), None).predict([task(), task(2)])
    assert [answer["result"] for answer in answers] == [[], []]


def test_start_training_is_a_request_and_every_other_event_is_stored():
    learner = FakeLearner()
    project = {"id": 3, "created_at": "2025-11-21T04:40:00Z"}
    hosted(learner).fit("START_TRAINING", {"project": project})
    answer = hosted(learner).fit("ANNOTATION_CREATED", {"project": project, "annotation": {}})
    assert learner.requests == [UID]
    assert learner.events == [(UID, "ANNOTATION_CREATED", {"project": project, "annotation": {}})]
    assert answer["model_version"] == "ralis-v2"


def test_an_event_of_no_project_is_refused():
    with pytest.raises(ValueError, match="names no project"):
        hosted(FakeLearner()).fit("ANNOTATION_CREATED", {"project": {"id": 3}})
    with pytest.raises(ValueError, match="fit needs"):
        hosted(FakeLearner()).fit([])
