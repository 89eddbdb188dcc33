"""Commands: a teacher asked for the rationales of a task, by `python -m negdistill ask`."""

from __future__ import annotations

import argparse
import sys
import warnings

from negdistill.data.command_line import asked, say


def add_ask_parser(commands: argparse._SubParsersAction) -> None:
    """Add `ask MODEL --task TASK ...`; it sets `func(options) -> exit code`."""
    command = commands.add_parser(
        "ask", help="let a teacher answer the questions of a task; goes on where it stopped"
    )
    command.add_argument("model", help="name of the model at the server, or with --local a folder or hub id")
    command.add_argument("--task", required=True, help="as in the notebooks: gsm8k, math, mine.jsonl, ...")
    command.add_argument("--split", default="train", help="train, valid or test (train)")
    command.add_argument("--questions", type=int, help="how many (all that there are)")
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
    command.set_defaults(func=_ask)


def _ask(options: argparse.Namespace) -> int:
    from negdistill.data.tasks import load_task
    from negdistill.teachers import generate as teachers

    problems = asked(load_task(options.task), options)
    if options.local:
        from negdistill.runs.surroundings import QUIET, environment

        served = ("base_url", "completions", "key_env", "prices", "max_cost")
        if given := [name for name in served if getattr(options, name) not in (None, False)]:
            raise ValueError(f"--local asks no server; leave out --{given[0].replace('_', '-')}")
        say(f"loading {options.model}")  # takes seconds, torch alone does
        with environment(QUIET):  # read when transformers is imported
            import negdistill.inference.sample  # noqa: F401
        teacher = teachers.LocalTeacher(options.model, max_tokens=options.max_tokens, shots=options.shots)
    else:
        teacher = teachers.OpenAITeacher(
            options.model,
            options.base_url,
            options.concurrency,
            max_tokens=options.max_tokens,
            shots=options.shots,
            chat=not options.completions,
            prices=options.prices and tuple(options.prices),
            key_env=options.key_env,
        )
    wanted = (problems, teacher, options.n, options.temperature, options.store)
    more = {"max_cost": options.max_cost, "retry_rejected": options.retry_rejected}
    say(str(teachers.plan(*wanted, **more)))
    if options.dry_run:
        return 0
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        try:
            said = teachers.generate(*wanted, **more)
        finally:
            for one in told:
                print(f"warning: {one.message}", file=sys.stderr)  # noqa: T201
    whole = [one for one in said if not one.error]
    say(f"{len(whole)} rationales of {len(problems)} questions in {options.store}")
    return 0 if len(whole) == len(said) else 1
