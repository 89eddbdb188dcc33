import ast
import gzip
import json
import operator
import re
import shutil
import tarfile
import time
from collections import Counter
from fractions import Fraction

import pytest

from negdistill.data import arithmetic
from negdistill.data.folders import data_folder
from negdistill.data.released import TDG, TDG_SUBJECTS, tdg_rows
from negdistill.data.sources import (
    PROBLEM_SETS,
    RATIONALE_SETS,
    load_problems,
    load_rationales,
)

SIZES = {
    ("math", "train"): 7500,
    ("math", "test"): 5000,
    ("gsm8k", "train"): 7473,
    ("gsm8k", "test"): 1319,
    ("asdiv", "test"): 2084,
    ("multiarith", "test"): 600,
    ("svamp", "test"): 1000,
}
OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def value(expression: str) -> Fraction:
    """The value of an arithmetic expression, computed exactly."""

    def walk(node):
        if isinstance(node, ast.BinOp):
            return OPERATIONS[type(node.op)](walk(node.left), walk(node.right))
        return Fraction(str(node.value))

    return walk(ast.parse(expression, mode="eval").body)


@pytest.fixture(scope="module")
def problems(data_dir):
    return {key: load_problems(*key, data_dir) for key in SIZES}


@pytest.fixture(scope="module")
def rationales(data_dir):
    return {name: load_rationales(name, data_dir) for name in TDG}


# --- the real files -----------------------------------------------------------------------------------


def test_sizes_ids_and_fields(problems):
    assert {key: len(found) for key, found in problems.items()} == SIZES
    for name in ("math", "gsm8k"):  # train and test can be mixed: their ids differ
        both = problems[name, "train"] + problems[name, "test"]
        assert len({problem.id for problem in both}) == len(both)
    for (name, _), found in problems.items():
        assert len({problem.id for problem in found}) == len(found)
        assert {problem.source for problem in found} == {name}
        for problem in found:
            assert problem.question and problem.question == problem.question.strip()
            assert problem.solution == problem.solution.strip() != ""


def test_math_subjects_and_levels(problems):
    train, test = problems["math", "train"], problems["math", "test"]
    by_subject = Counter(problem.subject for problem in train)
    assert by_subject == {
        "Algebra": 1744,
        "Counting & Probability": 771,
        "Geometry": 870,
        "Intermediate Algebra": 1295,
        "Number Theory": 869,
        "Prealgebra": 1205,
        "Precalculus": 746,
    }
    assert Counter(p.level for p in train) == {1: 564, 2: 1348, 3: 1592, 4: 1690, 5: 2304, None: 2}
    assert Counter(p.level for p in test) == {1: 437, 2: 894, 3: 1131, 4: 1214, 5: 1324}
    assert {p.subject for p in train if p.level is None} == {"Geometry"}
    assert (train[0].id, train[0].answer) == ("algebra/0.jsonl:0", r"-\frac{3}{10}")
    assert (test[0].id, test[0].answer, test[4999].id) == ("test:0", "2", "test:4999")


def test_math_answers_come_from_the_last_box(problems):
    answers = {problem.id: problem.answer for problem in problems["math", "train"]}
    assert (answers["algebra/5.jsonl:2"], answers["algebra/6.jsonl:9"]) == ("2", "9")  # \boxed without braces
    empty = {key for key, answer in answers.items() if not answer}
    assert empty == {"number_theory/55.jsonl:1", "number_theory/65.jsonl:6"}  # \boxed{}
    several = [p for p in problems["math", "train"] if p.solution.count(r"\boxed") > 1]
    assert len(several) == 114
    assert all(f"{{{p.answer}}}" in p.solution[p.solution.rindex(r"\boxed") :] for p in several)


def test_gsm8k_answers_are_plain_integers_without_calculator_marks(problems, data_dir):
    for split, commas, negative, minus in (("train", 79, 3, 21), ("test", 14, 2, 5)):
        found = problems["gsm8k", split]
        with gzip.open(data_dir / f"GSM8K/{split}.jsonl.gz", "rt", encoding="utf-8") as file:
            stored = [json.loads(line)["answer"] for line in file]
        assert all(re.fullmatch(r"-?[0-9]+", problem.answer) for problem in found)
        assert sum(problem.answer.startswith("-") for problem in found) == negative
        last = [text.split("####")[1].strip() for text in stored]
        assert sum("," in text for text in last) == commas
        assert [problem.answer for problem in found] == [text.replace(",", "") for text in last]
        assert not any("<<" in problem.solution for problem in found)
        assert all(p.solution.splitlines()[-1] == f"#### {text}" for p, text in zip(found, last, strict=True))
        assert sum("\N{MINUS SIGN}" in problem.solution for problem in found) == minus
        assert [problem.id for problem in found] == [f"{split}:{n}" for n in range(len(found))]


