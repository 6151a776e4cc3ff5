"""Real servers on loopback: SeaweedFS as S3, and MLflow."""

from __future__ import annotations

import json
import secrets
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import boto3.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.helpers.server_process import HOST, Ports, Server, StartError, program

__all__ = [
    "HOST",
    "MlflowServer",
    "Ports",
    "RcloneServer",
    "S3Server",
    "Server",
    "StartError",
    "program",
]


class S3Server(Server):
    """SeaweedFS as an S3 server with one bucket and one random pair of keys."""

    name = "weed"
    port_count = 10
    bucket = "robustray"

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__(folder)
        self.access_key, self.secret_key = secrets.token_hex(8), secrets.token_hex(16)
        keys = [{"accessKey": self.access_key, "secretKey": self.secret_key}]
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identity = {"name": "rr", "credentials": keys, "actions": actions}
        self._config = self.folder / "s3.json"
        self._config.touch(mode=0o600)
        self._config.write_text(json.dumps({"identities": [identity]}))

    def command(self) -> list[str]:
        assert self._ports is not None
        names = ("s3", "master", "volume", "filer", "admin")
        ports = iter(self._ports.numbers)
        listen = [f"-{name}.port{kind}={next(ports)}" for name in names for kind in ("", ".grpc")]
        place = [f"-dir={self.folder}", f"-ip={HOST}", f"-ip.bind={HOST}"]
        off = ["-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false"]
        quiet = ["-master.telemetry=false", "-volume.preStopSeconds=0"]
        keys = [f"-s3.config={self._config}", f"-bucket={self.bucket}"]
        keys += ["-s3.autoCreateBucket=false"]
        return [program("weed"), "-logtostderr", "mini", *place, *listen, *off, *quiet, *keys]

    def environment(self) -> dict[str, str]:
        return super().environment() | {"HOME": str(self.folder), "TMPDIR": str(self.folder)}

    def leftovers(self) -> list[str]:
        ports = self._ports.numbers if self._ports else []
        return [*super().leftovers(), *(f"/tmp/seaweedfs-*-{port}.sock" for port in ports)]

    def answers(self) -> bool:
        """List the bucket with our keys: a stranger's server on the port would refuse them."""
        client = self.client(timeout=2.0)
        try:
            client.list_objects_v2(Bucket=self.bucket, MaxKeys=1)
            client.put_object(Bucket=self.bucket, Key=".ready", Body=b"1")
            client.get_object(Bucket=self.bucket, Key=".ready")["Body"].read()
        except (ClientError, BotoCoreError):
            return False
        finally:
            client.close()
        return True

    def env(self) -> dict[str, str]:
        """Return the environment that a client needs."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def uri(self) -> str:
        """Return the URI of a fresh, empty prefix."""
        return f"s3://{self.bucket}/t-{secrets.token_hex(6)}"

    def client(self, timeout: float = 60.0) -> Any:
        """Return a bare boto3 client, to look behind the store's back."""
        options = Config(
            s3={"addressing_style": "path"},
            connect_timeout=timeout,
            read_timeout=timeout,
            retries={"total_max_attempts": 1},
        )
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=options,
        )


class RcloneServer(S3Server):
    """rclone as an S3 server: it ignores If-None-Match, as some servers do."""

    name = "rclone"
    port_count = 1

    def command(self) -> list[str]:
        (self.folder / "files" / self.bucket).mkdir(parents=True, exist_ok=True)
        keys = f"--auth-key={self.access_key},{self.secret_key}"
        listen = f"--addr={HOST}:{self.port}"
        return [program("rclone"), "serve", "s3", str(self.folder / "files"), keys, listen]

    def environment(self) -> dict[str, str]:
        return super().environment() | {"RCLONE_CONFIG": str(self.folder / "none.conf")}


class MlflowServer(Server):
    """An MLflow tracking server over SQLite, artifacts in the data folder or in a bucket.

    Parameters
    ----------
    folder : Path, optional
        As in `Server`.
    bucket : S3Server, optional
        Holds the artifacts; clients need no keys for it.
    """

    name = "mlflow"

    def __init__(self, folder: Path | None = None, bucket: S3Server | None = None) -> None:
        super().__init__(folder)
        self._artifacts = bucket.uri() if bucket else str(self.folder / "artifacts")
        self._keys = bucket.env() if bucket else {}

    def command(self) -> list[str]:
        listen = ["--host", HOST, "--port", str(self.port), "--workers", "1"]
        database = ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        artifacts = ["--artifacts-destination", self._artifacts]
        return [program("mlflow"), "server", *listen, *database, *artifacts]

    def environment(self) -> dict[str, str]:
        mine = {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "DO_NOT_TRACK": "true",
            "OMP_NUM_THREADS": "1",
        }
        kept = {k: v for k, v in super().environment().items() if not k.startswith("MLFLOW_")}
        return kept | mine | self._keys

    def answers(self) -> bool:
        """Ask for /health."""
        try:
            with urllib.request.urlopen(f"{self.endpoint}/health", timeout=5) as reply:
                return reply.status == 200
        except (OSError, urllib.error.URLError):
            return False

    def env(self) -> dict[str, str]:
        """Return the environment that a client needs."""
        return {"MLFLOW_TRACKING_URI": self.endpoint, "MLFLOW_DISABLE_TELEMETRY": "true"}
