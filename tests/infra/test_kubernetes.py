"""infra/kubernetes: every pod has few rights and bounded needs, and what may talk to what is what compose has."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.infra import compose

FOLDER = compose.FOLDER.parent / "kubernetes"
MANIFESTS = sorted(p for p in FOLDER.rglob("*.yaml") if "kustomization" not in p.name)


def documents() -> Iterator[dict[str, Any]]:
    for path in MANIFESTS:
        yield from yaml.safe_load_all(path.read_text())


def pods() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Name, metadata and spec of every pod that may be started, Ray's and those of the GPU pool among them."""
    for one in documents():
        name = f"{one['kind']}/{one['metadata']['name']}"
        if one["kind"] == "RayCluster":
            groups = [one["spec"]["headGroupSpec"], *one["spec"]["workerGroupSpecs"]]
            for group in groups:
                template = group["template"]
                yield f"{name}/{group.get('groupName', 'head')}", template["metadata"], template["spec"]
        elif "template" in one.get("spec", {}):
            yield name, one["spec"]["template"]["metadata"], one["spec"]["template"]["spec"]
    job = rendered_job()
    yield "pool semivl-gpu", job["spec"]["template"]["metadata"], job["spec"]["template"]["spec"]


def rendered_job(**values: Any) -> dict[str, Any]:
    """The job that Prefect's worker makes of the template: a placeholder alone keeps its value's type."""
    template = json.loads((FOLDER / "base" / "job-template.json").read_text())
    known = {name: one.get("default") for name, one in template["variables"]["properties"].items()} | values

    def put(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: put(one) for key, one in value.items()}
        if isinstance(value, list):
            return [put(one) for one in value]
        found = re.fullmatch(r"\{\{ (\w+) \}\}", value) if isinstance(value, str) else None
        if found:
            return known[found[1]]
        return re.sub(r"\{\{ (\w+) \}\}", lambda f: str(known[f[1]]), value) if isinstance(value, str) else value

    return put(template["job_configuration"]["job_manifest"])


every_pod = pytest.mark.parametrize(("name", "metadata", "pod"), list(pods()), ids=[name for name, _, _ in pods()])


@every_pod
def test_pod_has_few_rights(name: str, metadata: dict[str, Any], pod: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in [*pod.get("initContainers", ()), *pod["containers"]]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
    if name not in ("Deployment/worker-gpu", "RayCluster/ray/head"):  # they start pods; Ray's head gets its account
        assert pod["automountServiceAccountToken"] is False


@every_pod
def test_pod_says_what_it_needs_and_how_much_it_may_take(name: str, metadata: dict[str, Any], pod: dict) -> None:
    for container in [*pod.get("initContainers", ()), *pod["containers"]]:
        asked, most = container["resources"]["requests"], container["resources"]["limits"]
        assert {"cpu", "memory"} <= set(asked) and "memory" in most
    assert all("sizeLimit" in volume["emptyDir"] for volume in pod["volumes"] if "emptyDir" in volume)


@every_pod
def test_long_running_pod_is_probed(name: str, metadata: dict[str, Any], pod: dict[str, Any]) -> None:
    if name.startswith(("Job/", "RayCluster/", "pool ")):
        return  # a job ends by itself; KubeRay puts probes of its own into Ray's pods
    assert all({"readinessProbe", "livenessProbe"} <= set(container) for container in pod["containers"])


def test_gpu_pools_jobs_ask_for_gpus_on_nodes_that_have_them() -> None:
    pod = rendered_job(gpus="2", image="registry/worker:1.0")["spec"]["template"]["spec"]
    container = pod["containers"][0]
    for kind in ("requests", "limits"):
        assert container["resources"][kind]["nvidia.com/gpu"] == "2"
    assert container["image"] == "registry/worker:1.0"
    assert pod["tolerations"][0]["key"] == "nvidia.com/gpu" and pod["nodeSelector"] == {"semivl/gpu": "true"}
    terraform = (FOLDER.parent / "terraform" / "nodes.tf").read_text()
    assert 'labels = { "semivl/gpu" = "true" }' in terraform and 'key    = "nvidia.com/gpu"' in terraform


def test_job_template_uses_every_variable_that_it_offers() -> None:
    """Prefect drops a value without a word where the template does not name it."""
    text = (FOLDER / "base" / "job-template.json").read_text()
    template = json.loads(text)
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(template["job_configuration"])))
    assert used == set(template["variables"]["properties"])