def test_svamp_equations_give_the_answers_and_subjects_are_mended(problems, data_dir):
    found = problems["svamp", "test"]
    assert all(value(problem.solution) == Fraction(problem.answer) for problem in found)
    assert Counter(problem.subject for problem in found) == {
        "Subtraction": 531,
        "Addition": 195,
        "Common-Division": 166,
        "Multiplication": 108,
    }
    stored = {
        row["ID"]: row for row in json.loads((data_dir / "SVAMP/SVAMP.json").read_text(encoding="utf-8"))
    }
    changed = [p.id for p in found if Fraction(p.answer) != Fraction(stored[p.id]["Answer"])]
    assert changed == ["chal-680"]
    assert (found[679].answer, found[0].answer) == ("5", "51")
    assert found[0].question.endswith("25 dollars on each pack How much do you have to pay to buy each pack?")


def test_multiarith_equations_give_the_answers(problems):
    found = problems["multiarith", "test"]
    assert [problem.id for problem in found] == [str(n) for n in range(600)]
    assert all(value(problem.solution.removeprefix("X=")) == int(problem.answer) for problem in found)
    assert 600 - len({problem.question for problem in found}) == 20  # repeated texts are kept


def test_asdiv_single_numbers_and_asdiv_a(problems, data_dir):
    found = problems["asdiv", "test"]
    answers = {problem.id: problem.answer for problem in found}
    assert answers["nluds-0001"] == "9"
    assert all(re.fullmatch(r"-?[0-9]+(\.[0-9]*[1-9])?", answer) for answer in answers.values())
    assert {"0.46", "65", "9.8", "3.333"} <= set(answers.values())  # stored as 65.0 and 9.80
    assert Counter(problem.level for problem in found).keys() == {1, 2, 3, 4, 5, 6}
    subjects = {problem.subject for problem in found}
    assert "Subtraction" in subjects and "Substraction" not in subjects


def test_every_rationale_belongs_to_a_problem(problems, rationales):
    ids = [problem.id for problem in problems["math", "train"]]
    for name, found in rationales.items():
        assert len(found) == 60_000
        assert [(r.problem_id, r.index) for r in found] == [(key, index) for key in ids for index in range(8)]
        assert {r.teacher for r in found} == {name.removeprefix("tdg-")}
        assert all(r.text for r in found)


def test_prefixes_are_cut_off(rationales, data_dir):
    counts = {
        "tdg-gpt-3.5-turbo": {"Solution:\n": 43_760, "Solution: ": 70, "Solution:": 1, "": 16_169},
        "tdg-gpt-4": {"Let's think step by step\n": 59_585, "Let's think step by step.\n": 2, "": 413},
    }
    for name, expected in counts.items():
        kept = {}
        for _, key, read in tdg_rows(data_dir / f"{TDG[name]}.tar.xz"):
            kept |= {(key, index): text for index, text in enumerate(read()["generated_answer"])}
        found = Counter()
        for bare in rationales[name]:
            whole = kept[bare.problem_id, bare.index]
            prefix = next(text for text in expected if whole.startswith(text))
            found[prefix] += 1
            assert bare.text == whole.removeprefix(prefix).strip()
        assert found == expected


def test_both_teachers_and_math_agree(data_dir, problems):
    train = problems["math", "train"]
    for name in TDG.values():
        rows = {}
        with tarfile.open(data_dir / f"{name}.tar.xz") as archive:
            for member in archive:
                if member.isfile():
                    folder, file = member.name.split("/")[-2:]
                    subject = folder.split("_", 2)[2].removesuffix("_8")
                    for i, line in enumerate(archive.extractfile(member)):
                        rows[f"{subject}/{file}:{i}"] = json.loads(line)
        assert rows.keys() == {problem.id for problem in train}
        for problem in train:
            row = rows[problem.id]
            assert problem.question == row["question"].removeprefix("Problem:\n").strip()
            assert problem.solution == row["answer"].strip()
            assert problem.subject == row["type"]
            assert row["level"] == f"Level {problem.level or '?'}"


