from .faults import RecordRejectedError, TrackingUnavailableError, default_tracking_uri, ui_command
from .journal import Journal, read_journal
from .mlflow_sink import MlflowSink
from .records import DataUse, MetricPoint, ModelRecord, RunRecord
from .uploader import Uploader

__all__ = [
    "DataUse",
    "Journal",
    "MetricPoint",
    "MlflowSink",
    "ModelRecord",
    "RecordRejectedError",
    "RunRecord",
    "TrackingUnavailableError",
    "Uploader",
    "default_tracking_uri",
    "read_journal",
    "ui_command",
]
