from .archives import unpack
from .download import DownloadError, Fetcher, fetch_url
from .fetch import Cache, Fetched
from .records import ZooFile, ZooRecord, find_record, known_as, load_records, records_of
from .robustbench import RobustBenchRecord, load_robustbench

__all__ = [
    "Cache",
    "DownloadError",
    "Fetched",
    "Fetcher",
    "RobustBenchRecord",
    "ZooFile",
    "ZooRecord",
    "fetch_url",
    "find_record",
    "known_as",
    "load_records",
    "load_robustbench",
    "records_of",
    "unpack",
]
