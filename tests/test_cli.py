import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from ralis_backend.cli import app, main
from ralis_backend.cli.supervisor import Child, Supervisor
from ralis_backend.settings import load_settings
from ralis_backend.wiring import create_worker

RALIS = (sys.executable, "-m", "ralis_backend.cli")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def environment(tmp_path):
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RALIS_", "LABEL_STUDIO_"))
    }
    return {
        **kept,
        "RALIS_DATA_DIR": str(tmp_path / "state"),
        "RALIS_ENCODER_WEIGHTS": "none",
        "OMP_NUM_THREADS": "1",
    }


def ralis(environment, tmp_path, *arguments, timeout_s=60):
    return subprocess.run(
        [*RALIS, *arguments],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def wait_for(condition, timeout_s=60.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def is_open(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def children_of(process_id):
    path = f"/proc/{process_id}/task/{process_id}/children"
    with open(path) as file:
        return [int(child) for child in file.read().split()]


def test_help_lists_the_commands_without_heavy_imports(environment, tmp_path):
    answer = ralis(environment, tmp_path, "--help")
    assert answer.returncode == 0
    for name in ("serve", "web", "worker", "connect", "doctor", "versions", "simulate"):
        assert name in answer.stdout
    code = "import ralis_backend.cli, sys; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "flask", "sqlalchemy", "numpy"} & set(modules)


def test_a_bad_setting_is_one_line_and_exit_code_2(environment, tmp_path):
    answer = ralis({**environment, "RALIS_REGION_SIZE": "big"}, tmp_path, "serve")
    assert answer.returncode == 2
    assert "RALIS_REGION_SIZE" in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1


def test_a_port_in_use_is_one_line_and_exit_code_2(environment, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        answer = ralis(environment, tmp_path, "serve", "--port", port)
    assert answer.returncode == 2
    assert f"port {port}" in answer.stderr.splitlines()[-1]


def test_other_machines_are_not_served_without_credentials(environment, tmp_path):
    answer = ralis(environment, tmp_path, "serve", "--host", "0.0.0.0", "--port", str(free_port()))
    assert answer.returncode == 2
    assert "RALIS_AUTH_USER" in answer.stderr


@pytest.mark.parametrize(
    ("command", "wanted"),
    [("versions", "ralis connect --project 5"), ("connect", "LABEL_STUDIO_API_KEY")],
)
def test_what_is_missing_is_one_line_and_exit_code_2(
    environment, tmp_path, monkeypatch, capsys, command, wanted
):
    for name in ("LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ralis", command, "--project", "5"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert wanted in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [("connect", "--project", "5"), ("serve", "--port", str(free_port()))]
)
def test_a_file_of_encoder_weights_that_does_not_fit_is_refused_at_start(
    environment, tmp_path, monkeypatch, capsys, command
):
    save_file({"blocks.0.weight": torch.ones(2)}, tmp_path / "other.safetensors")
    weights = {"RALIS_ENCODER_WEIGHTS": "other.safetensors", "LABEL_STUDIO_API_KEY": "token"}
    for name, value in {**environment, **weights}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ralis", *command])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "1 unexpected: blocks.0.weight" in capsys.readouterr().err
    with pytest.raises(ValueError, match="1 unexpected"):
        create_worker(load_settings(data_dir=tmp_path / "state"))


def test_doctor_names_what_fails_and_what_to_do(environment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nowhere = f"http://127.0.0.1:{free_port()}"
    there = {"LABEL_STUDIO_URL": nowhere, "RALIS_BACKEND_URL": nowhere}
    answer = CliRunner().invoke(app, ["doctor"], env={**environment, **there})
    assert answer.exit_code == 1
    assert "ok   data folder" in answer.stdout
    assert "FAIL Label Studio" in answer.stdout
    assert "-> start it, and set LABEL_STUDIO_URL" in answer.stdout


@pytest.mark.e2e
@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="reads /proc")
def test_serve_answers_at_once_restarts_what_dies_and_stops_on_a_signal(environment, tmp_path):
    port = free_port()
    log = tmp_path / "log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [*RALIS, "serve", "--port", str(port)],
            env=environment,
            cwd=tmp_path,
            stderr=output,
        )
    try:
        wait_for(lambda: is_open(port))
        opened = time.monotonic()
        address = f"http://127.0.0.1:{port}"
        assert httpx.get(f"{address}/health", timeout=5).status_code == 200
        assert time.monotonic() - opened < 1.0
        config = (
            '<View><Image name="i" value="$image"/><BrushLabels name="b" toName="i">'
            '<Label value="road"/></BrushLabels></View>'
        )
        body = {"project": "3.1763700000", "schema": config}
        assert httpx.post(f"{address}/setup", json=body, timeout=5).json() == {
            "model_version": "v0"
        }
        assert "ralis_request_seconds" in httpx.get(f"{address}/metrics", timeout=5).text

        wait_for(lambda: len(children_of(server.pid)) == 2)
        worker = max(children_of(server.pid))
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: "worker ended with code -9" in log.read_text())
        wait_for(lambda: log.read_text().count("worker started") == 2)

        running = children_of(server.pid)
        stopped = time.monotonic()
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=20) == 0
        assert time.monotonic() - stopped < 12
        assert not is_open(port)
        wait_for(lambda: not any(os.path.exists(f"/proc/{child}") for child in running), 5)
    finally:
        server.kill()
        server.wait()


def test_a_child_that_keeps_dying_is_restarted_with_growing_pauses(caplog):
    import threading

    stop = threading.Event()
    child = Child("crash", (sys.executable, "-c", "raise SystemExit(3)"))
    runner = threading.Thread(target=Supervisor([child]).run, args=(stop,))
    with caplog.at_level("INFO"):
        runner.start()
        wait_for(lambda: caplog.text.count("crash ended with code 3") == 2, 20)
        stop.set()
        runner.join(10)
    pauses = [record.args[2] for record in caplog.records if "ended" in record.message]
    assert pauses == [1.0, 2.0]


def test_a_child_that_ignores_the_signal_is_killed():
    import threading

    stop = threading.Event()
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    child = Child("deaf", (sys.executable, "-c", code))
    runner = threading.Thread(target=Supervisor([child], stop_s=0.5).run, args=(stop,))
    runner.start()
    wait_for(lambda: child.process is not None)
    time.sleep(0.5)
    stop.set()
    runner.join(10)
    assert not runner.is_alive()
