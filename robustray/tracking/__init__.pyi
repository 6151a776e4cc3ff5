from .faults import RecordRejectedError, TrackingUnavailableError, default_tracking_uri, ui_command
from .journal import Journal, read_journal
from .mlflow_sink import MlflowSink
from .records import MetricPoint, RunRecord
from .uploader import Uploader

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
    "ui_command",
]
