"""Hostile files, made by code, each with the code that it must land under ("passes" where it does no harm).

python -m tests.data.hostile        # a table of all, what each came to, and the workers' peak memory
"""

import gzip
import io
import json
import resource
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from semivl.config import ClassDefinition, Classes
from semivl.data.check_pool import CheckPool
from semivl.data.checks import Files, Limits, Quarantined
from semivl.data.sample import Source
from tests.data.pictures import (
    END,
    HEIGHT,
    WIDTH,
    chunk,
    exif,
    frame_at,
    interlaced,
    many_scans,
    pixels,
    png,
    reframed,
    resized,
    rows,
    saved,
    segment,
    with_chunks,
    with_segments,
)

PASSES = "passes"
LIMITS = Limits(max_pixels=40_000_000, max_bytes=4_000_000, max_aspect=30.0)
MEMORY, SECONDS = 96 << 20, 1.0
CLASSES = Classes(classes=tuple(ClassDefinition(name=n) for n in ("background", "cat", "dog")))  # pyright: ignore[reportCallIssue]


class Hostile(NamedTuple):
    name: str
    code: str
    files: Files


def zip_bomb() -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("photo.jpg", bytes(10_000_000))
    return body.getvalue()


def svg() -> bytes:
    return b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'


def other_formats() -> Iterator[tuple[str, str, bytes]]:
    photo = pixels()
    for kind in ("GIF", "BMP", "TIFF", "WEBP", "ICO", "PPM", "JPEG2000"):
        try:
            yield f"a {kind} named .jpg", "DATA002", saved(photo, kind)
        except OSError:  # this Pillow was built without it
            continue
    yield "empty", "DATA009", b""
    yield "one byte", "DATA002", b"\xff"
    yield "nothing but zeros", "DATA002", bytes(4096)
    yield "zip bomb", "DATA002", zip_bomb()
    yield "gzip bomb", "DATA002", gzip.compress(bytes(10_000_000))
    yield "SVG that reads a file", "DATA002", svg()
    yield "error page", "DATA002", b"<!DOCTYPE html><title>404 Not Found</title>"
    yield "PDF", "DATA002", b"%PDF-1.7\n" + bytes(100)
    yield "HEIC", "DATA002", b"\x00\x00\x00\x18ftypheic" + bytes(100)
    yield "program", "DATA002", b"\x7fELF" + bytes(100)
    yield "pointer of Git LFS", "DATA002", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n"
    yield "PNG sent as text", "DATA002", saved(photo, "PNG").replace(b"\r\n", b"\n")
    yield "JPEG behind a blank", "DATA002", b" " + saved(photo, "JPEG")
    yield "more bytes than allowed", "DATA014", saved(photo, "JPEG")[:-2] + bytes(4_000_000) + END


