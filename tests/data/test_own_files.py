import codecs
import gzip
import json
import os
import random
import re
import warnings

import pytest

from negdistill.data.answers import equivalent
from negdistill.data.formats import write_records
from negdistill.data.own_files import OWN, SPLITS, read_own, read_said
from negdistill.data.records import Rationale, Reply
from negdistill.data.tasks import load_task

ROW = {"question": "1 + 1?", "answer": "2", "rationales": ["It is 2.", "It is 3."]}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def one(tmp_path, row, rule="number"):
    """The problem of a file of one row, given as a dict or as JSON."""
    path = tmp_path / "mine.jsonl"
    path.write_text((row if isinstance(row, str) else json.dumps(row)) + "\n", encoding="utf-8")
    ((_, problem, _),) = read_own(str(path), rule)
    return problem


# --- answers ------------------------------------------------------------------------------------------


def test_the_test_file_of_gsm8k_is_an_own_file(tmp_path, data_dir):
    path = tmp_path / "test.jsonl"
    path.write_bytes(gzip.decompress((data_dir / "GSM8K/test.jsonl.gz").read_bytes()))
    task = load_task(path, "number")
    problems = [problem for split in SPLITS for problem in task.questions(split)]
    (ducks,) = (
        problem
        for problem in problems
        if problem.question.startswith("Janet\N{RIGHT SINGLE QUOTATION MARK}s ducks")
    )
    assert ducks.answer == "18" and ducks.solution.endswith("#### 18") and "<<" not in ducks.solution
    references = {problem.question: problem.answer for problem in load_task("gsm8k").questions("test")}
    assert len(problems) == len(references) == 1319
    assert all(equivalent(references[p.question], p.answer, "number") for p in problems)


@pytest.mark.parametrize(
    ("answer", "reference", "solution"),
    [
        ('"1 + 1 = <<1+1=2>>2\\n#### 2"', "2", "1 + 1 = 2\n#### 2"),
        (r'"So it is \\boxed{\\frac{1}{2}}."', r"\frac{1}{2}", r"So it is \boxed{\frac{1}{2}}."),
        ("2", "2", r"\boxed{2}"),
        ("2.50", "2.50", r"\boxed{2.50}"),
        ("5e-05", "0.00005", r"\boxed{0.00005}"),
        ("1e16", "10000000000000000", r"\boxed{10000000000000000}"),
        ("1" * 40, "1" * 40, rf"\boxed{{{'1' * 40}}}"),
        ("0.1" + "2" * 40, "0.1" + "2" * 40, rf"\boxed{{0.1{'2' * 40}}}"),
        ('" 2 "', "2", r"\boxed{2}"),
        (r'"#### Step 1\n1 + 1 = \\boxed{2}."', "2", "#### Step 1\n1 + 1 = \\boxed{2}."),
        (r'"#### \\boxed{2}"', "2", "#### \\boxed{2}"),
    ],
)
def test_an_answer_is_understood(tmp_path, answer, reference, solution):
    """Kind: a number of JSON that becomes another text than was written; as in huggingface/datasets#6937,
    atorus-research/datasetjson#97.
    """
    problem = one(tmp_path, f'{{"question": "1 + 1?", "answer": {answer}}}')
    assert (problem.answer, problem.solution) == (reference, solution)
    own = one(tmp_path, f'{{"question": "1 + 1?", "answer": {answer}, "solution": "Count."}}')
    assert (own.answer, own.solution) == (reference, "Count.")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("NaN", "NaN is no number of JSON"),
        ("Infinity", "Infinity is no number of JSON"),
        ("1e400", "a number must have at most 100 digits; got 1e400; write it as a text"),
        ("null", "expected one number or one text as answer; got None"),
        ("true", "expected one number or one text as answer; got True"),
        ("[2]", "expected one number or one text as answer"),
        ('" "', "answer must be a text that is not empty"),
        ('"1 + 1\\n#### "', "answer must not end with its mark ####"),
        ('"#### 2\\n\\nThat is all."', "answer must have its mark #### in its last line, or a box"),
        (r'"\ud83d"', "half of a surrogate pair"),
    ],
)
def test_an_answer_that_cannot_be_met_is_refused(tmp_path, answer, message):
    """Kind: NaN and Infinity, which Python takes for JSON, and other answers that nothing equals; as in
    python/cpython#121189, closeio/flask-mongorest#76.
    """
    with pytest.raises(ValueError, match=f"mine.jsonl, line 1: .*{re.escape(message)}"):
        one(tmp_path, f'{{"question": "1 + 1?", "answer": {answer}}}')


@pytest.mark.parametrize(
    ("grading", "answer"), [("number", "3 and 4"), ("number", "many"), ("choice", "Paris")]
)
def test_an_answer_that_the_rule_cannot_meet_is_refused(tmp_path, grading, answer):
    """Kind: a reference that the rule cannot read, so that no answer equals it; as in
    EleutherAI/lm-evaluation-harness#2212.
    """
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"question": "1 + 1?", "answer": answer, "split": "train"}) + "\n")
    with pytest.raises(
        ValueError, match=f"mine.jsonl, line 1: answer must be a .*{answer!r}, which no answer"
    ):
        load_task(str(path), grading).questions("train")


