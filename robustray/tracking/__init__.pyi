from .faults import RecordRejectedError, TrackingUnavailableError
from .journal import Journal, read_journal
from .mlflow_sink import MlflowSink
from .records import MetricPoint, RunRecord
from .uploader import Uploader
from .uris import default_tracking_uri, ui_command

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
