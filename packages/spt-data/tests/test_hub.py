"""Patience with a busy server, and files of a web server."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import datasets as hf
import pytest
from huggingface_hub.errors import HfHubHTTPError
from spt_data import HFDataset
from spt_data._hub import TRIES, patiently


class Answer:
    """What an error holds of a response."""

    def __init__(self, status_code, headers=()):
        self.status_code, self.headers, self.request = status_code, dict(headers), None


def busy(times, answer, wrapped=False):
    """Fails so many times, then gives 7."""
    left = [times]

    def action():
        left[0] -= 1
        if left[0] < 0:
            return 7
        error = HfHubHTTPError("429 is in this text", response=answer)
        if wrapped:
            raise ConnectionError("no data") from error
        raise error

    return action


@pytest.mark.parametrize("wrapped", [False, True])
def test_too_many_requests_are_waited_out(wrapped):
    waited = []
    assert patiently(busy(3, Answer(429, {"Retry-After": "4"}), wrapped), waited.append) == 7
    assert patiently(busy(1, Answer(429), wrapped), waited.append) == 7
    assert waited == [4, 4, 4, 10]


def test_other_errors_and_endless_ones_are_raised():
    waited = []
    with pytest.raises(HfHubHTTPError, match="429 is in this text"):
        patiently(busy(1, Answer(404)), waited.append)
    assert not waited
    with pytest.raises(HfHubHTTPError, match="429 is in this text"):
        patiently(busy(TRIES, Answer(429)), waited.append)
    assert len(waited) == TRIES - 1


def test_a_data_set_is_opened_with_patience(monkeypatch):
    left = [2]

    def load(path):
        left[0] -= 1
        if left[0] >= 0:
            raise HfHubHTTPError("busy", response=Answer(429, {"Retry-After": "0"}))
        return hf.Dataset.from_dict({"x": [1]})

    monkeypatch.setattr(hf, "load_dataset", load)
    assert HFDataset("some/name")[0] == {"x": 1, "sample_idx": 0}


def test_no_rank_waits_for_its_turn(monkeypatch, tmp_path):
    def waits(seconds):
        raise AssertionError(f"a rank waits {seconds} s")

    monkeypatch.setattr("time.sleep", waits)
    for name, value in {"RANK": "1023", "LOCAL_RANK": "7", "WORLD_SIZE": "1024"}.items():
        monkeypatch.setenv(name, value)
    hf.Dataset.from_dict({"x": [1]}).save_to_disk(tmp_path / "rows")
    assert HFDataset(str(tmp_path / "rows"))[0]["x"] == 1
    monkeypatch.setattr(hf, "load_dataset", lambda path: hf.Dataset.from_dict({"x": [2]}))
    assert HFDataset("some/name")[0]["x"] == 2


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def test_files_of_a_web_server_have_an_hour(tmp_path, monkeypatch):
    hf.Dataset.from_dict({"x": [4, 5]}).to_parquet(tmp_path / "rows.parquet")
    given = []
    load = hf.load_dataset
    monkeypatch.setattr(hf, "load_dataset", lambda *a, **k: given.append(k) or load(*a, **k))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/rows.parquet"
        options = {"data_files": url, "split": "train", "cache_dir": str(tmp_path / "cache")}
        assert HFDataset("parquet", **options)[1]["x"] == 5
        server.shutdown()
        thread.join()
    assert given[0]["storage_options"]["http"]["client_kwargs"]["timeout"].total == 3600
