"""Exercises of the chapters and their solutions: cells that only a reader runs, and answers that pass."""

import ast
from pathlib import Path

import nbformat
import pytest

from negdistill.bookmaking.damage import is_run
from negdistill.bookmaking.exercises import OPEN, RIGHT
from negdistill.bookmaking.planning import notebooks

ROOT = Path(__file__).parents[1]
CHAPTERS = notebooks(ROOT / "notebooks")
SOLUTIONS = sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))
TAGS = ["exercise", "nbval-skip"]

each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
each_solution = pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def exercises(path):
    return [cell for cell in read(path).cells if "exercise" in cell.metadata.get("tags", [])]


def solution_of(path):
    return path.parent / "solutions" / f"{path.stem[:2]}_solutions.ipynb"


def statements(source):
    """Without imports and without what is assigned to `answer`."""
    kept = [node for node in ast.parse(source).body if not isinstance(node, ast.Import | ast.ImportFrom)]
    return [text for node in kept if not (text := ast.unparse(node)).startswith("answer = ")]


def shown(source, space, capsys):
    exec(source, space)
    return capsys.readouterr().out


def test_every_chapter_has_its_solutions():
    assert [solution_of(path) for path in CHAPTERS] == SOLUTIONS


@each_chapter
def test_a_chapter_asks_for_answers_and_leads_to_its_solutions(path):
    cells, asked = read(path).cells, exercises(path)
    assert 2 <= len(asked) <= 3 and not any(map(is_run, asked))
    for cell in asked:
        assert cell.metadata.tags == TAGS and cell.outputs == [] and cell.execution_count is None
        before, after = (cells[cells.index(cell) + step].source for step in (-1, 1))
        assert "\n**" in before and after.startswith("```{dropdown} Solution")
        assert cell.id == f"exercise-{before.rpartition(chr(10) + '**')[2][0]}", "the number of its question"
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    link = f"{{source}}`{solution_of(path).relative_to(ROOT).as_posix()}`"
    assert text.partition("## Exercises")[2].count(link) == text.count(link) == 1


@each_chapter
def test_an_exercise_that_is_run_as_it_stands_says_that_nothing_was_entered(path, capsys):
    for cell in exercises(path):
        assert cell.source.count("answer = ...  # ") == 1
        assert shown(cell.source, {}, capsys) == f"{OPEN}\n"


@each_chapter
def test_the_solutions_answer_what_the_chapter_asks(path):
    solved = {cell.id: cell.source for cell in read(solution_of(path)).cells if cell.cell_type == "code"}
    asked = {cell.id.replace("exercise", "answer"): cell.source for cell in exercises(path)}
    assert list(solved) == list(asked)
    for name, source in asked.items():
        found = statements(solved[name])
        assert set(statements(source)) <= set(found) and found[-1] == statements(source)[-1], name


@each_solution
def test_solutions_pass_their_checks_and_show_what_is_committed(path, capsys):
    space, count = {}, 0
    for cell in read(path).cells:
        if cell.cell_type == "code":
            count += 1
            found = shown(cell.source, space, capsys)
            assert found.splitlines()[-1] == RIGHT
            assert "".join(output.text for output in cell.outputs) == found
            assert cell.execution_count == count
    assert count >= 2


@each_solution
def test_solutions_are_notebooks_of_the_form_of_chapters(path):
    book = read(path)
    nbformat.validate(book)
    assert book.metadata.kernelspec.name == "python3" and set(book.metadata) <= {
        "kernelspec",
        "language_info",
    }
    assert book.cells[0].source.startswith("# Solutions: ")
    kinds = "".join(cell.cell_type[0] for cell in book.cells)
    assert "cc" not in kinds, "the reasoning stands before the answer"
    for cell in book.cells:
        assert cell.cell_type == "markdown" or len(cell.source.splitlines()) <= 25
