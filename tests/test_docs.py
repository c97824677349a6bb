"""The documents hold what they promise: codes are explained, links lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CODE = re.compile(r"\b(?:CONF|DATA|STORE|SERV|TRAIN|REG|VLM|EVAL|LABEL)\d{3}\b")
DOCUMENTS = sorted(
    path
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "infra").rglob("*.md")]
    if path.is_file()
)


def test_every_code_in_the_source_is_explained_once() -> None:
    sources = [*(ROOT / "semivl").rglob("*.py"), *(ROOT / "flows").rglob("*.py"), *(ROOT / "conf/suite").glob("*.yaml")]
    used = {code for path in sources for code in CODE.findall(path.read_text())}
    explained = re.findall(r"^\| ([A-Z]+\d{3}) \|", (ROOT / "docs" / "codes.md").read_text(), re.MULTILINE)
    assert used - set(explained) == set()
    assert set(explained) - used == set(), "explained, but nothing raises it"
    assert len(explained) == len(set(explained))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", text)
    targets = [one or other for one, other in links]
    relative = [target.split("#")[0] for target in targets if not re.match(r"[a-z]+:|#", target)]
    assert [target for target in relative if not (document.parent / target).exists()] == []


def test_documents_name_no_path_of_the_machine_they_were_written_on() -> None:
    assert [p.name for p in DOCUMENTS if re.search(r"/work/|/tmp/|/root/", p.read_text())] == []
