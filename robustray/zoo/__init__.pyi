from .archives import unpack
from .download import DownloadError, Fetcher, fetch_url
from .fetch import Cache, Fetched
from .records import ZooFile, ZooRecord, find_record, known_as, load_records, records_of

__all__ = [
    "Cache",
    "DownloadError",
    "Fetched",
    "Fetcher",
    "ZooFile",
    "ZooRecord",
    "fetch_url",
    "find_record",
    "known_as",
    "load_records",
    "records_of",
    "unpack",
]
