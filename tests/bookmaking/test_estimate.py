import json
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from negdistill.__main__ import main
from negdistill.bookmaking import estimate as estimating
from negdistill.bookmaking.estimate import (
    CHARACTERS,
    SHAPES,
    dry_run,
    estimate,
    memory,
    row_tokens,
    shape_of,
    work,
)
from negdistill.bookmaking.planning import find_root, plan
from negdistill.data.formats import write_records
from negdistill.data.records import Rationale
from negdistill.data.tasks import load_task
from negdistill.method.nat import attach
from negdistill.training.settings import settings


def test_numbers_of_the_papers_student():
    shape = shape_of("huggyllama/llama-7b", settings("paper"))
    assert shape.parameters == 6_738_415_616
    assert shape.lora == 4_194_304 and round(shape.nat / 1e6, 1) == 138.4  # as METHOD counts them
    assert shape_of("Qwen/Qwen2.5-0.5B", settings("paper")).parameters == 494_032_768
    assert shape_of("smollm2-135m", settings("paper")).parameters == 134_515_008


def test_numbers_of_a_student_are_those_of_a_real_one(tmp_path):
    config = LlamaConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                         vocab_size=100)  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path)
    recipe = settings("paper", r=2, unit_dim=8)
    shape, size = shape_of(str(tmp_path), recipe), model.num_parameters()
    attach(model, recipe.nat)
    assert shape.parameters == size
    assert shape.nat == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_memory_grows_with_what_it_holds():
    shape = shape_of("huggyllama/llama-7b", settings("paper"))
    one, more = memory(shape, 1, 512), memory(shape, 8, 512)
    assert shape.parameters * 2 + 16 * shape.nat < one < more < 80 * 2**30


def test_work_by_hand():
    jobs = {job.name[:2]: job for job in plan(find_root(), "smoke")}
    assert work(jobs["00"], 8) is None
    assert work(jobs["03"], 8) == (3 * 4 + 3 * 3 * 2, 3 * 14 + 3 * 2 * (7 + 14))
    assert work(jobs["04"], 8) == (2 * 6, 4 * 14)
    # NAT's two trainings, four rows and one enlarged, each a third of the budget; two more rows answer,
    # and six of them the validation questions
    assert work(jobs["06"], 8) == (7 * 3, 12 * 2 + 7 * 14 + 6 * 7)


def test_a_chapter_that_trains_and_declares_no_work_is_refused():
    job = next(job for job in plan(find_root(), "smoke") if job.name[:2] == "03")
    with pytest.raises(ValueError, match="03_negative_adapter.ipynb must declare its work"):
        estimate(replace(job, work={}))


def test_rows_of_the_embedded_benchmark_are_counted():
    assert 60 < row_tokens("arithmetic", "weak", "embedded") < 120


def test_a_dry_run_says_what_is_read_and_written_and_what_it_costs():
    lines = list(dry_run([job for job in plan(find_root(), "quick") if job.name == "05_baselines"]))
    text = "\n".join(lines)
    assert "05_baselines" in lines and "reads   task arithmetic, teacher weak, student embedded" in text
    assert "writes  executed/05_baselines.ipynb, ../_runs/quick/05_baselines" in text
    assert "steps of 4 rows" in text and "estimated:" in text and "hours" not in text