def test_plain_files_give_the_same_as_packed_ones(data_dir, tmp_path, problems):
    for name, split in (("math", "train"), ("math", "test"), ("gsm8k", "test")):
        path = f"{name.upper()}/{split}.jsonl"
        write(tmp_path / path, gzip.decompress((data_dir / f"{path}.gz").read_bytes()))
        assert load_problems(name, split, tmp_path) == problems[name, split]


def test_problem_prefixes_are_cut_off(data_dir, tmp_path, problems):
    with tarfile.open(data_dir / "TDG/GPT3.5-turbo-MATH.tar.xz") as archive:
        rows = [
            json.loads(line)
            for line in archive.extractfile("GPT3.5-turbo-MATH/train_gpt3.5_algebra_8/0.jsonl")
        ]
    for i, row in enumerate(rows):
        row |= {"problem": row["question"], "solution": row["answer"], "tdg": f"algebra/0.jsonl:{i}"}
    write(tmp_path / "MATH/train.jsonl", lines(*rows))
    assert load_problems("math", "train", tmp_path) == problems["math", "train"][:10]


# --- files made here ----------------------------------------------------------------------------------

MATH_ROW = {
    "problem": " 1+1? ",
    "level": "Level 2",
    "type": "Algebra",
    "solution": r"\boxed{2}",
    "tdg": "algebra/0.jsonl:0",
}
GSM8K_ROW = {"question": "Cold?", "answer": "2-1,005=<<2-1005=-1003>>-1003\n#### \N{MINUS SIGN}1,003"}
MULTIARITH_ROW = {"iIndex": 0, "sQuestion": " How many? ", "lEquations": ["X=(1.0+2.0)"], "lSolutions": [3.0]}
SVAMP_ROW = {
    **{"ID": "chal-1", "Body": "A has 3", "Question": "How many?", "Equation": "( 3.0 - 1.0 )"},
    **{"Answer": 2.0, "Type": "Common-Divison"},
}
ASDIV = """<?xml version="1.0" encoding="UTF-8" ?>
<File>
<ProblemSet>
<Problem ID="nluds-0001" Grade="3">
<Body>A has 3.</Body><Question>How many? </Question>
<Solution-Type>Substraction</Solution-Type><Answer>1,200.50 (sq. ft)</Answer><Formula>1</Formula>
</Problem>
<Problem ID="nluds-0002" Grade="3">
<Body>A has 3.</Body><Question>How many?</Question>
<Solution-Type>Addition</Solution-Type><Answer>3 (cats); 4 (dogs)</Answer><Formula>1</Formula>
</Problem>
</ProblemSet>
</File>
"""


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_tdg(folder, teacher="gpt4", files=3, per_file=2):
    for subject in TDG_SUBJECTS:
        for k in range(files):
            rows = [
                {"generated_answer": [f"Solution: {subject} {k} {i} {j}" for j in range(8)]}
                for i in range(per_file)
            ]
            write(folder / f"train_{teacher}_{subject}_8/{k}.jsonl", lines(*rows))


def test_rows_made_by_hand(tmp_path):
    write(tmp_path / "MATH/train.jsonl", lines(MATH_ROW, {**MATH_ROW, "level": "Level ?"}))
    first, second = load_problems("math", "train", tmp_path)
    assert (first.id, first.question, first.answer, first.level) == ("algebra/0.jsonl:0", "1+1?", "2", 2)
    assert second.level is None
    write(tmp_path / "GSM8K/test.jsonl", lines(GSM8K_ROW))
    (problem,) = load_problems("gsm8k", data_dir=tmp_path)
    assert (problem.answer, problem.solution) == ("-1003", "2-1,005=-1003\n#### \N{MINUS SIGN}1,003")
    write(tmp_path / "MultiArith/MultiArith.json", json.dumps([MULTIARITH_ROW]))
    (problem,) = load_problems("multiarith", data_dir=tmp_path)
    assert (problem.id, problem.question, problem.answer) == ("0", "How many?", "3")
    write(tmp_path / "SVAMP/SVAMP.json", json.dumps([SVAMP_ROW]))
    (problem,) = load_problems("svamp", data_dir=tmp_path)
    assert (problem.question, problem.answer, problem.subject) == (
        "A has 3 How many?",
        "2",
        "Common-Division",
    )
    write(tmp_path / "ASDiv/ASDiv.xml", ASDIV)
    (problem,) = load_problems("asdiv", data_dir=tmp_path)
    assert (problem.question, problem.answer) == ("A has 3. How many?", "1200.5")
    assert (problem.subject, problem.level) == ("Subtraction", 3)


