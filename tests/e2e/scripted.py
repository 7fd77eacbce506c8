"""The demo's command with a scripted annotator, and what it must leave."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from ralis_backend.cli.demo.label_studio import free_port
from ralis_backend.core.regions import VOID
from ralis_backend.offline.datasets import Dataset
from tests.e2e.conftest import CAMVID

REGIONS = 6


def command(folder, *arguments):
    return [
        *(sys.executable, "-m", "ralis_backend.cli", "demo"),
        *("--folder", str(folder), "--port", str(free_port()), "--backend-port", str(free_port())),
        *("--max-images", "8", "--eval-images", "4", "--region-size", "90x80"),
        *("--regions-per-round", str(REGIONS), "--dataset", str(CAMVID)),
        *arguments,
    ]


def environment():
    """Nothing is trained on meanwhile: that is tried by itself, and takes the others' time."""
    one_thread = {"OMP_NUM_THREADS": "1", "RALIS_IMPROVE_MINUTES": "0"}
    return {**os.environ, **one_thread, "COLUMNS": "120"}


def label_by_script(folder, out, mode, rounds, variables=None):
    arguments = ("--oracle", "--rounds", str(rounds), "--mode", mode, "--out", str(out))
    done = subprocess.run(
        command(folder, *arguments),
        env={**environment(), **(variables or {})},
        capture_output=True,
        text=True,
        timeout=800,
    )
    logs = "".join(path.read_text()[-3000:] for path in folder.glob("backends/*/backend.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    return done.stdout


def processes_of(folder):
    """Processes whose command line or environment names the demo's folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if str(folder).encode() in text:
                found.append(text.split(b"\0")[:4])
    return found


def check_results(out, printed, rounds, least_miou):
    """What a demo leaves; on images that it never saw, the last version reaches `least_miou`."""
    content = json.loads((out / "results.json").read_text())
    numbers = range(1, rounds + 1)
    assert [done["trained_version"] for done in content["rounds"]] == [f"v{it}" for it in numbers]
    for number, done in zip(numbers, content["rounds"], strict=True):
        # What nobody painted, since CamVid leaves it void, does not count as labelled.
        assert number * REGIONS - 2 <= done["regions"] <= number * REGIONS
    for done in content["rounds"]:
        assert 0 < done["validation"]["miou"] < 1
        assert done["test"]["images"] == 4
        assert {"label", "sync", "train", "rank", "publish", "eval"} <= set(done["seconds"])
    assert content["rounds"][-1]["test"]["miou"] > least_miou
    with Image.open(out / "curve.png") as image:
        assert image.size[0] > 400
    assert "learning curve" in printed
    assert "Everything is stopped." in printed


def check_dataset(out, rounds):
    """Inside the labelled regions the masks are the truth, bit by bit; all else is VOID."""
    truth, grown = Dataset.open(CAMVID), Dataset.open(out / "dataset")
    assert grown.class_names == truth.class_names
    with (out / "dataset/provenance.csv").open() as file:
        provenance = list(csv.DictReader(file))
    assert len(provenance) == rounds * REGIONS
    for key, sample in grown.samples.items():
        original = truth.samples[f"train/{Path(key).name}"]
        expected = np.full((360, 480), VOID, np.uint8)
        for row in provenance:
            if row["image"] == key:
                top, left = int(row["row"]), int(row["col"])
                box = np.s_[top : top + int(row["height"]), left : left + int(row["width"])]
                expected[box] = original.mask()[box]
        np.testing.assert_array_equal(sample.mask(), expected)
        assert sample.content() == original.content()
    return provenance