# --- rows ---------------------------------------------------------------------------------------------


def test_a_message_names_no_argument_that_the_call_lacks(tmp_path):
    """Kind: a way out that the call has not. Neither a task nor a teacher's file can skip a row."""
    for row in ({"question": "1 + 1?"}, {"question": 5, "answer": "2"}, {"question": "?", "answer": "many"}):
        task = load_task(write(tmp_path / "mine.jsonl", ROW, row), "number")
        with pytest.raises(ValueError, match="mine.jsonl, line 2: ") as caught:
            task.questions("train")
        assert "on_error" not in str(caught.value) and "skip" not in str(caught.value)
    good = {"problem_id": "a", "index": 0, "text": "2", "teacher": "t"}
    path = write(tmp_path / "said.jsonl", good, good | {"index": 1, "text": None})
    with pytest.raises(ValueError, match="said.jsonl, line 2: ") as caught:
        load_task().rationales(load_task().questions("train", 1), path, 1)
    assert "on_error" not in str(caught.value) and "skip" not in str(caught.value)


@pytest.mark.parametrize(("given", "kept"), [(0, "0"), (7, "7"), ("a", "a"), ("0", "0")])
def test_an_id_is_kept(tmp_path, given, kept):
    """Kind: an id of 0 that is taken for none; as in opensciencegrid/topology#3384."""
    assert one(tmp_path, ROW | {"id": given}).id == kept


@pytest.mark.parametrize("given", [None, ""])
def test_fields_may_be_null_or_empty(tmp_path, given):
    bare = one(tmp_path, {"question": "1 + 1?", "answer": "2"})
    rest = dict.fromkeys(("id", "solution", "subject", "split"), given)
    assert (
        one(tmp_path, {"question": "1 + 1?", "answer": "2", "level": None, "rationales": None, **rest})
        == bare
    )
    assert re.fullmatch("[0-9a-f]{12}", bare.id) and bare.subject == "" and bare.level is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("id", value) for value in (False, [], {}, ["a"])),
        *((name, value) for name in ("solution", "subject", "split") for value in (0, False, [], ["a"], " ")),
        *(("rationales", value) for value in ("", 0, {}, "two", [1], [None], ["a", ["b"]])),
        *(("level", value) for value in ("easy", 1.5, True, [])),
        *(("question", value) for value in (None, 5, "", " ", ["a"])),
    ],
)
def test_a_field_of_another_type_is_refused(tmp_path, field, value):
    with pytest.raises(ValueError, match=f"mine.jsonl, line 1: .*{field}"):
        one(tmp_path, ROW | {field: value})


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("name", ["mine.jsonl", "mine.jsonl.gz"])
def test_a_file_may_be_packed_and_written_on_any_system(tmp_path, mark, end, name):
    """Kind: a byte order mark, other line breaks, gzip; as in wbolster/jsonlines#68."""
    rows = [{"question": f"{n} + {n}?", "answer": 2 * n, "rationales": [f"{2 * n}"]} for n in range(40)]
    data = mark + b"".join(json.dumps(row).encode() + end for row in rows)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    plain = load_task(write(tmp_path / "plain.jsonl", *rows))
    task = load_task(tmp_path / name)
    for split in SPLITS:
        assert [p.id for p in task.questions(split)] == [p.id for p in plain.questions(split)]
    problems = task.questions("train")
    assert task.rationales(problems, OWN, 1) == plain.rationales(problems, OWN, 1)


def test_one_text_in_two_splits_is_refused(tmp_path):
    """Kind: one question under two ids, in train and in test; as in KGQA/QALD_9_plus#9."""
    rows = [ROW | {"id": "a", "split": "train"}, ROW | {"id": "b", "split": "train", "question": "1  +\t1? "}]
    assert len(load_task(write(tmp_path / "mine.jsonl", *rows)).questions("train")) == 2
    rows[1]["split"] = "test"
    message = (
        r"mine.jsonl must hold no question in two splits; 'a' in train and 'b' in test have the same text"
    )
    with pytest.raises(ValueError, match=message):
        load_task(write(tmp_path / "mine.jsonl", *rows)).questions("train")
    with pytest.raises(
        ValueError, match="must hold every question once; got '1' twice, .* as '\\?'; remove one"
    ):
        read_own(
            write(tmp_path / "mine.jsonl", ROW | {"id": 1}, ROW | {"id": "1", "question": "?"}), "number"
        )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
@pytest.mark.parametrize("name", ["pipe.jsonl", "pipe.jsonl.gz"])
def test_a_pipe_is_refused_at_once(tmp_path, name):
    """Kind: a pipe in the place of a file; as in logrotate/logrotate#607, tox-dev/filelock#549."""
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match=f"{name} must be a file; it is a folder, a pipe or a device"):
        load_task(tmp_path / name).questions("train")
    with pytest.raises(ValueError, match=f"{name} must be a file"):
        load_task().rationales(load_task().questions("train", 1), str(tmp_path / name), 1)


