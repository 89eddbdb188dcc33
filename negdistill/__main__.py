"""Command line: `python -m negdistill run | status | render | ask | vote | export | ...`, all in --help."""

from __future__ import annotations

import argparse
import os
import sys


def say(line: str) -> None:
    print(line, flush=True)


def run(options: argparse.Namespace) -> None:
    from negdistill.bookmaking import pipeline, planning

    overrides = dict(map(planning.parse_parameter, options.parameter))
    if options.dry_run:
        jobs = planning.plan(planning.find_root(), options.profile, options.only, overrides)
        selected = planning.select([job.name for job in jobs], options.only)
        at_once = pipeline.kernels_at_once(options.profile, options.jobs)
        say(f"profile {options.profile}: what would be done; nothing is run")
        with pipeline.environment(pipeline.surroundings(options.profile, at_once)):
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
    command.add_argument(
        *("-p", "--parameter"), action="append", default=[], metavar="NAME=VALUE",
        help="a parameter of the notebooks: a literal of Python or JSON, else a text",
    )  # fmt: skip
    command.add_argument("--jobs", type=int, metavar="N", help="notebooks at once (cores; on a GPU 1)")
    command.add_argument("--dry-run", action="store_true", help="say what would be done and what it costs")
    command.set_defaults(func=run)


def status(options: argparse.Namespace) -> None:
    from negdistill.bookmaking import pipeline, planning

    root = planning.find_root()
    for profile in [options.profile] if options.profile else planning.profiles(root):
        say(profile)
        for name, why, seconds in pipeline.status(root, profile):
            took = "" if seconds is None else f"{seconds:.1f} s"
            say(f"  {name:<24} {took:>10}  {', '.join(why) or 'up to date'}")


def render(options: argparse.Namespace) -> None:
    from negdistill.bookmaking import epub, pages, pdf, planning

    make = epub.epub if options.epub else pdf.pdf if options.pdf else pages.render
    make(planning.find_root(), options.profile, say)


def refresh(options: argparse.Namespace) -> None:
    from negdistill.bookmaking import evidence, pages, planning

    root = planning.find_root()
    for path in (pages.refresh_costs(root), *evidence.refresh(root)):
        say(f"written: {path.relative_to(root)}")


def ask(options: argparse.Namespace) -> int:
    import warnings

    from negdistill.data import tasks
    from negdistill.teachers import generate as teachers

    problems = tasks.load_task(options.task).questions(options.split, options.questions, options.seed)
    if options.local:
        from negdistill.bookmaking import pipeline

        with pipeline.environment(pipeline.QUIET):  # read when transformers is imported
            import negdistill.inference.sample  # noqa: F401
        teacher = teachers.LocalTeacher(options.model, max_tokens=options.max_tokens, shots=options.shots)
    else:
        teacher = teachers.OpenAITeacher(
            *(options.model, options.base_url, options.concurrency),
            max_tokens=options.max_tokens,
            shots=options.shots,
            chat=not options.completions,
            prices=options.prices and tuple(options.prices),
            key_env=options.key_env,
        )
    wanted = (problems, teacher, options.n, options.temperature, options.store)
    say(str(teachers.plan(*wanted)))
    if options.dry_run:
        return 0
    more = {"max_cost": options.max_cost, "retry_rejected": options.retry_rejected}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        try:
            said = teachers.generate(*wanted, **more)
        finally:
            for one in told:
                print(f"warning: {one.message}", file=sys.stderr)
    whole = [one for one in said if not one.error]
    say(f"{len(whole)} rationales of {len(problems)} questions in {options.store}")
    return 0 if len(whole) == len(said) else 1


def vote(options: argparse.Namespace) -> None:
    if os.path.isdir(options.out):
        raise ValueError(f"OUT must be a file to write; {options.out} is a folder; name a file in it")
    say("loading")  # of torch, which takes seconds
    from negdistill.data import tasks
    from negdistill.inference.ranker_fit import load_ranker
    from negdistill.inference.vote import vote_all
    from negdistill.runs.files import atomic_path
    from negdistill.training import fits, students

    task = tasks.load_task(options.task)
    problems = task.questions(options.split, options.questions, options.seed)
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


def add_vote_parser(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("vote", help="draw answers to each question and hold every vote over them")
    command.add_argument("fit_folder", metavar="FIT_FOLDER", help="where a method was fitted")
    command.add_argument("ranker_folder", metavar="RANKER_FOLDER", help="where a ranker was fitted")
    command.add_argument("out", metavar="OUT", help="a file: problem_id, rule, answer, correct")
    command.add_argument("--student", default="embedded", help="what both were fitted on (embedded)")
    command.add_argument("--task", default="arithmetic", help="as in the notebooks (arithmetic)")
    command.add_argument("--split", default="test", help="train, valid or test (test)")
    command.add_argument("--questions", type=int, help="how many (all)")
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
    from negdistill.bookmaking import pipeline, planning

    with pipeline.environment(pipeline.QUIET):  # read when transformers is imported
        from negdistill.inference.side_by_side import fits_in, side_by_side
        from negdistill.method.low_precision import fast_dtype
        from negdistill.method.nat_files import OtherBase
        from negdistill.training.students import load_student

    name = os.path.basename(options.student)  # of a student in a file or folder
    found = fits_in(options.fits or planning.find_root() / "book" / "artifacts" / name)
    say(f"loading {options.student}")  # takes seconds
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


def add_ask_parser(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "ask", help="let a teacher answer the questions of a task; goes on where it stopped"
    )
    command.add_argument("model", help="name of the model at the server, or with --local a folder or hub id")
    command.add_argument("--task", required=True, help="as in the notebooks: gsm8k, math, mine.jsonl, ...")
    command.add_argument("--split", default="train", help="train, valid or test (train)")
    command.add_argument("--questions", type=int, help="how many (all)")
    command.add_argument("--seed", type=int, default=0, help="of the questions (0)")
    command.add_argument("-n", type=int, default=8, help="answers to each (8)")
    command.add_argument("--temperature", type=float, default=0.5, help="(0.5)")
    command.add_argument("--store", default="rationales.jsonl", help="file of all answers (rationales.jsonl)")
    command.add_argument("--max-tokens", type=int, default=1024, help="longest answer (1024)")
    command.add_argument("--shots", type=int, default=0, help="worked examples before the question (0)")
    command.add_argument("--local", action="store_true", help="run the model here, with transformers")
    command.add_argument("--base-url", help="of an OpenAI-compatible server, http://127.0.0.1:8000/v1")
    command.add_argument("--completions", action="store_true", help="completions in place of chat")
    command.add_argument("--concurrency", type=int, default=8, help="requests at once (8)")
    command.add_argument("--key-env", metavar="NAME", help="environment variable that holds the key")
    money = {"type": float, "nargs": 2, "metavar": ("PROMPT", "COMPLETION")}
    command.add_argument("--prices", **money, help="of a million tokens each, in any currency")
    command.add_argument("--max-cost", type=float, help="the most that all answers in the store may cost")
    again = "ask again what the server turned away in an earlier run"
    command.add_argument("--retry-rejected", action="store_true", help=again)
    command.add_argument("--dry-run", action="store_true", help="requests, tokens and cost; nothing is sent")
    command.set_defaults(func=ask)


def parser() -> argparse.ArgumentParser:
    from negdistill.data.commands import add_data_parser
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
    options = parser().parse_args(arguments)
    try:
        return options.func(options) or 0
    except BrokenPipeError:  # whoever read has read enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: what was finished is kept; type the same command again to go on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
