"""Known holes in the packages of requirements.lock, by pip-audit: `make lint` runs it.

It ends with 1 where a package has one. The database is asked for over the network; where that cannot be reached, or
knows none of the packages, the audit says that it was not run and does not stand in the way.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SECONDS = 120
LOCK = Path(__file__).parent.parent / "requirements.lock"
COMMAND = ("-m", "pip_audit", "--requirement", str(LOCK), "--no-deps", "--disable-pip", "--require-hashes",
           "--progress-spinner", "off", "--format", "json")  # fmt: skip


def verdict(report: dict[str, Any]) -> tuple[int, list[str]]:
    """Exit status and lines of what pip-audit reports in JSON."""
    packages = report["dependencies"]
    asked = [p for p in packages if "skip_reason" not in p]
    if not asked:
        return 0, [f"NOT RUN: the vulnerability database answers for none of {len(packages)} packages."]
    found = [
        f"{p['name']} {p['version']}: {hole['id']}, mended in {', '.join(hole['fix_versions']) or 'no version yet'}"
        for p in asked
        for hole in p["vulns"]
    ]
    left = len(packages) - len(asked)
    told = f"{len(asked)} packages audited, {len(found)} known holes" + (f", {left} not looked up" if left else "")
    return (1 if found else 0), [*found, told + "."]


def main() -> int:
    try:
        done = subprocess.run([sys.executable, *COMMAND], capture_output=True, text=True, timeout=SECONDS)
        report = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        status, lines = 0, [f"NOT RUN: the vulnerability database gave no answer within {SECONDS} seconds."]
    except ValueError:
        last = (done.stderr.strip() or "no word").splitlines()[-1]
        status, lines = 0, [f"NOT RUN: the vulnerability database cannot be reached ({last[:200]})."]
    else:
        status, lines = verdict(report)
    print("\n".join(f"pip-audit: {line}" for line in lines))
    return status


if __name__ == "__main__":
    sys.exit(main())