# --- rationales ---------------------------------------------------------------------------------------


def test_questions_may_have_unequally_many_rationales(tmp_path):
    counts = [3, 1, 0, 2, 0, 5]
    rows = [
        {
            "question": f"{n}?",
            "answer": n,
            "split": "train",
            "id": n,
            "rationales": [f"{i}" for i in range(count)],
        }
        for n, count in enumerate(counts)
    ]
    task = load_task(write(tmp_path / "mine.jsonl", *rows))
    problems = task.questions("train")
    for n in (1, 2, 8):
        with pytest.warns(UserWarning) as said:
            found = task.rationales(problems, OWN, n)
        assert [str(one.message) for one in said] == ["2 of 6 questions have no rationale by file, first '2'"]
        expected = [(str(q), i) for q, count in enumerate(counts) for i in range(min(count, n))]
        assert [(r.problem_id, r.index) for r in found] == expected
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(task.rationales([problems[0], problems[5]], OWN, 4)) == 7
    with pytest.raises(
        ValueError, match="teacher must have said something .*2 of 2 questions have no rationale"
    ):
        task.rationales([problems[2], problems[4]], OWN, 1)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": None}, "text is None, a NoneType"),
        ({"text": ["a"]}, r"text is \['a'\], a list"),
        ({"index": "0"}, "index is '0', a str"),
        ({"index": 0.5}, "index is Decimal"),
        ({"problem_id": 5}, "problem_id is 5, a int"),
        ({"teacher": None}, "teacher is None"),
    ],
)
def test_a_wrong_row_of_a_teacher_is_named(tmp_path, row, message):
    good = {"problem_id": "a", "index": 0, "text": "2", "teacher": "t"}
    path = write(tmp_path / "said.jsonl", good, good | {"index": 1} | row)
    with pytest.raises(ValueError, match=f"said.jsonl, line 2: {message}"):
        read_said(path)
    with pytest.raises(ValueError, match="said.jsonl, line 1: missing field 'text'"):
        read_said(write(tmp_path / "said.jsonl", {key: good[key] for key in good if key != "text"}))


def test_a_teachers_file_holds_one_teacher(tmp_path):
    path = tmp_path / "said.jsonl"
    write_records(path, [Rationale("a", 0, "2", "t"), Rationale("a", 0, "2", "t")])
    assert read_said(str(path)) == [Rationale("a", 0, "2", "t")]
    replies = [Reply("a", 0, text, "t", "stop", 1, 1, request) for text, request in (("2", "x"), ("3", "x"))]
    write_records(path, replies)  # asked twice: the first counts, as in the store
    assert read_said(str(path)) == [Rationale("a", 0, "2", "t")]
    replies[1] = Reply("a", 0, "3", "u", "stop", 1, 1, "y")
    write_records(path, replies)
    with pytest.raises(
        ValueError, match="said.jsonl must hold one teacher's rationales.* 'a' .* 't' and by 'u'"
    ):
        read_said(str(path))


# --- anything -----------------------------------------------------------------------------------------

VALUES = [
    *("null", "true", "0", "-1", "1.5", "1e999999", "NaN", "9" * 5000, '""', '" "', '"a"', '"#### "', "[]"),
    *(
        '["a", null]',
        "{}",
        '{"a": 1}',
        r'"\ud800"',
        r'"\u0000"',
        '"\\\\boxed{"',
        "[" * 3000,
        '"\xff"',
        '"cut',
    ),
]
OWN_ROW = {"question": '"1 + 1?"', "answer": '"2"', "rationales": '["2"]', "id": '"a"', "split": '"train"'}
SAID_ROW = {"problem_id": '"a"', "index": "0", "text": '"2"', "teacher": '"t"', "request": '"x"'}


def malformed(draw, fields):
    """A row with one to three fields exchanged, taken away or added, then perhaps cut or damaged."""
    row = dict(fields)
    for _ in range(draw.randint(1, 3)):
        name = draw.choice([*row, "level", "solution", "subject", "other"])
        if draw.random() < 0.2:
            row.pop(name, None)
        else:
            row[name] = draw.choice(VALUES)
    line = ("{" + ", ".join(f'"{name}": {value}' for name, value in row.items()) + "}").encode("latin-1")
    if draw.random() < 0.2:
        line = line[: draw.randrange(len(line))]
    if draw.random() < 0.2:
        at = draw.randrange(len(line) + 1)
        line = line[:at] + bytes([draw.randrange(256)]) + line[at + 1 :]
    return line


@pytest.mark.parametrize("rule", ["exact", "math", "number", "string"])
def test_malformed_rows_raise_nothing_but_value_errors(tmp_path, rule):
    draw, refused = random.Random(rule), 0
    for n in range(180):
        fields, read = ((SAID_ROW, read_said), (OWN_ROW, lambda path: read_own(path, rule)))[n % 2]
        path = tmp_path / "row.jsonl"
        path.write_bytes(malformed(draw, fields) + b"\n")
        try:
            read(str(path))
        except ValueError as error:
            refused += 1
            assert "row.jsonl" in str(error) and str(error)
    assert 90 < refused < 180
