"""A model version is named the same way on every command line."""

import pytest

from semivl.errors import RegistryError
from semivl.registry.address import model_and_version


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


@pytest.mark.parametrize("address", ["", "photos", "a@b@c", "a/b/c", "a/", "a/0", "@champion", "nowhere/7x", "a@"])
def test_what_names_no_version_is_told(address):
    with pytest.raises(RegistryError, match="PRED001"):
        model_and_version(address)
