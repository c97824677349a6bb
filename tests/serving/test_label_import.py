"""What annotators drew comes in whole, or not at all with the reason; in both tools' forms."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semivl.data.cache import ShardCache, read_sample
from semivl.data.decode import decode_mask
from semivl.data.ingest import ingest
from semivl.data.sample import Row
from semivl.data.snapshot import Snapshot, read
from semivl.errors import LabelError
from semivl.serving.label_import import import_labels
from semivl.serving.label_rle import box_runs, brush
from tests.label_world import HEIGHT, NAMES, WIDTH, world

SQUARE = np.zeros((HEIGHT, WIDTH), bool)
SQUARE[4:20, 6:30] = True
STRIPE = np.zeros((HEIGHT, WIDTH), bool)
STRIPE[10:14] = True


@pytest.fixture(scope="module")
def made(new_store, tmp_path_factory):
    """The experiment, its store and a folder, for tests that only read the dataset."""
    with pytest.MonkeyPatch.context() as patch:
        store = new_store()
        patch.setenv("SEMIVL_S3_BUCKET", store.bucket)
        from tests.conftest import forget_settings

        forget_settings()
        folder = tmp_path_factory.mktemp("labels")
        config, _ = world(folder, "label-import")
        yield config, store, folder
    forget_settings()


@pytest.fixture
def config(made):
    return made[0]


@pytest.fixture
def snapshot(made) -> Snapshot:
    return read(made[1], made[0].data.dataset)


@pytest.fixture
def rows(snapshot) -> list[Row]:
    return list(snapshot.rows(supervision="none"))


def brushed(label: str, region: np.ndarray, **changes) -> dict:
    value = {"format": "rle", "rle": brush(region), "brushlabels": [label]}
    return {
        "type": "brushlabels", "from_name": "mask", "to_name": "image", "value": value,
        "original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0, **changes,
    }  # fmt: skip


def studio(path: Path, *tasks: tuple[Row | str, list[dict]]) -> Path:
    """A JSON export with one annotation a task."""
    told = [
        {"data": {"key": row.key} if isinstance(row, Row) else {"image": row}, "annotations": [{"result": result}]}
        for row, result in tasks
    ]
    path.write_text(json.dumps(told))
    return path


def cvat(path: Path, row: Row, shapes: str, name: str | None = None, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    image = f'<image id="0" name="{name or row.key + ".jpg"}" width="{size[0]}" height="{size[1]}">{shapes}</image>'
    path.write_text(f"<?xml version='1.0'?><annotations><version>1.1</version>{image}</annotations>")
    return path


def runs(label: str, region: np.ndarray, z_order: int = 0) -> str:
    counts, (left, top, width, height) = box_runs(region)
    box = f'left="{left}" top="{top}" width="{width}" height="{height}"'
    return f'<mask label="{label}" rle="{", ".join(map(str, counts))}" {box} z_order="{z_order}"/>'


def masks_zip(path: Path, pictures: dict[str, np.ndarray], labelmap: str, mode: str = "RGB") -> Path:
    """`Segmentation mask 1.1` of (H, W, 3) colours."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("labelmap.txt", labelmap)
        file.writestr("ImageSets/Segmentation/default.txt", "\n".join(pictures))
        for name, colours in pictures.items():
            body = io.BytesIO()
            picture = Image.fromarray(colours)
            (picture.quantize() if mode == "P" else picture).save(body, "PNG")
            file.writestr(f"SegmentationClass/{name}.png", body.getvalue())
            file.writestr(f"SegmentationObject/{name}.png", body.getvalue())
    return path


def imported(config, export: Path, tool: str, output: Path, row: Row) -> np.ndarray:
    import_labels(config, export, tool, output)  # pyright: ignore[reportArgumentType]
    return decode_mask((output / "masks" / f"{row.key}.png").read_bytes())


EXPECTED = np.where(STRIPE, 2, np.where(SQUARE, 1, 0))
"""the stripe over the square, the rest background"""


def test_a_brush_becomes_class_ids_and_of_what_overlaps_the_later_is_on_top(config, rows, tmp_path):
    results = [brushed("cat", SQUARE), brushed("dog & co", STRIPE)]
    export = studio(tmp_path / "export.json", (rows[0], results))
    assert (imported(config, export, "label-studio", tmp_path / "out", rows[0]) == EXPECTED).all()


