"""The journal of a process, and the way from records to MLflow.

Work writes events into a `Journal`; their segments enter the store with each checkpoint. From what
is in the store, anybody can make `RunRecord`s, and an `Uploader` brings them to MLflow whenever it
answers. Sending a record twice changes nothing.
"""

from robustray.redaction import redact
from robustray.tracking.faults import RecordRejectedError, TrackingUnavailableError
from robustray.tracking.journal import Journal, read_journal
from robustray.tracking.mlflow_sink import MlflowSink
from robustray.tracking.records import MetricPoint, RunRecord
from robustray.tracking.uploader import Uploader
from robustray.tracking.uris import default_tracking_uri, ui_command

__all__ = [
    "Journal",
    "MetricPoint",
    "MlflowSink",
    "RecordRejectedError",
    "RunRecord",
    "TrackingUnavailableError",
    "Uploader",
    "default_tracking_uri",
    "read_journal",
    "redact",
    "ui_command",
]
