import gzip
import json
import lzma
import os
import warnings
from dataclasses import FrozenInstanceError, asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from negdistill.checks import check_choice
from negdistill.data import formats
from negdistill.data.formats import (
    broken,
    collect,
    gather,
    line_rows,
    list_rows,
    make_record,
    number_text,
    parse_record,
    parse_row,
    read_records,
    unpack,
    write_records,
    xml_rows,
)
from negdistill.data.records import Problem, Rationale, Sample

PROBLEM = Problem("test:1", "How many?", "7", "3 + 4 = 7", "Algebra", 2, "math")
RATIONALES = [Rationale("test:1", i, f"line one\nline {i} \u2028 \u2212 \u00e9", "gpt-4") for i in range(3)]
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=20)  # lone surrogates included


def read_all(rows, on_error="raise"):
    return list(gather(((place, read) for place, _, read in rows), on_error))


def rationale(_, row):
    return make_record(Rationale, row) if len(row) == 4 else broken("unknown field")


def test_records_are_frozen_and_hashable():
    assert len({PROBLEM, Problem(**asdict(PROBLEM))}) == 1
    with pytest.raises(FrozenInstanceError):
        PROBLEM.answer = "8"


@given(st.lists(st.builds(Rationale, ANY_TEXT, st.integers(), ANY_TEXT, ANY_TEXT), max_size=5))
def test_what_is_written_is_read_back(tmp_path_factory, rationales):
    path = tmp_path_factory.mktemp("records") / "rationales.jsonl"
    write_records(path, rationales)
    assert read_records(path, Rationale) == rationales
    assert path.read_bytes().count(b"\n") == len(rationales)


def test_samples_are_rationales_and_are_read_back(tmp_path):
    samples = [Sample("test:1", i, "3", "student", (3, 4)[:i], -0.1 - i / 3, i > 0) for i in range(3)]
    write_records(tmp_path / "s.jsonl", samples)
    back = read_records(tmp_path / "s.jsonl", Sample)
    assert back == samples and len(set(back)) == 3
    assert [sample.tokens for sample in back] == [0, 1, 2] and isinstance(back[0], Rationale)
    (tmp_path / "s.jsonl").write_text((tmp_path / "s.jsonl").read_text().replace("[3]", "3"))
    with pytest.raises(ValueError, match="line 2: ids is 3, a int"):
        read_records(tmp_path / "s.jsonl", Sample)


def test_problems_keep_a_missing_level(tmp_path):
    problems = [PROBLEM, Problem("x", "q", "a", "s", "", None, "svamp")]
    write_records(tmp_path / "p.jsonl", problems)
    assert read_records(tmp_path / "p.jsonl", Problem) == problems


BAD_LINES = {
    b"{": "line 2: Expecting property name",
    b"[1]": "line 2: expected a JSON object, found list",
    b'{"problem_id": "x", "index": 0, "text": "t"}': "line 2: missing field 'teacher'",
    b'{"problem_id": "x", "index": 0, "text": "t", "teacher": "a", "b": 1}': "line 2: unknown field 'b'",
    b'{"problem_id": "x", "index": "0", "text": "t", "teacher": "a"}': "line 2: index is '0', a str",
    b'{"problem_id": "x", "index": true, "text": "t", "teacher": "a"}': "line 2: index is True, a bool",
    b'{"problem_id": "x", "index": 0, "text": null, "teacher": "a"}': "line 2: text is None, a NoneType",
    b'{"problem_id": "x", "index": 0, "text": "\xff", "teacher": "a"}': "line 2: 'utf-8' codec can't decode",
    b"[" * 100_000: "line 2: maximum recursion depth",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_malformed_line_is_named_or_skipped_and_counted(tmp_path, line):
    path = tmp_path / "rationales.jsonl"
    write_records(path, RATIONALES)
    first, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + line + b"\n" + b"".join(rest))
    with pytest.raises(ValueError, match="rationales.jsonl, " + BAD_LINES[line]):
        read_records(path, Rationale)
    rows = line_rows(path.read_bytes(), "", str(path), parse_record)
    with pytest.warns(UserWarning, match="1 malformed rows skipped, first .*rationales.jsonl, line 2"):
        assert collect(rows, rationale, "skip") == RATIONALES


