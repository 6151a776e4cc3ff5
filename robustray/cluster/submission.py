"""Submitting a command to a running cluster, following its log, and asking it to stop.

Ray's job client does the work. What is added: which files go along, which settings of this place
the job gets, and that no secret is among them: a job's environment stands on Ray's dashboard and
in its logs, so credentials belong to the nodes.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustray.errors import MachineError, UserError
from robustray.tracking.faults import resolve_uri
from robustray.words import redact

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

# Left at home, beside what .gitignore names: data, results, environments, and local secrets.
EXCLUDES = (
    *("/data", "/runs", "/build", "/dist", "/mlruns", "mlflow.db", ".venv", ".git"),
    *("__pycache__", ".pytest_cache", ".ruff_cache", ".hypothesis", ".env", "*.pem", "*.key"),
)
PASSED_ON = (
    *("ROBUSTRAY_STORE", "ROBUSTRAY_DATA", "ROBUSTRAY_DEVICE", "MLFLOW_TRACKING_URI"),
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION", "AWS_REGION"),
    "OMP_NUM_THREADS",
)
_STOP_S = 60  # for a driver to end in order; Ray's own three seconds are too few
_ENDED = {"SUCCEEDED", "FAILED", "STOPPED"}
_EXIT_STOPPED = 130
Say = Callable[[str], None]


def submit(
    command: Sequence[str],
    address: str | None,
    working_dir: Path,
    *,
    follow: bool,
    say: Say = print,
) -> int:
    """Run a command on a cluster as a job, and show what it prints.

    Parameters
    ----------
    command : sequence of str
        The program and its arguments, run in a copy of ``working_dir``.
    address : str, optional
        Of the dashboard, ``http://HOST:8265``; else $RAY_API_SERVER_ADDRESS, or $RAY_ADDRESS if it
        is such an address, or this machine's.
    working_dir : Path
        The folder that goes along, without `EXCLUDES` and what its .gitignore names.
    follow : bool
        Stay until the job ends. Ctrl-C then asks the job to stop; a second one leaves it alone.
    say : callable
        Takes lines for a person.

    Returns
    -------
    int
        The job's exit code (130 if it was stopped); 0 at once if it is not followed.

    Raises
    ------
    UserError
        If there is no such folder, or the cluster refuses the token or the job.
    MachineError
        If no cluster answers, or the connection to the job was lost.
    """
    if not working_dir.is_dir():
        raise UserError(f"--working-dir: there is no folder {working_dir}")
    client = open_client(address)
    variables = job_environment(os.environ)
    say(f"passed on    {', '.join(sorted(variables)) or 'nothing: the cluster has its settings'}")
    job = _start(client, command, working_dir, variables)
    where = f"--address {redact(client.get_address())} {job}"
    say(f"submitted    {job}\nfollow       ray job logs --follow {where}\n"
        f"stop         ray job stop {where}")  # fmt: skip
    return _follow(client, job, where, say) if follow else 0


def open_client(address: str | None) -> JobSubmissionClient:
    """Connect to a cluster's job server; the token is found as Ray does it.

    Raises
    ------
    UserError, MachineError
        If the token is missing or wrong; if nobody answers.
    """
    place = address_of(address)
    os.environ["RAY_API_SERVER_ADDRESS"] = place  # it outranks the client's own argument
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(
            place, headers=authorization(), verify=os.environ.get("REQUESTS_CA_BUNDLE") or True
        )
    except AuthenticationError:
        raise _refusal(place) from None
    except (ConnectionError, RuntimeError, OSError) as error:
        raise MachineError(
            f"no Ray job server answers at {redact(place)}: {redact(str(error))}. Name it with "
            "--address http://HOST:8265"
        ) from None


def address_of(address: str | None) -> str:
    """Return the job server's address, from the command line or the environment.

    Raises
    ------
    UserError
        If what was named is no http address.
    """
    ray_address = os.environ.get("RAY_ADDRESS", "")
    place = address or os.environ.get("RAY_API_SERVER_ADDRESS")
    place = place or (ray_address if "://" in ray_address else "http://127.0.0.1:8265")
    if not place.startswith(("http://", "https://")):
        raise UserError(f"a job server is named http://HOST:8265, not {redact(place)!r}")
    return place.rstrip("/")


def job_environment(environment: os._Environ[str] | dict[str, str]) -> dict[str, str]:
    """Return the settings of this place that a job gets: none that holds a secret.

    Folders become absolute, since the job runs in another one.

    Raises
    ------
    UserError
        If an address that would be passed on holds credentials.
    """
    found = {name: environment[name] for name in PASSED_ON if environment.get(name)}
    for name, value in found.items():
        if redact(value) != value:
            raise UserError(
                f"{name} holds credentials, which a job's environment would show on Ray's "
                "dashboard. Give them to the nodes instead (for MLflow: MLFLOW_TRACKING_USERNAME, "
                "MLFLOW_TRACKING_PASSWORD), and leave them out of the address"
            )
    for name in ("ROBUSTRAY_STORE", "ROBUSTRAY_DATA"):
        if name in found and "://" not in found[name]:
            found[name] = str(Path(found[name]).expanduser().resolve())
    if "MLFLOW_TRACKING_URI" in found:
        found["MLFLOW_TRACKING_URI"] = resolve_uri(found["MLFLOW_TRACKING_URI"])
    return found


def authorization() -> dict[str, str]:
    """Return the header with the cluster's token, from where Ray looks for it; {} without one.

    Ray's client finds a token by itself only if RAY_AUTH_MODE was set before Ray was imported.

    Raises
    ------
    UserError
        If the token's file can't be read.
    """
    token, named = os.environ.get("RAY_AUTH_TOKEN"), os.environ.get("RAY_AUTH_TOKEN_PATH")
    file = Path(named or "~/.ray/auth_token").expanduser()
    try:
        token = token or (file.read_text() if named or file.is_file() else "")
    except OSError as error:
        raise UserError(f"the token of {file} can't be read: {error.strerror}") from error
    return {"Authorization": f"Bearer {token.strip()}"} if token else {}


def _refusal(place: str) -> UserError:
    return UserError(
        f"{redact(place)} refuses the token: set RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) to the "
        "cluster's"
    )


def _start(
    client: JobSubmissionClient, command: Sequence[str], folder: Path, variables: dict[str, str]
) -> str:
    from ray.exceptions import AuthenticationError

    settings: dict[str, Any] = {
        "working_dir": str(folder.resolve()),
        "excludes": list(EXCLUDES),
        "env_vars": {**variables, "RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_S)},
    }
    try:
        return client.submit_job(entrypoint=shlex.join(command), runtime_env=settings)
    except AuthenticationError:
        raise _refusal(client.get_address()) from None
    except (RuntimeError, ValueError) as error:
        said = redact(str(error))
        if "status code 5" in said:  # of the server: its head may be lost
            raise MachineError(f"the cluster could not take the job: {said}") from None
        raise UserError(f"the cluster refuses the job: {said}") from None
    except OSError as error:
        raise MachineError(f"the cluster refused the job: {redact(str(error))}") from None


def _follow(client: JobSubmissionClient, job: str, where: str, say: Say) -> int:
    """Show the job's log until it ends; the first Ctrl-C stops the job, a second one only us."""
    try:
        with _stopping(client, job, say):
            asyncio.run(_show(client, job))
            return _exit_code(client, job, say)
    except (RuntimeError, OSError) as error:
        raise MachineError(
            f"lost the connection to the job, which continues: {redact(str(error))}. To see its "
            f"log: ray job logs --follow {where}"
        ) from None


@contextmanager
def _stopping(client: JobSubmissionClient, job: str, say: Say) -> Iterator[None]:
    """Let the first Ctrl-C stop the job, whose log then ends.

    As an exception it would have to pass through the event loop, where it can get lost.
    """

    def stop(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, before)
        say("asking the job to stop; press Ctrl-C again to stop waiting for it")
        client.stop_job(job)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


async def _show(client: JobSubmissionClient, job: str) -> None:
    async for text in client.tail_job_logs(job):
        print(text, end="", flush=True)


def _exit_code(client: JobSubmissionClient, job: str, say: Say) -> int:
    """Wait for the job's end, and say how it ended."""
    while (info := client.get_job_info(job)).status not in _ENDED:
        time.sleep(0.5)
    if info.status == "SUCCEEDED":
        return 0
    if info.status == "STOPPED":
        say("stopped; submit the same command again to continue")
        return _EXIT_STOPPED
    say(f"the job failed: {redact(info.message or 'no reason given').strip().splitlines()[0]}")
    code = info.driver_exit_code or 0
    return code if code > 0 else 1  # below 0: killed by a signal
