"""The audit of packages: what it finds stands in the way, and what it cannot look up is told."""

import importlib.util

import pytest

from semivl.settings import ROOT

spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci" / "audit.py")
audit = importlib.util.module_from_spec(spec)  # pyright: ignore[reportArgumentType]
spec.loader.exec_module(audit)  # pyright: ignore[reportOptionalMemberAccess]

SOUND = {"name": "torch", "version": "2.13", "vulns": []}
HOLED = {"name": "pillow", "version": "9.0", "vulns": [{"id": "PYSEC-2022-1", "fix_versions": ["9.1"]}]}
UNKNOWN = {"name": "mine", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("packages", "status", "told"),
    [
        ([SOUND, SOUND], 0, "2 packages audited, 0 known holes."),
        ([SOUND, HOLED], 1, "PYSEC-2022-1, mended in 9.1"),
        ([SOUND, UNKNOWN], 0, "1 packages audited, 0 known holes, 1 not looked up."),
        ([UNKNOWN, UNKNOWN], 0, "NOT RUN"),
    ],
    ids=["sound", "a hole", "some unknown", "offline"],
)
def test_a_hole_stands_in_the_way_and_silence_is_told(packages, status, told):
    found, lines = audit.verdict({"dependencies": packages})
    assert found == status and told in " ".join(lines)