MATH, GSM8K = lines(MATH_ROW), lines(GSM8K_ROW)
BAD_ROWS = [  # set, file, its content, message
    (
        "math",
        "MATH/test.jsonl",
        MATH + lines({**MATH_ROW, "solution": "2"}),
        r"line 2: .* no \\boxed answer",
    ),
    (
        "math",
        "MATH/test.jsonl",
        MATH + lines({**MATH_ROW, "problem": None}),
        "line 2: problem must be text; got None",
    ),
    ("math", "MATH/test.jsonl", MATH + '{"problem": "cut', "line 2: Unterminated string"),
    ("math", "MATH/test.jsonl", MATH.encode() + b"\xff\n", "line 2: 'utf-8' codec"),
    ("math", "MATH/test.jsonl.gz", gzip.compress(MATH.encode())[:-1], "line 2: the file is cut off"),
    ("gsm8k", "GSM8K/test.jsonl", GSM8K + lines({"question": "q"}), "line 2: missing field 'answer'"),
    (
        "gsm8k",
        "GSM8K/test.jsonl",
        GSM8K + lines({"question": "q", "answer": "5"}) * 2,
        "line 2: .* #### <number>",
    ),
    (
        "gsm8k",
        "GSM8K/test.jsonl",
        GSM8K + lines({"question": "q", "answer": "#### x"}),
        "line 2: expected one number",
    ),
    (
        "multiarith",
        "MultiArith/MultiArith.json",
        json.dumps([MULTIARITH_ROW, {}], indent=1),
        "line 12: missing field",
    ),
    (
        "multiarith",
        "MultiArith/MultiArith.json",
        json.dumps([{**MULTIARITH_ROW, "lSolutions": [1, 2]}, MULTIARITH_ROW]),
        "line 1: too many values to unpack",
    ),
    (
        "svamp",
        "SVAMP/SVAMP.json",
        json.dumps([SVAMP_ROW, SVAMP_ROW])[:-1],
        "line 1: expected ',' of a JSON list",
    ),
    (
        "svamp",
        "SVAMP/SVAMP.json",
        json.dumps([SVAMP_ROW, {**SVAMP_ROW, "Answer": None}]),
        "line 1: expected one number",
    ),
    ("svamp", "SVAMP/SVAMP.json", json.dumps([{**SVAMP_ROW, "Answer": True}]), "line 1: expected one number"),
    (
        "svamp",
        "SVAMP/SVAMP.json",
        json.dumps([{**SVAMP_ROW, "Answer": float("nan")}]),
        "line 1: NaN is no number",
    ),
    (
        "gsm8k",
        "GSM8K/test.jsonl",
        GSM8K + r'{"question": "\ud800", "answer": "#### 1"}',
        "line 2: .* surrogate pair",
    ),
    (
        "asdiv",
        "ASDiv/ASDiv.xml",
        ASDIV.replace("<Body>A has 3.</Body>", ""),
        "line 4: missing field 'Body'",
    ),
    ("asdiv", "ASDiv/ASDiv.xml", ASDIV.replace("3 (cats)", "3 <cats>"), "line 8: malformed element"),
    ("asdiv", "ASDiv/ASDiv.xml", ASDIV[: ASDIV.rindex("<Formula>")], "line 8: missing field 'Formula'"),
]


@pytest.mark.parametrize("name, path, content, message", BAD_ROWS)
def test_a_malformed_row_is_named(tmp_path, name, path, content, message):
    write(tmp_path / path, content)
    with pytest.raises(ValueError, match=f"{path}, {message}"):
        load_problems(name, data_dir=tmp_path)


