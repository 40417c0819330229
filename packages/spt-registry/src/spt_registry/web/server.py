"""A small server of the pages: this machine only, this user only, nothing is ever changed.

Other users of a login node and pages of other sites cannot read it: the printed address holds a
random token, which becomes a cookie that no other site can send, and the Host header must be ours.
"""

from __future__ import annotations

import hmac
import secrets
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from spt_registry.index.query import Registry, open_registry
from spt_registry.web.pages import STYLE, list_page, run_page

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
LOCAL = ("127.0.0.1", "localhost")


class Viewer(ThreadingHTTPServer):
    """The server; ``url`` is what to open.

    Args:
        registry: The runs.
        port: 0 for any free one.
    """

    daemon_threads = True

    def __init__(self, registry: Registry, port: int = 4242) -> None:
        super().__init__((LOCAL[0], port), Handler)
        self.registry = registry
        self.token = secrets.token_urlsafe(24)
        self.cookie = f"spt_registry_{self.server_port}"

    @property
    def url(self) -> str:
        """The address with the token."""
        return f"http://{LOCAL[0]}:{self.server_port}/?token={self.token}"


class Handler(BaseHTTPRequestHandler):
    """Answers GET; every other method is refused by the base class."""

    server: Viewer
    protocol_version = "HTTP/1.1"
    server_version = "spt-registry"
    sys_version = ""
    timeout = 30

    def do_GET(self) -> None:
        """Answer, if the one who asks has the token."""
        parts = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        if self.headers.get("Host") not in {f"{h}:{self.server.server_port}" for h in LOCAL}:
            self._send(403, "This server answers to its own address only.")
        elif self._same(query.get("token", "")):
            cookie = f"{self.server.cookie}={self.server.token}; HttpOnly; SameSite=Strict; Path=/"
            self._send(303, "", {"Location": "/", "Set-Cookie": cookie})
        elif not self._same(self._cookie()):
            self._send(403, "Open the address that the command printed.")
        else:
            self._answer(parts.path, query)

    def _answer(self, path: str, query: dict[str, str]) -> None:
        registry = self.server.registry
        if path == "/style.css":
            self._send(200, STYLE, {"Content-Type": "text/css; charset=utf-8"})
        elif path == "/":
            open_registry(registry.db_path, cache_dir=registry.cache_dir)
            number = query.get("page", "0")
            number_of_page = min(int(number), 10_000) if number.isdecimal() else 0
            html = list_page(
                registry, query.get("where", ""), query.get("sort", ""), number_of_page
            )
            self._send(200, html, {"Content-Type": "text/html; charset=utf-8"})
        else:
            record = registry.at(query.get("path", "")) if path == "/run" else None
            if record is None:
                self._send(404, "There is no such page.")
            else:
                self._send(200, run_page(record), {"Content-Type": "text/html; charset=utf-8"})

    def _cookie(self) -> str:
        try:
            found = SimpleCookie(self.headers.get("Cookie", "")).get(self.server.cookie)
        except CookieError:
            return ""
        return found.value if found else ""

    def _same(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self.server.token.encode())

    def _send(self, code: int, text: str, headers: dict[str, str] | None = None) -> None:
        content = text.encode("utf-8", "backslashreplace")
        self.send_response(code)
        kind = {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(content))}
        for name, value in {**HEADERS, **kind, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing; the terminal shows the address."""


def serve(registry: Registry, port: int = 4242) -> None:
    """Print the address and serve until Ctrl-C.

    Raises:
        OSError: If the port is taken.
    """
    with Viewer(registry, port) as server:
        print(f"Serving {registry.cache_dir}, read only, at\n{server.url}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("Stopped.")
