"""Mutation: faults put into a copy of the package one at a time, each of which must fail a test.

    python tests/mutation.py            # all, minutes
    python tests/mutation.py mask tie   # those whose names hold a word

Not a part of the test suite: it is the suite that is tested here.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Mutation(NamedTuple):
    """A fault: what is replaced in which file, and the tests that have to notice."""

    name: str
    file: str
    old: str
    new: str
    tests: str


MUTATIONS = (
    Mutation(
        "a module is dropped from a digest",
        "runs/digests.py",
        "            todo += more\n",
        "            todo += [one for one in more if not one.endswith('losses')]\n",
        "tests/runs/test_digests.py",
    ),
    Mutation(
        "a digest reads a few values of a weight",
        "runs/digests.py",
        "memoryview(_bytes(tensor))",
        "memoryview(_bytes(tensor)[::64].copy())",
        "tests/runs/test_digests.py",
    ),
    Mutation(
        "the KL's sides are exchanged",
        "method/nce.py",
        "neg_log_probs.exp() * (neg_log_probs - nat_log_probs)",
        "nat_log_probs.exp() * (nat_log_probs - neg_log_probs)",
        "tests/method/test_losses.py",
    ),
    Mutation(
        "the mask of beta is dropped",
        "method/nce.py",
        "torch.where(mask, divergence, torch.zeros_like(divergence))",
        "divergence",
        "tests/method/test_losses.py",
    ),
    Mutation(
        "the loss counts the prompt",
        "training/batching.py",
        "(1 if rules.prompt_loss else max(len(prompt), 1))",
        "1",
        "tests/training/test_batching.py",
    ),
    Mutation(
        "the branches are swapped",
        "method/nat_unit.py",
        '(("pos", -1), ("neg", 1))',
        '(("pos", 1), ("neg", -1))',
        "tests/method/test_nat.py::test_forward_is_the_published_formula",
    ),
    Mutation(
        "the base is not frozen",
        "method/nat.py",
        "    model.requires_grad_(False)\n    for name, base_layer",
        "    for name, base_layer",
        "tests/method/test_nat.py",
    ),
    Mutation(
        "a tie goes to the group seen last",
        "method/asc.py",
        "winner = max((group for group in members if totals[group] >= enough)",
        "winner = max((group for group in reversed(members) if totals[group] >= enough)",
        "tests/method/test_asc.py",
    ),
    Mutation(
        "a missing answer may win",
        "method/asc.py",
        "        if group >= 0:\n",
        "        if True:\n",
        "tests/method/test_asc.py",
    ),
    Mutation(
        "a checkpoint is not verified",
        "training/checkpoint.py",
        'if metadata.get("digest") != _digest(metadata, tensors):',
        "if False:",
        "tests/training/test_loop.py",
    ),
    Mutation(
        "the last stage does not get the rest of the budget",
        "training/budget.py",
        "        if last:\n",
        "        if False:\n",
        "tests/training/test_fit.py",
    ),
    Mutation(
        "a verdict ignores the side that is claimed",
        "stats.py",
        "sorted((sign * difference.low, sign * difference.high))",
        "sorted((difference.low, difference.high))",
        "tests/test_stats.py",
    ),
)


def survives(mutation: Mutation) -> bool:
    """Whether the tests pass although the fault is there."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "clone"
        skipped = shutil.ignore_patterns(".git", ".venv", "_build", "_runs", "__pycache__", ".*cache")
        shutil.copytree(ROOT, copy, ignore=skipped)
        path = copy / "negdistill" / mutation.file
        text = path.read_text("utf-8")
        if text.count(mutation.old) != 1:
            raise SystemExit(f"{mutation.name}: {mutation.file} must hold this once: {mutation.old!r}")
        path.write_text(text.replace(mutation.old, mutation.new), "utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-x", *mutation.tests.split()]
        environment = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, check=False)
        if done.returncode not in (0, 1):  # tests that did not run have caught nothing
            raise SystemExit(f"{mutation.name}: code {done.returncode} of {' '.join(command)}")
        return done.returncode == 0


def main(words: list[str]) -> int:
    chosen = [one for one in MUTATIONS if not words or any(word in one.name for word in words)]
    alive = 0
    for mutation in chosen:
        lives = survives(mutation)
        alive += lives
        print(f"{'SURVIVES' if lives else 'caught':9} {mutation.name:55} {mutation.tests}", flush=True)
    print(f"{len(chosen) - alive} of {len(chosen)} faults caught")
    return int(alive > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