def test_polygons_of_both_tools_cover_the_same_pixels(config, rows, tmp_path):
    corners = [(6, 4), (30, 4), (30, 20), (6, 20)]
    percent = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in corners]
    drawn = brushed("cat", SQUARE) | {"type": "polygonlabels", "value": {"points": percent, "polygonlabels": ["cat"]}}
    first = imported(config, studio(tmp_path / "e.json", (rows[0], [drawn])), "label-studio", tmp_path / "a", rows[0])
    points = ";".join(f"{x:.2f},{y:.2f}" for x, y in corners)
    shape = f'<polygon label="cat" points="{points}" z_order="0"/>'
    second = imported(config, cvat(tmp_path / "e.xml", rows[0], shape), "cvat", tmp_path / "b", rows[0])
    box = '<box label="cat" xtl="6" ytl="4" xbr="30" ybr="20"/>'
    third = imported(config, cvat(tmp_path / "f.xml", rows[0], box), "cvat", tmp_path / "c", rows[0])
    for mask in (first, second, third):
        assert (mask == np.where(SQUARE, 1, 0)).all()


def test_cvats_masks_lie_by_z_order_then_by_place(config, rows, tmp_path):
    above = runs("dog &amp; co", STRIPE, 1) + runs("cat", SQUARE, 0)
    export = cvat(tmp_path / "e.xml", rows[0], above)
    assert (imported(config, export, "cvat", tmp_path / "a", rows[0]) == EXPECTED).all()
    with zipfile.ZipFile(tmp_path / "e.zip", "w") as file:
        file.write(export, "annotations.xml")
        file.writestr("images/any.jpg", b"not looked at")
    assert (imported(config, tmp_path / "e.zip", "cvat", tmp_path / "b", rows[0]) == EXPECTED).all()


@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_a_segmentation_mask_is_read_by_its_own_colours(config, rows, tmp_path, mode):
    labelmap = "# label:color_rgb:parts:actions\ndog & co:9,200,7::\nbackground:0,0,0::\ncat:250,3,1::\n"
    table = np.array([[0, 0, 0], [250, 3, 1], [9, 200, 7]], np.uint8)
    export = masks_zip(tmp_path / "e.zip", {rows[0].key: table[EXPECTED]}, labelmap, mode)
    assert (imported(config, export, "cvat", tmp_path / "a", rows[0]) == EXPECTED).all()


def test_of_several_annotations_the_last_changed_counts_and_the_undrawn_are_counted(config, rows, tmp_path):
    def told(region, changed, **more):
        return {"result": [brushed("cat", region)], "updated_at": changed, **more}

    tasks = [
        {"data": {"key": rows[0].key}, "annotations": [
            told(SQUARE, "2026-02-03T10:00:00.5Z"), told(STRIPE, "2026-02-03T09:00:00Z"),
            told(STRIPE, "2026-02-04T09:00:00Z", was_cancelled=True),
        ]},
        {"data": {"key": rows[1].key}, "annotations": []},
        {"data": {"key": rows[2].key}, "annotations": [], "predictions": [told(SQUARE, "")]},
    ]  # fmt: skip
    export = tmp_path / "e.json"
    export.write_text(json.dumps(tasks))
    done = import_labels(config, export, "label-studio", tmp_path / "out")
    assert (done.images, done.undrawn) == (1, 2)
    assert done.pixels == {"background": int((~SQUARE).sum()), "cat": int(SQUARE.sum())}


@pytest.mark.parametrize(
    "name", ["{key}.jpg", "/data/upload/3/0a1b2c3d-{key}.jpg", "/data/local-files/?d=x/{base}", "{source}", "{base}"]
)
def test_an_image_is_known_by_key_by_path_or_by_its_name(config, rows, tmp_path, name):
    row = rows[3]
    said = name.format(key=row.key, source=row.source, base=Path(row.source).name)
    export = studio(tmp_path / "e.json", (said, [brushed("cat", SQUARE)]))
    assert (imported(config, export, "label-studio", tmp_path / "out", row) == SQUARE).all()


