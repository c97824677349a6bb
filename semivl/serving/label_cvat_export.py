"""What annotators drew in CVAT, read back: "CVAT for images 1.1", bare or zipped, and "Segmentation mask 1.1"."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np

from semivl.data.headers import DamagedError, read_header
from semivl.data.mask_ids import BACKGROUND
from semivl.data.sample import Row
from semivl.errors import LabelError
from semivl.serving import label_zip
from semivl.serving.label_drawn import Dataset, Drawn, bad_file, bad_region, painted, polygon, require_size
from semivl.serving.label_rle import RunLengthError, from_box_runs

_XML, _COLOURS, _MASKS = "annotations.xml", "labelmap.txt", "SegmentationClass"
_SHAPES = ("mask", "polygon", "box")
_OTHERS = ("ellipse", "polyline", "points", "cuboid", "skeleton")
_ZIP = b"PK"
Colours = dict[int, tuple[str, int | None]]
"""label and class id by colour, red first; None for the id of a label that is no class"""


def read_export(path: Path, dataset: Dataset) -> Iterator[Drawn | None]:
    """The images of an export, in its order; None for one that nobody drew on.

    Raises:
        LabelError: LABEL004 to LABEL009, see docs/codes.md.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == _ZIP
    except OSError as error:
        raise bad_file(path, str(error)) from None
    if not zipped:
        with path.open("rb") as file:
            yield from _images(path, file, dataset)
        return
    with label_zip.opened(path) as archive:
        names = archive.namelist()
        if _XML in names:
            with archive.open(_XML) as file:
                yield from _images(path, file, dataset)
        elif _COLOURS in names:
            yield from _masks(path, archive, dataset)
        else:
            raise bad_file(path, f"it has neither {_XML} nor {_COLOURS}")


def _images(path: Path, file: IO[bytes], dataset: Dataset) -> Iterator[Drawn | None]:
    """An image at a time, so that a long export need not be in memory.

    Expat fetches nothing that an XML names, and bounds what its entities may grow to.
    """
    try:
        parser = ElementTree.XMLPullParser(["start", "end"])
        while chunk := file.read(1 << 20):
            parser.feed(chunk)
            yield from _ended(path, parser, dataset)
        parser.close()
        yield from _ended(path, parser, dataset)
    except ElementTree.ParseError as error:
        raise bad_file(path, f"it is no whole XML ({error})") from None


def _ended(path: Path, parser: ElementTree.XMLPullParser, dataset: Dataset) -> Iterator[Drawn | None]:
    events: Any = parser.read_events()
    for event, element in events:
        if element.tag == "track":
            raise bad_file(path, "it holds tracks of a video; export as `CVAT for images 1.1`")
        if event == "end" and element.tag == "image":
            drawn = _drawn(element, dataset)
            element.clear()
            yield drawn


def _drawn(image: Element, dataset: Dataset) -> Drawn | None:
    """The image's mask; None where nothing was drawn. Shapes of a higher z_order are on top, then the later ones."""
    shapes = [shape for shape in image if shape.tag in (*_SHAPES, *_OTHERS)]
    if not shapes:
        return None
    name = image.get("name", "")
    row = dataset.row(name)
    where = f"image {name}"
    width, height = (int(_number(image, side, where)) for side in ("width", "height"))
    require_size(row, width, height, where)
    shapes.sort(key=lambda shape: _number(shape, "z_order", where, 0))
    return Drawn(row, painted(row, [_region(shape, row, dataset, where) for shape in shapes], dataset.background))


def _region(shape: Element, row: Row, dataset: Dataset, where: str) -> tuple[int, np.ndarray]:
    class_id = dataset.class_id(shape.get("label", ""), where)
    if shape.tag == "mask":
        return class_id, _run_lengths(shape, row, where)
    if shape.tag == "polygon":
        return class_id, polygon(row, _points(shape, where), where)
    if shape.tag == "box" and not _number(shape, "rotation", where, 0):
        left, top, right, bottom = (_number(shape, corner, where) for corner in ("xtl", "ytl", "xbr", "ybr"))
        return class_id, polygon(row, [left, top, right, top, right, bottom, left, bottom], where)
    what = "turned box" if shape.tag == "box" else shape.tag
    raise bad_region(where, f"a {what} is no area of pixels; draw masks, polygons or boxes")


