"""One target under atheris, which looks for bytes that reach new code.

Usage: python -m tests.fuzz.atheris_run TARGET CORPUS_FOLDER [options of libFuzzer]
"""

from __future__ import annotations

import importlib
import logging
import sys
import warnings
from pathlib import Path

import atheris

INSTRUMENTED = ("ralis_backend.core", "ralis_backend.labelstudio.payloads", "PIL", "defusedxml")


def main() -> None:
    """Fuzz until libFuzzer's options say enough; what fails is kept beside the corpus."""
    logging.disable()
    warnings.simplefilter("ignore")
    with atheris.instrument_imports(include=list(INSTRUMENTED)):
        target = importlib.import_module("tests.fuzz.targets").TARGETS[sys.argv[1]]
    corpus = Path(sys.argv[2])
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    failures = f"-artifact_prefix={corpus.parent}/{sys.argv[1]}-"
    options = [failures, "-max_len=4096", "-rss_limit_mb=4096", *sys.argv[3:]]
    atheris.Setup([sys.argv[0], str(corpus), *options], target.read)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
