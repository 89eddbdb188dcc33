"""Transport: one JSON request and the whole answer to it, bounded in time and in size.

    connect  --at most CONNECT seconds, names looked up and TLS included-->  send  -->  read to the end
             '-- ConnectError: nothing was sent                              '-- BrokenError: may be billed

The limit of time holds for the whole request: a server that says a byte a second does not stretch it. One
connection a request, so that none can be stale. Proxies are those of the environment, as urllib takes them.
"""

from __future__ import annotations

import base64
import queue
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

CONNECT = 2.5  # seconds
LARGEST = 1 << 26  # bytes of an answer
T = TypeVar("T")


class Response(NamedTuple):
    """What a server said: status, headers by their names in small letters, body."""

    status: int
    headers: Mapping[str, str]
    data: bytes


class ConnectError(Exception):
    """No server was reached: why, in words."""


class BrokenError(Exception):
    """The request was sent, maybe in part, and no whole answer came: why, in words."""


def check_url(url: str) -> None:
    """ValueError for what is no base of http addresses; it never shows what may be a password."""
    if not isinstance(url, str):
        raise TypeError(f"base_url must be a text; got {url!r}")
    if "@" in url:
        raise ValueError("base_url must not hold a name or password; put the key into the environment")
    if "?" in url or "#" in url:
        raise ValueError("base_url must end with its path; leave out what begins with ? or #")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("base_url must hold neither spaces nor letters outside ASCII; write it encoded")
    if not url.lower().startswith(("http://", "https://")):
        raise ValueError(
            f"base_url must begin with http:// or https://; got {url!r}; write 'http://{url.lstrip('/')}'"
        )
    try:
        parts = urlsplit(url)
        good = bool(parts.hostname) and "%" not in parts.netloc and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ValueError("base_url must name a host and, after a colon, a port from 1 to 65535 if it has one")
    if parts.path.rstrip("/").endswith("/completions"):
        raise ValueError(f"base_url must end before /completions and /chat/completions; got {url!r}")


def post(url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> Response:
    """The answer to a POST of JSON; ConnectError or BrokenError where none came.

    timeout  seconds until the answer has to be there to its end
    """
    end = time.monotonic() + timeout
    connection, target, more = _connect(url, min(CONNECT, timeout))
    own = {"Content-Type": "application/json", "Connection": "close", "Accept-Encoding": "identity"}
    late = threading.Event()
    watch = threading.Timer(max(0.0, end - time.monotonic()), _cut, (connection.sock, late))
    watch.daemon = True
    watch.start()
    try:
        connection.request("POST", target, body, {**own, **more, **headers})
        response = connection.getresponse()
        data = _read(response, late)
        if response.getheader("content-encoding", "").lower() in ("gzip", "x-gzip"):  # without being asked
            data = zlib.decompressobj(31).decompress(data, LARGEST)
        return Response(response.status, {k.lower(): v for k, v in response.getheaders()}, data)
    except (OSError, HTTPException, ValueError, AttributeError, zlib.error) as error:
        if late.is_set():
            why = f"no whole answer within {timeout:g} seconds"
        else:
            why = f"the connection broke before the answer was whole ({type(error).__name__})"
    finally:
        watch.cancel()
        connection.close()
    raise BrokenError(why)


def _read(response, late: threading.Event) -> bytes:
    pieces, size = [], 0
    while piece := response.read(1 << 16):
        pieces.append(piece)
        if (size := size + len(piece)) > LARGEST:
            raise HTTPException(f"more than {LARGEST} bytes")
    if response.length or late.is_set():
        raise HTTPException("half an answer")
    return b"".join(pieces)


def _cut(sock: socket.socket, late: threading.Event) -> None:
    """End what another thread waits for at a socket."""
    late.set()
    try:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # of TLS too: without its goodbye
    except OSError:
        pass


def _connect(url: str, seconds: float) -> tuple[HTTPConnection, str, dict[str, str]]:
    """A connection that is open, what to ask it for, and headers that a proxy wants."""
    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection, target, more = kind(parts.netloc, timeout=seconds), parts.path, {}
    proxy = None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)
    if proxy:
        try:
            via = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
            if not via.hostname:
                raise ValueError("no host")
            if via.username:
                pair = f"{unquote(via.username)}:{unquote(via.password or '')}".encode()
                more = {"Proxy-Authorization": f"Basic {base64.b64encode(pair).decode()}"}
            connection = kind(via.hostname, via.port, timeout=seconds)
        except (ValueError, HTTPException):  # their words may hold a part of a password
            raise ConnectError(
                f"the proxy of the environment has no address that can be read; {parts.scheme}_proxy must "
                "be like http://host:port"
            ) from None
        if parts.scheme == "https":
            connection.set_tunnel(parts.hostname, parts.port, more)
            more = {}
        else:
            target = url
    try:
        _within(seconds, connection.connect)
    except (OSError, HTTPException, UnicodeError) as error:
        why = _words(error, seconds)
    else:
        connection.sock.settimeout(None)  # the watch bounds the rest
        return connection, target, more
    where = f"{parts.netloc} by the proxy of the environment" if proxy else parts.netloc
    raise ConnectError(f"{where}: {why}")


def _within(seconds: float, function: Callable[[], T]) -> T:
    """What the function returns or raises; TimeoutError after so many seconds, whatever it does."""
    done: queue.SimpleQueue = queue.SimpleQueue()

    def work() -> None:
        try:
            done.put((function(), None))
        except Exception as error:
            done.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        value, error = done.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if error:
        raise error
    return value


def _words(error: Exception, seconds: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no connection within {seconds:g} seconds"
    if isinstance(error, UnicodeError):  # of IDNA
        return "that is no name of a host"
    if isinstance(error, socket.gaierror):
        return f"there is no such host ({error.strerror})"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return f"it does not speak TLS as https:// does ({error.reason}); http:// may be meant"
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
