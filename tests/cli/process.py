"""The `ralis` command as a process of its own."""

import sys
import time

RALIS = (sys.executable, "-m", "ralis_backend.cli")


def wait_for(condition, timeout_s=60.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)
