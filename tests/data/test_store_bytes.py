"""What the store gives and keeps is right to the last bit, whatever servers and disks make of it."""

import base64
import hashlib
import time
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from semivl.data.store import Store
from tests.faults import FaultProxy, Message
from tests.stores import behind, failure


def test_damaged_object_is_told_and_not_kept(store, tmp_path):
    store.put("a", b"right")
    metadata = store.client.head_object(Bucket=store.bucket, Key="a")["Metadata"]
    store.client.put_object(Bucket=store.bucket, Key="a", Body=b"wrong", Metadata=metadata)
    for action in (store.get, store.get_with_etag, lambda key: store.download(key, tmp_path / "a")):
        error = failure(action, "a")
        assert (error.code, store.address("a") in str(error)) == ("STORE007", True)
    assert list(tmp_path.iterdir()) == []
    assert store.get("a", 1, 3) == b"ron"


def test_objects_of_others_are_taken_as_they_are(store, tmp_path):
    store.client.put_object(
        Bucket=store.bucket, Key="foreign", Body=b"theirs", Metadata={"sha256": "of something else"}
    )
    assert store.get("foreign") == b"theirs"
    assert store.download("foreign", tmp_path / "x") == hashlib.sha256(b"theirs").hexdigest()


def test_listing_tells_size_and_etag(store):
    for n in range(3):
        store.put(f"list/{n}", b"x" * n)
    etags = {key: store.get_with_etag(key)[1] for key in store.list("list/")}
    found = list(store.listed("list/"))
    assert [(f.key, f.size, f.etag) for f in found] == [(f"list/{n}", n, etags[f"list/{n}"]) for n in range(3)]
    assert all(abs(time.time() - f.modified.timestamp()) < 60 for f in found)


@pytest.mark.parametrize("checksum", ["ContentMD5", "ChecksumSHA256"])
def test_server_refuses_what_does_not_match_its_checksum(store, checksum):
    digest = hashlib.md5 if checksum == "ContentMD5" else hashlib.sha256
    wrong = {checksum: base64.b64encode(digest(b"sent").digest()).decode()}
    with pytest.raises(ClientError, match="BadDigest"):
        store.client.put_object(Bucket=store.bucket, Key="a", Body=b"came", **wrong)
    assert not store.exists("a")


def test_server_that_says_nothing_of_checksums_is_judged_by_the_etag(store):
    def silent(request: Message, answer: Message) -> Message:
        return answer.without("x-amz-checksum-sha256")

    with FaultProxy(store.settings.s3_endpoint, {}, change_answer=silent) as proxy:
        behind(store, proxy).put("a", b"1")
    assert [r.first.split()[0] for r in proxy.requests] == ["PUT"]


def test_object_is_read_where_the_etag_is_no_md5_either(store):
    """As that of an object which a server has put together from parts."""

    def in_parts(request: Message, answer: Message) -> Message:
        if not request.first.startswith("PUT"):
            return answer
        own = {"Bucket": store.bucket, "Key": "a"}
        own["UploadId"] = store.client.create_multipart_upload(**own)["UploadId"]
        part = {"ETag": store.client.upload_part(**own, PartNumber=1, Body=b"1")["ETag"], "PartNumber": 1}
        kept = store.client.complete_multipart_upload(**own, MultipartUpload={"Parts": [part]})
        plain = answer.without("x-amz-checksum-sha256", "etag")
        return replace(plain, headers=(*plain.headers, ("ETag", kept["ETag"])))

    with FaultProxy(store.settings.s3_endpoint, {}, change_answer=in_parts) as proxy:
        behind(store, proxy).put("a", b"1")
    assert [r.first.split()[0] for r in proxy.requests] == ["PUT", "GET"]


@pytest.mark.parametrize("way", ["put", "put_if_absent", "put_if_match"])
def test_bytes_that_arrive_wrong_unnoticed_are_put_again(store, way):
    """A server that compares nothing keeps a spoilt body, and says its MD5."""
    store.put("moved", b"0")
    etag = store.get_with_etag("moved")[1]

    def spoil(request: Message, answer: Message) -> Message:
        if not request.first.startswith("PUT"):
            return answer
        answer = answer.without("x-amz-checksum-sha256")
        if spoilt:
            return answer
        key = request.first.split()[1].removeprefix(f"/{store.bucket}/")
        metadata = store.client.head_object(Bucket=store.bucket, Key=key)["Metadata"]
        kept = store.client.put_object(Bucket=store.bucket, Key=key, Body=b"spoilt", Metadata=metadata)
        spoilt.append(key)
        return replace(answer.without("etag"), headers=(*answer.without("etag").headers, ("ETag", kept["ETag"])))

    spoilt: list[str] = []
    with FaultProxy(store.settings.s3_endpoint, {}, change_answer=spoil) as proxy:
        faulty = behind(store, proxy)
        if way == "put":
            faulty.put("new", b"right")
        elif way == "put_if_absent":
            assert faulty.put_if_absent("new", b"right")
        else:
            assert faulty.put_if_match("moved", b"right", etag)
    assert spoilt
    assert store.get(spoilt[0]) == b"right"


def test_object_above_what_s3_takes_at_once_is_told(store, tmp_path):
    with (tmp_path / "huge").open("wb") as file:
        file.truncate((5 << 30) + 1)
    for action in (store.put, store.put_if_absent):
        error = failure(action, "huge", tmp_path / "huge")
        assert (error.code, "5 GiB" in str(error)) == ("STORE009", True)


def _peak(store: Store, folder: Path, answers) -> None:
    import resource

    store.put("warm", b"1")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    store.put("large", folder / "large")
    store.download("large", folder / "again")
    answers.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def test_files_pass_without_being_held_in_memory(store, tmp_path):
    with (tmp_path / "large").open("wb") as file:
        for n in range(64):
            file.write(bytes([n]) * (1 << 20))
    context = get_context("spawn")
    answers = context.Queue()
    child = context.Process(target=_peak, args=(store, tmp_path, answers))
    child.start()
    grown = answers.get(timeout=120)
    child.join()
    assert (tmp_path / "again").stat().st_size == 64 << 20
    assert grown < 30_000  # kB