def test_what_came_in_is_a_source_that_gives_the_samples_their_masks(store, tmp_path):
    config, _ = world(tmp_path, "label-ingest")
    before = read(store, "label-ingest")
    first, second, *_ = before.rows(supervision="none")
    held_out = before.rows(split="val")[0]
    out = tmp_path / "out"
    import_labels(config, studio(tmp_path / "a.json", (first, [brushed("cat", SQUARE)])), "label-studio", out)
    drawn = [(second, [brushed("cat", STRIPE)]), (held_out, [brushed("cat", STRIPE)])]
    done = import_labels(config, studio(tmp_path / "b.json", *drawn), "label-studio", out)
    assert sorted(p.stem for p in (out / "masks").iterdir()) == sorted([first.key, second.key, held_out.key])
    changes = dict(setting.removeprefix("data.").split("=", 1) for setting in done.settings)
    assert changes.pop("evaluation_list") == "null"
    settings = config.data.model_dump() | changes | {"evaluation_list": None}
    manifest = ingest(type(config.data).model_validate(settings), config.classes, workers=1)
    after = read(store, "label-ingest")
    assert manifest.counts["train/mask"] == before.manifest.counts["train/mask"] + 2
    assert manifest.counts["val/mask"] == before.manifest.counts["val/mask"], "no image changes its split"
    assert manifest.samples == before.manifest.samples
    for key, region in ((first.key, SQUARE), (second.key, STRIPE)):
        row = after.find(key)
        assert row and (row.split, row.supervision) == ("train", "mask")
        mask = read_sample(ShardCache(store, "label-ingest", tmp_path / "shards"), row)[1]
        assert mask and (decode_mask(mask) == region).all()
    again = ingest(config.data, config.classes, workers=1)
    assert again.version == manifest.version, "the source itself, read again, takes no mask away"


def test_words_of_a_sample_stay_with_it_when_its_mask_comes_in(store, tmp_path):
    """Tags of some photos are complete, of others not; a later import adds to the words of an earlier one."""
    config, _ = world(tmp_path, "label-words")
    words = {
        "u003": (("cat", "a hat; red"), True, "a cat\nit sits"),
        "u004": ((), True, None),
        "u005": (("cat",), False, None),
        "u006": ((), False, "a dog"),
        "u007": ((), False, None),
    }
    tags = [
        {"image": name, "tags": tags, "complete": complete}
        for name, (tags, complete, _) in words.items()
        if tags or complete
    ]
    captions = [
        {"image": name, "caption": line} for name, (*_, text) in words.items() for line in (text or "").splitlines()
    ]
    for name, lines in (("tags", tags), ("captions", captions)):
        (config.data.source / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))  # pyright: ignore
    ingest(config.data, config.classes, workers=1)

    def told() -> dict[str, tuple]:
        rows = {Path(row.source).stem: row for row in read(store, "label-words").rows()}
        return {name: (tuple(rows[name].tags), rows[name].tags_complete, rows[name].caption) for name in words}

    assert told() == words
    rows = {Path(row.source).stem: row for row in read(store, "label-words").rows()}
    names = {name: rows[name].key for name in words}
    out = tmp_path / "out"
    for batch in (("u003", "u004"), ("u005", "u006", "u007"), ("u003",)):
        export = studio(tmp_path / "e.json", *((rows[name], [brushed("cat", SQUARE)]) for name in batch))
        done = import_labels(config, export, "label-studio", out)
    assert len((out / "captions.jsonl").read_text().splitlines()) == 3
    changes = dict(setting.removeprefix("data.").split("=", 1) for setting in done.settings)
    settings = config.data.model_dump() | changes | {"evaluation_list": None, "tags_complete": True}
    ingest(type(config.data).model_validate(settings), config.classes, workers=1)
    after = {row.key: row for row in read(store, "label-words").rows()}
    assert {name: after[key].supervision for name, key in names.items()} == dict.fromkeys(words, "mask")
    got = {n: (tuple(after[k].tags), after[k].tags_complete, after[k].caption) for n, k in names.items()}
    assert got == words


LABELMAP = "background:0,0,0::\ncat:250,3,1::\n"
BLACK = np.zeros((HEIGHT, WIDTH, 3), np.uint8)


