"""Make the random secrets of a deployment once; nothing that exists is ever changed.

python scripts/make_secrets.py kubernetes [--print]   Secrets in the namespace robustray
python scripts/make_secrets.py compose                docker/.env, readable for its owner only

The values go to kubectl through a pipe: they stand on no command line and in no file of the
repository. Nothing beside Python's standard library is needed.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
NAMESPACE = "robustray"


def values() -> dict[str, str]:
    """Return fresh values of all secrets: 256 random bits each, 128 for the name of the S3 key."""
    return {
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "POSTGRES_PASSWORD": secrets.token_hex(32),
        "AWS_ACCESS_KEY_ID": secrets.token_hex(16),
        "AWS_SECRET_ACCESS_KEY": secrets.token_hex(32),
    }


def identities(value: dict[str, str]) -> str:
    """Return the S3 server's own file of who may do what: one key, and nobody anonymous."""
    key = {"accessKey": value["AWS_ACCESS_KEY_ID"], "secretKey": value["AWS_SECRET_ACCESS_KEY"]}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    who = {"name": "robustray", "credentials": [key], "actions": actions}
    return json.dumps({"identities": [who]})


def kubernetes(value: dict[str, str]) -> list[dict]:
    """Return the Secrets: one for each server, so that a pod sees no more than it needs."""
    s3 = {name: value[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    contents = {
        "robustray-ray-token": {"auth_token": value["RAY_AUTH_TOKEN"]},
        "robustray-postgres": {"POSTGRES_PASSWORD": value["POSTGRES_PASSWORD"]},
        "robustray-s3": s3,
        "robustray-s3-server": {"s3.json": identities(value)},
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "type": "Opaque",
            "stringData": data,
        }
        for name, data in contents.items()
    ]


def refuse(message: str) -> NoReturn:
    """End the program as for any error of its user."""
    print(message, file=sys.stderr)
    sys.exit(2)


def create(kubectl: str) -> None:
    """Create the namespace and the Secrets; refuse when there is one of them already."""
    names = [secret["metadata"]["name"] for secret in kubernetes(values())]
    namespace = str(ROOT / "k8s/00-namespace.yaml")
    if subprocess.run([kubectl, "apply", "-f", namespace], check=False).returncode:
        refuse("kubectl can't reach a cluster, or may not make a namespace there: see above")
    query = [kubectl, "-n", NAMESPACE, "get", "secret", "--ignore-not-found", "-o", "name", *names]
    found = subprocess.run(query, check=True, capture_output=True, text=True).stdout.split()
    if found:
        refuse(f"{', '.join(found)}: there already, and left alone; delete all of {names} first")
    manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": kubernetes(values())})
    subprocess.run([kubectl, "create", "-f", "-"], input=manifest, text=True, check=True)


def compose(path: Path) -> None:
    """Write the file that compose reads; refuse when it is there."""
    text = "".join(f"{name}={value}\n" for name, value in values().items())
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        refuse(f"{path}: there already, and left alone")
    with os.fdopen(handle, "w") as file:
        file.write(text)
    print(f"wrote {path}")


def main(arguments: list[str]) -> None:
    """Do what the command line says."""
    if arguments == ["kubernetes", "--print"]:
        print(json.dumps({"apiVersion": "v1", "kind": "List", "items": kubernetes(values())}))
    elif arguments == ["kubernetes"]:
        kubectl = shutil.which(os.environ.get("KUBECTL", "kubectl"))
        create(kubectl or refuse("kubectl is not at hand: put it on PATH or name it in KUBECTL"))
    elif arguments == ["compose"]:
        compose(ROOT / "docker/.env")
    else:
        refuse(str(__doc__))


if __name__ == "__main__":
    main(sys.argv[1:])
