"""Command line: `python -m negdistill run | status | render | ask | vote | export | ...`, all in --help."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from negdistill.data.command_line import asked, say


def run(options: argparse.Namespace) -> None:
    from negdistill.bookmaking import pipeline, planning
    from negdistill.runs.surroundings import environment

    overrides = dict(map(planning.parse_parameter, options.parameter))
    if options.dry_run:
        jobs = planning.plan(planning.find_root(), options.profile, options.only, overrides)
        selected = planning.select([job.name for job in jobs], options.only)
        at_once = pipeline.kernels_at_once(options.profile, options.jobs)
        say(f"profile {options.profile}: what would be done; nothing is run")
        with environment(pipeline.surroundings(options.profile, at_once)):
            from negdistill.bookmaking import estimate

            for line in estimate.dry_run([job for job in jobs if job.name in selected]):
                say(line)
        return
    terminal = sys.stderr if sys.stderr.isatty() else None
    chosen = (options.profile, options.only, options.force, overrides)
    pipeline.run(planning.find_root(), *chosen, say, options.jobs, terminal)


def add_run_parser(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("run", help="run the notebooks that are out of date")
    command.add_argument("--profile", default="quick", help="a file of notebooks/profiles (quick)")
    command.add_argument("--only", nargs="+", default=[], metavar="NN", help="these, and what they need")
    command.add_argument("--force", action="store_true", help="also where they are up to date")
    command.add_argument("--dry-run", action="store_true", help="say what would be done and what it costs")
    add_run_options(command)
    command.set_defaults(func=run)

    command = commands.add_parser(
        "reproduce", help="make some answers of chapters again, apart, and compare them with those kept"
    )
    command.add_argument("--profile", default="book", help="whose answers (book: the committed ones)")
    command.add_argument("--only", nargs="+", required=True, metavar="NN", help="these chapters")
    add_run_options(command)
    command.set_defaults(func=reproduce)


def add_run_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        *("-p", "--parameter"), action="append", default=[], metavar="NAME=VALUE",
        help="a parameter of the notebooks: a literal of Python or JSON, else a text",
    )  # fmt: skip
    command.add_argument("--jobs", type=int, metavar="N", help="notebooks at once (cores; on a GPU 1)")


def status(options: argparse.Namespace) -> None:
    from negdistill.bookmaking import pipeline, planning, reproduction

    root = planning.find_root()
    for profile in [options.profile] if options.profile else planning.profiles(root):
        say(profile)
        again = reproduction.holding(root, profile)
        for name, why, seconds in pipeline.status(root, profile):
            took = "" if seconds is None else f"{seconds:.1f} s"
            state = "; ".join(filter(None, [", ".join(why) or "up to date", again.get(name)]))
            say(f"  {name:<24} {took:>10}  {state}")


def reproduce(options: argparse.Namespace) -> None:
    from negdistill.bookmaking import planning, reproduction

    overrides = dict(map(planning.parse_parameter, options.parameter))
    terminal = sys.stderr if sys.stderr.isatty() else None
    chosen = (planning.find_root(), options.profile, options.only, overrides)
    for record in reproduction.reproduce(*chosen, say, options.jobs, terminal):
        say(f"{record['chapter']}: made again, {reproduction.in_words(record)}")
    say(f"written: book/{reproduction.RECORDS}")


def render(options: argparse.Namespace) -> None:
    from negdistill.bookmaking import epub, pages, pdf, planning

    make = epub.epub if options.epub else pdf.pdf if options.pdf else pages.render
    make(planning.find_root(), options.profile, say)


def refresh(options: argparse.Namespace) -> None:
    from negdistill.bookmaking import evidence, pages, planning

    root = planning.find_root()
    say("judging the claims and drawing what shows them")  # takes seconds
    for path in (pages.refresh_costs(root), *evidence.refresh(root)):
        say(f"written: {path.relative_to(root)}")


def vote(options: argparse.Namespace) -> None:
    say("loading")  # of torch, which takes seconds
    from negdistill.data import tasks
    from negdistill.inference.ranker_fit import load_ranker
    from negdistill.inference.vote import COLUMNS, vote_all
    from negdistill.runs.files import atomic_path
    from negdistill.training import fits, students

    _check_out(Path(options.out), COLUMNS)
    task = tasks.load_task(options.task)
    problems = asked(task, options)
    student, fit = students.load_student(options.student), fits.load_fit(options.fit_folder)
    sampling = {"n": options.n, "temperature": options.temperature, "seed": options.seed}
    sampling |= {"max_new_tokens": options.max_tokens, "out_dir": options.samples, **task.grading}
    sampling |= dict(zip(("right", "wrong"), map(fits.load_fit, options.ratio), strict=False))
    found = vote_all(student, fit, load_ranker(options.ranker_folder), problems, **sampling)
    with atomic_path(options.out) as path:
        found.to_csv(path, index=False)
    for rule, part in found.groupby("rule", sort=False):
        say(f"{rule:16} {part['correct'].sum()} of {len(part)} right")
    say(f"written: {options.out}")


def _check_out(out: Path, columns: Sequence[str]) -> None:
    """ValueError unless a table may be written there: before anything is drawn, and over no other file."""
    import pandas as pd

    if out.is_dir():
        raise ValueError(f"OUT must be a file to write; {out} is a folder; name a file in it")
    if above := next((one for one in out.parents if one.exists() and not one.is_dir()), None):
        raise ValueError(f"OUT must lie in a folder; {above} is a file; got {out}")
    if out.is_file() and out.stat().st_size:
        try:
            there = list(pd.read_csv(out, nrows=0))
        except (ValueError, OSError, EOFError):
            there = []
        if there != list(columns):
            raise ValueError(f"OUT must be a new file, or a table of votes; {out} is another file")


def add_vote_parser(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("vote", help="draw answers to each question and hold every vote over them")
    command.add_argument("fit_folder", metavar="FIT_FOLDER", help="where a method was fitted")
    command.add_argument("ranker_folder", metavar="RANKER_FOLDER", help="where a ranker was fitted")
    command.add_argument("out", metavar="OUT", help="a file: problem_id, rule, answer, correct")
    command.add_argument("--student", default="embedded", help="what both were fitted on (embedded)")
    command.add_argument("--task", default="arithmetic", help="as in the notebooks (arithmetic)")
    command.add_argument("--split", default="test", help="train, valid or test (test)")
    command.add_argument("--questions", type=int, help="how many (all that there are)")
    command.add_argument("--seed", type=int, default=0, help="of questions and samples (0)")
    command.add_argument("-n", type=int, default=16, help="answers to each question (16)")
    command.add_argument("--temperature", type=float, default=1.0, help="(1.0)")
    command.add_argument("--max-tokens", type=int, default=256, help="longest answer (256)")
    command.add_argument("--samples", default="samples", help="folder that keeps what is drawn (samples)")
    both = {"nargs": 2, "default": (), "metavar": ("COT_KD", "NEGATIVE")}
    command.add_argument("--ratio", **both, help="folders of two fits; their likelihood ratio votes, too")
    command.set_defaults(func=vote)


def export(options: argparse.Namespace) -> None:
    say(f"exporting {options.fit_folder}")
    from negdistill.training.export import export

    say(f"written: {export(options.fit_folder, options.out, options.student)}")


def add_export_parser(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "export", help="write a plain LoRA row for other libraries: adapter, merged model, card"
    )
    command.add_argument("fit_folder", metavar="FIT_FOLDER", help="where a row was fitted")
    command.add_argument("out", metavar="OUT", help="a new folder")
    command.add_argument("--student", default="embedded", metavar="NAME", help="fitted on what (embedded)")
    command.set_defaults(func=export)


def try_(options: argparse.Namespace) -> None:
    from negdistill.runs.surroundings import QUIET, environment

    say(f"loading {options.student}")  # takes seconds, torch alone does
    with environment(QUIET):  # read when transformers is imported
        from negdistill.inference.side_by_side import fits_in, side_by_side
        from negdistill.method.low_precision import fast_dtype
        from negdistill.method.nat_files import OtherBase
        from negdistill.training.students import load_student

    name = Path(options.student).name  # of a student in a file or folder, with a slash behind it or not
    if options.fits is None:
        from negdistill.bookmaking.planning import find_root

        options.fits = find_root() / "book" / "artifacts" / name
    found = fits_in(options.fits)
    dtype = None if options.student == "embedded" else fast_dtype()
    student = load_student(options.student, dtype=dtype)
    try:
        said = side_by_side(student, options.question, found, options.max_tokens)
    except OtherBase as error:
        raise ValueError(
            f"{error}; --student must name what the fits were trained on, for example embedded; "
            f"got {options.student}"
        ) from error
    for name, text in said.items():
        steps = f", {found[name].total_steps} steps, seed {found[name].seed}" if name in found else ""
        say(f"--- {name}{steps}\n{text}\n")


def add_try_parser(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "try", help="put one question to a student as it is, and with what was fitted"
    )
    command.add_argument("question", help="in words")
    command.add_argument("--fits", metavar="FOLDER", help="where methods were fitted (those of the book)")
    command.add_argument(
        "--student", default="smollm2-135m", metavar="NAME", help="what they were fitted on (%(default)s)"
    )
    command.add_argument("--max-tokens", type=int, default=256, help="longest answer (256)")
    command.set_defaults(func=try_)


def parser() -> argparse.ArgumentParser:
    from negdistill.data.commands import add_data_parser
    from negdistill.teachers.commands import add_ask_parser
    from negdistill.training.student_files import add_student_parser

    about = "Run the book, ask a teacher, take a student away. Each command has its own --help."
    more = "What to watch while a command runs: book/signals.md. Where it stops: book/troubleshooting.md."
    top = argparse.ArgumentParser(prog="python -m negdistill", description=about, epilog=more)
    commands = top.add_subparsers(required=True, metavar="command")

    add_run_parser(commands)
    command = commands.add_parser("status", help="say what is up to date, and why something is not")
    command.add_argument("--profile", help="one profile instead of all")
    command.set_defaults(func=status)

    command = commands.add_parser("render", help="render the pages, strictly")
    command.add_argument(
        "--profile", default="book", help="whose executed notebooks (book: the committed ones)"
    )
    instead = command.add_mutually_exclusive_group()
    instead.add_argument("--epub", action="store_true", help="one file for a reading device, not the site")
    instead.add_argument("--pdf", action="store_true", help="one file to print, not the site")
    command.set_defaults(func=render)

    command = commands.add_parser(
        "refresh", help="write the tables and figures that follow from what was executed"
    )
    command.set_defaults(func=refresh)

    add_ask_parser(commands)
    add_vote_parser(commands)
    add_export_parser(commands)
    add_try_parser(commands)
    add_data_parser(commands)
    add_student_parser(commands)
    for listed in commands._choices_actions:  # what the list says of a command, its own help says too
        commands.choices[listed.dest].description = listed.help
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run a command. 0: well; 1: an error, said in words on stderr; 2: arguments that make no sense.

    130: interrupted at the keyboard.
    """
    try:
        options = parser().parse_args(arguments)
        return options.func(options) or 0
    except BrokenPipeError:  # whoever read has read enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "negdistill":
            raise
        missing = f"error: the package of {error.name} is not installed, which this command needs"
        print(f"{missing}; python -m pip install 'negdistill[all]' has it", file=sys.stderr)
        return 1
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: what was finished is kept; type the same command again to go on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
