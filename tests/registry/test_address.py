"""A model version is named the same way on every command line."""

import pytest

from semivl.errors import RegistryError
from semivl.registry.address import is_version, model_and_version
from semivl.registry.guide import is_finished


@pytest.mark.parametrize(
    ("address", "meant"),
    [
        ("semivl-photos/7", ("semivl-photos", 7)),
        ("models:/semivl-photos/7", ("semivl-photos", 7)),
        ("semivl-photos@champion", ("semivl-photos", "champion")),
        ("models:/a b@next", ("a b", "next")),
    ],
)
def test_a_version_is_named_by_number_or_alias(address, meant):
    assert model_and_version(address) == meant


@pytest.mark.parametrize(
    "address", ["", "photos", "a@b@c", "a/b/c", "a/", "a/0", "@champion", "nowhere/7x", "a@", "a:b/7"]
)
def test_what_names_no_version_is_told(address):
    with pytest.raises(RegistryError, match="PRED001"):
        model_and_version(address)


def test_what_vlm_eval_takes_for_a_finished_model_is_a_version_or_a_folder(tmp_path):
    finished = ("semivl-photos/4", "models:/semivl-photos/4", "semivl-photos@champion", str(tmp_path))
    assert [is_finished(one) for one in finished] == [True] * 4
    assert [is_version(one) for one in finished] == [True, True, False, False]
    for vlm in ("tiny", "spoken:.semivl/vlm/spoken", "spoken:vlm/4", "photos/spoken", "a/b/4"):
        assert not is_finished(vlm) and not is_version(vlm), vlm