def test_a_line_cut_off_at_the_end_is_malformed(tmp_path):
    path = tmp_path / "rationales.jsonl"
    write_records(path, RATIONALES)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="line 3: Expecting value") as caught:
        read_records(path, Rationale)
    assert "on_error" not in str(caught.value)  # this reader has no such argument
    rows = line_rows(path.read_bytes(), "", str(path), parse_record)
    with pytest.warns(UserWarning, match="1 malformed rows skipped"):
        assert collect(rows, rationale, "skip") == RATIONALES[:2]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_lines_are_read_with_any_line_break_and_with_a_byte_order_mark(mark, end):
    data = mark + end.join([b'{"a": 1}', b"", b"   ", b'{"b": 2}', b""])
    with pytest.raises(ValueError, match="file, line 4: missing field 'a'"):
        collect(line_rows(data, "", "file"), lambda _, row: row["a"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = collect(line_rows(data, "", "file"), lambda key, row: (key, row))
    assert found == [("0", {"a": 1}), ("3", {"b": 2})]


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("0.00005", "0.00005"),
        ("5e-05", "0.00005"),  # as Python writes it
        ("1e16", "10000000000000000"),
        ("1E+2", "100"),
        ("1.50", "1.50"),
        ("-0.1", "-0.1"),
        ("0.1000000000000000055511151231257827", "0.1000000000000000055511151231257827"),
        ("1234567890123456789012345678901234567890", "1234567890123456789012345678901234567890"),
        ("12345678901234567890123456789012345.75", "12345678901234567890123456789012345.75"),
        ('"1e16"', "1e16"),
    ],
)
def test_a_number_is_what_is_written(written, text):
    """Kind: digits of long numbers that are lost; as in ijl/orjson#517, huggingface/datasets#6937."""
    assert number_text(parse_row(f'{{"a": {written}}}'.encode())["a"], "a") == text


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("NaN", "NaN is no number of JSON; write it as a text"),
        ('1, "b": 2, "a": 3', "field 'a' stands twice; keep one"),
        ("-Infinity", "-Infinity is no number of JSON"),
        ("1e999999999", "a number must have at most 100 digits; got 1e999999999; write it as a text"),
        ("1e-99999999999999999999999", "at most 100 digits"),
        ("7" * 5000, r"at most 100 digits; got 7{40}\.\.\.;"),
        (r'["fine", "\ud83d"]', r"a text holds '\\ud83d', half of a surrogate pair"),
        (r'{"\uDE00": 1}', r"a text holds '\\ude00', half of a surrogate pair"),
    ],
)
def test_what_no_later_step_can_take_is_refused(written, message):
    """Kind: half of a surrogate pair, and others that load and fail later; as in daaain/claude-code-log#139,
    huggingface/transformers#8886.
    """
    with pytest.raises(ValueError, match=f"file, line 2: .*{message}"):
        read_all(line_rows(b'{}\n{"a": %s}' % written.encode(), "", "file"))


def test_a_whole_surrogate_pair_is_one_character():
    assert parse_row(rb'{"a": "\ud83d\ude00 \u2028"}') == {"a": "\U0001f600 \u2028"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "device.jsonl").symlink_to("/dev/zero")
    for name in ("pipe", "folder", "device"):
        path = tmp_path / f"{name}.jsonl"
        with pytest.raises(
            ValueError, match=f"{name}.jsonl must be a file; it is a folder, a pipe or a device"
        ):
            unpack(path)
        with pytest.raises(ValueError, match=f"{name}.jsonl must be a file"):
            read_records(path, Rationale)


@pytest.mark.parametrize("suffix, pack", [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)])
def test_a_file_that_unpacks_without_end_is_refused(tmp_path, monkeypatch, suffix, pack):
    monkeypatch.setattr(formats, "LARGEST_FILE", 100_000)
    path = tmp_path / f"rows.jsonl{suffix}"
    path.write_bytes(pack(bytes(100_000)))
    assert unpack(path) == (bytes(100_000), "")
    path.write_bytes(pack(bytes(100_001)))
    with pytest.raises(ValueError, match="must unpack to at most 100,000 bytes"):
        unpack(path)


def test_choices_are_checked():
    with pytest.raises(ValueError, match="on_error must be one of 'raise', 'skip'; got 'ignore'"):
        collect([], dict, on_error="ignore")
    with pytest.raises(ValueError, match="colour must be one of 'red', 'blue'; got 3"):
        check_choice("colour", 3, iter(["red", "blue"]))


def test_programming_errors_are_not_taken_for_malformed_rows():
    with pytest.raises(ZeroDivisionError):
        list(gather([("here", lambda: 1 / 0)], "skip"))


@pytest.mark.parametrize("suffix, pack", [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)])
def test_unpack_gives_what_can_be_read_and_why_it_ends(tmp_path, suffix, pack):
    content = b"".join(b'{"n": %d}\n' % n for n in range(20_000))
    path = tmp_path / f"rows.jsonl{suffix}"
    path.write_bytes(pack(content))
    assert unpack(path) == (content, "")
    if not suffix:
        return
    path.write_bytes(pack(content)[:-500])
    data, why = unpack(path)
    assert 0 < len(data) < len(content) and content.startswith(data)
    whole = data.count(b"\n")
    with pytest.raises(ValueError, match=f"line {whole + 1}: the file is cut off or damaged"):
        read_all(line_rows(data, why, str(path)))
    with pytest.warns(UserWarning, match="1 malformed rows skipped"):
        assert read_all(line_rows(data, why, str(path)), "skip") == [{"n": n} for n in range(whole)]