def test_nothing_may_talk_before_a_policy_lets_it() -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in documents() if one["kind"] == "NetworkPolicy"}
    assert policies["deny-all"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name in ("postgres", "s3", "prefect", "mlflow"):
        entry = policies[name]["ingress"]
        assert [one["from"] for one in entry] == [[{"podSelector": {"matchLabels": {f"semivl/uses-{name}": "true"}}}]]


def test_pods_reach_what_compose_lets_their_counterparts_reach() -> None:
    uses = {name: {label.removeprefix("semivl/uses-") for label in meta["labels"] if "/uses-" in label}
            for name, meta, _ in pods()}  # fmt: skip
    assert uses["Deployment/mlflow"] == {"postgres", "s3"} and uses["Deployment/prefect"] == {"postgres"}
    assert uses["StatefulSet/postgres"] == uses["StatefulSet/s3"] == set()
    assert {"prefect", "mlflow", "s3"} <= uses["StatefulSet/worker"] & uses["pool semivl-gpu"]
    assert "postgres" not in uses["StatefulSet/worker"] | uses["pool semivl-gpu"] | uses["Deployment/worker-gpu"]


def test_servers_start_as_compose_starts_them() -> None:
    """The same words, so that what the team's test ran is what runs here."""
    services = compose.read()["services"]
    here = {name: pod["containers"][0] for name, _, pod in pods()}
    for name, kind in (
        ("s3", "StatefulSet"),
        ("mlflow", "Deployment"),
        ("prefect", "Deployment"),
        ("worker", "StatefulSet"),
    ):
        assert here[f"{kind}/{name}"]["args"] == services[name]["command"]
    assert here["StatefulSet/s3"]["command"] == services["s3"]["entrypoint"]
    assert here["Job/deploy"]["args"] == services["deploy"]["command"]
    assert here["StatefulSet/postgres"]["image"] == services["postgres"]["image"]


def test_settings_are_those_of_compose() -> None:
    here = compose.env_file(FOLDER / "base" / "settings.env")
    there = compose.read()["services"]["worker"]["environment"]
    same = {name for name in set(here) & set(there) if here[name] == there[name]}
    assert set(here) - same == {"PREFECT_UI_URL", "PREFECT_PAGE_API", "SEMIVL_MLFLOW_PAGE"}
    keys = {"SEMIVL_S3_ENDPOINT", "SEMIVL_S3_ACCESS_KEY", "SEMIVL_S3_SECRET_KEY"}
    assert set(there) - same == keys | {"PREFECT_UI_URL", "SEMIVL_MLFLOW_PAGE"}


def test_no_secret_stands_in_the_manifests() -> None:
    assert not [one for one in documents() if one["kind"] == "Secret"]
    for path in [*MANIFESTS, *FOLDER.rglob("*.env")]:
        if path.parent.name != "local":  # its git-ignored files are a trial's
            found = re.search(
                r"(?im)^\s*\w*(?:password|secret_key|(?<!Account)token)\w*\s*[:=]\s*[\w\"']", path.read_text()
            )
            assert not found, path.name


def test_images_are_pinned() -> None:
    tags = dict(
        re.findall(
            r"name: (semivl-[a-z0-9]+), (?:newName: \S+, )?newTag: \"?([\d.]+)",
            "\n".join(p.read_text() for p in FOLDER.rglob("kustomization.yaml")),
        )
    )
    for _, _, pod in pods():
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            name, _, tag = container["image"].partition(":")
            assert re.search(r"\d+\.\d+", tag or tags[name]), container["image"]
