"""Wait for the S3 server and create the bucket of ROBUSTRAY_STORE and other ones, if missing.

python docker/create_bucket.py [BUCKET ...]; address and credentials come from the environment.
"""

import os
import sys
import time

from botocore.exceptions import BotoCoreError, ClientError

from robustray.store.s3_client import connect, parse_uri

_PATIENCE_S = 300.0
_OURS = {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}
_FINAL = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidBucketName"}


def create(bucket: str, deadline: float) -> None:
    """Create one bucket; try again until the deadline while the server is not there yet."""
    while True:
        try:
            connect(timeout_s=10.0).create_bucket(Bucket=bucket)
        except (BotoCoreError, ClientError) as error:
            code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
            if code in _OURS:
                break
            if code in _FINAL or time.monotonic() > deadline:
                sys.exit(f"bucket {bucket}: {code or type(error).__name__}")
            time.sleep(2.0)
        else:
            break
    print(f"bucket {bucket} is there")


def main() -> None:
    """Create every bucket."""
    store, _ = parse_uri(os.environ["ROBUSTRAY_STORE"])
    deadline = time.monotonic() + _PATIENCE_S
    for bucket in dict.fromkeys([store, *sys.argv[1:]]):
        create(bucket, deadline)


if __name__ == "__main__":
    main()
