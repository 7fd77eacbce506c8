"""The `ralis` command as a process of its own."""

import subprocess
import sys
import time

RALIS = (sys.executable, "-m", "ralis_backend.cli")


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