def lone_zip(path: Path, name: str, data: bytes = b"x", **attributes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        info = zipfile.ZipInfo(name)
        info.compress_type = zipfile.ZIP_DEFLATED
        for field, value in attributes.items():
            setattr(info, field, value)
        file.writestr(info, data)
    return path


def locked(path: Path) -> Path:
    """A zip that says that its member is encrypted."""
    data = bytearray(lone_zip(path, "annotations.xml").read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + place] |= 1
    path.write_bytes(bytes(data))
    return path


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-30])
    return path


def text(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


STUDIO = {
    "no file": ("LABEL004", lambda p, r: p / "none.json"),
    "no JSON": ("LABEL004", lambda p, r: text(p / "e.json", "{")),
    "deep JSON": ("LABEL004", lambda p, r: text(p / "e.json", "[" * 200_000)),
    "JSON-MIN": ("LABEL004", lambda p, r: text(p / "e.json", json.dumps([{"image": "x", "tag": []}]))),
    "a ZIP": ("LABEL004", lambda p, r: lone_zip(p / "e.zip", "result.json")),
    "label": ("LABEL005", lambda p, r: studio(p / "e.json", (r, [brushed("bird", SQUARE)]))),
    "image": ("LABEL006", lambda p, r: studio(p / "e.json", ("other.jpg", [brushed("cat", SQUARE)]))),
    "data address": ("LABEL006", lambda p, r: studio(p / "e.json", ("data:image/png;base64," + "A" * 2000, []))),
    "size": ("LABEL007", lambda p, r: studio(p / "e.json", (r, [brushed("cat", SQUARE.T, original_width=HEIGHT)]))),
    "turned": ("LABEL007", lambda p, r: studio(p / "e.json", (r, [brushed("cat", SQUARE, image_rotation=90)]))),
    "run lengths": ("LABEL008", lambda p, r: studio(p / "e.json", (r, [brushed("cat", SQUARE[:, :40])]))),
    "no size": ("LABEL008", lambda p, r: studio(p / "e.json", (r, [brushed("cat", SQUARE, original_width=None)]))),
    "two labels": ("LABEL008", lambda p, r: studio(
        p / "e.json", (r, [brushed("cat", SQUARE, value={"brushlabels": NAMES})]))),
    "ellipse": ("LABEL008", lambda p, r: studio(
        p / "e.json", (r, [brushed("cat", SQUARE, type="ellipselabels", value={"ellipselabels": ["cat"]})]))),
    "points": ("LABEL008", lambda p, r: studio(
        p / "e.json",
        (r, [brushed("cat", SQUARE, type="polygonlabels", value={"polygonlabels": ["cat"], "points": [[1, "x"]]})]))),
    "far": ("LABEL008", lambda p, r: studio(
        p / "e.json",
        (r, [brushed("cat", SQUARE, type="polygonlabels",
                     value={"polygonlabels": ["cat"], "points": [[1, 1], [1e7, 1], [1, 1e7]]})]))),
    "nothing": ("LABEL010", lambda p, r: text(p / "e.json", json.dumps([{"data": {"key": r.key}}]))),
    "twice": ("LABEL012", lambda p, r: studio(p / "e.json", *[(r, [brushed("cat", SQUARE)])] * 2)),
}  # fmt: skip
BOMB = (
    "<?xml version='1.0'?><!DOCTYPE a [<!ENTITY e0 'aaaaaaaaaa'>"
    + "".join(f"<!ENTITY e{i} '{f'&e{i - 1};' * 10}'>" for i in range(1, 10))
    + "]><annotations><image name='&e9;'/></annotations>"
)
CVAT = {
    "no file": ("LABEL004", lambda p, r: p / "none.xml"),
    "no XML": ("LABEL004", lambda p, r: text(p / "e.xml", "<annotations><image>")),
    "entities": ("LABEL004", lambda p, r: text(p / "e.xml", BOMB)),
    "video": ("LABEL004", lambda p, r: text(p / "e.xml", "<annotations><track id='0'/></annotations>")),
    "cut ZIP": ("LABEL004", lambda p, r: cut(masks_zip(p / "e.zip", {r.key: BLACK}, LABELMAP))),
    "another ZIP": ("LABEL004", lambda p, r: lone_zip(p / "e.zip", "dump.json")),
    "labelmap": ("LABEL004", lambda p, r: masks_zip(p / "e.zip", {r.key: BLACK}, "cat:red::")),
    "label": ("LABEL005", lambda p, r: cvat(p / "e.xml", r, runs("bird", SQUARE))),
    "colour": ("LABEL005", lambda p, r: masks_zip(p / "e.zip", {r.key: BLACK + 1}, LABELMAP)),
    "colour of no class": ("LABEL005", lambda p, r: masks_zip(p / "e.zip", {r.key: BLACK}, "bird:0,0,0::")),
    "image": ("LABEL006", lambda p, r: cvat(p / "e.xml", r, runs("cat", SQUARE), "other.jpg")),
    "mask's image": ("LABEL006", lambda p, r: masks_zip(p / "e.zip", {"other": BLACK}, LABELMAP)),
    "size": ("LABEL007", lambda p, r: cvat(p / "e.xml", r, runs("cat", SQUARE), size=(96, 64))),
    "mask's size": ("LABEL007", lambda p, r: masks_zip(p / "e.zip", {r.key: BLACK[1:]}, LABELMAP)),
    "run lengths": ("LABEL008", lambda p, r: cvat(p / "e.xml", r, runs("cat", SQUARE).replace('rle="0', 'rle="x'))),
    "box": ("LABEL008", lambda p, r: cvat(p / "e.xml", r, runs("cat", SQUARE).replace('left="6"', 'left="40"'))),
    "points": ("LABEL008", lambda p, r: cvat(p / "e.xml", r, '<polygon label="cat" points="1,2;3"/>')),
    "no number": ("LABEL008", lambda p, r: cvat(
        p / "e.xml", r, '<box label="cat" xtl="nan" ytl="1" xbr="2" ybr="3"/>')),
    "skeleton": ("LABEL008", lambda p, r: cvat(p / "e.xml", r, '<skeleton label="cat"/>')),
    "traversal": ("LABEL009", lambda p, r: lone_zip(p / "e.zip", "../../annotations.xml")),
    "absolute": ("LABEL009", lambda p, r: lone_zip(p / "e.zip", "/etc/annotations.xml")),
    "windows": ("LABEL009", lambda p, r: lone_zip(p / "e.zip", "C:\\annotations.xml")),
    "link": ("LABEL009", lambda p, r: lone_zip(p / "e.zip", "annotations.xml", external_attr=0xA1ED << 16)),
    "locked": ("LABEL009", lambda p, r: locked(p / "e.zip")),
    "nothing": ("LABEL010", lambda p, r: cvat(p / "e.xml", r, "")),
}  # fmt: skip
BAD = [("label-studio", name, *case) for name, case in STUDIO.items()]
BAD += [("cvat", name, *case) for name, case in CVAT.items()]


@pytest.mark.parametrize(("tool", "name", "code", "export"), BAD, ids=[f"{tool}: {name}" for tool, name, *_ in BAD])
def test_an_export_that_cannot_be_used_is_refused_and_leaves_nothing(config, rows, tmp_path, tool, name, code, export):
    good = studio(tmp_path / "good.json", (rows[1], [brushed("cat", SQUARE)]))
    import_labels(config, good, "label-studio", tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(LabelError) as raised:
        import_labels(config, export(tmp_path, rows[0]), tool, tmp_path / "out")
    assert raised.value.code == code
    assert len(str(raised.value)) < 1000
    assert contents(tmp_path / "out") == before
    assert not list(tmp_path.glob(".out*"))


def test_a_zip_that_would_fill_the_memory_is_not_unpacked(config, rows, tmp_path, monkeypatch):
    from semivl.serving import label_zip

    monkeypatch.setattr(label_zip, "MOST_BYTES", 1 << 20)
    bomb = lone_zip(tmp_path / "e.zip", "annotations.xml", b" " * (2 << 20))
    with pytest.raises(LabelError, match=r"LABEL009 .* would grow to 2,097,152 bytes"):
        import_labels(config, bomb, "cvat", tmp_path / "out")


def test_a_folder_of_something_else_is_left_alone(config, rows, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("x")
    export = studio(tmp_path / "e.json", (rows[0], [brushed("cat", SQUARE)]))
    with pytest.raises(LabelError, match="LABEL002"):
        import_labels(config, export, "label-studio", tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
