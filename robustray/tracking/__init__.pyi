from .faults import RecordRejectedError, TrackingUnavailableError, default_tracking_uri
from .journal import Journal, read_journal
from .mlflow_sink import MlflowSink
from .records import Columns, DataUse, MetricPoint, ModelRecord, RunRecord
from .sink import Sink
from .sinks import Uploaders, check_sinks, make_sinks
from .ui import runs_page, ui_command, ui_lines
from .uploader import Uploader

__all__ = [
    "Columns",
    "DataUse",
    "Journal",
    "MetricPoint",
    "MlflowSink",
    "ModelRecord",
    "RecordRejectedError",
    "RunRecord",
    "Sink",
    "TrackingUnavailableError",
    "Uploader",
    "Uploaders",
    "check_sinks",
    "default_tracking_uri",
    "make_sinks",
    "read_journal",
    "runs_page",
    "ui_command",
    "ui_lines",
]
