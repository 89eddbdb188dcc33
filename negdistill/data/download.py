"""Download: fetch the public data from its own repositories, check it, list it, remove it.

    repository at a pinned commit --resumed, retried--> cache/.part/... --sha256--> cache/...

`sources.json` gives for every file its repository, commit and the sha256 of its content, where content is
    bytes    the bytes of the file, unpacked
    rows     problem, level, type, solution and tdg of every row (MATH, which is packed in more than one way)
    teacher  name ("algebra/0.jsonl") and bytes of every file of one released teacher, in numeric order
so that one digest holds for a plain file, a packed file and a folder.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import os
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

from negdistill.checks import check_choice
from negdistill.data.folders import cache_folder, data_folder, locate
from negdistill.data.formats import line_rows, unpack
from negdistill.data.released import tdg_files, tdg_rows

BASES = {"file": "https://raw.githubusercontent.com", "archive": "https://codeload.github.com"}
ATTEMPTS = 5
MOST = 1 << 29  # bytes of one download, and of what an archive unpacks to; the largest hold a fifth of that
ROW_FIELDS = ("tdg", "problem", "level", "type", "solution")


@dataclass(frozen=True)
class File:
    """One file of a set, as `sources.json` describes it."""

    set: str  # as `load_problems` or `load_rationales` names it
    licence: str
    repository: str  # owner/name
    address: str  # of the repository
    commit: str
    fetch: str  # "file": by itself; "archive": out of the archive of the whole repository
    source: str  # file or folder in the repository
    path: str  # in a data folder
    content: str  # "bytes", "rows" or "teacher"
    sha256: str  # of the content
    bytes: int  # length of the content

    @property
    def stored(self) -> str:
        """Path in the cache: the 753 files of a teacher are kept in one archive."""
        return f"{self.path}.tar.gz" if self.content == "teacher" else self.path

    def url(self, bases: Mapping[str, str]) -> str:
        place = self.commit + "/" + self.source if self.fetch == "file" else "tar.gz/" + self.commit
        return f"{bases[self.fetch]}/{self.repository}/{place}"


def manifest(name: str | None = None) -> list[File]:
    """Files of one set, or of all sets (None)."""
    listed = resources.files("negdistill.data") / "sources.json"
    stored = json.loads(listed.read_text(encoding="utf-8"))
    if name is not None:
        check_choice("name", name, stored["sets"])
    return [
        File(set=set_name, licence=entry["licence"], **stored["repositories"][file["repository"]], **file)
        for set_name, entry in stored["sets"].items()
        if name in (None, set_name)
        for file in entry["files"]
    ]


# --- check --------------------------------------------------------------------------------------------


def content(path: Path, kind: str) -> Iterator[bytes]:
    """What the digest of a file is taken of; ValueError where the file cannot be read to its end."""
    if kind == "teacher":
        files, why = tdg_files(path)
        named = ((f"{subject}/{k}.jsonl\n", data) for (subject, k), (_, data) in sorted(files.items()))
        pieces = (name.encode() + data for name, data in named)
    else:
        data, why = unpack(path)
        pieces = [data]
    if why:
        raise ValueError(f"{path}: {why}")
    if kind == "rows":
        rows = (read() for _, _, read in line_rows(data, "", str(path)))
        pieces = (json.dumps([row.get(field) for field in ROW_FIELDS]).encode() + b"\n" for row in rows)
    yield from pieces


def digest(path: Path, kind: str) -> str:
    """sha256 of `content`, or why there is none."""
    sha256 = hashlib.sha256()
    try:
        for piece in content(path, kind):
            sha256.update(piece)
    except ValueError as error:
        return str(error)
    return sha256.hexdigest()


def verify(name: str | None = None, folder: Path | None = None) -> list[tuple[File, str]]:
    """Every file of one set (None: of all) with its state in a data folder: "ok", "missing" or "damaged"."""
    folder = folder or data_folder()
    states = []
    for file in manifest(name):
        found = locate(folder, file.path)
        state = "ok" if found and digest(found, file.content) == file.sha256 else "damaged"
        states.append((file, state if found else "missing"))
    return states


# --- fetch --------------------------------------------------------------------------------------------


def get(
    name: str | None = None,
    folder: Path | None = None,
    bases: Mapping[str, str] = BASES,
    pause: float = 1.0,
) -> list[Path]:
    """Fetch what is missing or damaged of one set (None: of all) into a folder (None: the user's cache).

    An interrupted call goes on where it stopped. Nothing gets its name before its digest is right.
    math, train, is rebuilt from the archive that holds both released teachers, so that fetching one of these
    three brings all of them.

    bases  address of the server of single files and of the server of archives
    pause  seconds before the first retry; doubled at each of the ATTEMPTS

    Returns the files written. Raises ConnectionError where the server gives up, ValueError where what it sent
    is too much or not what the manifest describes (it is removed).
    """
    folder = folder or cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with FileLock(folder / ".lock"):
        wanted = [file for file, state in verify(name, folder) if state != "ok"]
        for file in [file for file in wanted if file.fetch == "file"]:
            part = folder / ".part" / file.path
            download(file.url(bases), part, pause)
            written.append(_accept(part, file, folder))
        if archived := [file for file in wanted if file.fetch == "archive"]:
            part = folder / ".part" / "TDG.tar.gz"
            download(archived[0].url(bases), part, pause)
            try:
                written += _take_apart(part, folder)
            except ValueError:
                shutil.rmtree(part.parent)
                raise
        shutil.rmtree(folder / ".part", ignore_errors=True)
    return written


def download(url: str, part: Path, pause: float = 1.0) -> None:
    """Fetch an address into a file, going on after what the file already holds; see `get` for errors.

    ValueError where there are more than MOST bytes; what came of them is removed.
    """
    part.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(ATTEMPTS):
        try:
            return _transfer(url, part)
        except urllib.error.HTTPError as caught:
            if caught.code == 416:  # nothing is left to send; the digest says whether that is right
                return None
            error = caught
            if caught.code < 500 and caught.code != 429:
                break
        except (OSError, http.client.HTTPException) as caught:
            error = caught
        if attempt + 1 < ATTEMPTS:
            time.sleep(pause * 2**attempt)
    raise ConnectionError(
        f"{url} cannot be had: {error}; the same command goes on where it stopped"
    ) from error


def _transfer(url: str, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=60) as response:
        have = have if response.status == 206 else 0  # a server without ranges sends all of it
        length = response.headers["Content-Length"]
        total = have + int(length) if length else None
        with (
            open(part, "ab" if have else "wb") as file,
            tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=part.name, disable=None) as bar,
        ):
            while max(file.tell(), total or 0) <= MOST and (piece := response.read(1 << 16)):
                file.write(piece)
                bar.update(len(piece))
            if max(file.tell(), total or 0) > MOST:
                part.unlink()
                raise ValueError(f"{url} must send at most {MOST:,} bytes; it sends more; it was removed")
            if total is not None and file.tell() != total:
                raise ConnectionError(f"the connection closed after {file.tell()} of {total} bytes")


def _accept(part: Path, file: File, folder: Path) -> Path:
    """Give a file its name if it is what the manifest describes; else remove it."""
    found = digest(part, file.content)
    if found != file.sha256:
        part.unlink()
        raise ValueError(
            f"{file.path} from {file.address} must have the sha256 {file.sha256} of the manifest; "
            f"got {found}; it was removed, try again"
        )
    target = folder / file.stored
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(part, target)
    return target


def _take_apart(archive: Path, folder: Path) -> list[Path]:
    """All files of the manifest that come out of the archive of a repository."""
    files = [file for file in manifest() if file.fetch == "archive"]
    written = []
    for file in sorted(files, key=lambda file: file.content == "rows"):  # which are made of a teacher's
        part = folder / ".part" / file.stored
        part.parent.mkdir(parents=True, exist_ok=True)
        if file.content == "teacher":
            _repack(archive, file.source, part)
        else:
            _write_training(folder / f"TDG/{file.source}.tar.gz", part)
        written.append(_accept(part, file, folder))
    return written


def _repack(archive: Path, source: str, target: Path) -> None:
    """Copy one folder of a repository's archive into an archive of its own; nothing is extracted to disk.

    ValueError for a damaged archive, one that leads outside, and one that unpacks to more than MOST bytes.
    """
    size = 0
    try:
        with tarfile.open(archive, "r:gz") as whole, tarfile.open(target, "w:gz", compresslevel=1) as taken:
            for member in whole:
                if (size := size + member.size) > MOST:
                    raise tarfile.TarError(f"it unpacks to more than {MOST:,} bytes")
                tarfile.data_filter(member, str(target.parent))  # refuses paths and links that lead outside
                member.name = member.name.partition("/")[2]  # without <repository>-<commit>/
                if member.isfile() and member.name.startswith(f"{source}/"):
                    taken.addfile(member, whole.extractfile(member))
    except (tarfile.TarError, ValueError, OverflowError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"the archive of {source} is damaged or unsafe ({error}); it was removed") from error


def _write_training(teacher: Path, target: Path) -> None:
    """The training part of MATH, from the questions and reference solutions of a teacher's files."""
    with open(target, "w", encoding="ascii") as file:
        for _, key, read in tdg_rows(teacher):
            row = read()
            problem = row["question"].removeprefix("Problem:\n")
            values = (key, problem, row["level"], row["type"], row["answer"])
            file.write(json.dumps(dict(zip(ROW_FIELDS, values, strict=True))) + "\n")


def clear(folder: Path | None = None) -> list[Path]:
    """Remove what `get` wrote into a folder (None: the user's cache), and nothing else. Returns the files."""
    folder = folder or cache_folder()
    written = [path for file in manifest() if (path := folder / file.stored).exists()]
    shutil.rmtree(folder / ".part", ignore_errors=True)
    for path in written:
        path.unlink()
        for parent in path.parents:
            if parent == folder or any(parent.iterdir()):
                break
            parent.rmdir()
    return written
