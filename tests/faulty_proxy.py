"""A proxy that fails on purpose: it stands between a client and a real OpenAI-compatible server.

Each request meets the next of `faults`; after the last of them every request is passed on. A fault is a name
of FAULTS, or `Says`: a reply of any kind. A request that holds a text of `always` meets that fault each time;
under "" stands what all others meet. `journal` says what was asked and whether a whole answer went out.
"""

import json
import socket
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = (
    *("limited", "limited by date", "broken", "dropped", "slow", "half", "malformed", "html", "hollow"),
    *("refused", "filtered", "censored", "empty", "uncounted", "locked", "poor", "patient", "bad"),
)
REWRITTEN = ("refused", "filtered", "empty", "uncounted")  # whole answers that say something else
SLOW = 1.5  # seconds
DRIP = 0.05  # seconds between two bytes
DRIPS = 4000  # bytes at least that come so


@dataclass(frozen=True)
class Says:
    """A reply as a test wants it.

    body    bytes as they are; else a value that becomes JSON
    drip    "head" or "body": from there on a byte at a time, so that the reply takes minutes
    """

    body: object = b""
    status: int = 200
    headers: dict = field(default_factory=dict)
    kind: str = "application/json"
    drip: str = ""


def said(message, finish="stop", usage=None, **more) -> Says:
    """A chat completion with this message, a text or a whole one."""
    message = message if isinstance(message, dict) else {"role": "assistant", "content": message}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return Says({"choices": [choice], "usage": usage or {"prompt_tokens": 9, "completion_tokens": 3}, **more})


def refused(status, message, **more) -> Says:
    """An error as OpenAI words it."""
    return Says({"error": {"message": message, **more}}, status)


class Proxy(ThreadingHTTPServer):
    daemon_threads = True

    request_queue_size = 64

    def __init__(self, upstream: str, faults=(), always: dict | None = None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream, self.faults, self.journal = upstream, list(faults), []
        self.always = always or {}
        self.mutex, self.under_way, self.most_under_way = threading.Lock(), 0, 0
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def answered(self) -> list[dict]:
        return [entry for entry in self.journal if entry["whole"]]

    def __exit__(self, *error):
        self.shutdown()
        super().__exit__(*error)

    def handle_error(self, request, client_address):
        """A client that went away is no news."""


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.mutex:
            asked = json.dumps(body, ensure_ascii=False)
            fault = next((fault for text, fault in server.always.items() if text and text in asked), None)
            fault = fault or (server.faults.pop(0) if server.faults else server.always.get(""))
            headers = {name.lower(): value for name, value in self.headers.items()}
            entry = {"at": time.monotonic(), "path": self.path, "body": body, "fault": fault, "whole": False}
            server.journal.append({**entry, "key": headers.get("authorization", "")})
            entry = server.journal[-1]
            server.under_way += 1
            server.most_under_way = max(server.most_under_way, server.under_way)
        try:
            self.fail_or_pass(fault, entry)
        finally:
            with server.mutex:
                server.under_way -= 1

    def fail_or_pass(self, fault, entry):
        key = entry["key"]
        later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 2))
        stated = {
            "limited": (429, "slow down", None, {"Retry-After": "1"}),
            "limited by date": (429, "slow down", None, {"Retry-After": later}),
            "patient": (429, "tomorrow", None, {"Retry-After": "86400"}),
            "poor": (429, "no money left", "insufficient_quota", {}),
            "broken": (500, f"something broke while reading {key}", None, {}),
            "locked": (401, f"wrong key: {key}", None, {}),
            "bad": (400, f"no such thing; headers were {key}", None, {}),
            "censored": (400, "not allowed", "content_filter", {}),
        }
        if isinstance(fault, Says):
            self.say(fault, entry)
        elif fault in stated:
            status, message, code, headers = stated[fault]
            self.send(json.dumps({"error": {"message": message, "code": code}}).encode(), status, headers)
        elif fault == "dropped":
            self.connection.shutdown(socket.SHUT_RDWR)
        elif fault == "html":
            self.send(b"<html>back soon</html>", kind="text/html")
        elif fault == "hollow":
            self.send(b'{"error": {"message": "upstream"}}')
        else:
            self.pass_on(fault, entry)

    def say(self, fault, entry):
        data = fault.body if isinstance(fault.body, bytes) else json.dumps(fault.body).encode()
        if fault.drip:
            self.dripped(data, fault.drip)
        else:
            self.send(data, fault.status, fault.headers, fault.kind)
            entry["whole"] = True

    def dripped(self, data, start):
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Slow: " + b"y" * DRIPS + b"\r\n\r\n"
        if start == "body":
            self.connection.sendall(head)
        for byte in (data if start == "body" else head) + b" " * DRIPS:
            self.connection.sendall(bytes([byte]))
            time.sleep(DRIP)

    def pass_on(self, fault, entry):
        request = urllib.request.Request(
            self.server.upstream + self.path,
            json.dumps(entry["body"]).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as response:
            answer = response.read()
        if fault == "slow":
            time.sleep(SLOW)
        if fault in ("half", "malformed"):
            self.send(answer[: len(answer) // 2], length=len(answer) if fault == "half" else None)
            return
        if fault in REWRITTEN:
            answer = rewritten(fault, json.loads(answer))
        self.send(answer)
        entry["whole"] = fault != "slow"

    def send(self, data, status=200, headers=None, kind="application/json", length=None):
        self.send_response(status)
        own = {"Content-Type": kind, "Content-Length": str(length or len(data)), "Connection": "close"}
        for name, value in {**own, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def rewritten(fault, row) -> bytes:
    choice = row["choices"][0]
    if fault == "refused":
        choice["message"] = {"role": "assistant", "content": None, "refusal": "I would rather not."}
    if fault == "filtered":
        choice["finish_reason"] = "content_filter"
    if fault == "empty":
        choice["message"]["content"], choice["finish_reason"] = " \n", "stop"
    if fault == "uncounted":
        del row["usage"]
    return json.dumps(row).encode()
