"""The page shows the runs, to its user only, and what runs say is no HTML."""

import http.client
import threading

import pytest
from spt_registry import open_registry
from spt_registry.web import Viewer
from spt_registry.web.pages import chart

SCRIPT = "<script>alert(1)</script>\"'&"


@pytest.fixture
def viewer(tmp_path, put):
    put("alpha", folder="a/alpha", summary={"acc": 0.5}, hparams={"lr": 0.1}, notes="hello")
    put(
        SCRIPT, folder="a/evil", tags=[SCRIPT], notes=SCRIPT, hparams={SCRIPT: SCRIPT},
        summary={SCRIPT: 1.0}, error=SCRIPT, status="failed", checkpoint_path=SCRIPT,
    )  # fmt: skip
    for name in ("alpha", "evil"):
        path = tmp_path / "runs" / "a" / name / "metrics.csv"
        path.write_text("step,<b>loss\n" + "".join(f"{i},{i / 2}\n" for i in range(1000)))
    with Viewer(open_registry(cache_dir=tmp_path), port=0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(viewer, path, *, method="GET", host=None, cookie=True):
    connection = http.client.HTTPConnection("127.0.0.1", viewer.server_port, timeout=10)
    headers = {"Host": host or f"127.0.0.1:{viewer.server_port}"}
    if cookie:
        headers["Cookie"] = f"{viewer.cookie}={viewer.token if cookie is True else cookie}"
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    version = f"{answer.version / 10:.1f}"
    return answer.status, text, {**dict(answer.getheaders()), "HTTP": version}


def test_the_token_becomes_a_cookie(viewer):
    status, _, headers = ask(viewer, f"/?token={viewer.token}", cookie=False)
    assert (status, headers["Location"]) == (303, "/")
    assert "HttpOnly; SameSite=Strict" in headers["Set-Cookie"]
    assert viewer.token in headers["Set-Cookie"]


@pytest.mark.parametrize("path", ["/", "/style.css", "/run?path=runs/a/alpha", "/?token=wrong"])
def test_nobody_else_is_answered(viewer, path):
    assert ask(viewer, path, cookie=False)[0] == 403
    assert ask(viewer, path, cookie="wrong")[0] == 403
    assert ask(viewer, path, host="evil.example")[0] == 403
    assert ask(viewer, path, host=f"evil.example:{viewer.server_port}")[0] == 403


def test_pages(viewer):
    status, text, headers = ask(viewer, "/?where=acc%20%3E%200.1&sort=acc")
    assert status == 200
    assert "alpha" in text
    assert "evil" not in text
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["HTTP"] == "1.1"
    status, text, _ = ask(viewer, "/run?path=runs/a/alpha")
    assert "hello" in text
    assert "<polyline" in text
    assert ask(viewer, "/style.css")[2]["Content-Type"].startswith("text/css")


def test_what_runs_say_is_escaped(viewer):
    for path in ("/", "/run?path=runs/a/evil", "/?where=%3Cscript%3E&sort=%22%3E%3Cscript%3E"):
        text = ask(viewer, path)[1]
        assert "<script" not in text
        assert "<b>" not in text
    assert "`where` must be comparisons" in ask(viewer, "/?where=1;DROP")[1]


@pytest.mark.parametrize(
    "path",
    ["/run?path=../../etc", "/run", "/run?path=/etc/passwd", "/nothing", "/../x", "/?page=-1"],
)
def test_only_runs_of_the_index_are_shown(viewer, path):
    assert ask(viewer, path)[0] == (200 if "page" in path else 404)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_changed(viewer, method):
    assert ask(viewer, "/", method=method)[0] == 501


def test_a_chart_keeps_the_extremes():
    values = [0.0] * 10_000
    values[5001], values[7003] = 9.0, -4.0
    text = chart("m", range(10_000), values)
    assert "-4 to 9" in text
    assert text.count(",") < 500
    assert chart("m", [0], [float("nan")]) == ""
