"""Services of docker/compose.yaml as plain containers, on networks of their own.

Everything carries one label and one prefix, and `Stack.remove` takes it all away again.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

COMPOSE = Path(__file__).resolve().parents[2] / "docker/compose.yaml"
_VARIABLE = re.compile(r"\$\$|\$\{(\w+)(?::([-?])([^}]*))?\}")


class ContainerError(RuntimeError):
    """An engine's command failed; the message holds the end of what it said."""


def fill_in(value: Any, values: Mapping[str, str]) -> Any:
    """Replace ${NAME}, ${NAME:-default} and ${NAME:?message} in texts, as compose does.

    Raises
    ------
    ContainerError
        If a value is asked for that is not there.
    """
    if isinstance(value, dict):
        return {key: fill_in(entry, values) for key, entry in value.items()}
    if isinstance(value, list):
        return [fill_in(entry, values) for entry in value]
    if not isinstance(value, str):
        return value

    def found(match: re.Match[str]) -> str:
        name, how, rest = match.groups()
        if name is None:
            return "$"
        if values.get(name):
            return values[name]
        if how == "-":
            return rest
        raise ContainerError(f"{name}: {rest or 'not set'}")

    return _VARIABLE.sub(found, value)


class Stack:
    """Containers of compose's services, hardened and on networks as compose says; no port is open.

    Parameters
    ----------
    engine : str
        ``podman`` or ``docker``.
    prefix : str
        Begins the name of everything, and is its label.
    values : mapping
        What compose would read from docker/.env; passed on in files that only we can read.
    images : mapping
        Images of services that are not to be taken from compose.
    """

    def __init__(
        self, engine: str, prefix: str, values: Mapping[str, str], images: Mapping[str, str]
    ) -> None:
        self._engine, self.prefix, self._images = engine, prefix, images
        compose = fill_in(yaml.safe_load(COMPOSE.read_text()), values)
        self.services: dict[str, Any] = compose["services"]
        self._networks: dict[str, Any] = compose["networks"]
        self.containers: list[str] = []
        self.volumes: list[str] = []
        self._files: list[str] = []
        self._label = f"rehearsal={prefix}"

    def call(self, *words: str, check: bool = True, text: str | None = None) -> str:
        """Run one of the engine's commands and return what it printed.

        Raises
        ------
        ContainerError
            If it fails and ``check`` is set.
        """
        done = subprocess.run(
            [self._engine, *words],
            input=text or "",
            text=True,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            errors="replace",
        )
        if check and done.returncode:
            shown = " ".join(words)[:200]
            raise ContainerError(f"{self._engine} {shown}: {done.stdout[-2000:].strip()}")
        return done.stdout

    def missing_images(self) -> list[str]:
        """Return the images of the rehearsed services that this machine does not have."""
        wanted = {
            self._images.get(name, self.services[name]["image"])
            for name in ("s3", "mlflow", "ray-head", "ray-worker")
        }
        return [
            image
            for image in sorted(wanted)
            if subprocess.run(
                [self._engine, "image", "inspect", image], capture_output=True, check=False
            ).returncode
        ]

    def open(self) -> None:
        """Make compose's networks; from `inside` there is no way out of the machine."""
        for name, how in self._networks.items():
            words = ["--internal"] if (how or {}).get("internal") else []
            self.call("network", "create", *words, "--label", self._label, self._network(name))

    def start(
        self,
        name: str,
        service: str,
        *,
        environment: Mapping[str, str] | None = None,
        more: Sequence[str] = (),
    ) -> str:
        """Start a service in the background and return its container's name.

        Parameters
        ----------
        name : str
            Of this container; others reach it by the name of its service.
        service : str
            The service in compose.yaml.
        environment : mapping, optional
            Settings beside, or in place of, the service's.
        more : sequence of str
            Words after the service's command.
        """
        container = f"{self.prefix}-{name}"
        words = self._run_words(service, container, environment)
        self.containers.append(container)
        self.call("create", "--network-alias", service, *words, *more)
        for other in self.services[service]["networks"][1:]:
            network = self._network(other)
            self.call("network", "connect", "--alias", service, network, container)
        self.call("start", container)
        return container

    def run_words(
        self, service: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> list[str]:
        """Return the command line that runs a service in the foreground, and then removes it."""
        head = self._run_words(service, None, environment, command)
        return [self._engine, "run", "--rm", "--interactive", *head]

    def _run_words(
        self,
        service: str,
        container: str | None,
        environment: Mapping[str, str] | None,
        command: Sequence[str] | None = None,
    ) -> list[str]:
        spec = self.services[service]
        words = ["--network", self._network(spec["networks"][0])]
        words += ["--label", self._label, "--pull", "never"]
        words += ["--name", container] if container else []
        words += ["--read-only"] if spec.get("read_only") else []
        words += ["--read-only-tmpfs=false"] if self._engine.endswith("podman") else []
        for option in ("cap_drop", "cap_add", "security_opt"):
            words += [f"--{option.replace('_', '-')}={entry}" for entry in spec.get(option, [])]
        words += ["--user", spec["user"]] if "user" in spec else []
        words += ["--shm-size", spec["shm_size"]] if "shm_size" in spec else []
        words += self._mounts(spec, container)
        words += [
            "--env-file",
            self._environment_file({**spec["environment"], **(environment or {})}),
        ]
        entry, rest = spec.get("entrypoint", []), list(command or spec.get("command", []))
        words += ["--entrypoint", entry[0]] if entry else []
        return [*words, self._images.get(service, spec["image"]), *entry[1:], *rest]

    def _network(self, name: str) -> str:
        """Return what one of compose's networks is called here."""
        return f"{self.prefix}-{name}"

    def _mounts(self, spec: Mapping[str, Any], container: str | None) -> list[str]:
        """Return a volume for each writable place; /tmp of what lasts can be read afterwards.

        Compose's file systems in memory become volumes, which take over the owner that a place has
        in the image: podman's belong to root.
        """
        places = [entry.partition(":")[0] for entry in spec.get("tmpfs", [])]
        places += [entry.rpartition(":")[2] for entry in spec.get("volumes", [])]
        words = []
        for place in dict.fromkeys(places):
            if place == "/tmp" and container:  # noqa: S108 - inside a container
                self.call("volume", "create", "--label", self._label, container)
                self.volumes.append(container)
                words += ["--volume", f"{container}:{place}"]
            else:
                words += ["--volume", place]
        return words

    def _environment_file(self, environment: Mapping[str, str]) -> str:
        handle, path = tempfile.mkstemp(prefix=f"{self.prefix}-")
        with os.fdopen(handle, "w") as file:
            file.writelines(f"{name}={value}\n" for name, value in environment.items())
        self._files.append(path)
        return path

    def healthy(self, container: str, service: str) -> bool:
        """Run the service's health check once."""
        test = self.services[service]["healthcheck"]["test"][1:]
        done = subprocess.run(
            [self._engine, "exec", container, *test], capture_output=True, check=False
        )
        return done.returncode == 0

    def runs(self, container: str) -> bool:
        """Whether a container still runs."""
        state = self.call("inspect", "--format", "{{.State.Running}}", container, check=False)
        return state.strip() == "true"

    def states(self) -> str:
        """Return what the engine says of every container, for a person."""
        label = ("--filter", f"label={self._label}")
        return self.call("ps", "--all", *label, "--format", "{{.Names}}: {{.Status}}", check=False)

    def kill(self, container: str) -> None:
        """End a container as a lost machine would: at once."""
        self.call("kill", "--signal", "KILL", container, check=False)

    def remove(self) -> None:
        """Remove files, containers, volumes and networks, whatever state they are in."""
        for path in self._files:
            Path(path).unlink(missing_ok=True)
        if shutil.which(self._engine) is None:
            return  # without it nothing was started
        found = f"label={self._label}"
        for kind, ending in (
            ("container", ["--force", "--volumes"]),
            ("volume", ["--force"]),
            ("network", []),
        ):
            listing = ["ls", "--all"] if kind == "container" else ["ls"]
            name = "{{.ID}}" if kind == "container" else "{{.Name}}"
            there = self.call(
                kind, *listing, "--filter", found, "--format", name, check=False
            ).split()
            if there:
                self.call(kind, "rm", *ending, *there, check=False)
