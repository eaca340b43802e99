"""A page in headless Chromium: what it posts to `/answer`, and a picture of it."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_SECONDS = 180
_HELD = "/held"
"""An image that is there when the page has answered: Chromium takes the picture when all is loaded."""
_COMPLAINS = """<script>
const complain = (event) => fetch("/answer", {
  method: "POST", body: JSON.stringify({ error: String(event.message ?? event.reason) }),
});
for (const kind of ["error", "unhandledrejection"]) addEventListener(kind, complain);
</script>"""
_OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=900,700")


class _Answer(threading.Event):
    """What the page has posted, once it has."""

    value: Any = None

    def give(self, value: Any) -> None:
        self.value = value
        self.set()


class _Pages(SimpleHTTPRequestHandler):
    """A folder's files, a page that stands in no file, and a second folder under a prefix."""

    def __init__(self, *args: Any, page: str, beside: tuple[str, Path], answered: _Answer, **given: Any) -> None:
        self._page, self._beside, self._answered = page, beside, answered
        super().__init__(*args, **given)

    def do_GET(self) -> None:  # the library's name
        if self.path == _HELD:
            self._answered.wait(_SECONDS)
            self.send_response(204)
            self.end_headers()
            return
        if self.path != "/":
            super().do_GET()
            return
        content = (_COMPLAINS + self._page + f'<img src="{_HELD}" hidden>').encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        self._answered.give(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def translate_path(self, path: str) -> str:
        prefix, folder = self._beside
        if path.startswith(prefix):
            return str(folder / path.removeprefix(prefix).split("?")[0])
        return super().translate_path(path)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


def answer_of(page: str, folder: Path, beside: tuple[str, Path], picture: Path) -> Any:
    """What a page posts to `/answer`: a JSON object. RuntimeError, with what the browser said, if it fails.

    Args:
        page: Its HTML.
        folder: What the server has beside it.
        beside: A prefix of addresses, and the folder that they lead to.
        picture: Where a screenshot goes.
    """
    answered = _Answer()
    handler = partial(_Pages, directory=str(folder), page=page, beside=beside, answered=answered)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, tempfile.TemporaryDirectory() as profile:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        own = (f"--timeout={_SECONDS * 1000}", f"--screenshot={picture}", f"--user-data-dir={profile}")
        command = ["chromium", *_OPTIONS, *own, "--enable-logging=stderr", address]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=2 * _SECONDS)
        server.shutdown()
    if not answered.is_set() or "error" in answered.value:
        said = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
        raise RuntimeError(f"The page failed: {answered.value}. Chromium said: {said or done.stderr[-2000:]}")
    return answered.value
