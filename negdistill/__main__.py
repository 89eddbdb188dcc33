"""Command line: `python -m negdistill run | status | render | export | data`."""

from __future__ import annotations

import argparse
import sys


def say(line: str) -> None:
    print(line, flush=True)


def run(options: argparse.Namespace) -> None:
    from negdistill import pipeline, planning

    overrides = dict(map(planning.parse_parameter, options.parameter))
    pipeline.run(planning.find_root(), options.profile, options.only, options.force, overrides, say)


def status(options: argparse.Namespace) -> None:
    from negdistill import pipeline, planning

    root = planning.find_root()
    for profile in [options.profile] if options.profile else planning.profiles(root):
        say(profile)
        for name, why, seconds in pipeline.status(root, profile):
            took = "" if seconds is None else f"{seconds:.1f} s"
            say(f"  {name:<24} {took:>10}  {', '.join(why) or 'up to date'}")


def render(options: argparse.Namespace) -> None:
    from negdistill import pages, planning

    pages.render(planning.find_root(), options.profile, say)


def export(options: argparse.Namespace) -> None:
    from negdistill.export import export

    say(f"written: {export(options.fit_folder, options.out, options.student)}")


def parser() -> argparse.ArgumentParser:
    from negdistill.download import add_data_parser

    top = argparse.ArgumentParser(prog="python -m negdistill", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="command")

    command = commands.add_parser("run", help="run the notebooks that are out of date")
    command.add_argument("--profile", default="quick", help="a file of notebooks/profiles (quick)")
    command.add_argument("--only", nargs="+", default=[], metavar="NN", help="these, and what they need")
    command.add_argument("--force", action="store_true", help="also where they are up to date")
    command.add_argument("-p", "--parameter", action="append", default=[], metavar="NAME=VALUE")
    command.set_defaults(func=run)

    command = commands.add_parser("status", help="what is up to date, and why not")
    command.add_argument("--profile", help="one profile instead of all")
    command.set_defaults(func=status)

    command = commands.add_parser("render", help="render the pages, strictly")
    command.add_argument(
        "--profile", default="book", help="whose executed notebooks (book: the committed ones)"
    )
    command.set_defaults(func=render)

    command = commands.add_parser(
        "export", help="a plain LoRA row for other libraries: adapter, merged, card"
    )
    command.add_argument("fit_folder", metavar="FIT_FOLDER", help="where a row was fitted")
    command.add_argument("out", metavar="OUT", help="a new folder")
    command.add_argument(
        "--student", default="embedded", metavar="NAME", help="what it was fitted on (embedded)"
    )
    command.set_defaults(func=export)

    add_data_parser(commands)
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run a command. 0: well; 1: an error, said in words on stderr; 2: arguments that make no sense."""
    options = parser().parse_args(arguments)
    try:
        return options.func(options) or 0
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
