"""A headless Chromium and a server of files for the tests of the rendered book, made of the standard library.

The browser is driven over a pair of pipes (its option --remote-debugging-pipe): messages are JSON, each ended
by a zero byte; a reply has the id of its command, everything else is an event.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars --no-proxy-server"
).split()
LOOKS = [(theme, width) for theme in ("light", "dark") for width in (1280, 390)]
PATIENCE = 60  # seconds for one reply
KEYS = {"Enter": (13, "\r"), "Tab": (9, ""), "ArrowLeft": (37, "")}  # code of Windows, text typed
FOLLOWED = """new Promise(done => {
    const end = performance.now() + 2000, seen = document.documentElement.dataset;
    const over = () => seen.theme === "THEME" || performance.now() > end;
    const look = () => over() ? done(seen.theme) : setTimeout(look, 5);
    look();
})"""  # a page hears of a change of theme some time after it


def executable() -> str | None:
    """Path of a Chromium; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address under which the files of a folder can be had within the block."""

    class Handler(SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def end_headers(self) -> None:  # scripts and styles are fetched once for all pages
            self.send_header("Cache-Control", "max-age=3600")
            super().end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


class Browser:
    """One page of one browser process. `events` holds (method, params) since they were last taken."""

    def __init__(self, profile: Path) -> None:
        ours, theirs = os.pipe(), os.pipe()  # what we read, what the browser reads
        pipes = f'exec "$0" "$@" 3<&{theirs[0]} 4>&{ours[1]}'
        flags = [*QUIET, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
        self.process = subprocess.Popen(
            ["bash", "-c", pipes, executable(), *flags],
            pass_fds=(theirs[0], ours[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs[0])
        os.close(ours[1])
        self.read, self.write = ours[0], theirs[1]
        self.rest, self.count, self.session = b"", 0, None
        self.events: list[tuple[str, dict]] = []
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        found = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self.session = found["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        """End the browser, by force where it does not answer: nothing of it outlives a test."""
        self.session = None
        try:
            self.call("Browser.close")
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
            os.close(self.read)
            os.close(self.write)

    def call(self, method: str, **params: object) -> dict:
        """Send a command and return its result; RuntimeError where it failed."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            reply = self.receive()
            if reply.get("id") == self.count:
                if "error" in reply:
                    raise RuntimeError(f"{method}: {reply['error']['message']}")
                return reply["result"]

    def receive(self) -> dict:
        """The next message; events are kept as well."""
        while b"\0" not in self.rest:
            if not select.select([self.read], [], [], PATIENCE)[0]:
                raise TimeoutError(f"the browser said nothing for {PATIENCE} s")
            data = os.read(self.read, 1 << 20)
            if not data:
                raise RuntimeError("the browser ended")
            self.rest += data
        text, _, self.rest = self.rest.partition(b"\0")
        message = json.loads(text)
        if "id" not in message:
            self.events.append((message["method"], message["params"]))
        return message

    def open(self, address: str) -> list[tuple[str, dict]]:
        """Load a page and wait for its scripts and fonts and formulas; returns the events of that."""
        self.events.clear()
        self.call("Page.navigate", url=address)
        while not any(method == "Page.loadEventFired" for method, _ in self.events):
            self.receive()
        self.run("Promise.all([document.fonts.ready, window.MathJax?.startup?.promise])")
        return list(self.events)

    def run(self, script: str) -> object:
        """Value of a JavaScript expression, awaited."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"]["exception"].get("description", script))
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """A key of KEYS, down and up, on what has the focus."""
        code, text = KEYS[key]
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind, key=key, code=key, windowsVirtualKeyCode=code, text=text,
            )  # fmt: skip

    def resize(self, width: int, height: int = 900) -> None:
        """The size of the window in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def theme(self, name: str) -> None:
        """What the reader's system prefers: "light" or "dark"."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def picture(self, path: Path, whole: bool = False) -> None:
        """Write what is seen, or the whole page, as PNG."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser within the block; the test is skipped where there is no Chromium."""
    if executable() is None:
        pytest.skip(f"needs a Chromium on the PATH: {', '.join(NAMES)}")
    one = Browser(profile)
    try:
        yield one
    finally:
        one.close()


@contextmanager
def looking(window: Browser, site: str, name: str, look: tuple[str, int]) -> Iterator[Browser]:
    """A page of a site, opened anew in a theme and at a width. In the end it has followed the theme, is no
    wider than the window, and has asked nothing of others, nor gone wrong."""
    theme, width = look
    window.theme(theme)
    window.resize(width)
    window.open("about:blank")  # else a page that differs in its hash alone would not be loaded
    window.open(f"{site}/book/{name}.html")
    yield window
    assert window.run(FOLLOWED.replace("THEME", theme)) == theme
    assert window.run("document.documentElement.scrollWidth - innerWidth") <= 0
    assert not complaints(window.events, site)


def complaints(events: list[tuple[str, dict]], address: str) -> list[str]:
    """What a browser said against a page, and what it asked others for."""
    found = []
    for method, params in events:
        if method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            found += [] if url.startswith((address, "data:", "blob:")) else [f"asked for {url}"]
        elif method == "Network.responseReceived" and params["response"]["status"] >= 400:
            found.append(f"{params['response']['status']} for {params['response']['url']}")
        elif method == "Runtime.exceptionThrown":
            found.append(params["exceptionDetails"]["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            found.append(" ".join(str(part.get("value", "")) for part in params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            found.append(params["entry"]["text"])
    return found
