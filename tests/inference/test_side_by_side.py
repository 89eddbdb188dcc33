"""One question to the student as it is and to fitted rows, from Python and from the command line."""

import re
import subprocess
import sys

import pytest
import tiny

from negdistill.__main__ import main
from negdistill.bookmaking.planning import find_root
from negdistill.data.arithmetic import generate, teach
from negdistill.inference.evaluate import evaluate
from negdistill.inference.ranker_fit import fit_ranker
from negdistill.inference.side_by_side import BASE, SHOWN, fits_in, side_by_side
from negdistill.training.dataset import training_set
from negdistill.training.fit import adapted, fit
from negdistill.training.fits import load_fit
from negdistill.training.settings import settings
from negdistill.training.students import load_student


@pytest.fixture(scope="module")
def student():
    return load_student("embedded")


@pytest.fixture(scope="module")
def folder(student, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fits")
    problems = generate("train", 12, seed=0)
    data = training_set(problems, teach(problems, n=2))
    for name, steps in (("CoT KD", 3), ("CoT KD", 6), ("NAT", 6)):
        fit(name, student, data, settings(max_steps=steps, batch_size=4, progress=False), folder)
    return folder


def test_the_fits_of_a_folder(folder):
    found = fits_in(folder)
    assert list(found) == ["CoT KD", "Negative adapter", "NAT"]
    assert [one.total_steps for one in found.values()] == [3, 3, 6]


def test_answers_are_those_of_evaluate(student, folder):
    problem = generate("test", 1, seed=3)[0]
    found = fits_in(folder)
    said = side_by_side(student, problem.question, found, 12)
    assert list(said) == [BASE, *found]
    assert said[BASE] == evaluate(student, [problem], max_new_tokens=12)["text"][0].strip()
    with adapted(student, found["NAT"]) as trained:
        assert said["NAT"] == evaluate(trained, [problem], max_new_tokens=12)["text"][0].strip()


def test_the_command(folder, capsys):
    line = ["try", "Ada has 7 books. Ben brings 5 more. How many books are there now?"]
    assert main([*line, "--fits", str(folder), "--student", "embedded", "--max-tokens", "8"]) == 0
    said = capsys.readouterr().out
    assert re.findall(r"^--- (.+?)(?:,|$)", said, re.MULTILINE) == [
        "as it is", "CoT KD", "Negative adapter", "NAT"
    ]  # fmt: skip


def test_a_package_that_is_missing_is_named_and_needed_by_its_own_commands_alone(tmp_path):
    """Of the extra `notebooks`, which `ask`, `try` and `vote` do without."""
    code = "import sys; sys.modules |= dict.fromkeys(['nbformat', 'nbclient', 'papermill', 'IPython'])\n"
    code += "from negdistill.__main__ import main; sys.exit(main(sys.argv[1:]))"

    def told(*arguments):
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        return done.stderr

    missing = "error: the package of {} is not installed, which this command needs; python -m pip install"
    assert re.match(missing.format("[a-zA-Z]+"), told("status"))
    assert f"{tmp_path} holds none" in told("try", "How many?", "--fits", str(tmp_path))
    assert "base_url must" in told("ask", "m", "--task", "arithmetic", "--questions", "1", "--base-url", "x")


def test_without_a_folder_those_of_the_book_are_asked(capsys):
    assert main(["try", "How many?", "--student", "embedded"]) == 1  # of which the book has none
    said = capsys.readouterr().err
    assert re.search(r"book.artifacts.embedded holds none; run a chapter first", said)
    assert main(["try", "How many?", "--student", "models/mine/"]) == 1  # a folder, as a shell completes it
    assert re.search(r"book.artifacts.mine holds none", capsys.readouterr().err)
    assert set(fits_in(find_root() / "book" / "artifacts" / "smollm2-135m")) == {*SHOWN}


def test_what_cannot_be_asked(student, folder, tmp_path):
    with pytest.raises(ValueError, match="fits must be a folder with finished fits of 'CoT KD'.*holds none"):
        fits_in(tmp_path)
    with pytest.raises(ValueError, match="question must not be empty"):
        side_by_side(student, " ", fits_in(folder))


def test_another_student_than_that_of_the_fits_is_named(folder, tmp_path, capsys):
    other = tiny.llama()
    for part in other:
        part.save_pretrained(tmp_path)
    assert main(["try", "How many?", "--fits", str(folder), "--student", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert said.out == f"loading {tmp_path}\n" and "belongs to another base" in said.err
    assert (
        f"--student must name what the fits were trained on, for example embedded; got {tmp_path}" in said.err
    )


def test_a_ranker_among_the_fits_is_passed_over(student, tmp_path):
    problems = generate("train", 20, seed=0)
    sides = [training_set(part, teach(part, n=4)) for part in (problems[:10], problems[10:])]
    config = settings(max_steps=2, batch_size=4, progress=False)
    made, ranker = (
        fit("CoT KD", student, sides[0], config, tmp_path),
        fit_ranker(student, *sides, config, tmp_path),
    )
    assert list(fits_in(tmp_path)) == ["CoT KD"] and made.folder.parent == ranker.folder.parent
    with pytest.raises(ValueError, match="ranker-.* holds a ranker and no fit"):
        load_fit(ranker.folder)
