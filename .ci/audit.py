"""Locks -> known advisories on what they pin: `audit.py PIP-AUDIT LOCK...`.

Exit code 0: none; 1: some; 2: none could be had, so nothing is known.
"""

import json
import subprocess
import sys


def look_up(pip_audit: str, lock: str, service: str) -> list | None:
    """What a service knows of each package of a lock; None if it knows nothing at all."""
    command = [pip_audit, "--require-hashes", "--disable-pip", "--progress-spinner", "off"]
    done = subprocess.run(
        [*command, "--format", "json", "--vulnerability-service", service, "-r", lock],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return None
    return packages if any("vulns" in package for package in packages) else None


def report(lock: str, packages: list) -> int:
    """Print the advisories on a lock, and what was not looked at; how many there are."""
    count = 0
    for package in packages:
        for advisory in package.get("vulns", ()):
            count += 1
            fixed = ", ".join(advisory["fix_versions"]) or "no release yet"
            print(f"{package['name']} {package['version']}: {advisory['id']}, fixed in {fixed}")
    unknown = [package["name"] for package in packages if "vulns" not in package]
    print(f"{lock}: {len(packages)} packages, {count} advisories")
    if unknown:
        print(f"not known to the service: {', '.join(unknown)}")
    return count


def main(pip_audit: str, locks: list[str]) -> int:
    """Look all locks up."""
    count = 0
    for lock in locks:
        found = look_up(pip_audit, lock, "osv") or look_up(pip_audit, lock, "pypi")
        if found is None:
            print(
                f"No advisories can be had here: {lock} was not looked at. Neither of the two "
                "services that pip-audit asks is reached; run `make audit` where one of them is."
            )
            return 2
        count += report(lock, found)
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
