"""Files that the settings name are found in the source, then in the checkout, and a wrong name shows the right one."""

import pytest

from semivl.data.lists import find_file, read_list
from semivl.data.source_files import LocalFiles
from semivl.errors import DataError
from semivl.settings import ROOT
from tests.sources import Memory, write


def test_the_source_comes_before_the_checkout(tmp_path):
    files = LocalFiles(tmp_path)
    assert read_list(files, "conf/splits/voc/92.txt") == (ROOT / "conf/splits/voc/92.txt").read_text().split()
    write(tmp_path, {"conf/splits/voc/92.txt": "own\n"})
    assert read_list(files, "conf/splits/voc/92.txt") == ["own"]


def test_lines_are_stripped_and_empty_ones_left_out():
    assert read_list(Memory({"l.txt": "\ufeffä b \r\n\n  c\n".encode()}), "l.txt") == ["ä b", "c"]


@pytest.mark.parametrize(("asked", "meant"), [("val_list.txt", "lists/val.txt"), ("tag.csv", "tags.csv")])
def test_a_wrong_name_shows_the_near_one_of_its_kind(asked, meant):
    files = Memory(dict.fromkeys(("lists/val.txt", "tags.csv", "tag.json", "images/tag.jpg"), b"x"))
    with pytest.raises(DataError, match=f"DATA103.*{asked}.*{meant}"):
        find_file(files, asked)


def test_a_name_out_of_the_source_is_not_found_in_it(tmp_path):
    write(tmp_path, {"secret.txt": "x", "source/a.jpg": "x"})
    with pytest.raises(DataError, match="DATA103"):
        find_file(LocalFiles(tmp_path / "source"), "../secret.txt")
