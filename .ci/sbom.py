"""A lock -> its software bill of materials in CycloneDX: `sbom.py requirements.txt sbom.cdx.json`.

The hashes of each package's files stand in the lock.
"""

import json
import re
import sys
from pathlib import Path

_PINNED = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\]+)")


def bill(lock: str) -> dict:
    """The bill of all that a lock pins, in its order."""
    pinned = [match.groups() for line in lock.splitlines() if (match := _PINNED.match(line))]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "ralis-backend"}},
        "components": [
            {
                "type": "library",
                "bom-ref": f"pkg:pypi/{name.lower()}@{version}",
                "name": name,
                "version": version,
                "purl": f"pkg:pypi/{name.lower()}@{version}",
            }
            for name, version in pinned
        ],
    }


if __name__ == "__main__":
    content = json.dumps(bill(Path(sys.argv[1]).read_text()), indent=1) + "\n"
    Path(sys.argv[2]).write_text(content)
