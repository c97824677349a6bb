"""Tags, captions and splits reach the images that tables name, and nothing that a table says is dropped unseen."""

import io
import json

import pandas as pd
import pytest

from semivl.data.layouts import list_sources
from semivl.data.sample import Source
from tests.sources import Place, config, listed, place, refused, write


@pytest.fixture(params=["folder", "s3"])
def at(request) -> Place:
    return place(request)


@pytest.fixture
def photos(tmp_path):
    return write(tmp_path, dict.fromkeys([f"images/{n}.jpg" for n in "abcde"] + ["masks/a.png", "masks/b.png"], "x"))


def sources(source, **fields) -> dict[str, Source]:
    return {s.image.stem: s for s in list_sources(config(source, **fields))}


def jsonl(*rows: dict) -> str:
    return "\n".join(map(json.dumps, rows))


def parquet(**columns: list) -> bytes:
    file = io.BytesIO()
    pd.DataFrame(columns).to_parquet(file)
    return file.getvalue()


def test_tags_and_captions_are_attached(photos, at):
    captions = json.dumps({"image": "a.jpg", "caption": "a cat, äöü"}, ensure_ascii=False)
    write(
        photos, {"tags.jsonl": jsonl({"image": "a.jpg", "tags": ["cat", "dog"]}) + "\n\n", "captions.jsonl": captions}
    )
    found = sources(at(photos))["a"]
    assert (found.tags, found.caption) == (("cat", "dog"), "a cat, äöü")


def test_several_captions_and_tags_of_an_image_are_all_kept(photos):
    captions = [("a.jpg", "a cat"), ("b.jpg", ""), ("a.jpg", "it sits"), ("images/a.jpg", "and sleeps")]
    tags = [("a.jpg", ["cat", "dog"]), ("a", ["dog", "mat"])]
    write(photos, {"captions.jsonl": jsonl(*({"image": image, "caption": c} for image, c in captions))})
    write(photos, {"tags.jsonl": jsonl(*({"image": image, "tags": t} for image, t in tags))})
    found = sources(photos)
    assert (found["a"].caption, found["a"].tags) == ("a cat\nit sits\nand sleeps", ("cat", "dog", "mat"))
    assert (found["b"].caption, found["b"].tags) == (None, ())


def test_a_caption_is_one_line_and_a_blank_one_is_none(photos):
    captions = [
        ("a.jpg", "a dog\nin  a\u2028park "),
        ("a.jpg", " \n"),
        ("a.jpg", "it\tsits"),
        ("b.jpg", " "),
        ("b", ""),
    ]
    write(photos, {"captions.jsonl": jsonl(*({"image": image, "caption": c} for image, c in captions))})
    found = sources(photos)
    assert (found["a"].caption, found["b"].caption) == ("a dog in a park\nit sits", None)


def test_tags_have_no_space_around_them_whatever_the_table(photos):
    write(photos, {"tags.jsonl": jsonl({"image": "a.jpg", "tags": ["Cat ", " ", "Cat", " big dog"]})})
    assert sources(photos)["a"].tags == ("Cat", "big dog")


