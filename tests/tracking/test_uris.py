import subprocess
import sys
from pathlib import Path

import pytest

from robustray.errors import UserError
from robustray.tracking import MlflowSink, default_tracking_uri, runs_page, ui_command, ui_lines
from robustray.tracking.faults import resolve_uri, sqlite_file
from robustray.words import redact
from tests.helpers.mlflow_records import record, runs_of


def test_default_is_the_environments_or_a_file_below_runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there:5000")
    assert default_tracking_uri() == "http://there:5000"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert default_tracking_uri() == f"sqlite:///{tmp_path}/runs/mlflow.db"


def test_the_ui_command_can_be_pasted(monkeypatch):
    command = ui_command("sqlite:////a/m.db")
    assert command.startswith("MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false ")
    assert command.endswith("mlflow server --workers 1 --backend-store-uri sqlite:////a/m.db")
    assert ui_command("sqlite:////a b/m.db").endswith("'sqlite:////a b/m.db'")
    assert ui_command("http://there:5000/") is None
    database = "postgresql://me:secret@there/mlflow"
    assert ui_command(database).endswith("'postgresql://***@there/mlflow'")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    assert ui_command(database).endswith('server --backend-store-uri "$MLFLOW_TRACKING_URI"')


def test_the_page_is_that_of_an_experiments_runs(sqlite_uri, experiment):
    asked = "?workflowType=machine_learning"
    MlflowSink(sqlite_uri).apply(record(experiment=experiment))
    (run,) = runs_of(sqlite_uri, experiment)
    page = f"/#/experiments/{run.info.experiment_id}/runs{asked}"
    assert runs_page(sqlite_uri, experiment) == f"http://127.0.0.1:5000{page}"
    assert ui_lines(sqlite_uri, experiment)[1].endswith(page)
    assert runs_page(sqlite_uri, "unknown").endswith(f"/#/experiments{asked}")
    assert runs_page("http://127.0.0.1:1", "any") == f"http://127.0.0.1:1/#/experiments{asked}"
    assert ui_lines("https://me:secret@there/x")[0].endswith(
        f"https://***@there/x/#/experiments{asked}"
    )


def test_files_become_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert resolve_uri("sqlite:///runs/m.db") == f"sqlite:///{Path.cwd()}/runs/m.db"
    with_options = resolve_uri("sqlite:///m.db?timeout=60")
    assert with_options == f"sqlite:///{Path.cwd()}/m.db?timeout=60"
    assert sqlite_file(with_options) == Path.cwd() / "m.db"


@pytest.mark.parametrize(
    "uri",
    ["", "./mlruns", "file:/tmp/mlruns", "sqlite://", "sqlite:///:memory:", "http://", "ftp://x",
     "http://there:port", "databricks"],
)  # fmt: skip
def test_places_where_runs_cannot_be_kept_are_refused(uri):
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI"):
        resolve_uri(uri)


@pytest.mark.parametrize(
    "text",
    [
        "API request to http://me:s3cret@there:5000/api failed",
        "https://s3cret@there",
        "postgresql+psycopg2://me:s3cr@s3cret@there/db",
        "postgresql://there/db?user=me&password=s3cret&x=1",
    ],
)
def test_no_secret_is_shown(text):
    assert "s3cr" not in redact(text)
    assert "there" in redact(text)
    assert redact(redact(text)) == redact(text)


def test_refusals_hold_no_secret():
    with pytest.raises(UserError) as caught:
        resolve_uri("ftp://me:secret@there")
    assert "secret" not in str(caught.value)


def test_importing_the_room_does_not_import_mlflow():
    code = "import sys, robustray.tracking; assert 'mlflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
