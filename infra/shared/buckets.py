"""Makes the two buckets, with the S3 administrator's keys; those who use a bucket have no right to make one."""

import os

import boto3


def main() -> None:
    client = boto3.client("s3", endpoint_url=os.environ["S3_ENDPOINT"])
    there = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    for name in os.environ["S3_BUCKETS"].split():
        if name not in there:
            client.create_bucket(Bucket=name)
            print(f"made the bucket {name}")


if __name__ == "__main__":
    main()