COCO = {"annotations": [{"image_id": 7, "caption": 'a "big" cat'}, {"image_id": 9, "caption": "ein Bär"}]}
COCO["images"] = [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "c.jpg"}, {"id": 9, "file_name": "b.jpg"}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("captions.csv", '\ufeffimage,caption,more\na.jpg,"a ""big"" cat",1\r\nb.jpg,ein Bär,2\n'),
        ("captions.txt", 'file_name,text\nimages/a.jpg,"a ""big"" cat"\nb,ein Bär\n'),
        ("captions.tsv", "caption\timage\na \"big\" cat\ta.jpg\nein Bär\tb.jpg\n"),
        ("meta.jsonl", jsonl({"file_name": "a.jpg", "text": 'a "big" cat'}, {"image": "b", "caption": "ein Bär"})),
        ("meta.parquet", parquet(image=["a.jpg", "b.jpg"], caption=['a "big" cat', "ein Bär"])),
        ("annotations/captions_train.json", json.dumps(COCO, ensure_ascii=False)),
    ],
)  # fmt: skip
def test_captions_come_in_every_usual_form(photos, at, name, content):
    found = sources(at(write(photos, {name: content})), captions=(name,))
    assert {k: s.caption for k, s in found.items() if s.caption} == {"a": 'a "big" cat', "b": "ein Bär"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tags.csv", "image,tags\na.jpg,cat; big dog;\nb.jpg,mat\nb.jpg,\n"),
        ("labels.csv", "path,label\na.jpg,cat\na.jpg,big dog\nb.jpg,mat\n"),
        ("tags.parquet", parquet(image=["a.jpg", "b.jpg"], tags=["cat;big dog", "mat"])),
        ("more.jsonl", jsonl({"image": "a.jpg", "tags": ["cat", "big dog"]}, {"image": "b.jpg", "tags": ["mat"]})),
    ],
)
def test_tags_come_in_every_usual_form(photos, at, name, content):
    found = sources(at(write(photos, {name: content})), tags=(name,))
    assert {k: s.tags for k, s in found.items() if s.tags} == {"a": ("cat", "big dog"), "b": ("mat",)}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tags.jsonl", jsonl({"image": "a.jpg", "tags": ["cat"], "complete": True}, {"image": "b.jpg", "tags": []})),
        ("tags.csv", "image,tags,complete\na.jpg,cat,yes\nb.jpg,,\n"),
        ("tags.parquet", parquet(image=["a.jpg", "b.jpg"], tags=["cat", ""], complete=[True, None])),
    ],
)
def test_tags_are_complete_where_a_row_or_the_settings_say_so(photos, name, content):
    write(photos, {name: content})
    one, other = (sources(photos, tags=(name,), tags_complete=usual) for usual in (False, True))
    assert {k: (one[k].tags_complete, other[k].tags_complete) for k in "ab"} == {"a": (True, True), "b": (False, True)}
    assert not [k for k in other if k not in "ab" and other[k].tags_complete]


def test_a_row_goes_before_the_settings_and_rows_that_disagree_say_incomplete(photos):
    rows = ({"image": "a.jpg", "tags": ["cat"], "complete": False}, {"image": "b.jpg", "tags": ["cat"]})
    write(photos, {"tags.jsonl": jsonl(*rows)})
    assert [sources(photos, tags_complete=True)[k].tags_complete for k in "ab"] == [False, True]
    write(photos, {"tags.jsonl": jsonl(*rows, {"image": "b.jpg", "tags": [], "complete": True})})
    assert [sources(photos)[k].tags_complete for k in "ab"] == [False, True]
    for names in (("a.jpg", "a.jpg"), ("a.jpg", "images/a.jpg"), ("a", "a.jpg")):
        for said in ((True, False), (False, True), (True, True)):
            lines = zip(names, said, strict=True)
            rows = ({"image": image, "tags": ["cat"], "complete": complete} for image, complete in lines)
            write(photos, {"tags.jsonl": jsonl(*rows)})
            assert sources(photos)["a"].tags_complete == all(said), (names, said)


@pytest.mark.parametrize("said", ["perhaps", 2])
def test_completeness_that_is_neither_is_told(photos, said):
    error = refused(write(photos, {"tags.jsonl": jsonl({"image": "a.jpg", "tags": ["cat"], "complete": said})}))
    assert (error.code, "line 1" in str(error)) == ("DATA105", True)


def test_usual_files_are_found_in_every_layout_and_named_ones_take_their_place(photos):
    write(photos, {"tags.csv": "image,tags\na.jpg,cat\n", "tags.jsonl": jsonl({"image": "a.jpg", "tags": ["dog"]})})
    write(photos, {"other.csv": "image,tags\na.jpg,mat\n"})
    assert set(sources(photos, layout="folder")["a"].tags) == {"cat", "dog"}
    assert sources(photos, layout="folder", tags=("other.csv",))["a"].tags == ("mat",)


@pytest.mark.parametrize(
    "line", ["{", "[" * 5000, "[]", '{"image": "a.jpg"}', '{"image": 3, "tags": []}', '{"image": "a", "tags": "cat"}']
)
def test_line_of_tags_with_another_shape(photos, line):
    error = refused(write(photos, {"tags.jsonl": '{"image": "a.jpg", "tags": ["cat"]}\n' + line}))
    assert (error.code, "line 2" in str(error), '"tags": ["…"]' in str(error)) == ("DATA105", True, True)


