import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from negdistill.data import math_verify_pool as worker
from negdistill.data.answers import Grade, equivalent, final_answer, grade, normalize, split
from negdistill.data.records import Problem, Rationale
from negdistill.data.sources import load_problems, load_rationales

TOWER = "9^{9^{9^9}}"


@pytest.fixture
def cold(tmp_path, monkeypatch):
    """An empty cache, on disk and in memory."""
    monkeypatch.setenv("NEGDISTILL_CACHE", str(tmp_path))
    monkeypatch.setattr(worker, "_memory", {})
    return tmp_path


def test_unknown_rules_are_refused():
    with pytest.raises(
        ValueError, match="rule must be one of 'boxed', 'lenient', 'choice', 'text'; got 'last'"
    ):
        final_answer("5", "last")
    with pytest.raises(
        ValueError, match="rule must be one of 'exact', 'math', 'number', 'choice', 'string'; got 'sympy'"
    ):
        equivalent("5", "5", "sympy")
    with pytest.raises(
        ValueError, match="extract must be one of 'boxed', 'lenient', 'choice', 'text'; got 'box'"
    ):
        grade([], [], extract="box")
    with pytest.raises(
        ValueError, match="rule must be one of 'exact', 'math', 'number', 'choice', 'string'; got 'box'"
    ):
        grade([], [], rule="box")


# --- compare ------------------------------------------------------------------------------------------

