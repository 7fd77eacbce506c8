import json
import re

from tests import REPOSITORY


def test_the_bill_of_materials_lists_what_the_lock_pins():
    lock = (REPOSITORY / "requirements.txt").read_text()
    pinned = dict(re.findall(r"^([\w.-]+)(?:\[.*\])?==([^ ;\\]+)", lock, re.MULTILINE))
    bill = json.loads((REPOSITORY / "docs" / "sbom.cdx.json").read_text())
    assert {it["name"]: it["version"] for it in bill["components"]} == pinned
    assert len(pinned) > 100


def test_every_package_of_both_locks_has_hashes():
    for name in ("requirements.txt", "requirements-label-studio.txt"):
        entries = re.split(r"\n(?=[\w])", (REPOSITORY / name).read_text().strip())
        assert [entry for entry in entries if "--hash=sha256:" not in entry] == []
