"""Published weights: records of where they are, safe downloads, digests, and their import."""

from robustray.zoo.archives import unpack
from robustray.zoo.download import DownloadError, Fetcher, fetch_url
from robustray.zoo.fetch import Cache, Fetched
from robustray.zoo.records import ZooFile, ZooRecord, find_record, load_records

__all__ = [
    "Cache",
    "DownloadError",
    "Fetched",
    "Fetcher",
    "ZooFile",
    "ZooRecord",
    "fetch_url",
    "find_record",
    "load_records",
    "unpack",
]
