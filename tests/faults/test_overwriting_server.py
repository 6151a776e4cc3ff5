"""A store on a server without atomic create: a killed driver, and the same table."""

import os
import signal

import pytest

from robustray.store import open_store
from tests.helpers.servers import RcloneServer, program
from tests.helpers.study_runs import Place, started, wait_for


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_killed_driver_on_a_server_that_overwrites(undisturbed, tmp_path, monkeypatch):
    program("rclone")
    with RcloneServer() as server:
        for name, value in server.env().items():
            monkeypatch.setenv(name, value)
        uri = server.uri()
        place = Place(tmp_path, ROBUSTRAY_STORE=uri, **server.env())
        store = open_store(uri)
        with started(place) as process:
            wait_for(
                lambda: [
                    e
                    for e in store.list("created/studies/") or store.list("studies/")
                    if "checkpoints" in e.key and "record.json" in e.key
                ]
            )
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        place.kill_survivors()
        assert place.run() == 0, place.log
        assert open_store(uri).mode == "attempts"
        assert place.table() == undisturbed.table()
