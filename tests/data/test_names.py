"""Names that lose or mistake a file on some system are told, and all others pass."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semivl.data.names import name_faults

COMPOSED, DECOMPOSED = unicodedata.normalize("NFC", "é.jpg"), unicodedata.normalize("NFD", "é.jpg")


def codes(*names: str) -> dict[str, str]:
    return {fault.source: fault.code for fault in name_faults(names).values()}


@pytest.mark.parametrize(
    "name",
    [
        "images/a.jpg", "a.b.c.jpg", ".hidden", "..jpg", "a..jpg", "with blank.jpg", "日本/写真.jpg", COMPOSED,
        DECOMPOSED, "a:b.jpg", "100%.jpg", "'\"$(x).jpg", "n" * 255, "caf\udce9.jpg", "a\\b.jpg", "🦊.jpg",
        "a/" * 511 + "b",
    ],
)  # fmt: skip
def test_sound_names_pass(name):
    assert codes(name) == {}


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("../a.jpg", "DATA013"),
        ("a/../../b.jpg", "DATA013"),
        ("..", "DATA013"),
        ("/etc/passwd", "DATA013"),
        ("..\\a.jpg", "DATA013"),
        ("C:\\a.jpg", "DATA013"),
        ("\\\\server\\a.jpg", "DATA013"),
        ("", "DATA020"),
        ("a//b.jpg", "DATA020"),
        ("./a.jpg", "DATA020"),
        ("a/", "DATA020"),
        ("a\nb.jpg", "DATA020"),
        ("a\x00.jpg", "DATA020"),
        ("\x1b[31ma.jpg", "DATA020"),
        ("a\x85.jpg", "DATA020"),
        ("gpj.\u202eexe.jpg", "DATA020"),
        ("n" * 256, "DATA021"),
        ("é" * 128, "DATA021"),
        ("a/" * 512 + "b", "DATA021"),
    ],
)
def test_each_fault_has_its_code_and_can_be_shown(name, code):
    (fault,) = name_faults([name]).values()
    assert fault.code == code
    assert fault.bytes is None
    assert all(c.isprintable() for c in fault.source + fault.reason)


def test_of_names_that_differ_by_unicode_form_the_first_stays():
    first, second = sorted([COMPOSED, DECOMPOSED])
    assert codes(COMPOSED, DECOMPOSED) == {second: "DATA022"}
    assert first in next(iter(name_faults([DECOMPOSED, COMPOSED]).values())).reason


def test_of_names_that_differ_by_case_the_first_stays():
    assert codes("a/b.jpg", "A/b.jpg", "a/B.JPG", "a/c.jpg") == {"a/B.JPG": "DATA023", "a/b.jpg": "DATA023"}
    assert codes("Ä.jpg", "ä.jpg") == {"ä.jpg": "DATA023"}


def test_kelvin_and_k_are_one_name_to_unicode():
    assert codes("K.jpg", "\u212a.jpg") == {"\u212a.jpg": "DATA022"}


def test_same_name_twice_is_no_fault_of_the_name():
    assert codes("a.jpg", "a.jpg") == {}


def test_faulty_name_takes_no_other_name_away():
    assert codes("A//b.jpg", "a/b.jpg") == {"A//b.jpg": "DATA020"}


@given(names=st.lists(st.text(st.sampled_from("aAéÉ\u0301/.\n\\"), max_size=6), max_size=12), seed=st.randoms())
def test_result_does_not_depend_on_the_order(names, seed):
    shuffled = names.copy()
    seed.shuffle(shuffled)
    assert name_faults(names) == name_faults(shuffled)
    kept = set(names) - name_faults(names).keys()
    folded = [unicodedata.normalize("NFC", n).lower() for n in kept if all(c.isprintable() for c in n)]
    assert len(folded) == len(set(folded))


@settings(max_examples=50)
@given(names=st.lists(st.text(max_size=8), max_size=8))
def test_no_name_makes_it_raise_or_is_told_in_what_cannot_be_written(names):
    for fault in name_faults(names).values():
        (fault.source + fault.reason).encode()
