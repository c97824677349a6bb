"""What infra/terraform lets each stage do with which prefixes of the data bucket."""

import re

from tests.infra import compose

FOLDER = compose.FOLDER.parent / "terraform"


def prefixes(stage: str, kind: str = "write") -> set[str]:
    """The prefixes that roles.tf lets a stage read, write or delete."""
    block = re.search(rf"^  {stage} = \{{\n(.*?)^  \}}", (FOLDER / "roles.tf").read_text(), re.M | re.S)
    assert block
    line = re.search(rf"^\s+{kind}\s+= \[(.*)\]$", block[1], re.M)
    assert line
    return set(re.findall(r"\"([^\"]+)\"", line[1]))