def _run_lengths(shape: Element, row: Row, where: str) -> np.ndarray:
    box = tuple(int(_number(shape, side, where)) for side in ("left", "top", "width", "height"))
    try:
        counts = [int(count) for count in shape.get("rle", "").split(",")]
        return from_box_runs(counts, (box[0], box[1], box[2], box[3]), row.height, row.width)
    except ValueError as error:
        why = str(error) if isinstance(error, RunLengthError) else "its run lengths are no numbers"
        raise bad_region(where, why) from None


def _points(shape: Element, where: str) -> list[float]:
    try:
        pairs = [pair.split(",") for pair in shape.get("points", "").split(";")]
        return [value for x, y in pairs for value in (float(x), float(y))]
    except ValueError:
        raise bad_region(where, "its points are no pairs of numbers") from None


def _number(element: Element, name: str, where: str, default: float | None = None) -> float:
    """The attribute, which must be finite. LABEL008 where it is not."""
    said = element.get(name)
    if said is None and default is not None:
        return default
    try:
        value = float(said or "")
    except ValueError:
        value = np.nan
    if not abs(value) < 1e9:
        raise bad_region(where, f"{name} of {element.tag} is {said}, no number")
    return value


def _masks(path: Path, archive: zipfile.ZipFile, dataset: Dataset) -> Iterator[Drawn | None]:
    colours = _colours(path, archive.read(_COLOURS), dataset)
    for name in sorted(archive.namelist()):
        inside = PurePosixPath(name)
        if inside.parts[0] != _MASKS or inside.suffix != ".png":
            continue
        row = dataset.row(inside.relative_to(_MASKS).with_suffix("").as_posix())
        yield Drawn(row, _ids(path, name, archive.read(name), row, dataset, colours))


def _colours(path: Path, text: bytes, dataset: Dataset) -> Colours:
    found: Colours = {}
    for line in text.decode("utf-8-sig", "replace").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        label, _, rest = line.partition(":")
        try:
            red, green, blue = (int(part) for part in rest.split(":")[0].split(","))
        except ValueError:
            raise bad_file(path, f"the line {line!r} of {_COLOURS} is no LABEL:R,G,B::") from None
        if label in dataset.classes.names:
            class_id: int | None = dataset.class_id(label, _COLOURS)
        else:
            class_id = dataset.background if label == BACKGROUND else None
        found[red << 16 | green << 8 | blue] = label, class_id
    return found


def _ids(path: Path, name: str, png: bytes, row: Row, dataset: Dataset, colours: Colours) -> np.ndarray:
    """(H, W) uint8 class ids of a picture in the labels' colours."""
    from PIL import Image

    try:
        header = read_header(png)
        require_size(row, header.width, header.height, name)
        picture = np.asarray(Image.open(io.BytesIO(png), formats=("PNG",)).convert("RGB")).astype(np.uint32)
    except (DamagedError, OSError, SyntaxError, ValueError) as error:
        raise bad_file(path, f"{name} is no whole PNG ({error})") from None
    codes = picture[..., 0] << 16 | picture[..., 1] << 8 | picture[..., 2]
    mask = np.empty(codes.shape, np.uint8)
    for code in np.unique(codes).tolist():
        if code not in colours:
            what = f"{name} has the colour {code >> 16},{code >> 8 & 255},{code & 255}, which {_COLOURS} does not tell."
            raise LabelError("LABEL005", what, "Export it from CVAT again, whole.")
        label, class_id = colours[code]
        mask[codes == code] = dataset.class_id(label, name) if class_id is None else class_id
    return mask
