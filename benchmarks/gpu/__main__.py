"""Run the tests that need a GPU, then measure; everything goes to one JSON file.

Each measurement is a process of its own with a bound, so that one that fails, hangs or breaks the
device is written down and the others still run. The exit code is 1 if anything failed.

    python -m benchmarks.gpu --out benchmarks/results/gpu.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.measurements import MEASUREMENTS
from benchmarks.gpu.timing import Setting
from ralis_backend.core.files import write_json

ROOT = Path(__file__).resolve().parents[2]
TOTAL_S, TESTS_S, MEASUREMENT_S = 240.0, 100.0, 60.0
_TAIL = 1500


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 if every test passed and every measurement was made."""
    options = _options(arguments)
    setting = Setting(torch.device(options.device), options.tiny)
    if setting.device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            f"torch {torch.__version__} finds no CUDA device; run this where there is one, or try "
            "the command itself with --device cpu --tiny"
        )
    if options.measure:
        print(json.dumps(_measured_here(options.measure, setting)))
        return 0
    return _run_all(setting, options.out, options.only or list(MEASUREMENTS))


def _run_all(setting: Setting, out: Path, names: Sequence[str]) -> int:
    """Tests, then measurements; the file is written anew after each, so that a kill leaves it."""
    ends = time.monotonic() + TOTAL_S
    report: dict[str, Any] = _facts(setting) | {"tests": _tests(TESTS_S), "measurements": {}}
    for name in names:
        print(f"measuring: {name}", file=sys.stderr, flush=True)
        bound_s = min(MEASUREMENT_S, ends - time.monotonic())
        report["measurements"][name] = measured_apart(_command(name, setting), bound_s)
        write_json(out, report)
    print(json.dumps(report, indent=1))
    outcomes = [report["tests"], *report["measurements"].values()]
    return int(any("error" in outcome for outcome in outcomes))


def measured_apart(command: Sequence[str], bound_s: float) -> dict[str, Any]:
    """The JSON object that a process prints as its last line; `error` says why there is none."""
    if bound_s <= 0:
        return {"error": f"no time was left of the {TOTAL_S:.0f} s of the whole run"}
    started = time.monotonic()
    try:
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=bound_s)
    except subprocess.TimeoutExpired:
        return {"error": f"it was stopped after its bound of {bound_s:.1f} s"}
    if ended.returncode:
        tail = ended.stderr.strip()[-_TAIL:]
        return {"error": f"it ended with code {ended.returncode}: {tail}"}
    last = (ended.stdout.strip().splitlines() or ["it printed nothing"])[-1]
    try:
        result: dict[str, Any] = json.loads(last)
    except ValueError:
        return {"error": f"its last line is no JSON: {last[-_TAIL:]}"}
    return result | {"seconds": round(time.monotonic() - started, 1)}


def _measured_here(name: str, setting: Setting) -> dict[str, Any]:
    """One measurement, and the most memory that this process held on the device, or at all."""
    result = MEASUREMENTS[name](setting)
    if setting.device.type == "cuda":
        return result | {"peak_device_mb": round(torch.cuda.max_memory_allocated() / 2**20)}
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return result | {"peak_process_mb": round(peak_kb / 2**10)}


def _command(name: str, setting: Setting) -> list[str]:
    command = [sys.executable, "-m", "benchmarks.gpu", "--measure", name]
    return [*command, "--device", str(setting.device), *(["--tiny"] if setting.is_tiny else [])]


def _tests(bound_s: float) -> dict[str, Any]:
    """What became of the tests marked `gpu`; without a GPU they say that they were skipped."""
    # Warnings are no errors here: the versions are the machine's, not the locked ones.
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-rs", "-W", "default", "tests/gpu"]
    print("testing: pytest -m gpu tests/gpu", file=sys.stderr, flush=True)
    try:
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=bound_s)
    except subprocess.TimeoutExpired:
        return {"error": f"the tests were stopped after their bound of {bound_s:.0f} s"}
    lines = ended.stdout.strip().splitlines() or [ended.stderr.strip()[-_TAIL:]]
    if ended.returncode:
        return {"summary": lines[-1], "error": (ended.stdout + ended.stderr).strip()[-_TAIL:]}
    return {"summary": lines[-1]}


def _facts(setting: Setting) -> dict[str, Any]:
    is_cuda = setting.device.type == "cuda"
    return {
        "command": "python -m benchmarks.gpu " + " ".join(sys.argv[1:]),
        "commit": _commit(),
        "device": torch.cuda.get_device_name(setting.device) if is_cuda else str(setting.device),
        "is_tiny": setting.is_tiny,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if is_cuda else None,
        "tf32_convolutions": torch.backends.cudnn.allow_tf32,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def _commit() -> str | None:
    """The commit, with `-dirty` where files differ from it; None where there is no git."""
    command = ["git", "-c", f"safe.directory={ROOT}", "describe", "--always", "--dirty"]
    try:
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("benchmarks.gpu", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "gpu.json")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes that only show that it works")
    parser.add_argument(
        "--only", nargs="+", choices=MEASUREMENTS, metavar="NAME", help="some measurements"
    )
    parser.add_argument("--measure", choices=MEASUREMENTS, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
