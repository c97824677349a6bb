"""semivl-predict on real services: what it leaves behind, and how it ends for what a user did."""

import pytest

from flows.predict import predict
from semivl.serving.predict_job import Job
from tests.flows.test_flows import artifacts, ended
from tests.registry.conftest import bundle  # noqa: F401
from tests.serving.conftest import photo, write


@pytest.mark.usefixtures("services")
def test_a_folder_becomes_masks_in_s3_and_a_wrong_one_ends_the_run_with_its_code(bundle, store, tmp_path):  # noqa: F811
    write(tmp_path / "photos/a.jpg", photo(0))
    write(tmp_path / "photos/b.jpg", b"no photo")
    job = Job(source=str(tmp_path / "photos"), output=store.address("predicted"), model=str(bundle), device="cpu")  # pyright: ignore
    state, run = ended(predict, {"job": job})
    assert state.result().summary.predicted == 1
    left = artifacts(run)
    name = bundle.name
    assert "DATA002: 1 photos" in left[f"predictions-{name}"] and '"refused": 1' in left[f"predicted-{name}"]
    names = ("masks/a.png", "predictions.jsonl", "timings.jsonl")
    assert set(store.list("predicted/")) == {f"predicted/{name}" for name in names}
    state, _ = ended(predict, {"job": job.model_copy(update={"source": str(tmp_path / "absent")})})
    assert state.is_failed() and state.message.startswith("PRED003")
