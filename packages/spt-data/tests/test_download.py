"""Downloads from a real local server: whole, cached, resumed, or an error."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from spt_data import bulk_download, download

CONTENT = bytes(range(256)) * 40


class Handler(BaseHTTPRequestHandler):
    requests: list = []

    def do_GET(self):
        self.requests.append((self.path, self.headers.get("Range")))
        if self.path.startswith("/missing"):
            self.send_error(404)
            return
        if self.path.startswith("/chunked"):
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"64\r\nonly the start")
            return
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        broken = self.path.startswith("/broken") or (self.path.startswith("/flaky") and not start)
        self.wfile.write(CONTENT[start : start + 100] if broken else CONTENT[start:])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    Handler.requests = []
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_a_file_comes_whole_and_once(server, tmp_path):
    path = download(f"{server}/a%20b.bin", tmp_path / "to", cache_dir=tmp_path / "cache")
    assert path == tmp_path / "to" / "a b.bin"
    assert path.read_bytes() == CONTENT
    download(f"{server}/a%20b.bin", tmp_path / "again", cache_dir=tmp_path / "cache")
    assert len(Handler.requests) == 1


def test_a_broken_transfer_goes_on(server, tmp_path):
    path = download(f"{server}/flaky.bin", tmp_path, cache_dir=tmp_path / "cache")
    assert path.read_bytes() == CONTENT
    assert [header for _, header in Handler.requests] == [None, "bytes=100-"]


def test_errors_leave_nothing_behind(server, tmp_path):
    with pytest.raises(OSError, match="missing.bin cannot be fetched: HTTP Error 404"):
        download(f"{server}/missing.bin", tmp_path / "to", cache_dir=tmp_path / "cache")
    with pytest.raises(OSError, match="after 3 tries: .* of .* bytes arrived"):
        download(f"{server}/broken.bin", tmp_path / "to", cache_dir=tmp_path / "cache")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    with pytest.raises(ValueError, match="`url` must name a file"):
        download(server, tmp_path)


def test_many_files_and_the_error_among_them(server, tmp_path):
    urls = [f"{server}/{i}.bin" for i in range(5)]
    paths = bulk_download(urls, tmp_path, cache_dir=tmp_path / "cache")
    assert [path.name for path in paths] == [f"{i}.bin" for i in range(5)]
    assert all(path.read_bytes() == CONTENT for path in paths)
    with pytest.raises(OSError, match="missing.bin cannot be fetched"):
        bulk_download([*urls, f"{server}/missing.bin"], tmp_path, cache_dir=tmp_path / "cache")


def test_a_chunked_transfer_that_breaks_off_is_tried_again(server, tmp_path):
    with pytest.raises(OSError, match="chunked.bin cannot be fetched after 3 tries"):
        download(f"{server}/chunked.bin", tmp_path / "to", cache_dir=tmp_path / "cache")
    assert len(Handler.requests) == 3


def test_a_url_writes_into_its_folder_only(server, tmp_path):
    folder = tmp_path / "a" / "b"
    path = download(f"{server}/c/..%2F..%2Fevil.txt", folder, cache_dir=tmp_path / "cache")
    assert path == folder / "evil.txt"
    assert not (tmp_path / "evil.txt").exists()
    with pytest.raises(ValueError, match="`url` must name a file"):
        download(f"{server}/c/x%2F..", folder, cache_dir=tmp_path / "cache")