@pytest.mark.parametrize("name", ["captions.csv", "captions.tsv"])
def test_short_line_of_captions(photos, name):
    content = "image,caption\na.jpg,a cat\nb.jpg\n".replace(",", "\t" if name.endswith("tsv") else ",")
    error = refused(write(photos, {name: content}), captions=(name,))
    assert (error.code, "line 3" in str(error)) == ("DATA105", True)


@pytest.mark.parametrize(
    ("name", "content", "line", "remedy"),
    [
        ("tags.csv", "image,tags\n\na.jpg,dog\nb.jpg,dog,cat\n", 4, "dog;cat"),
        ("captions.csv", "image,caption\na.jpg,a dog, on a lawn\n", 2, '"a dog, on a lawn"'),
        ("captions.csv", 'image,caption\na.jpg, "a dog, on a lawn"\n', 2, '"a dog, on a lawn"'),
        ("captions.csv", "image,caption,\na.jpg,a dog, on a lawn\n", 2, '"a dog, on a lawn"'),
        ("captions.tsv", "image\tcaption\na.jpg\ta dog\ton a lawn\n", 2, "tabs"),
        ("captions.csv", 'image,caption\na.jpg,x\nb.jpg,"a dog\na,a cat\n', 3, "Close the cell's quotes"),
        ("captions.csv", 'image,caption\na.jpg,"a dog\nb.jpg,"a cat"\n', 2, "Close the cell's quotes"),
        ("captions.csv", 'image,caption\na.jpg,"big" dog\n', 2, "double those"),
        ("captions.csv", "image,caption\na.jpg,\0" + "x" * 200_000, 2, "quotes"),
    ],
)
def test_a_row_whose_cells_are_not_as_the_header_says_is_told(photos, name, content, line, remedy):
    kind = {name.partition(".")[0]: (name,)}
    error = refused(write(photos, {name: content}), **kind)
    assert error.code == "DATA105" and f"line {line} of {name}" in str(error) and remedy in str(error)


def test_cells_beyond_the_header_that_are_blank_lose_nothing(photos):
    write(photos, {"captions.csv": 'image,caption,,\na.jpg,"a dog, on a lawn",, \nb.jpg,a cat\n'})
    assert [sources(photos)[k].caption for k in "ab"] == ["a dog, on a lawn", "a cat"]


def test_quotes_between_tabs_are_characters_but_for_those_around_all_of_a_cell(photos):
    cells = ['"a dog', 'a "big" cat"', '"a ""big"" cat"', '"a" and "b"', '"']
    lines = [f"{image}.jpg\t{cell}\n" for image, cell in zip("abcde", cells, strict=True)]
    write(photos, {"captions.tsv": "image\tcaption\n" + "".join(lines)})
    found = sources(photos, captions=("captions.tsv",))
    assert [found[k].caption for k in "abcde"] == ['"a dog', 'a "big" cat"', 'a "big" cat', '"a" and "b"', '"']


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("t.csv", "photo,caption\na.jpg,x\n", "no column image; it has photo, caption"),
        ("t.csv", "image,words\na.jpg,x\n", "no column caption"),
        ("t.csv", b"image,caption\na.jpg,\xff\n", "UTF-8"),
        ("t.parquet", b"PAR1 not so", "Parquet"),
        ("t.parquet", parquet(image=["a.jpg"], words=["x"]), "no column caption"),
    ],
)
def test_table_that_cannot_be_read(photos, name, content, word):
    error = refused(write(photos, {name: content}), captions=(name,))
    assert (error.code, word in str(error), name in str(error)) == ("DATA108", True, True)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("", "no whole JSON"),
        ('{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "capt', "no whole JSON"),
        ('[{"image": "a.jpg"}]', "no whole JSON object"),
        ('{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": []}', "no captions"),
        ('{"images": [{"id": 1}], "annotations": []}', "file_name"),
        ('{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "bbox": []}]}', "caption"),
        ('{"images": [], "annotations": [{"image_id": 5, "caption": "x"}]}', "the image 5"),
        ('{"images": [{"id": [], "file_name": "a.jpg"}]}', "images"),
        ("[" * 100_000, "no whole JSON"),
        ('{"a": ' + "[" * 100_000, "no whole JSON"),
        ('{"images": [{"id": 1, "file_name": "a.jpg"} {"id": 2, "file_name": "a.jpg"}]}', "no whole JSON"),
    ],
)
def test_json_of_another_kind(photos, content, word):
    error = refused(write(photos, {"captions.json": content}), captions=("captions.json",))
    assert (error.code, word in str(error), "captions.json" in str(error)) == ("DATA113", True, True)