def cut_files() -> Iterator[tuple[str, str, bytes]]:
    photo = pixels(1, 160, 120)
    bodies = {
        "JPEG": saved(photo, "JPEG"),
        "progressive JPEG": saved(photo, "JPEG", progressive=True),
        "PNG": saved(photo, "PNG"),
    }
    for kind, body in bodies.items():
        for tenth in range(1, 10):
            yield f"{kind} cut at {tenth}0 %", "DATA003", body[: len(body) * tenth // 10]
        yield f"{kind} without its last byte", "DATA003", body[:-1]
        half = len(body) // 2
        yield f"{kind} half written, zeros behind", "DATA003", body[:half] + bytes(len(body) - half)
        yield f"{kind} with a hole of zeros", "DATA003", body[:half] + bytes(512) + body[half + 512 :]
    yield "JPEG without end marker", "DATA003", bodies["JPEG"][:-2]
    yield "PNG without IEND", "DATA003", bodies["PNG"][:-12]
    random = np.random.default_rng(3)
    for number in range(6):
        flipped = bytearray(bodies["PNG"])
        flipped[int(random.integers(8, len(flipped)))] ^= 1 << int(random.integers(8))
        yield f"PNG with a flipped bit ({number})", "DATA003", bytes(flipped)


def broken_jpegs() -> Iterator[tuple[str, str, bytes]]:
    photo = pixels(2, 160, 120)
    body = saved(photo, "JPEG")
    at = frame_at(body)
    frame = body[at : at + 19]
    scan = body.find(b"\xff\xda")
    yield "JPEG of three bytes", "DATA003", b"\xff\xd8\xff"
    yield "JPEG with start and end alone", "DATA003", b"\xff\xd8" + END
    yield "JPEG said to be taller", "DATA003", resized(body, 160, 1200)
    yield "JPEG said to be lower", "DATA003", resized(body, 160, 64)
    yield "JPEG said to be wider", "DATA003", resized(body, 1600, 120)
    yield "JPEG of no width", "DATA003", resized(body, 0, 120)
    yield "JPEG of no height", "DATA003", resized(body, 160, 0)
    yield "JPEG of 65535 x 65535", "DATA010", resized(body, 65535, 65535)
    yield "JPEG with two frame headers", "DATA003", body[:at] + frame + body[at:]
    yield "JPEG with a second frame within its scans", "DATA003", body[: scan + 40] + frame + body[scan + 40 :]
    yield "JPEG of two components", "DATA003", body[: at + 9] + b"\x02" + body[at + 10 :]
    yield "JPEG without quantisation", "DATA003", body.replace(b"\xff\xdb", b"\xff\xec")
    yield "JPEG with a segment of no length", "DATA003", with_segments(body, b"\xff\xe5\x00\x00")
    yield "JPEG with rubbish behind its first marker", "DATA002", with_segments(body, b"rubbish")
    yield "JPEG with rubbish between segments", "DATA003", body[:20] + b"rubbish" + body[20:]
    yield "JPEG of 12 bits", "DATA024", reframed(body, 0xC1, depth=12)
    yield "JPEG said to be lossless", "DATA024", reframed(body, 0xC3)
    yield "JPEG said to be arithmetic-coded", "DATA024", reframed(body, 0xC9)
    restarts = saved(photo, "JPEG", restart_marker_blocks=4)
    yield "JPEG with restart markers", PASSES, restarts
    yield "JPEG whose restart markers are lost", "DATA003", restarts.replace(b"\xff\xd3", b"\xff\xd6")
    yield "JPEG with a hundred comments of 64 kB", "DATA014", with_segments(body, *[segment(0xFE, bytes(65000))] * 100)
    yield "JPEG with 30 comments of 64 kB", PASSES, with_segments(body, *[segment(0xFE, bytes(65000))] * 30)
    yield "JPEG with 100 kB of fill bytes", PASSES, with_segments(body, b"\xff" * 100_000)
    yield "progressive JPEG of 100000 scans", "DATA030", many_scans(2048, 100_000)
    yield "progressive JPEG of few bytes and 36 million pixels", "DATA031", many_scans(6144, 3)


def broken_pngs() -> Iterator[tuple[str, str, bytes]]:
    photo = pixels(3)
    body, raw = saved(photo, "PNG"), rows(photo)
    yield "PNG of 400 million pixels in 48 kB", "DATA010", png(bytes(20_000 * 2501), 20_000, 20_000, 1, 0)
    yield "PNG of 4 billion x 4 billion", "DATA003", png(b"", 0xFFFFFFFF, 0xFFFFFFFF)
    yield "PNG of negative height", "DATA003", png(raw, WIDTH, 0x80000000 + HEIGHT)
    yield "PNG of no width", "DATA003", png(raw, 0)
    yield "PNG of depth 3", "DATA003", png(raw, depth=3)
    yield "PNG of colour type 5", "DATA003", png(raw, colours=5)
    yield "PNG with a palette picture and no palette", "DATA003", png(rows(photo[..., 0]), colours=3)
    yield "PNG with too few rows", "DATA003", png(raw[: len(raw) // 2])
    yield "PNG whose rows unpack to 40 MB more", PASSES, png(raw + bytes(40_000_000))
    yield "interlaced PNG without its last rows", "DATA003", png(interlaced(photo)[:-290], interlace=1)
    yield "PNG with a filter that does not exist", "DATA003", png(b"\x09" + raw[1:])
    yield "PNG whose header comes second", "DATA003", body[:8] + chunk(b"tEXt", b"a\x00b") + body[8:]
    yield "PNG with a wrong checksum of its pixels", "DATA003", body[:-16] + b"\x00\x00\x00\x00" + body[-12:]
    yield "PNG with a wrong checksum of a text", "DATA003", with_chunks(body, chunk(b"tEXt", b"a\x00b", crc=1))
    yield "PNG with a chunk of 4 GB", "DATA003", with_chunks(body, b"\xff\xff\xff\xffIDAT")
    yield "PNG with a critical chunk of no known kind", "DATA003", with_chunks(body, chunk(b"CgBI", bytes(4)))
    yield "PNG with 50000 empty chunks", PASSES, with_chunks(body, *[chunk(b"teXt")] * 50_000)
    yield (
        "animated PNG",
        "DATA016",
        saved(Image.fromarray(photo), "PNG", save_all=True, append_images=[Image.fromarray(pixels(4))]),
    )
    bomb = zlib.compress(bytes(20_000_000), 9)
    yield "zTXt bomb", "DATA019", with_chunks(body, chunk(b"zTXt", b"a\x00\x00" + bomb))
    yield "iTXt bomb", "DATA019", with_chunks(body, chunk(b"iTXt", b"a\x00\x01\x00\x00\x00" + bomb))
    yield "iCCP bomb", "DATA019", with_chunks(body, chunk(b"iCCP", b"a\x00\x00" + bomb))
    small = zlib.compress(bytes(400_000), 9)
    yield (
        "twenty zTXt that are a bomb together",
        "DATA019",
        with_chunks(body, *[chunk(b"zTXt", b"a\x00\x00" + small)] * 20),
    )
    yield "zTXt that is no zlib", PASSES, with_chunks(body, chunk(b"zTXt", b"a\x00\x00rubbish"))
    yield "PNG of 1 x 1", PASSES, saved(pixels(5, 1, 1), "PNG")
    yield "PNG one pixel high", "DATA015", saved(pixels(5, 200, 1), "PNG")
    yield "PNG one pixel wide", "DATA015", saved(pixels(5, 1, 3000), "PNG")
    nothing = np.dstack([photo, np.zeros((HEIGHT, WIDTH), np.uint8)])
    yield "PNG that is transparent everywhere", "DATA018", saved(nothing, "PNG")
    half = nothing.copy()
    half[:, ::2, 3] = 130
    yield "PNG that is half transparent", PASSES, saved(half, "PNG")
    yield "interlaced PNG", PASSES, png(interlaced(photo), interlace=1)
    yield "PNG of 16 bits", PASSES, png(rows(np.repeat(photo, 2, axis=2)), depth=16)


def polyglots() -> Iterator[tuple[str, str, bytes]]:
    jpeg, other, body = saved(pixels(6), "JPEG"), saved(pixels(7), "JPEG"), saved(pixels(6), "PNG")
    yield "JPEG and ZIP", "DATA017", jpeg + zip_bomb()
    yield "JPEG and HTML", "DATA017", jpeg + b"<script>alert(1)</script>"
    yield "JPEG and another JPEG", "DATA017", jpeg + other
    yield "JPEG and a film", "DATA017", jpeg + b"\x00\x00\x00\x18ftypmp42" + bytes(100)
    yield "JPEG and zeros up to a block's end", PASSES, jpeg + bytes(-len(jpeg) % 4096)
    yield "PNG and ZIP", "DATA017", body + zip_bomb()
    yield "PNG and another PNG", "DATA017", body + body
    yield "PNG with two ends", "DATA017", body + chunk(b"IEND")
    yield "JPEG with a program in a comment", PASSES, with_segments(jpeg, segment(0xFE, b"<?php system($_GET[0]); ?>"))
    xmp = b'http://ns.adobe.com/xap/1.0/\x00<x:xmpmeta GCamera:MotionPhoto="1"/>'
    film = b"\x00\x00\x00\x18ftypmp42" + bytes(100)
    yield "phone's picture with a film", PASSES, with_segments(jpeg, segment(0xE1, xmp)) + film
    yield "phone's picture with a program", "DATA017", with_segments(jpeg, segment(0xE1, xmp)) + b"\x7fELF" + bytes(99)
    both = saved(Image.fromarray(pixels(6)), "MPO", save_all=True, append_images=[Image.fromarray(pixels(7))])
    yield "phone's picture of two frames", PASSES, both


def exif_files() -> Iterator[tuple[str, str, bytes]]:
    jpeg, body = saved(pixels(8), "JPEG"), saved(pixels(8), "PNG")

    def marked(tiff: bytes) -> bytes:
        return with_segments(jpeg, segment(0xE1, b"Exif\x00\x00" + tiff))

    huge = struct.pack("<HHII", 0x010E, 7, 0xFFFFFFFF, 8)
    loop = struct.pack("<HHII", 0x8769, 4, 1, 8) * 10 + struct.pack("<I", 8)
    yield "EXIF that is no TIFF", PASSES, marked(b"rubbish")
    yield "EXIF that breaks off", PASSES, marked(b"II*\x00\x08")
    yield "EXIF whose directory lies 4 GB ahead", PASSES, marked(b"II*\x00\xff\xff\xff\xff")
    yield "EXIF with values of 4 GB", PASSES, marked(exif(huge * 5000, 65535))
    yield "EXIF that points at itself", PASSES, marked(exif(loop, 10))
    yield "EXIF with orientation 200", PASSES, marked(exif(struct.pack("<HHIHH", 0x0112, 3, 1, 200, 0), 1))
    many = exif(struct.pack("<HHII", 0x010E, 7, 1_000_000, 8) * 65535, 65535)
    yield "eXIf of 65535 entries of a megabyte each", PASSES, with_chunks(body, chunk(b"eXIf", many + bytes(300_000)))


def broken_masks() -> Iterator[tuple[str, str, bytes]]:
    random = np.random.default_rng(9)
    ids = random.integers(0, 3, (HEIGHT, WIDTH), dtype=np.uint8)
    palette = Image.fromarray(ids)
    palette.putpalette(bytes(range(9)))
    whole = saved(palette, "PNG")
    colours = chunk(b"PLTE", bytes(9))
    yield "empty", "DATA009", b""
    yield "a JPEG", "DATA006", saved(ids, "JPEG")
    yield "a GIF", "DATA006", saved(palette, "GIF")
    yield "colours", "DATA006", saved(np.dstack([ids] * 3), "PNG")
    yield "colours and alpha", "DATA006", saved(np.dstack([ids] * 4), "PNG")
    yield "grey and alpha", "DATA006", saved(Image.fromarray(ids).convert("LA"), "PNG")
    yield "16 bits", "DATA006", saved(ids.astype(np.uint16), "PNG")
    yield "black and white", "DATA006", saved(Image.fromarray(ids).convert("1"), "PNG")
    yield "grey of 4 bits", "DATA006", png(rows(np.zeros((HEIGHT, WIDTH // 2), np.uint8)), depth=4, colours=0)
    for tenth in range(1, 10, 2):
        yield f"cut at {tenth}0 %", "DATA007", whole[: len(whole) * tenth // 10]
    yield "half written, zeros behind", "DATA007", whole[: len(whole) // 2] + bytes(len(whole) // 2)
    yield "a wrong checksum", "DATA007", whole[:-16] + bytes(4) + whole[-12:]
    yield "without IEND", "DATA007", whole[:-12]
    yield "too few rows", "DATA007", png(rows(ids)[:900], WIDTH, HEIGHT, 8, 3, colours)
    yield "another size", "DATA005", saved(ids[:, 1:], "PNG")
    yield "of 400 million pixels", "DATA005", png(bytes(20_000 * 2501), 20_000, 20_000, 1, 3, colours)
    yield "of no width", "DATA007", png(rows(ids), 0, HEIGHT, 8, 3, colours)
    yield "all ignored", "DATA012", saved(ids * 0 + np.uint8(255), "PNG")
    yield "an id outside the class map", "DATA004", saved(ids + np.uint8(1), "PNG")
    yield "more bytes than allowed", "DATA014", with_chunks(whole, chunk(b"tEXt", b"a\x00" + bytes(4_000_000)))
    yield "an animation", "DATA016", saved(palette, "PNG", save_all=True, append_images=[Image.fromarray(ids[::-1])])
    yield "a ZIP behind it", "DATA017", whole + zip_bomb()
    bomb = zlib.compress(bytes(20_000_000), 9)
    yield "zTXt bomb", "DATA019", with_chunks(whole, chunk(b"zTXt", b"a\x00\x00" + bomb))
    yield "rows that unpack to 40 MB more", PASSES, png(rows(ids) + bytes(40_000_000), WIDTH, HEIGHT, 8, 3, colours)
    yield (
        "transparent colours in the palette",
        PASSES,
        png(rows(ids), WIDTH, HEIGHT, 8, 3, colours, chunk(b"tRNS", b"\x00")),
    )
    yield "interlaced", PASSES, png(interlaced(ids), WIDTH, HEIGHT, 8, 3, colours, interlace=1)
    yield "a palette of 2 bits", PASSES, saved(palette, "PNG", bits=2)
    yield "a palette with fewer colours than ids", PASSES, png(rows(ids), WIDTH, HEIGHT, 8, 3, chunk(b"PLTE", bytes(3)))


def corpus() -> list[Hostile]:
    """All of them; a hostile mask belongs to a sound photo."""
    images = (other_formats, cut_files, broken_jpegs, broken_pngs, polyglots, exif_files)
    photo = saved(pixels(), "JPEG")
    return [
        *(Hostile(name, code, Files(body, None)) for group in images for name, code, body in group()),
        *(Hostile(f"mask: {name}", code, Files(photo, body)) for name, code, body in broken_masks()),
    ]


def source_of(hostile: Hostile) -> Source:
    return Source(Path(f"{hostile.name}.jpg"), "train", None if hostile.files.mask is None else Path("mask.png"))


def codes(files: list[Hostile], workers: int) -> list[tuple[str, str]]:
    """Code (or PASSES) and reason of each, as worker processes find them."""
    with CheckPool(CLASSES, LIMITS, workers, MEMORY, SECONDS) as pool:
        found = pool.examine((source_of(h), h.files) for h in files)
        return [(f.code, f.reason) if isinstance(f, Quarantined) else (PASSES, "") for f in found]


def peak() -> int:
    """Bytes that the largest of the workers that have ended had in memory."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """With `json`: [name, code, reason] of each, and the workers' peaks after one sound photo and after all."""
    files = corpus()
    codes([h for h in files if h.name == "JPEG with restart markers"], 1)
    base = peak()
    found = codes(files, 2)
    if sys.argv[1:] == ["json"]:
        print(json.dumps([[h.name, *f] for h, f in zip(files, found, strict=True)] + [[base, peak()]]))
        return
    for hostile, (code, reason) in zip(files, found, strict=True):
        size = len(hostile.files.mask or hostile.files.image)
        print(f"{'' if code == hostile.code else 'WRONG '}{code}  {hostile.name} ({size} bytes): {reason}")
    wrong = sum(h.code != code for h, (code, _) in zip(files, found, strict=True))
    print(f"{len(files)} files, {wrong} under a wrong code; a worker needs {base >> 20} MiB for one sound photo,")
    print(f"{peak() >> 20} MiB for the worst of these, where {MEMORY >> 20} MiB more than its own are allowed")


if __name__ == "__main__":
    main()