def test_a_long_number_keeps_all_its_digits(tmp_path):
    long, decimal = "1234567890123456789012345678901234567891", "0.1234567890123456789012345678901234567891"
    write(tmp_path / "GSM8K/test.jsonl", lines({"question": "q", "answer": f"#### {long}"}))
    assert load_problems("gsm8k", data_dir=tmp_path)[0].answer == long
    row = json.dumps([{**SVAMP_ROW, "Answer": 7.25}]).replace("7.25", f"{long}.250")
    write(tmp_path / "SVAMP/SVAMP.json", row)
    assert load_problems("svamp", data_dir=tmp_path)[0].answer == f"{long}.25"
    row = json.dumps([{**MULTIARITH_ROW, "lSolutions": [7.25]}]).replace("7.25", decimal)
    write(tmp_path / "MultiArith/MultiArith.json", row)
    assert load_problems("multiarith", data_dir=tmp_path)[0].answer == decimal
    for written, plain in (("-0.0", "0"), ("007", "7"), ("0.50", "0.5"), ("1,000.0", "1000"), ("100", "100")):
        write(tmp_path / "GSM8K/test.jsonl", lines({"question": "q", "answer": f"#### {written}"}))
        assert load_problems("gsm8k", data_dir=tmp_path)[0].answer == plain


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_file_is_an_error(tmp_path, content):
    write(tmp_path / "GSM8K/test.jsonl", content)
    with pytest.raises(ValueError, match="test.jsonl holds no row that can be read"):
        load_problems("gsm8k", data_dir=tmp_path)


def test_a_page_in_place_of_a_file_is_an_error(tmp_path):
    write(tmp_path / "ASDiv/ASDiv.xml", "<html><body>404</body></html>")
    with pytest.raises(ValueError, match="ASDiv.xml holds no row that can be read"):
        load_problems("asdiv", data_dir=tmp_path)


def test_tdg_files_are_read_in_numeric_order(tmp_path):
    write_tdg(tmp_path / "TDG/GPT4-MATH", files=12)
    write(tmp_path / "TDG/GPT4-MATH/.DS_Store", b"\0")
    found = load_rationales("tdg-gpt-4", tmp_path)
    algebra = [r for r in found if r.problem_id.startswith("algebra")]
    assert [r.problem_id for r in algebra[::8]] == [
        f"algebra/{k}.jsonl:{i}" for k in range(12) for i in range(2)
    ]
    assert algebra[17].text == "algebra 1 0 1" and algebra[17].index == 1
    with tarfile.open(tmp_path / "GPT4-MATH.tar.xz", "w:xz") as archive:
        archive.add(tmp_path / "TDG/GPT4-MATH", "GPT4-MATH")
    write(tmp_path / "packed/TDG/GPT4-MATH.tar.xz", (tmp_path / "GPT4-MATH.tar.xz").read_bytes())
    assert load_rationales("tdg-gpt-4", tmp_path / "packed") == found


def test_a_sample_is_seeded_ordered_and_shared_by_problems_and_rationales(tmp_path):
    write_tdg(tmp_path / "TDG/GPT4-MATH")
    ids = [f"{subject}/{k}.jsonl:{i}" for subject in TDG_SUBJECTS for k in range(3) for i in range(2)]
    write(tmp_path / "MATH/train.jsonl", lines(*({**MATH_ROW, "tdg": key} for key in ids)))
    everything = load_problems("math", "train", tmp_path)
    some = load_problems("math", "train", tmp_path, n=10, seed=3)
    assert some == load_problems("math", "train", tmp_path, n=10, seed=3)
    assert some != load_problems("math", "train", tmp_path, n=10, seed=4)
    assert len(some) == 10 and some == [problem for problem in everything if problem in set(some)]
    rationales = load_rationales("tdg-gpt-4", tmp_path, n=10, seed=3)
    assert [r.problem_id for r in rationales] == [problem.id for problem in some for _ in range(8)]
    assert load_problems("math", "train", tmp_path, n=42) == everything
    for n in (0, 43):
        with pytest.raises(ValueError, match=f"n must be from 1 to 42, .* or None for all; got {n}"):
            load_problems("math", "train", tmp_path, n=n)