TABLE = {"image": ["a.jpg", "b", "images/c.jpg", "e.jpg"], "fold": ["Training", "valid", "TEST", None]}
EXPECTED = {
    "images/a.jpg": ("train", "masks/a.png"),
    "images/b.jpg": ("val", "masks/b.png"),
    "images/d.jpg": ("train", None),
    "images/e.jpg": ("train", None),
}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("splits.csv", pd.DataFrame(TABLE).to_csv(index=False)),
        ("splits.jsonl", pd.DataFrame(TABLE).to_json(orient="records", lines=True)),
        ("splits.parquet", parquet(**TABLE)),
    ],
)
def test_a_column_says_the_split_in_any_usual_words(photos, at, name, content):
    assert listed(at(write(photos, {name: content})), split_table=name, split_column="fold") == EXPECTED


def test_where_the_column_is_silent_the_split_of_masked_images_is_open(photos):
    write(photos, {"s.csv": "image,split\na.jpg,\n"})
    assert {k: split for k, (split, _) in listed(photos, split_table="s.csv").items() if split != "train"} == {
        "images/a.jpg": None,
        "images/b.jpg": None,
    }


def test_other_words_for_splits_are_named_in_the_settings(photos):
    write(photos, {"s.csv": "image,split\na.jpg,fold 1\nb.jpg,test\n"})
    error = refused(photos, split_table="s.csv")
    assert (error.code, "'fold 1'" in str(error), "split_names" in str(error)) == ("DATA109", True, True)
    found = listed(photos, split_table="s.csv", split_names={"Fold 1": "train", "test": "val"})
    assert [found[f"images/{n}.jpg"][0] for n in "ab"] == ["train", "val"]


def test_an_image_in_two_splits(photos):
    write(photos, {"s.csv": "image,split\na.jpg,train\nimages/a.jpg,training\na,val\n"})
    error = refused(photos, split_table="s.csv")
    assert (error.code, "images/a.jpg" in str(error)) == ("DATA110", True)


def test_labelled_list_and_column_must_not_overlap(photos):
    write(photos, {"s.csv": "image,split\na.jpg,train\nb.jpg,val\n", "l.txt": "a\n", "both.txt": "a\nb\n"})
    assert listed(photos, split_table="s.csv", labelled_list="l.txt")["images/b.jpg"] == ("val", "masks/b.png")
    error = refused(photos, split_table="s.csv", labelled_list="both.txt")
    assert (error.code, "s.csv" in str(error)) == ("DATA106", True)


def test_an_evaluation_image_without_a_mask_and_one_that_is_not_there_stay_in_the_list(photos):
    write(photos, {"s.csv": "image,split\nc.jpg,val\ngone.jpg,val\nlost.jpg,test\n"})
    found = listed(photos, split_table="s.csv")
    assert found["images/c.jpg"] == ("val", "masks/c.png")
    assert found["images/gone.jpg"] == ("val", "masks/gone.png")
    assert "images/lost.jpg" not in found


def test_what_is_left_out_comes_back_where_a_list_names_it(photos):
    write(photos, {"s.csv": "image,split\na.jpg,test\nc.jpg,test\n", "l.txt": "a\n", "t.txt": "a\nb\nc\n"})
    assert "images/a.jpg" not in listed(photos, split_table="s.csv")
    found = listed(photos, split_table="s.csv", labelled_list="l.txt", train_list="t.txt")
    assert found == {
        "images/a.jpg": ("train", "masks/a.png"),
        "images/b.jpg": ("train", None),
        "images/c.jpg": ("train", None),
    }


def test_list_and_column_at_once_are_refused():
    with pytest.raises(ValueError, match="evaluation_list or split_table"):
        config("x", evaluation_list="v.txt", split_table="s.csv")
