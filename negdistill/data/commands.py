"""Commands: the data sets fetched, listed, verified and removed, by `python -m negdistill data`."""

from __future__ import annotations

import argparse

from negdistill.data.command_line import say
from negdistill.data.download import clear, get, manifest, verify
from negdistill.data.folders import cache_folder, data_folder, locate


def add_data_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add `data get [name] | list | verify [name] | clear`; each sets `func(args) -> exit code`."""
    parser = subparsers.add_parser("data", help="fetch, list, verify or remove the public data sets")
    actions = parser.add_subparsers(dest="action", required=True)
    names = sorted({file.set for file in manifest()})
    for action, func, about in (
        ("get", _get, "fetch one set, or all of them, into the user's cache"),
        ("list", _list, "show every set: is it there, how big, under which licence, from where"),
        ("verify", _verify, "compare the files that are read with the digests of the manifest"),
        ("clear", _clear, "remove what get fetched"),
    ):
        one = actions.add_parser(action, help=about, description=about)
        if action in ("get", "verify"):
            one.add_argument("name", nargs="?", choices=names, help="a set; all of them when left out")
        one.set_defaults(func=func)


def _get(args: argparse.Namespace) -> int:
    cache = cache_folder()
    for file in manifest(args.name):
        say(f"{file.set}: {file.path} from {file.address} (licence: {file.licence})")
    written = get(args.name)
    say(f"{len(written)} files fetched; all are there and as described in {cache}")
    if data_folder() != cache:
        say(f"note: NEGDISTILL_DATA is set, so {data_folder()} is read instead")
    return 0


def _list(args: argparse.Namespace) -> int:
    folder = data_folder()
    say(f"{'set':18} {'there':5} {'MB':>5}  {'licence':21} from")
    for name in dict.fromkeys(file.set for file in manifest()):
        files = manifest(name)
        there = all(locate(folder, file.path) for file in files)
        size = sum(file.bytes for file in files) / 1e6
        origins = ", ".join(dict.fromkeys(f"{file.address} at {file.commit[:12]}" for file in files))
        say(f"{name:18} {'yes' if there else 'no':5} {size:5.1f}  {files[0].licence:21} {origins}")
    say(f"in {folder}")
    return 0


def _verify(args: argparse.Namespace) -> int:
    """Exit code 1 where a file is damaged, or where one of the set that was named is missing."""
    states = verify(args.name)
    for file, state in states:
        say(f"{state:8} {file.set:18} {file.path}")
    bad = {"damaged", "missing"} if args.name else {"damaged"}
    return int(any(state in bad for _, state in states))


def _clear(args: argparse.Namespace) -> int:
    say(f"{len(clear())} files removed from {cache_folder()}")
    return 0