@pytest.mark.parametrize("mode", ["xz", "gz"])
def test_a_malformed_line_in_an_archive_is_named_with_its_member(tmp_path, mode):
    folder = tmp_path / "GPT4-MATH"
    write_tdg(folder)
    broken = folder / "train_gpt4_geometry_8/1.jsonl"
    write(broken, lines({"generated_answer": ["a"] * 8}, {"generated_answer": ["a"] * 7}))
    (tmp_path / "TDG").mkdir()
    with tarfile.open(tmp_path / f"TDG/GPT4-MATH.tar.{mode}", f"w:{mode}") as archive:
        archive.add(folder, "GPT4-MATH")
    place = f"GPT4-MATH.tar.{mode}!GPT4-MATH/train_gpt4_geometry_8/1.jsonl, line 2"
    message = f"{place}: generated_answer must be a list of 8 texts"
    with pytest.raises(ValueError, match=message):
        load_rationales("tdg-gpt-4", tmp_path)
    with pytest.warns(UserWarning, match=f"1 malformed rows skipped, first .*{message}"):
        assert len(load_rationales("tdg-gpt-4", tmp_path, on_error="skip")) == 8 * (7 * 6 - 1)


def test_a_missing_file_of_a_teacher_is_named_or_counted(tmp_path):
    write_tdg(tmp_path / "TDG/GPT4-MATH")
    (tmp_path / "TDG/GPT4-MATH/train_gpt4_geometry_8/1.jsonl").unlink()
    shutil.rmtree(tmp_path / "TDG/GPT4-MATH/train_gpt4_algebra_8")
    with pytest.raises(ValueError, match="GPT4-MATH, algebra/0.jsonl: the file is missing"):
        load_rationales("tdg-gpt-4", tmp_path)
    with pytest.warns(UserWarning, match="2 malformed rows skipped"):
        assert len(load_rationales("tdg-gpt-4", tmp_path, on_error="skip")) == 8 * (6 * 6 - 2)


