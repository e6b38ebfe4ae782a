"""Downloads from a server on this machine that stops in the middle, or sends something else."""

import hashlib
import http.server
import io
import re
import threading

import pytest
from rich.console import Console

from experiments.data.prepare.download import download

CONTENT = bytes(range(256)) * 8000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Sends ``CONTENT``: from where it is asked to, and as many bytes as ``server.stop``."""

    def do_GET(self):
        first = 0
        if (wanted := self.headers["Range"]) and self.server.ranges:
            first = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
        self.server.requests.append(first)
        if self.path != "/file":
            self.send_error(404)
            return
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(CONTENT) - first))
        self.end_headers()
        self.wfile.write(CONTENT[first : self.server.stop])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.ranges, server.stop, server.requests = True, None, []
        server.url = f"http://127.0.0.1:{server.server_port}/file"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(server, path, name="file", sha256=SHA256):
    console = Console(file=io.StringIO())
    download(server.url.replace("file", name), path, len(CONTENT), sha256, console)


def test_download(server, tmp_path):
    path = tmp_path / "new" / "archive"
    get(server, path)
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_goes_on(server, tmp_path, ranges):
    """Or starts again, if the server cannot send a part."""
    path, part = tmp_path / "archive", tmp_path / "archive.part"
    server.stop, server.ranges = 700_000, ranges
    with pytest.raises(ValueError, match=r"cannot be downloaded: .*The \S+ bytes so far are kept"):
        get(server, path)
    assert not path.exists()
    have = part.stat().st_size
    assert 0 < have <= 700_000
    server.stop = None
    get(server, path)
    assert path.read_bytes() == CONTENT
    assert server.requests == [0, have if ranges else 0]
    assert not part.exists()


def test_a_complete_part_is_not_asked_for_again(server, tmp_path):
    (tmp_path / "archive.part").write_bytes(CONTENT)
    get(server, tmp_path / "archive")
    assert server.requests == []


def test_another_content_is_refused_and_removed(server, tmp_path):
    message = rf"is not the file expected: its SHA-256 is {SHA256}, not abc\. It was removed"
    with pytest.raises(ValueError, match=message):
        get(server, tmp_path / "archive", sha256="abc")
    assert list(tmp_path.iterdir()) == []


def test_refusing_server(server, tmp_path):
    message = (
        r"missing cannot be downloaded: 127\.0\.0\.1:\d+ answers 404 Not Found\. Try again; or"
    )
    with pytest.raises(ValueError, match=message):
        get(server, tmp_path / "archive", name="missing")


def test_no_network(server, tmp_path):
    server.shutdown()
    server.server_close()
    message = (
        r"cannot be downloaded: .*refused.*\. Try again; or, on a machine without network, copy "
        rf"that file \(2 MB, SHA-256 {SHA256}\) to {tmp_path}/archive and run this again"
    )
    with pytest.raises(ValueError, match=message):
        get(server, tmp_path / "archive")


def test_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ValueError, match=r"cannot be written: .*Give a folder with room: --data-dir"
    ):
        get(server, tmp_path / "file" / "archive")
