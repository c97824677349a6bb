"""What a training ran with: the code's commit, the packages, the machine. Kept with its MLflow run."""

import platform
import subprocess
import sys
from importlib.metadata import distributions

from semivl import __version__
from semivl.settings import ROOT

COMMIT = "semivl.commit"
ENVIRONMENT = "environment.json"
_CODE = ("semivl", "flows", "conf")
CHANGED = " with changes"
MACHINE = ("python", "system", "processor", "device", "cuda", "threads")
"""what `environment` tells beside the packages"""


def commit() -> str:
    """The commit of the checkout that runs, and whether code or settings differ from it; the release without git."""
    head = _git("rev-parse", "HEAD")
    if not head:
        return f"release {__version__}"
    return head + (CHANGED if _git("status", "--porcelain", "--", *_CODE) else "")


def environment(threads: int | None = None) -> dict[str, str]:
    """Python, system, device, threads and every installed package, by name.

    Args:
        threads: that the training is told to use (`compute.threads`); what torch has chosen where empty.
    """
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    machine = {
        "python": sys.version.split()[0],
        "system": platform.platform(),
        "processor": platform.machine(),
        "device": device,
        "cuda": str(torch.version.cuda),
        "threads": str(threads or torch.get_num_threads()),
    }
    packages = {d.metadata["Name"]: d.version for d in distributions() if d.metadata["Name"]}
    return machine | packages_of(dict(sorted(packages.items(), key=lambda item: item[0].lower())))


def packages_of(environment: dict[str, str]) -> dict[str, str]:
    """The packages in what `environment` gave, each with its version."""
    return {name: version for name, version in environment.items() if name not in MACHINE}


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