def test_a_method_of_ones_own_is_accepted_and_its_code_not_run(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("raise SystemExit('ran')\n")
    monkeypatch.syspath_prepend(tmp_path)
    methods = ["CoT KD, continued", "DPO", "mine:Mine"]
    known = "not estimated: mine:Mine is a method of your own, and a dry run imports no code of yours"
    for chapter, said in (("05_baselines", known), ("10_rivals", "steps of 8 rows")):
        jobs = plan(find_root(), "smoke", [chapter], {"methods": methods})
        (line,) = (line for line in dry_run([job for job in jobs if job.name == chapter]) if "cost" in line)
        assert said in line


def test_a_file_is_seen_from_where_the_notebook_sees_it(monkeypatch):
    """Wherever the command is typed.

    Kind: a relative path that a notebook reads from another folder; as in nteract/papermill#316.
    """
    for folder in (find_root(), find_root() / "book"):
        monkeypatch.chdir(folder)
        row_tokens.cache_clear()
        lines = list(dry_run(plan(find_root(), "your-data", ["03"])))
        assert "not estimated" not in "".join(lines) and "rows of about" in "".join(lines)
        assert Path.cwd() == folder


def test_a_module_is_seen_from_where_the_notebook_sees_it(tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/beside_grading.py").write_text("def same(a, b):\n    return a == b\n")
    jobs = plan(find_root(), "your-data", ["03"], {"grading": "beside_grading:same"})
    job = next(job for job in jobs if job.name == "03_negative_adapter")
    before = [*sys.path]
    lines = [*dry_run([replace(job, source=tmp_path / "notebooks" / job.source.name)])]
    assert lines[0] == "03_negative_adapter" and sys.path == before


@pytest.mark.parametrize(
    ("chapter", "given", "message"),
    [
        (
            "03",
            {"grading": "numbr"},
            "grading must be one of 'boxed', .*; got 'numbr'; did you mean 'number'",
        ),
        ("03", {"task": "gsm"}, "task must be one of .*; got 'gsm'; did you mean 'gsm8k'"),
        ("03", {"recipe": "embeded"}, "name must be one of .*; did you mean 'embedded'"),
        ("03", {"changes": {"rnk": 4}}, "setting must be one of .*; got 'rnk'"),
        (
            "03",
            {"changes": {"lr": "x"}},
            "changes of 03_negative_adapter: lr must be a number; got 'x', a str",
        ),
        ("03", {"changes": {"name": "x"}}, "changes of 03_negative_adapter: .*'name'; leave it out to keep"),
        ("03", {"batch_size": 0}, "batch_size must be at least 1; got 0"),
        ("05", {"methods": ["NAT, empt branch"]}, "methods of 05_baselines must .* mean 'NAT, empty branch'"),
        ("07", {"losses": ["hinge"]}, "loss of 07_asc must be one of .*; got 'hinge'"),
    ],
)
def test_a_value_that_a_notebook_would_refuse_is_refused_before(chapter, given, message):
    with pytest.raises(ValueError, match=message):
        list(dry_run(plan(find_root(), "smoke", [chapter], given)))


@pytest.mark.parametrize(
    "given", ['changes={"lr": "x"}', "changes={1: 2}", "changes={[1]: 2}", "methods=[1]", "teachers=[3]"]
)
def test_a_value_of_another_type_is_refused_in_one_line(given, capsys):
    assert main(["run", "--profile", "smoke", "--only", "05", "--dry-run", "-p", given]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {given.partition('=')[0]} of 05_baselines")


def test_a_fault_of_the_package_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(estimating, "work", lambda job, rows: rows + "x")
    with pytest.raises(TypeError):
        main(["run", "--profile", "smoke", "--only", "05", "--dry-run"])


def test_what_is_not_at_hand_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("NEGDISTILL_DATA", str(tmp_path))
    row_tokens.cache_clear()
    lines = list(dry_run(plan(find_root(), "paper", ["03"])))
    assert any("not estimated: math needs MATH/train.jsonl" in line for line in lines)
    with pytest.raises(ValueError, match="student must be at hand, or one of 'huggyllama/llama-7b'"):
        shape_of(str(tmp_path / "none"), settings("paper"))


@pytest.mark.parametrize("student", ["smollm2-135m", "somebody/unknown"])
def test_no_hub_is_asked(student, data_dir, monkeypatch):
    """Kind: a command that only says what would be done waits half a minute for a hub that is not there."""
    monkeypatch.setenv("NEGDISTILL_DATA", str(data_dir))
    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *of, **more: asked.append(of) or [])
    text = "\n".join(dry_run(plan(find_root(), "quick", ["11"], {"student": student})))
    assert not asked
    assert ("got 'somebody/unknown'" in text) == (student == "somebody/unknown")


def test_code_in_a_students_folder_is_not_run(tmp_path, monkeypatch):
    """Kind: a model's folder brings code along, and a question answered with y runs it."""
    config = {"model_type": "own", "auto_map": {"AutoConfig": "conf.Own", "AutoModelForCausalLM": "conf.Own"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "conf.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(ValueError, match="student must be at hand"):
        shape_of(str(tmp_path), settings("paper"))
    assert not (tmp_path / "ran").exists()


def test_nothing_is_loaded():
    shape_of("huggyllama/llama-7b", settings("paper"))
    assert SHAPES["huggyllama/llama-7b"].hidden_size == 4096
    assert torch.get_default_device() == torch.device("cpu")


def test_questions_without_a_rationale_are_not_counted(tmp_path):
    rows = [{"question": f"{n} + 1?", "answer": n + 1, "split": "train"} for n in range(3)]
    rows[1]["rationales"] = ["It is 2.", "It is 3."]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.warns(UserWarning, match="2 of 3 questions have no rationale"):
        assert row_tokens(str(path), "file", "another") == round(len("1 + 1? It is 2.") / CHARACTERS)


def test_the_paper_on_real_data(data_dir, monkeypatch):
    monkeypatch.setenv("NEGDISTILL_DATA", str(data_dir))
    row_tokens.cache_clear()
    text = "\n".join(dry_run(plan(find_root(), "paper", ["03"])))
    steps = 3 * 3000 + 3 * 2 * -(-6700 * 8 // (2 * 128))  # three adapters, and three paths of two epochs
    assert f"{steps:,} steps of 128 rows of about" in text and "hours at 300 TFLOP/s" in text


def scale_table(profile, **given):
    """The table of book/scale.md for a profile, from its dry run."""
    names = "chapter|steps|rows a step|M tokens|answers|PFLOP|hours at 300 TFLOP/s|GiB|measured".split("|")
    rows = [f"| {' | '.join(names)} |", "| --- " * len(names) + "|"]
    for job in plan(find_root(), profile):
        if "recipe" in job.parameters:
            known = {name: value for name, value in given.items() if name in job.parameters}
            found = estimate(replace(job, parameters={**job.parameters, **known}))
            numbers = f"{found.steps:,} | {found.rows} | {found.tokens / 1e6:,.1f} | {found.answers:,}"
            rows.append(
                f"| {job.name[:2]} | {numbers} | {found.flops / 1e15:,.0f} | "
                f"{found.hours:.2g} | {found.gib:.1f} | |"
            )
    return "\n".join(rows)


@pytest.mark.parametrize("profile", ["paper", "one-gpu"])
def test_the_tables_of_the_page_are_what_a_dry_run_says(profile, data_dir, monkeypatch, tmp_path):
    monkeypatch.setenv("NEGDISTILL_DATA", str(data_dir))
    row_tokens.cache_clear()
    given = {}
    if profile == "one-gpu":  # no teacher has answered here: its length is that of the solutions
        said = [Rationale(p.id, 0, p.solution, "gsm8k") for p in load_task("gsm8k").questions("train")]
        write_records(tmp_path / "said.jsonl", said)
        given = {"teacher": str(tmp_path / "said.jsonl"), "teachers": [str(tmp_path / "said.jsonl")]}
    page = (find_root() / "book" / "scale.md").read_text("utf-8")
    assert scale_table(profile, **given) in page, scale_table(profile, **given)
