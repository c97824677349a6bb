"""What Prefect's page makes its form of."""

import pytest
import yaml
from prefect.utilities.callables import parameter_schema

from flows.drift import drift
from flows.evaluate import evaluate
from flows.ingest import ingest
from flows.pipeline import pipeline
from flows.predict import predict
from flows.promote import promote
from flows.retrain import retrain
from flows.train import train
from flows.validate import validate
from semivl.config import Config
from semivl.serving.predict_job import Job
from semivl.settings import ROOT

FLOWS = {flow.name: flow for flow in (ingest, validate, train, evaluate, promote, pipeline, drift, retrain)}


@pytest.mark.parametrize("name", sorted(FLOWS))
def test_form_has_every_setting_with_its_description(name):
    schema = parameter_schema(FLOWS[name]).model_dump()
    form = schema["definitions"]["ConfigOverrides"]["properties"]
    assert set(form) == set(Config.model_fields) - {"name"}
    train_form = schema["definitions"]["TrainConfigOverrides"]["properties"]
    assert "labelled images a step" in train_form["batch"]["description"]
    assert all(p.get("description") for p in schema["properties"].values())
    assert not schema.get("required")


@pytest.mark.parametrize("name", sorted(FLOWS))
def test_misspelt_setting_is_refused_before_the_run(name):
    with pytest.raises(Exception, match="stepz"):
        FLOWS[name].validate_parameters({"overrides": {"train": {"stepz": 3}}})


def test_every_flow_has_a_local_deployment_and_training_one_for_gpus():
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    named = {(d["entrypoint"], d["name"], d["work_pool"]["name"]) for d in deployments}
    names = [*(flow.name.removeprefix("semivl-") for flow in (*FLOWS.values(), predict)), "restart"]
    local = {f"flows/{name}.py:{name}" for name in names}
    assert named == {(e, "local", "semivl-local") for e in local} | {("flows/train.py:train", "gpu", "semivl-gpu")}


def test_form_of_a_prediction_has_every_setting_with_its_description_and_refuses_others():
    form = parameter_schema(predict).model_dump()["definitions"]["Job"]
    assert set(form["properties"]) == set(Job.model_fields)
    assert all(field.get("description") for field in form["properties"].values())
    assert set(form["required"]) == {"source", "output", "model"}
    with pytest.raises(Exception, match="overlay"):
        predict.validate_parameters({"job": {"source": "a", "output": "b", "model": "c", "overlay": True}})
