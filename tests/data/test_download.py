"""Downloads for real: torchvision fetches from a server on loopback."""

import shutil
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from robustray.data import load_dataset
from robustray.data.downloads import torchvision_datasets
from robustray.errors import DataError, MachineError
from robustray.manifest.job import DataConfig

CONFIG = DataConfig(name="mnist", download=True)


class Server(ThreadingHTTPServer):
    """Serves a folder and remembers what it was asked for."""

    def __init__(self, folder):
        self.requests = requests = []

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *args):
                requests.append(self.path)

        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))

    def handle_error(self, request, client_address):
        """Torchvision hangs up on its first request for a file: nothing to report."""

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/"


@pytest.fixture
def mirror(shared_data, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server(shared_data / "MNIST" / "raw") as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setattr(torchvision_datasets().MNIST, "mirrors", [server.url])
        yield server
        server.shutdown()
        thread.join()


def test_a_torchvision_for_another_torch_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)  # its import fails
    with pytest.raises(DataError, match=r"install the one that belongs to torch \d"):
        torchvision_datasets()


def test_missing_files_are_fetched_once(mirror, tmp_path):
    """Several readers may start at once; one downloads, the others wait and then find it."""
    results = []

    def load():
        results.append(load_dataset(CONFIG, tmp_path / "new", splits=("test",)))

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(mirror.requests) == 2 * 4  # torchvision asks for each file twice
    assert len({result.digest for result in results}) == 1
    assert len(results) == 3
    left = {path.name for path in (tmp_path / "new").iterdir()}
    assert left == {"MNIST", ".download.lock"}


def test_a_damaged_file_is_replaced(mirror, tmp_path, shared_data):
    shutil.copytree(shared_data / "MNIST", tmp_path / "MNIST", copy_function=shutil.copyfile)
    (tmp_path / "MNIST" / "raw").chmod(0o755)
    path = tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="is damaged"):
        load_dataset(DataConfig(name="mnist"), tmp_path, splits=("test",))
    assert len(load_dataset(CONFIG, tmp_path, splits=("test",)).test) == 10000


def test_a_failed_download_is_the_machines_fault(monkeypatch, tmp_path):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(torchvision_datasets().MNIST, "mirrors", ["http://127.0.0.1:1/"])
    with pytest.raises(MachineError, match=r"downloading mnist to .* failed: "):
        load_dataset(CONFIG, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".download.lock"]


def test_a_server_with_other_files_is_not_believed(monkeypatch, tmp_path):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()
    for prefix in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (folder / f"{prefix}-{kind}-ubyte.gz").write_bytes(b"something else")
    with Server(folder) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setattr(torchvision_datasets().MNIST, "mirrors", [server.url])
        with pytest.raises(MachineError, match=r"downloading mnist to .* failed: "):
            load_dataset(CONFIG, tmp_path / "new")
        server.shutdown()
        thread.join()
