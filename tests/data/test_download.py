import argparse
import gzip
import hashlib
import http.server
import io
import json
import re
import tarfile
import threading

import pytest

from negdistill.data import download
from negdistill.data.commands import add_data_parser
from negdistill.data.download import clear, digest, get, manifest, verify
from negdistill.data.released import TDG
from negdistill.data.sources import load_problems, load_rationales

PUBLIC = ["asdiv", "gsm8k", "math", "multiarith", "svamp", "tdg-gpt-3.5-turbo", "tdg-gpt-4"]


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` (path -> bytes); `drop` and `refuse` say what goes wrong, `log` tells what was asked."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {}
        self.log = []  # (path, Range header or None, status)
        self.ranges = self.lengths = True
        self.drop = []  # for one request each: bytes of the answer after which the connection closes
        self.refuse = []  # for one request each: status to answer with

    @property
    def bases(self):
        address = f"http://127.0.0.1:{self.server_address[1]}"
        return {"file": f"{address}/file", "archive": f"{address}/archive"}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, data = self.server, self.server.files.get(self.path)
        wanted = self.headers["Range"]
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and server.ranges else 0
        if server.refuse:
            status = server.refuse.pop(0)
        elif data is None:
            status = 404
        elif start and start >= len(data):
            status = 416
        else:
            status = 206 if start else 200
        server.log.append((self.path, wanted, status))
        body = data[start:] if status < 300 else b""
        self.send_response(status)
        if server.lengths:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.drop.pop(0)] if server.drop else body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as one:
        thread = threading.Thread(target=one.serve_forever, args=(0.02,))
        thread.start()
        yield one
        one.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The user's cache, empty, and what is read when nothing else is said."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("NEGDISTILL_DATA", raising=False)
    return tmp_path / "cache/negdistill/data"


def serve_files(server, data_dir, name):
    """Put the files of a set where their own repository has them, in the form they have there."""
    for file in manifest(name):
        if file.fetch == "archive":
            continue
        packed = data_dir / f"{file.path}.gz"
        data = (
            gzip.decompress(packed.read_bytes()) if packed.exists() else (data_dir / file.path).read_bytes()
        )
        if file.content == "rows":
            rows = [json.loads(line) for line in data.splitlines()]
            fields = ("solution", "problem", "type", "level")
            data = "".join(
                json.dumps({field: row[field] for field in fields}) + "\n" for row in rows
            ).encode()
        server.files[f"/file/{file.repository}/{file.commit}/{file.source}"] = data


def archive_path():
    file = next(file for file in manifest() if file.fetch == "archive")
    return f"/archive/{file.repository}/tar.gz/{file.commit}"


def pack(members, top="TDG-ca86f56"):
    """A repository's archive with these (name, bytes or TarInfo) members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for name, data in members:
            info = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(f"{top}/{name}")
            if not isinstance(data, tarfile.TarInfo):
                info.size = len(data)
            archive.addfile(info, None if isinstance(data, tarfile.TarInfo) else io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def repository(data_dir):
    """The archive of the repository of the rationales: both teachers, and what else lies there."""
    members = [("README.md", b"rationales"), ("GPT4-MATH/.DS_Store", b"\0"), ("src/GPT4-MATH/x.py", b"")]
    for path in TDG.values():
        with tarfile.open(data_dir / f"{path}.tar.xz") as archive:
            members += [
                (member.name, archive.extractfile(member).read()) for member in archive if member.isfile()
            ]
    return pack(members)


# --- manifest -----------------------------------------------------------------------------------------


def test_the_manifest_describes_every_set():
    files = manifest()
    assert sorted({file.set for file in files}) == PUBLIC
    assert len({file.path for file in files}) == len(files) == 9
    for file in files:
        assert re.fullmatch("[0-9a-f]{40}", file.commit) and re.fullmatch("[0-9a-f]{64}", file.sha256)
        assert file.address == f"https://github.com/{file.repository}"
        assert file.licence and file.bytes > 0
        assert file.commit in file.url(download.BASES) and file.url(download.BASES).startswith("https://")
    with pytest.raises(ValueError, match="name must be one of 'math', 'gsm8k', .* got 'arithmetic'"):
        manifest("arithmetic")


def test_the_real_files_are_as_described(data_dir):
    states = verify(folder=data_dir)
    assert [file for file, _ in states] == manifest()
    assert {state for _, state in states} == {"ok"}
    sums = dict(line.split()[::-1] for line in (data_dir / "SHA256SUMS").read_text().splitlines())
    unchanged = [file for file in manifest() if file.path in sums]  # lie here as in their repository
    assert len(unchanged) == 3
    assert all(file.sha256 == sums[file.path] for file in unchanged)
    for file in manifest("gsm8k"):
        data = gzip.decompress((data_dir / f"{file.path}.gz").read_bytes())
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (file.sha256, file.bytes)


def test_verify_tells_missing_from_damaged(data_dir, tmp_path):
    (tmp_path / "SVAMP").mkdir()
    data = (data_dir / "SVAMP/SVAMP.json").read_bytes()
    for content, state in ((data, "ok"), (data.replace(b"51.0", b"52.0"), "damaged")):
        (tmp_path / "SVAMP/SVAMP.json").write_bytes(content)
        assert [state for _, state in verify("svamp", tmp_path)] == [state]
    (tmp_path / "GSM8K").mkdir()
    packed = (data_dir / "GSM8K/test.jsonl.gz").read_bytes()
    (tmp_path / "GSM8K/test.jsonl.gz").write_bytes(packed[:-10])
    assert [state for _, state in verify("gsm8k", tmp_path)] == ["missing", "damaged"]


def test_digests_do_not_depend_on_the_packing(tmp_path):
    files = {("algebra", k): b'{"n": %d}\n' % k for k in (0, 2, 10)}
    members = [(f"GPT4-MATH/train_gpt4_{subject}_8/{k}.jsonl", data) for (subject, k), data in files.items()]
    (tmp_path / "a.tar.gz").write_bytes(pack(members))
    (tmp_path / "b.tar.gz").write_bytes(pack(members[::-1], top="other"))
    for name, data in members:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    text = b"".join(f"algebra/{k}.jsonl\n".encode() + data for (_, k), data in files.items())
    expected = hashlib.sha256(text).hexdigest()
    found = {digest(tmp_path / name, "teacher") for name in ("a.tar.gz", "b.tar.gz", "GPT4-MATH")}
    assert found == {expected}
    row = {"problem": "p", "level": "Level 1", "type": "Algebra", "solution": "s"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "more.jsonl").write_text(json.dumps({"unique_id": 1, **row, "idx": 0}) + "\n")
    assert digest(tmp_path / "rows.jsonl", "rows") == digest(tmp_path / "more.jsonl", "rows")
    (tmp_path / "more.jsonl").write_text(json.dumps({**row, "level": "Level 2"}) + "\n")
    assert digest(tmp_path / "rows.jsonl", "rows") != digest(tmp_path / "more.jsonl", "rows")


# --- one file -----------------------------------------------------------------------------------------

CONTENT = bytes(range(256)) * 1500


@pytest.fixture
def fetch(server, tmp_path):
    """Fetch CONTENT; gives what arrived and the (Range, status) of every request."""
    server.files["/file/x"] = CONTENT

    def run():
        download.download(f"{server.bases['file']}/x", tmp_path / "part", pause=0.001)
        return (tmp_path / "part").read_bytes(), [(wanted, status) for _, wanted, status in server.log]

    return run


def test_download_of_one_file(fetch):
    assert fetch() == (CONTENT, [(None, 200)])


def test_an_interrupted_download_goes_on_where_it_stopped(fetch, tmp_path):
    (tmp_path / "part").write_bytes(CONTENT[:100_000])
    assert fetch() == (CONTENT, [("bytes=100000-", 206)])


def test_a_dropped_connection_is_resumed_in_the_same_call(fetch, server):
    server.drop = [200_000, 100_000]
    assert fetch() == (CONTENT, [(None, 200), ("bytes=200000-", 206), ("bytes=300000-", 206)])


def test_a_server_without_ranges_starts_again(fetch, server, tmp_path):
    server.ranges = False
    (tmp_path / "part").write_bytes(b"something else")
    assert fetch() == (CONTENT, [("bytes=14-", 200)])


def test_a_complete_part_needs_no_more(fetch, tmp_path):
    (tmp_path / "part").write_bytes(CONTENT)
    assert fetch() == (CONTENT, [(f"bytes={len(CONTENT)}-", 416)])


def test_a_busy_server_is_asked_again(fetch, server):
    server.refuse = [503, 429, 500]
    assert fetch() == (CONTENT, [(None, 503), (None, 429), (None, 500), (None, 200)])


def test_a_server_that_stays_busy_is_given_up(fetch, server):
    server.refuse = [503] * 20
    with pytest.raises(
        ConnectionError, match="http://.*/x cannot be had: .*503.*the same command goes on where it stopped"
    ):
        fetch()
    assert len(server.log) == download.ATTEMPTS


def test_an_address_that_is_gone_is_not_asked_again(fetch, server):
    del server.files["/file/x"]
    with pytest.raises(ConnectionError, match="http://.*/x cannot be had: .*404"):
        fetch()
    assert len(server.log) == 1


@pytest.mark.parametrize("lengths", [True, False])
def test_a_server_that_sends_too_much_is_refused(fetch, server, tmp_path, monkeypatch, lengths):
    server.lengths = lengths
    monkeypatch.setattr(download, "MOST", len(CONTENT))
    assert fetch() == (CONTENT, [(None, 200)])
    (tmp_path / "part").unlink()
    monkeypatch.setattr(download, "MOST", len(CONTENT) - 1)
    with pytest.raises(ValueError, match="/x must send at most 383,999 bytes; it sends more; it was removed"):
        fetch()
    assert not (tmp_path / "part").exists() and len(server.log) == 2


def test_an_archive_that_unpacks_to_too_much_is_refused_and_removed(server, cache, monkeypatch):
    """Kind: an archive that unpacks to more than a disk holds; as in CodeGra-de/CodeGra.de#40."""
    monkeypatch.setattr(download, "MOST", 1_000_000)
    server.files[archive_path()] = pack([("GPT4-MATH/zeros", bytes(1_000_001))])
    with pytest.raises(ValueError, match="it unpacks to more than 1,000,000 bytes.*it was removed"):
        get("tdg-gpt-4", bases=server.bases)
    assert [path for path in cache.rglob("*") if path.is_file() and path.name != ".lock"] == []


def test_no_network_is_one_clear_error(tmp_path):
    with pytest.raises(ConnectionError, match="http://127.0.0.1:9/x cannot be had: .*refused"):
        download.download("http://127.0.0.1:9/x", tmp_path / "part", pause=0.001)


# --- sets ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["svamp", "asdiv", "multiarith", "gsm8k"])
def test_a_fetched_set_reads_like_the_given_one(server, cache, data_dir, name):
    serve_files(server, data_dir, name)
    written = get(name, bases=server.bases, pause=0.001)
    assert sorted(written) == sorted(cache / file.path for file in manifest(name))
    assert {state for _, state in verify(name)} == {"ok"}
    assert load_problems(name) == load_problems(name, data_dir=data_dir)
    before = len(server.log)
    assert get(name, bases=server.bases) == [] and len(server.log) == before  # nothing is left to do
    assert not (cache / ".part").exists()


def test_fetching_math_brings_the_rationales(server, cache, data_dir, repository):
    serve_files(server, data_dir, "math")
    server.files[archive_path()] = repository
    server.drop = [1_000_000, 10_000_000, 5_000_000]
    get("math", bases=server.bases, pause=0.001)
    assert [(wanted, status) for path, wanted, status in server.log if path == archive_path()] == [
        (None, 200),
        ("bytes=5000000-", 206),
    ]
    for split in ("train", "test"):
        assert load_problems("math", split) == load_problems("math", split, data_dir)
    assert {path.name for path in cache.glob("TDG/*")} == {"GPT3.5-turbo-MATH.tar.gz", "GPT4-MATH.tar.gz"}
    assert len(load_rationales("tdg-gpt-4")) == 60_000
    assert len(clear()) == 4
    assert [path for path in cache.rglob("*") if path.name != ".lock"] == []


def test_a_changed_file_is_refused_and_removed(server, cache, data_dir):
    serve_files(server, data_dir, "svamp")
    (path,) = server.files
    good = server.files[path]
    server.files[path] = good.replace(b"51.0", b"52.0")
    message = (
        "SVAMP/SVAMP.json from https://.*/arkilpatel/SVAMP must have the sha256 5be77703.*it was removed"
    )
    with pytest.raises(ValueError, match=message):
        get("svamp", bases=server.bases)
    assert [found for found in cache.rglob("*") if found.is_file() and found.name != ".lock"] == []
    server.files[path] = good
    assert len(get("svamp", bases=server.bases)) == 1


def test_a_damaged_file_is_fetched_again(server, cache, data_dir):
    serve_files(server, data_dir, "svamp")
    get("svamp", bases=server.bases)
    (cache / "SVAMP/SVAMP.json").write_bytes(b"[]")
    assert get("svamp", bases=server.bases) == [cache / "SVAMP/SVAMP.json"]
    assert len(load_problems("svamp")) == 1000


def test_what_arrived_before_an_interruption_is_kept(server, cache, data_dir):
    serve_files(server, data_dir, "gsm8k")
    first, second = (path for path in server.files)
    whole = server.files.pop(second)
    with pytest.raises(ConnectionError, match="404"):
        get("gsm8k", bases=server.bases)
    assert len(load_problems("gsm8k", "train")) == 7473
    (cache / ".part/GSM8K/test.jsonl").write_bytes(whole[:1000])  # as a killed process leaves it
    server.files[second] = whole
    assert get("gsm8k", bases=server.bases) == [cache / "GSM8K/test.jsonl"]
    assert server.log[-1] == (second, "bytes=1000-", 206)


def link(name, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


@pytest.mark.parametrize(
    "members",
    [
        [("../../../outside.jsonl", b"{}\n")],
        [("x", link("TDG-ca86f56/GPT4-MATH/train_gpt4_algebra_8/0.jsonl", "/etc/passwd"))],
        [("x", link("TDG-ca86f56/link", "../../.."))],
    ],
)
def test_an_archive_that_leads_outside_is_refused(server, cache, tmp_path, members):
    server.files[archive_path()] = pack(members)
    with pytest.raises(ValueError, match="archive of GPT.*-MATH is damaged or unsafe .* it was removed"):
        get("tdg-gpt-4", bases=server.bases)
    assert not list(tmp_path.rglob("outside*"))
    assert not (cache / ".part/TDG.tar.gz").exists() and not list(cache.glob("TDG/*"))


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-40], lambda data: data[:60] + b"?" * 20 + data[80:], lambda _: b"no"]
)
def test_a_damaged_archive_is_refused_and_removed(server, cache, damage):
    members = [
        (f"{path[4:]}/train_gpt4_algebra_8/{k}.jsonl", b"{}\n" * 99)
        for path in TDG.values()
        for k in range(9)
    ]
    server.files[archive_path()] = damage(pack(members))
    with pytest.raises(ValueError, match="it was removed"):
        get("tdg-gpt-4", bases=server.bases)
    assert not (cache / ".part/TDG.tar.gz").exists() and not list(cache.glob("TDG/*"))


def test_an_archive_with_other_rationales_is_refused(server, cache):
    members = [(f"{path[4:]}/train_gpt4_algebra_8/0.jsonl", b"{}\n") for path in TDG.values()]
    server.files[archive_path()] = pack(members)
    with pytest.raises(ValueError, match="TDG/GPT3.5-turbo-MATH from https://.* must have the sha256"):
        get("tdg-gpt-4", bases=server.bases)
    assert not list(cache.glob("TDG/*"))


def test_clear_removes_what_was_fetched_and_nothing_else(server, cache, data_dir):
    serve_files(server, data_dir, "asdiv")
    serve_files(server, data_dir, "svamp")
    get("asdiv", bases=server.bases)
    get("svamp", bases=server.bases)
    (cache / "SVAMP/notes.txt").write_text("mine")
    assert len(clear()) == 2
    assert sorted(path.name for path in cache.rglob("*")) == [".lock", "SVAMP", "notes.txt"]
    assert clear() == []


# --- python -m negdistill data ------------------------------------------------------------------------


@pytest.fixture
def command(capsys):
    """Run `data ...`; gives the exit code and what was printed."""

    def run(*words):
        parser = argparse.ArgumentParser()
        add_data_parser(parser.add_subparsers(required=True))
        args = parser.parse_args(["data", *words])
        return args.func(args), capsys.readouterr().out

    return run


def test_commands(server, cache, data_dir, command, monkeypatch):
    for kind, base in server.bases.items():
        monkeypatch.setitem(download.BASES, kind, base)
    serve_files(server, data_dir, "svamp")
    code, out = command("list")
    assert code == 0 and re.search(
        r"svamp +no +0\.3  MIT +https://github.com/arkilpatel/SVAMP at 689d7ccac74b", out
    )
    assert str(cache) in out and all(f"\n{name} " in out for name in PUBLIC)
    code, out = command("verify", "svamp")
    assert code == 1 and out == "missing  svamp              SVAMP/SVAMP.json\n"
    code, out = command("get", "svamp")
    assert code == 0 and "licence: MIT" in out and "1 files fetched" in out and "NEGDISTILL_DATA" not in out
    assert re.search(r"svamp +yes", command("list")[1])
    code, out = command("verify")
    assert code == 0 and "ok       svamp" in out and "missing  gsm8k" in out
    monkeypatch.setenv("NEGDISTILL_DATA", str(data_dir))
    code, out = command("get", "svamp")
    assert code == 0 and f"note: NEGDISTILL_DATA is set, so {data_dir} is read instead" in out
    monkeypatch.delenv("NEGDISTILL_DATA")
    (cache / "SVAMP/SVAMP.json").write_bytes(b"[]")
    code, out = command("verify")
    assert code == 1 and "damaged  svamp" in out
    code, out = command("clear")
    assert code == 0 and out.startswith("1 files removed") and not (cache / "SVAMP").exists()
    with pytest.raises(SystemExit):
        command("get", "arithmetic")