SAME_FORM = [
    ("1 2", "12"),
    ("1\n2", "12"),
    (r"10,\!000", "10,000"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1\2\end{pmatrix}"),
    (r"\dfrac{1}{2}", r"\tfrac{1}{2}"),
    (r"\left(1,2\right]", "(1,2]"),
    (r"90^\circ", "90"),
    (r"90^{\circ}", "90"),
    (r"\$5", "5"),
    (r"50\%", "50"),
    (r"5\text{ cm}", "5"),
    (r"5\text{ cm} long", "5"),
    (".5x", "0.5x"),
    ("-1, .5", "-1,0.5"),
    ("x^{.5}", "x^{0.5}"),
    ("x=5", "5"),
    ("k = 5", "x=5"),
    (r"\sqrt2", r"\sqrt{2}"),
    (r"3\sqrt2+\sqrt3", r"3\sqrt{2}+\sqrt{3}"),
    (r"\frac12", r"\frac{1}{2}"),
    (r"\frac1{2}", r"\frac{1}{2}"),
    (r"\frac 1 2", r"\frac12"),
    (r"\frac1\frac23", r"\frac 1\frac 23"),
    (r"\frac12x", r"\frac{1}{2}x"),
    ("0.5", r"\frac{1}{2}"),
    (".5", "1/2"),
    ("3/4", r"\frac{3}{4}"),
    ("-3/4", r"\frac{-3}{4}"),
]
OTHER_FORM = [
    ("5", "6"),
    ("1,000", "1000"),
    (r"\frac{2}{4}", r"\frac{1}{2}"),
    ("0.25", r"\frac{1}{4}"),
    ("(1,2)", "[1,2]"),
    (r"\text{even}", "even"),
    ("50%", "50"),
    ("$5$", "5"),
    ("xyz=5", "5"),
    ("a=b=5", "5"),
    ("03/4", r"\frac{03}{4}"),
    ("a/b", r"\frac{a}{b}"),
    (r"5\text{ m} 3\text{ cm}", "5"),
    (r"\frac", r"\frac "),
    (r"1+\sqrt", r"1 + \sqrt"),
    (r"\frac1", r"\frac{1}"),
]


@pytest.mark.parametrize("one, other", SAME_FORM)
def test_exact_holds_equal(one, other):
    assert equivalent(one, other) and equivalent(other, one)


@pytest.mark.parametrize("one, other", OTHER_FORM)
def test_exact_holds_different(one, other):
    assert not equivalent(one, other) and not equivalent(other, one)


def test_normal_form_is_written_out():
    assert normalize(r"x = \dfrac12\text{ cm}") == r"\frac{1}{2}"
    assert normalize(r"\left( .5, \sqrt3 \right)") == r"(0.5,\sqrt{3})"
    assert normalize(r"1\text{ m} 2\text{ cm}") == r"1\text{ m} 2\text{ cm}"


SAME_MEANING = [
    ("1,000", "1000"),
    (r"10{,}000", r"10,\!000"),
    (r"\frac{2}{4}", "0.5"),
    (r"\frac{-1}{7}", r"-\frac17"),
    (r"2\frac12", "2.5"),
    (r"\frac{1}{\sqrt2}", r"\frac{\sqrt2}{2}"),
    ("(x-1)(x+1)", "x^2-1"),
    ("1, 2", "2, 1"),
    (r"\text{even}", "even"),
    (r"\text{(B)}", "B"),
    (r"\theta = 5", "5"),
    (r"50\%", "50%"),
    ("12 miles", "12"),
    ("$5$", "5"),
    (r"$\boxed{5}$", "5.0"),
    (r"\[ \frac{1}{2} \]", r"\(0.5\)"),
    ("$$5$$", "$5.0$."),
]
OTHER_MEANING = [
    ("5", "6"),
    ("(1,2)", "(2,1)"),
    ("(1,2)", "[1,2]"),
    ("x=5", "x=6"),
    (r"\frac{1}{3}", "0.333"),
    (r"\text{even}", r"\text{odd}"),
    ("10,000", "10.000"),
    ("", "0"),
    (".", "$$"),
]


@pytest.mark.parametrize("one, other", SAME_MEANING)
def test_math_holds_equal(one, other, cold):
    assert equivalent(one, other, "math") and equivalent(other, one, "math")
    assert not equivalent(one, other, "exact")


@pytest.mark.parametrize("one, other", OTHER_MEANING)
def test_math_holds_different(one, other, cold):
    assert not equivalent(one, other, "math") and not equivalent(other, one, "math")


def test_an_interval_may_be_typed_as_inequalities(cold):
    """math-verify accepts it one way round only; here the order of two answers does not matter."""
    assert equivalent("(1,2)", "1<x<2", "math") and equivalent("1<x<2", "(1,2)", "math")


@pytest.mark.parametrize("rule", ["exact", "math"])
def test_none_equals_nothing(rule):
    assert not equivalent(None, None, rule)
    assert not equivalent(None, "5", rule) and not equivalent("5", None, rule)


# --- never raises, always answers ---------------------------------------------------------------------

HOSTILE = {
    "tower": TOWER,
    "open braces": "{" * 10_000,
    "closed braces": "}" * 10_000,
    "braces": "{" * 5_000 + "}" * 5_000,
    "letters": "a" * 16_000,
    "digits": "9" * 16_000,
    "fractions": r"\frac" * 3_000,
    "boxes": r"\boxed{" * 3_000,
    "blanks": "the answer is" + " " * 16_000 + "x",
    "half a character": "\ud800",
    "null": "\0",
}


def processor_seconds():
    """Of this process and the workers it has ended; the clock on the wall would measure the other users."""
    return sum(os.times()[:4])  # user and system, then those of the children, which are 0 on Windows


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_strings_answer_in_time(text, cold):
    for call in (
        lambda: final_answer(text),
        lambda: final_answer(text, "lenient"),
        lambda: final_answer(rf"\boxed{{{text}}}", "lenient"),
        lambda: equivalent(text, "5"),
        lambda: equivalent(text, "5", "math"),
    ):
        start = processor_seconds()
        assert call() is not True
        worker._stop()
        assert processor_seconds() - start < 5


PIECES = (
    r"\boxed \fbox { } \frac \dfrac \sqrt \text{ \% \$ $ \( \) \[ \] \! ^\circ \left = / . , - 0 1 x".split()
)
TEXT = st.text() | st.lists(st.sampled_from([*PIECES, " ", "\n", "#### ", "the answer is "])).map("".join)


@settings(deadline=None)
@given(TEXT)
def test_every_text_is_read(text):
    for rule in ("boxed", "lenient"):
        answer = final_answer(text, rule)
        assert answer is None or (answer == answer.strip() != "" and answer in text)


@settings(deadline=None)
@given(TEXT, TEXT)
def test_exact_is_an_equivalence(one, other):
    assert equivalent(one, one)
    assert equivalent(one, one, "math")
    assert equivalent(one, other) == equivalent(other, one) == (normalize(one) == normalize(other))


@settings(deadline=None)
@given(
    st.text(st.characters(exclude_characters="\\{}")),
    st.text(),
    st.text(st.characters(exclude_characters="\\")),
)
def test_a_box_holds_its_content(answer, before, after):
    assert final_answer(f"{before}\\boxed{{{answer}}}{after}") == (answer.strip() or None)


# --- time limit, workers, cache -----------------------------------------------------------------------

posix = pytest.mark.skipif(os.name != "posix", reason="needs signals, forks and scripts of a shell")


def test_time_limit_outside_the_main_thread(cold):
    results = []
    thread = threading.Thread(target=lambda: results.append(equivalent(TOWER, "5", "math")))
    thread.start()
    thread.join(60)
    assert results == [False]


def test_time_limit_in_an_unguarded_script(cold):
    script = cold / "script.py"
    script.write_text(
        "from negdistill.data.answers import equivalent\n"
        f"print(equivalent({TOWER!r}, '5', 'math'))\n"
        "print(equivalent('2', r'\\sqrt{4}', 'math'))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["False", "True"]
    assert done.stderr == ""


def test_without_a_timer_of_the_system_the_clock_on_the_wall_ends_a_worker(cold, monkeypatch):
    worker._stop()
    monkeypatch.setattr(worker, "TIMER", False)
    assert equivalent(r"\sqrt{4}", "2", "math")
    with monkeypatch.context() as patch:
        patch.setattr(worker, "WALL", 0.5)
        assert not equivalent(TOWER, "5", "math")
    assert equivalent(r"\sqrt{9}", "3", "math")
    worker._stop()  # those that come after have their timer


def test_verdicts_come_from_the_cache_without_a_worker(cold, monkeypatch):
    pairs = {("2", r"\sqrt{4}"): True, ("2", r"\sqrt{5}"): False, (TOWER, "5"): False}
    assert worker.verdicts(pairs) == pairs
    worker._stop()
    monkeypatch.setattr(sys, "executable", str(cold / "no-python"))
    monkeypatch.setattr(worker, "_memory", {})
    assert worker.verdicts(pairs) == pairs
    with pytest.raises(FileNotFoundError, match="no-python"):
        worker.verdicts([("4", r"\sqrt{16}")])


def test_verdicts_of_another_version_do_not_count(cold, monkeypatch):
    pair = ("2", r"\sqrt{4}")
    assert worker.verdicts([pair])[pair]
    for change, equal in (("equal = 0", False), ("engine = 'math-verify 0.1'", True)):
        with sqlite3.connect(worker.cache_file()) as table:
            table.execute(f"UPDATE verdicts SET {change}")
        monkeypatch.setattr(worker, "_memory", {})
        assert worker.verdicts([pair])[pair] is equal


@posix
def test_a_killed_worker_is_replaced(cold):
    worker._stop()
    assert equivalent(r"\sqrt{4}", "2", "math")
    idle = worker._idle.queue[-1].process
    idle.send_signal(signal.SIGSTOP)  # it takes the next question and stays silent
    results = []
    thread = threading.Thread(target=lambda: results.append(equivalent(r"\sqrt{9}", "3", "math")))
    thread.start()
    thread.join(0.2)
    assert not results
    idle.kill()
    thread.join(60)
    assert results == [True]
    assert worker._idle.queue[-1].process.pid != idle.pid
    worker._idle.queue[-1].process.kill()
    assert equivalent(r"\sqrt{16}", "4", "math")


@posix
def test_a_worker_that_does_not_start_says_so(cold, monkeypatch, tmp_path):
    worker._stop()
    silent = tmp_path / "python"
    silent.write_text("#!/bin/sh\nexit 1\n")
    silent.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(silent))
    with pytest.raises(RuntimeError, match="worker does not start"):
        equivalent(r"\sqrt{4}", "2", "math")


@posix
def test_a_forked_child_has_its_own_workers(cold):
    assert equivalent(r"\sqrt{4}", "2", "math")
    child = os.fork()
    if child == 0:
        os._exit(
            0 if equivalent(r"\sqrt{9}", "3", "math") and not equivalent(r"\sqrt{9}", "4", "math") else 1
        )
    assert equivalent(r"\sqrt{16}", "4", "math")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_cache_survives_a_kill_while_writing(cold):
    code = (
        "from itertools import count\n"
        "from negdistill.data import math_verify_pool as worker\n"
        "for n in count():\n"
        '    worker._keep({f\'["{n}", "{m}"]\': True for m in range(256)})\n'
        "    print(n, flush=True)\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(2)]
    written = []
    for writer in writers:
        for _ in range(3):
            written.append(int(writer.stdout.readline()))
        writer.kill()
        writer.communicate()
    with sqlite3.connect(worker.cache_file()) as table:
        assert table.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        counts = Counter(row[0].split(",")[0] for row in table.execute("SELECT pair FROM verdicts"))
    assert set(counts.values()) == {256} and len(counts) > max(written)
    assert equivalent(r"\sqrt{4}", "2", "math")


@pytest.mark.parametrize("broken", ["a file", "a damaged cache"])
def test_without_a_usable_cache_it_warns_and_goes_on(broken, cold, monkeypatch):
    if broken == "a file":
        monkeypatch.setenv("NEGDISTILL_CACHE", str(cold / "file"))
        (cold / "file").write_text("")
    else:
        worker.cache_file().write_bytes(b"not a table " * 100)
    with pytest.warns(UserWarning, match="not kept: .*set NEGDISTILL_CACHE to a folder that can be written"):
        assert equivalent(r"\sqrt{4}", "2", "math")


# --- grade --------------------------------------------------------------------------------------------

PROBLEMS = [
    Problem(str(n), "?", answer, "", "", None, "test") for n, answer in enumerate([r"\frac12", "10", ""])
]
TEXTS = [
    ("1", r"\boxed{10}", "10", "right", "right"),
    ("0", r"\boxed{1/2}", "1/2", "right", "right"),
    ("0", r"\boxed{2/4}", "2/4", "wrong", "right"),
    ("0", r"\boxed{10}", "10", "wrong", "wrong"),
    ("1", "The answer is 10.", None, "none", "none"),
    ("1", r"\boxed{}", None, "none", "none"),
    ("2", r"\boxed{0}", "0", "wrong", "wrong"),
    ("1", r"\boxed{10}", "10", "right", "right"),
]
RATIONALES = [Rationale(problem, n, text, "me") for n, (problem, text, *_) in enumerate(TEXTS)]


def test_grades_are_parallel_to_the_rationales(cold):
    for rule, column in (("exact", 3), ("math", 4)):
        grades = grade(iter(PROBLEMS), iter(RATIONALES), rule=rule)
        assert grades == [
            Grade(rationale, row[2], row[column]) for rationale, row in zip(RATIONALES, TEXTS, strict=True)
        ]
        positives, negatives = split(grades)
        assert positives == [r for r, row in zip(RATIONALES, TEXTS, strict=True) if row[column] == "right"]
        assert negatives == [r for r, row in zip(RATIONALES, TEXTS, strict=True) if row[column] != "right"]
    lenient = grade(PROBLEMS, RATIONALES, extract="lenient")
    assert (lenient[4].answer, lenient[4].label, lenient[4].positive) == ("10", "right", True)


def test_a_missing_or_repeated_problem_is_refused():
    with pytest.raises(ValueError, match="must belong to problems; got problem_id '9' of teacher 'me'"):
        grade(PROBLEMS, [Rationale("9", 0, "", "me")])
    with pytest.raises(ValueError, match="problems must have distinct ids; got '0' twice"):
        grade(PROBLEMS + PROBLEMS[:1], [])


MATH = {  # positives of GPT-3.5 and GPT-4 among eight rationales for each training problem
    "Algebra": (7291, 9472),
    "Counting & Probability": (1814, 2835),
    "Geometry": (1351, 2140),
    "Intermediate Algebra": (1761, 2500),
    "Number Theory": (2076, 3197),
    "Prealgebra": (5606, 6192),
    "Precalculus": (1235, 1797),
}


def test_released_rationales(data_dir):
    problems = load_problems("math", "train", data_dir)
    subject = {problem.id: problem.subject for problem in problems}
    boxless = (786, 4409)
    for column, teacher in enumerate(("tdg-gpt-3.5-turbo", "tdg-gpt-4")):
        rationales = load_rationales(teacher, data_dir)
        start = time.process_time()
        grades = grade(problems, rationales)
        assert time.process_time() - start < 7.5  # seconds for half of the 120,000
        positives, negatives = split(grades)
        assert Counter(subject[r.problem_id] for r in positives) == {s: n[column] for s, n in MATH.items()}
        assert len(positives) + len(negatives) == 60_000
        empty = sum(r.text.count(r"\boxed{}") for r in rationales)
        assert sum(one.label == "none" for one in grades) == boxless[column] + empty
        more = [g for g in grade(problems, rationales, extract="lenient") if g.positive]
        assert {(r.problem_id, r.index) for r in positives} <= {
            (g.rationale.problem_id, g.rationale.index) for g in more
        }
        if teacher == "tdg-gpt-4":  # "The answer is X" without a box, X right
            assert len(more) - len(positives) >= 2377


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ((3, "3"), "answer must be a text or None; got 3, a int"),
        (("3", 3), "reference must be a text or None; got 3, a int"),
        ((["3"], "3"), r"answer must be a text or None; got \['3'\], a list"),
    ],
)
def test_only_texts_are_compared(pair, message):
    for rule in ("exact", "math"):
        with pytest.raises(TypeError, match=message):
            equivalent(*pair, rule)


def test_only_problems_and_rationales_are_graded():
    problem, said = Problem("a", "1 + 1?", "2", "", "", None, ""), Rationale("a", 0, "2", "t")
    assert [one.label for one in grade(iter([problem]), iter([said]), "lenient")] == ["right"]
    for pair, message in (
        (([said], [problem]), "problems must be a list of Problem, .*; got Rationale"),
        (("a", "b"), "problems must be a list of Problem, .*; got 'a', a str"),
        ((problem, [said]), "problems must be a list of Problem, .*; got Problem"),
        (([problem], "b"), "rationales must be a list of Rationale; got 'b', a str"),
        (([problem], [said, None]), "rationales must be a list of Rationale; got None"),
    ):
        with pytest.raises(TypeError, match=message):
            grade(*pair)
