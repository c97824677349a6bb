"""infra/terraform: the roles' prefixes are those that the code uses, and no bucket is left open."""

import re

from semivl.settings import ROOT
from tests.infra.policies import FOLDER, prefixes

TEXT = "\n".join(path.read_text() for path in sorted(FOLDER.glob("*.tf")))
_KEY = re.compile(r"f?\"([a-z]+)/(?:\{|v2/|\")")
"""how the code writes the beginning of a key"""


def test_training_may_write_every_prefix_that_its_rooms_write() -> None:
    """`training`, `registry` and `evaluation` hold the stages train, evaluate, promote and drift."""
    used = set()
    for room in ("training", "registry", "evaluation"):
        for path in (ROOT / "semivl" / room).glob("*.py"):
            for line in path.read_text().splitlines():
                if "store." in line or "return f" in line or "key = f" in line or "_read(" in line:
                    used |= {f"{found}/" for found in _KEY.findall(line)}
    used -= {"latency_ms/", "train/", "gate/", "datasets/", "conf/"}  # metrics, artifacts, files
    assert used == prefixes("training", "write")


def test_ingest_and_serving_keep_to_their_own() -> None:
    assert prefixes("ingest", "write") == {"datasets/"}
    assert "datasets/" not in prefixes("training", "write") | prefixes("serving", "write")
    assert prefixes("ingest", "write").isdisjoint(prefixes("training", "write"))
    assert prefixes("training", "delete") == {"checkpoints/"}
    assert prefixes("ingest", "delete") == {"datasets/*/groups/", "datasets/*/docs/"}
    assert "write  = [var.predictions_prefix]" in TEXT


def test_no_statement_allows_everything() -> None:
    roles = (FOLDER / "roles.tf").read_text() + (FOLDER / "nodes.tf").read_text()
    assert not re.search(r"actions\s*=\s*\[[^\]]*\"(?:\*|s3:\*|iam:[^\"]*|kms:\*)\"", roles)
    assert roles.count('resources = ["*"]') == 1  # the autoscaler's look
    assert '"s3:DeleteObjectVersion"' not in TEXT


def test_every_bucket_is_private_versioned_encrypted_and_tidied() -> None:
    for kind in ("public_access_block", "versioning", "server_side_encryption_configuration", "policy"):
        block = re.search(rf'resource "aws_s3_bucket_{kind}" "this" \{{\n\s+for_each\s+= local.all\n', TEXT)
        assert block, kind
    assert TEXT.count("aws:SecureTransport") == 1 and 'effect    = "Deny"' in TEXT
    assert len(re.findall(r"= true", re.search(r'public_access_block" "this" \{.*?\n\}', TEXT, re.S)[0])) == 4
    assert {"kept", "logs"} == set(re.findall(r'"aws_s3_bucket_lifecycle_configuration" "(\w+)"', TEXT))


def test_gpu_nodes_scale_to_zero_and_have_a_bound() -> None:
    scaling = re.search(r"scaling_config \{(.*?)\}", TEXT, re.S)
    assert scaling and re.search(r"min_size\s+= 0", scaling[1]) and re.search(r"desired_size = 0", scaling[1])
    assert "max_size     = var.gpu_max_nodes" in scaling[1]


def test_no_secret_reaches_the_state() -> None:
    code = re.sub(r"(?m)#.*$", "", TEXT)
    assert not re.search(r"(?i)password|random_|secretsmanager|access_key", code)


def test_every_variable_and_output_is_described() -> None:
    for kind in ("variable", "output"):
        for block in re.findall(rf'^{kind} "\w+" \{{\n(.*?)^\}}', TEXT, re.M | re.S):
            assert block.lstrip().startswith("description")