def test_unpack_reports_damage_and_missing_files(tmp_path):
    (tmp_path / "a.gz").write_bytes(b"this is no gzip file")
    assert "Not a gzipped file" in unpack(tmp_path / "a.gz")[1]
    (tmp_path / "a.xz").write_bytes(b"this is no xz file")
    assert "cut off or damaged" in unpack(tmp_path / "a.xz")[1]
    with pytest.raises(FileNotFoundError):
        unpack(tmp_path / "b.gz")


ELEMENTS = [{"id": n, "text": "\u2212 ], [ \n"} for n in range(4)]


@pytest.mark.parametrize("indent", [None, 4])
def test_list_rows_reads_a_list(indent):
    data = json.dumps(ELEMENTS, indent=indent).encode()
    rows = list(list_rows(data, "", "file"))
    assert read_all(rows) == ELEMENTS
    lines = [1, 1, 1, 1] if indent is None else [2, 6, 10, 14]
    assert [(place, key) for place, key, _ in rows] == [
        (f"file, line {n}", str(i)) for i, n in enumerate(lines)
    ]


@pytest.mark.parametrize(
    "data, message, left",
    [
        (b"[" * 100_000, "line 1: maximum recursion depth", 0),
        (b"[]", "line 1: Expecting value", 0),
        (b"", "line 1: expected '\\[' of a JSON list", 0),
        (b'{"a": 1}', "line 1: expected '\\[' of a JSON list", 0),
        (b'[\n{"a": 1},\n{"a": \xff"},\n{"a": 3}]', "line 3: Expecting value", 1),
        (b'[\n{"a": 1},\n{"a": "\xff"},\n{"a": 3}]', "line 3: 'utf-8' codec can't decode", 2),
        (b'[\n{"a": 1},\n2,\n{"a": 3}]', "line 3: expected a JSON object, found int", 2),
        (b'[\n{"a": 1},\n{"a": 2', "line 3: .*nothing from here on can be read", 1),
        (b'[\n{"a": 1},\n{"a": 2}\n', "line 3: expected ',' of a JSON list", 2),
        (b'[\n{"a": 1},\n{"a": 2},\n', "line 4: Expecting value", 2),
        (b'[\n{"a": 1}\n{"a": 2}]', "line 2: expected ',' of a JSON list", 1),
    ],
)
def test_list_rows_names_the_line_of_a_bad_element(data, message, left):
    with pytest.raises(ValueError, match="file, " + message):
        read_all(list_rows(data, "", "file"))
    with pytest.warns(UserWarning, match="1 malformed rows skipped, first file, line"):
        assert len(read_all(list_rows(data, "", "file"), "skip")) == left


XML = b"""<?xml version="1.0" encoding="UTF-8" ?>
<File>\r
<Set>\r
  <Item ID="a"><Text>1 &lt; 2 \xe2\x88\x92</Text><Empty/></Item>\r
  <Item ID="b">
    <Text>two</Text></Item>
  <Item ID="c"><Text>three</Text></Item>
</Set>
</File>
"""


def test_xml_rows_gives_attributes_and_children():
    rows = list(xml_rows(XML, "", "file", "Item"))
    assert read_all(rows)[0] == {"ID": "a", "Text": "1 < 2 \u2212", "Empty": ""}
    assert [row["ID"] for row in read_all(rows)] == ["a", "b", "c"]
    assert [place for place, _, _ in rows] == ["file, line 4", "file, line 5", "file, line 7"]


@pytest.mark.parametrize(
    "data, message, left",
    [
        (XML.replace(b"two</Text>", b"two"), "line 5: malformed element", 2),
        (XML.replace(b"two", b"\xff"), "line 5: 'utf-8' codec can't decode", 2),
        (XML.replace(b"two", b"&two;"), "line 5: malformed element: undefined entity", 2),
        (XML[: XML.index(b"three")], "line 7: malformed element", 2),
        (XML[: XML.index(b"</Set>")], "line 8: the file ends too early", 3),
        (XML[: XML.index(b"Set>\n</File>")], "line 8: the file ends too early", 3),
    ],
)
def test_xml_rows_names_the_line_of_a_bad_element(data, message, left):
    with pytest.raises(ValueError, match="file, " + message):
        read_all(xml_rows(data, "", "file", "Item"))
    with pytest.warns(UserWarning, match="[12] malformed rows skipped, first file, line"):
        assert len(read_all(xml_rows(data, "", "file", "Item"), "skip")) == left
