"""The served model answers as `semivl predict` does, whatever else is sent to it, and holds no more than it may."""

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from semivl.data.checks import Limits
from semivl.serving.finished import load_model
from semivl.serving.predict import PredictSettings, predict
from semivl.serving.predict_outputs import LocalOutputs
from semivl.serving.predict_photos import open_photos
from tests.data import hostile, pictures
from tests.serving.conftest import BYTES, PIXELS, Server, photo, write

CONCURRENT = 50
MORE_MEMORY = 256 << 20
"""what answering may add to the memory that a server of this model has after its first answer"""


def text(body: bytes) -> str:
    return base64.b64encode(body).decode()


def predicted(server: Server, bodies: dict[str, bytes], folder: Path) -> dict[str, bytes]:
    """The masks of `semivl predict`, by the names of the photos."""
    for name, body in bodies.items():
        write(folder / "photos" / f"{name}.jpg", body)
    photos = open_photos(str(folder / "photos"), None, Limits())
    predict(load_model(server.model), photos, LocalOutputs(folder / "out"), PredictSettings())
    return {name: (folder / "out" / "masks" / f"{name}.png").read_bytes() for name in bodies}


def large() -> bytes:
    """More pixels than the server takes at once, in few bytes."""
    return pictures.saved(Image.new("RGB", (PIXELS // 100, 101)), "PNG")


def poisonous() -> list[tuple[str, bytes]]:
    """Files that one image of a request may be, each with its code."""
    chosen = [h for h in hostile.corpus() if h.files.mask is None and h.code not in (hostile.PASSES, "DATA010")]
    return [(h.code, h.files.image) for h in chosen if len(h.files.image) < BYTES // 2][::2]


def test_fifty_at_once_get_the_masks_of_the_command_and_the_bad_ones_a_400(server: Server, tmp_path: Path) -> None:
    bodies = {f"{number:02}": photo(number) for number in range(12)}
    masks = predicted(server, bodies, tmp_path)
    assert server.ask(text(bodies["00"]))[0] == 200
    before = server.memory()
    bad = poisonous()
    assert len(bad) > 20
    requests: list[tuple[str | None, bytes]] = []
    for number in range(60):
        requests += [(f"{number % 12:02}", photo(number % 12)), (None, bad[number % len(bad)][1])]

    def ask(request: tuple[str | None, bytes]) -> tuple[int, dict]:
        return server.ask(text(request[1]))

    with ThreadPoolExecutor(CONCURRENT) as threads:
        answers = list(threads.map(ask, requests))
    for (name, _), (status, answer) in zip(requests, answers, strict=True):
        assert status == (200 if name else 400), answer
        if name:
            assert base64.b64decode(answer["predictions"][0]["mask"], validate=True) == masks[name]
        else:
            assert "REG005 row 0: DATA" in answer["message"]
    assert server.memory() - before < MORE_MEMORY


def test_each_bad_image_is_told_its_code_and_row(server: Server) -> None:
    for code, body in poisonous()[:8]:
        status, answer = server.ask(text(photo(0)), text(body))
        assert status == 400 and f"REG005 row 1: {code}" in answer["message"], answer
        assert answer["error_code"] == "INVALID_PARAMETER_VALUE" and "Traceback" not in json.dumps(answer)


def test_the_answer_says_size_classes_and_on_request_confidence_and_run_lengths(server: Server) -> None:
    from pycocotools import mask as runs

    status, answer = server.ask(f"data:image/jpeg;base64,{text(photo(1))}", confidence=True, rle=True)
    (row,) = answer["predictions"]
    mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(row["mask"]))))
    assert status == 200 and (row["width"], row["height"]) == mask.shape[::-1] == (48, 32)
    for number, name in enumerate(("class 0", "class 1", "class 2")):
        assert row["classes"].get(name, 0) == pytest.approx(100 * (mask == number).mean(), abs=1e-3)
        if name in row["rle"]:
            assert np.array_equal(runs.decode(row["rle"][name]), mask == number)
    certain = np.asarray(Image.open(io.BytesIO(base64.b64decode(row["confidence_map"]))))
    assert certain.shape == mask.shape and row["confidence"] == pytest.approx(certain.mean() / 2.55, abs=0.01)


def test_an_address_in_an_allowed_bucket_gives_the_same_mask(server: Server, s3) -> None:
    from semivl.data.store import open_store

    store = open_store()
    store.put("served/photo.jpg", photo(3))
    address = store.address("served/photo.jpg")
    assert server.ask(address)[1]["predictions"] == server.ask(text(photo(3)))[1]["predictions"]
    status, answer = server.ask(address + "x")
    assert status == 400 and "STORE003" in answer["message"]


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("s3://somebody-elses/photo.jpg", "PRED011"),
        ("s3://semivl/../../etc/passwd", "PRED011"),
        ("s3://169.254.169.254/latest/meta-data", "PRED011"),
        ("http://169.254.169.254/latest/meta-data", "PRED011"),
        ("file:///etc/passwd", "PRED011"),
        ("FILE:/etc/passwd", "PRED011"),
        ("data:text/html;base64,PGI+", "PRED011"),
        ("/etc/passwd", "PRED010"),
        ("no base64!", "PRED010"),
        ("", "DATA009"),
        (None, "PRED010"),
        (7, "row 0"),
        ({"a": 1}, "row 0"),
        (["a"], "row 0"),
    ],
)
def test_what_is_no_image_is_refused_and_never_fetched(server: Server, image: object, words: str) -> None:
    status, answer = server.ask(image)
    assert status == 400 and words in answer["message"], answer


def test_a_batch_is_bounded_in_pixels_images_and_bytes(server: Server) -> None:
    status, answer = server.ask(text(large()))
    assert status == 400 and "REG005 row 0: DATA010" in answer["message"]
    status, answer = server.ask(*[text(pictures.saved(Image.new("RGB", (100, 30)), "PNG"))] * (PIXELS // 3000 + 1))
    assert status == 400 and "PRED013" in answer["message"] and "SEMIVL_SERVE_PIXELS" in answer["message"]
    status, answer = server.ask(*[text(photo(0))] * 65)
    assert status == 400 and "PRED013 65 images" in answer["message"]
    status, answer = server.post(b" " * (BYTES + 1))
    assert status == 413 and "SEMIVL_SERVE_BYTES" in answer["message"]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[" * 3000, "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"dataframe_records":[' + b"{}," * 50_000 + b"{}]}", "application/json", 400),
        (b'{"dataframe_records":[{"picture":"x"}]}', "application/json", 400),
        (b'{"dataframe_records":[]}', "application/json", 400),
        (b'{"dataframe_records":[{"image":"x"}],"params":{"rle":"maybe"}}', "application/json", 400),
        (b"PAR1", "application/vnd.apache.parquet", 415),
        (b"image\nx\n", "text/csv", 415),
    ],
)
def test_what_is_no_request_is_refused(server: Server, body: bytes, kind: str, status: int) -> None:
    got, answer = server.post(body, kind)
    assert got == status, answer


def test_a_turned_photo_is_answered_as_it_is_seen(server: Server, photos: Path) -> None:
    body = (photos / "turned.jpg").read_bytes()
    seen = ImageOps.exif_transpose(Image.open(photos / "turned.jpg"))
    _, answer = server.ask(text(body))
    (row,) = answer["predictions"]
    assert (row["width"], row["height"]) == seen.size == (32, 48)


def test_the_server_answers_still(server: Server) -> None:
    assert server.ask(text(photo(0)))[0] == 200
