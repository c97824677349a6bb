"""Nouns of captions by HanTa."""

from semivl.language.nouns import NOT_VISUAL, Noun, nouns


def words(caption: str, left_out: frozenset[str] = frozenset()) -> list[str]:
    return [noun.word for noun in nouns(caption, left_out)]


def test_nouns_stand_in_their_order_with_their_lemmas():
    assert nouns("Two dogs are chasing a red ball on the lawn .") == (
        Noun("dogs", "dog"),
        Noun("ball", "ball"),
        Noun("lawn", "lawn"),
    )


def test_a_word_comes_once_however_often_it_is_said():
    assert words("a fox , a car , and another fox") == ["fox", "car"]


def test_proper_nouns_count_and_keep_their_place():
    assert words("a street in London") == ["street", "london"]


def test_single_letters_marks_and_tags_of_markup_are_no_nouns():
    assert words("<b> a cat < x > b") == ["cat"]
    assert words("") == words("! , .") == []


def test_clitics_are_cut_off_and_compounds_stay_whole():
    assert words("the boy's dog isn't on the see-saw")[:2] == ["boy", "dog"]
    assert "see-saw" in words("the boy's dog isn't on the see-saw")


def test_nouns_that_name_no_region_can_be_left_out():
    caption = "a photo of a fox on the lake , what a day"
    assert words(caption) == ["photo", "fox", "lake", "day"]
    assert words(caption, NOT_VISUAL) == ["fox", "lake"]
