"""The S3 server of compose.yaml, with its users and buckets."""

from collections.abc import Iterator

import pytest

from tests.infra.stack import Stack, new_stack

pytestmark = pytest.mark.slow


@pytest.fixture
def stack() -> Iterator[Stack]:
    with new_stack() as made:
        made.up("buckets")
        yield made


def test_each_pair_of_s3_keys_opens_its_own_bucket_alone(stack: Stack) -> None:
    import boto3
    from botocore.exceptions import ClientError

    def s3(user: str):
        keys = {"aws_access_key_id": stack.settings[f"S3_{user}_KEY"]}
        keys["aws_secret_access_key"] = stack.settings[f"S3_{user}_SECRET"]
        return boto3.client("s3", endpoint_url=stack.address("http", "8333"), region_name="us-east-1", **keys)

    worker, mlflow = s3("WORKER"), s3("MLFLOW")
    for own, client_, other in (("semivl", worker, "semivl-artifacts"), ("semivl-artifacts", mlflow, "semivl")):
        client_.put_object(Bucket=own, Key="probe", Body=b"x")
        client_.delete_object(Bucket=own, Key="probe")
        for refused in (
            lambda c=client_, b=other: c.put_object(Bucket=b, Key="probe", Body=b"x"),
            lambda c=client_, b=other: c.list_objects_v2(Bucket=b),
            lambda c=client_: c.create_bucket(Bucket="one-more"),
        ):
            with pytest.raises(ClientError, match="AccessDenied"):
                refused()