def test_skipping_counts_the_rationales_that_are_lost(tmp_path, data_dir):
    """An archive that was cut off misses thousands of rationales in a few files that are named."""
    (tmp_path / "TDG").mkdir()
    whole = (data_dir / "TDG/GPT4-MATH.tar.xz").read_bytes()
    write(tmp_path / "TDG/GPT4-MATH.tar.xz", whole[: len(whole) // 2])
    with pytest.warns(UserWarning) as said:
        left = len(load_rationales("tdg-gpt-4", tmp_path, on_error="skip"))
    assert 8_000 < left < 52_000
    (message,) = {str(one.message) for one in said}
    assert re.match(r"[0-9]+ malformed rows skipped, first .*the file is cut off or damaged", message)
    assert message.endswith(f"; {60_000 - left:,} of 60,000 rationales are lost")


LONG = [("1000", False), ("1000", True), ("10000000", True), ("1" + 12 * "0", False), ("9" * 5000, True)]


@pytest.mark.parametrize(("number", "packed"), LONG)
def test_an_absurd_number_of_a_file_is_refused_at_once(tmp_path, number, packed):
    name = f"GPT4-MATH/train_gpt4_geometry_8/{number}.jsonl"
    if packed:
        (tmp_path / "TDG").mkdir()
        with tarfile.open(tmp_path / "TDG/GPT4-MATH.tar.gz", "w:gz") as archive:
            archive.addfile(tarfile.TarInfo(name))
    else:
        write(tmp_path / "TDG" / name, "")
    began = time.process_time()
    for on_error in ("raise", "skip"):
        with pytest.raises(
            ValueError, match="GPT4-MATH.* must hold files numbered below 1000; got .*remove it"
        ):
            load_rationales("tdg-gpt-4", tmp_path, on_error=on_error)
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ("0,0", "must hold whole files; .*geometry_8/0.jsonl is sparse"),
        ("x", "the file is cut off or damaged"),
    ],
)
def test_a_sparse_file_in_an_archive_is_refused(tmp_path, numbers, message):
    """As GNU tar packs a tebibyte of zeros, in half a kilobyte.

    Kind: a small archive that claims a huge file; as in Tarsnap/tarsnap#905, Tarsnap/tarsnap#913.
    """
    info = tarfile.TarInfo("GPT4-MATH/train_gpt4_geometry_8/0.jsonl")
    info.pax_headers = {"GNU.sparse.size": str(1 << 40), "GNU.sparse.map": numbers}
    (tmp_path / "TDG").mkdir()
    with tarfile.open(tmp_path / "TDG/GPT4-MATH.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info)
    with pytest.raises(ValueError, match=f"GPT4-MATH.tar.gz.*{message}"):
        load_rationales("tdg-gpt-4", tmp_path)


# --- arguments ----------------------------------------------------------------------------------------


def test_the_data_folder_is_the_argument_then_the_variable_then_the_cache(tmp_path, monkeypatch):
    folders = [tmp_path / name for name in ("argument", "variable", "cache/negdistill/data")]
    for n, folder in enumerate(folders):
        write(folder / "GSM8K/test.jsonl", lines({"question": "q", "answer": f"#### {n}"}))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NEGDISTILL_DATA", str(folders[1]))
    assert load_problems("gsm8k", data_dir=folders[0])[0].answer == "0"
    assert load_problems("gsm8k")[0].answer == "1"
    monkeypatch.delenv("NEGDISTILL_DATA")
    assert load_problems("gsm8k")[0].answer == "2"


def test_the_data_folder_is_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEGDISTILL_DATA", "data")
    assert data_folder() == tmp_path / "data" and data_folder("other") == tmp_path / "other"


@pytest.mark.parametrize("name", [*PROBLEM_SETS, *TDG])
def test_missing_data_says_what_to_type(tmp_path, name):
    if name == "arithmetic":
        return
    load = load_rationales if name in TDG else load_problems
    command = f"type `python -m negdistill data get {name}` to fetch it into .*, or set NEGDISTILL_DATA"
    message = f"{name} needs .*, which is not in {tmp_path}; {command}"
    with pytest.raises(FileNotFoundError, match=message):
        load(name, data_dir=tmp_path)


def test_arithmetic_is_generated():
    assert load_problems("arithmetic", "longer", n=5, seed=2) == arithmetic.generate("longer", 5, 2)
    train = load_problems("arithmetic", "train", n=5, seed=2)
    for strength, name in ((None, "weak"), ("weak", "weak"), ("strong", "strong")):
        found = load_rationales("arithmetic", n=5, seed=2, strength=strength)
        assert found == arithmetic.teach(train, name, 8, 2)
        assert {rationale.problem_id for rationale in found} == {problem.id for problem in train}


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: load_problems("MATH"), "name must be one of 'math', 'gsm8k', .* got 'MATH'"),
        (lambda: load_problems("svamp", "train"), "split of svamp must be one of 'test'; got 'train'"),
        (lambda: load_problems("math", "valid"), "split of math must be one of 'train', 'test'; got 'valid'"),
        (lambda: load_problems("arithmetic"), "n must be a number for arithmetic, .* got None"),
        (
            lambda: load_rationales("math"),
            f"name must be one of {', '.join(map(repr, RATIONALE_SETS))}; got 'math'",
        ),
        (
            lambda: load_rationales("tdg-gpt-4", strength="weak"),
            "strength of tdg-gpt-4 must be one of None; got 'weak'",
        ),
        (lambda: load_rationales("arithmetic"), "n must be a number for arithmetic, .* got None"),
        (
            lambda: load_rationales("arithmetic", n=1, strength="good"),
            "strength must be one of 'weak', 'strong'; got 'good'",
        ),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_on_error_is_checked(tmp_path):
    write_tdg(tmp_path / "TDG/GPT4-MATH")
    with pytest.raises(ValueError, match="on_error must be one of 'raise', 'skip'; got 'ignore'"):
        load_rationales("tdg-gpt-4", tmp_path, on_error="ignore")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: load_problems("arithmetic", n=1.5), TypeError, "n must be a whole number; got 1.5, a float"),
        (
            lambda: load_problems("arithmetic", n=True),
            TypeError,
            "n must be a whole number; got True, a bool",
        ),
        (lambda: load_problems("arithmetic", n="3"), TypeError, "n must be a whole number; got '3', a str"),
        (
            lambda: load_problems("arithmetic", n=1, seed="a"),
            TypeError,
            "seed must be a whole number; got 'a'",
        ),
        (lambda: load_problems("gsm8k", n=1, seed=1.5), TypeError, "seed must be a whole number; got 1.5"),
        (lambda: load_problems("gsm8k", n=1, seed=-1), ValueError, "seed must be at least 0; got -1"),
        (
            lambda: load_problems("gsm8k", data_dir=3),
            TypeError,
            "data_dir must be a path, .*; got 3, an? int",
        ),
        (lambda: load_rationales("arithmetic", n=1.5), TypeError, "n must be a whole number; got 1.5"),
        (
            lambda: load_rationales("arithmetic", n=1, on_error="ignore"),
            ValueError,
            "on_error must be one of 'raise', 'skip'; got 'ignore'",
        ),
    ],
)
def test_arguments_of_another_kind_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
