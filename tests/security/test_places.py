"""Sources and outputs stay where whoever runs the service allows them; addresses carry no passwords."""

import traceback

import pytest

from semivl.config import DataConfig
from semivl.data.bounds import require_allowed
from semivl.data.checks import Limits
from semivl.data.layouts import list_sources
from semivl.data.lists import find_file
from semivl.data.source_files import open_source
from semivl.errors import ConfigError, DataError
from semivl.serving.predict_outputs import open_outputs
from semivl.serving.predict_photos import open_photos
from semivl.settings import ROOT, settings
from tests.conftest import forget_settings


@pytest.fixture
def allowed(tmp_path, monkeypatch):
    """A folder that is allowed, beside one that is not; and one prefix of one bucket."""
    for name in ("mine", "theirs", "mine-too"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("SEMIVL_SOURCES", f"{tmp_path / 'mine'}, s3://photos/farm")
    forget_settings()
    yield tmp_path
    monkeypatch.undo()
    forget_settings()


def config(source, **fields) -> DataConfig:
    return DataConfig(dataset="d", source=str(source), **fields)  # pyright: ignore


def code_of(call, *arguments) -> str:
    with pytest.raises((DataError, ConfigError)) as raised:
        call(*arguments)
    return raised.value.code


def test_what_is_allowed_can_be_read(allowed):
    (allowed / "mine" / "deep").mkdir()
    for place in ("mine", "mine/deep"):
        assert open_source(config(allowed / place)).address.endswith(place)
        open_photos(str(allowed / place), None, Limits())
    require_allowed("s3://photos/farm/2024//cows/")
    open_outputs(str(allowed / "mine" / "masks"), "elsewhere")


def test_what_is_not_allowed_is_refused_wherever_it_is_named(allowed):
    (allowed / "mine" / "link").symlink_to(allowed / "theirs")
    places = ["theirs", "mine-too", "mine/../theirs", "mine/link"]
    for place in places:
        assert code_of(open_source, config(allowed / place)) == "DATA124"
        assert code_of(open_photos, str(allowed / place), None, Limits()) == "DATA124"
        assert code_of(open_outputs, str(allowed / place / "masks"), "elsewhere") == "DATA124"
    for place in ("s3://photos", "s3://photos/farmer", "s3://other/farm", "s3://photos/other"):
        assert code_of(open_source, config(place)) == "DATA124"
        assert code_of(open_photos, place, None, Limits()) == "DATA124"


def test_anything_goes_where_nothing_is_said(tmp_path):
    assert not settings().allowed_sources
    require_allowed(tmp_path)


@pytest.mark.parametrize("name", ["/etc/passwd", "../../../../etc/passwd", "conf/../../../../../etc/passwd"])
def test_lists_come_from_the_source_or_the_checkout(tmp_path, name):
    (tmp_path / "images").mkdir()
    files = open_source(config(tmp_path))
    assert code_of(find_file, files, name) == "DATA103"
    assert find_file(files, "README.md") == (ROOT / "README.md").read_bytes()
    assert code_of(list_sources, config(tmp_path, labelled_list=name)) in ("DATA102", "DATA103")


@pytest.mark.parametrize("name", ["S3_ENDPOINT", "MLFLOW_URI", "PREFECT_API_URL"])
def test_an_address_with_a_password_is_refused_and_does_not_show_it(monkeypatch, name):
    monkeypatch.setenv(f"SEMIVL_{name}", "https://ada:hunter2@mlflow.example/api")
    forget_settings()
    with pytest.raises(ConfigError) as raised:
        settings()
    monkeypatch.undo()
    forget_settings()
    assert raised.value.code == "CONF004" and f"SEMIVL_{name}" in str(raised.value)
    assert "hunter2" not in "".join(traceback.format_exception(raised.value))
