"""Step 3 in one call against its parts one after the other, and after a kill."""

import re
import shutil
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from negdistill import fit, fit_ranker, load_student, load_task, sample, settings, vote, vote_all
from negdistill.__main__ import main
from negdistill.data.answers import equivalent, final_answer
from negdistill.data.prompts import format_prompt
from negdistill.data.records import Sample
from negdistill.inference import vote as vote_module
from negdistill.inference.panel import Panel
from negdistill.inference.ranker import score
from negdistill.inference.ranker_fit import loaded
from negdistill.inference.vote import COLUMNS, draw_ballot
from negdistill.method.asc import sequence_weights
from negdistill.training.dataset import TrainingSet, taught
from negdistill.training.fit import adapted
from negdistill.training.fits import load_fit
from negdistill.training.sharing import share

WORLD = load_task("arithmetic")
PROBLEMS = WORLD.questions("test", 5, 0)
DRAWING = {"n": 4, "temperature": 0.9, "seed": 3, "max_new_tokens": 24, "progress": False, **WORLD.grading}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The embedded student, a method that was fitted on it for a few steps, and a ranker."""
    folder, student = tmp_path_factory.mktemp("vote"), load_student()
    said, small = taught(WORLD, "weak", 20, 4), {"batch_size": 4, "progress": False}
    data, judged = _part(said, slice(10)), _part(said, slice(10, None))
    made = fit("CoT KD", student, data, settings(max_steps=3, **small), folder)
    return student, made, fit_ranker(student, data, judged, settings(max_steps=2, **small), folder)


@pytest.fixture(scope="module")
def negative(trained, tmp_path_factory):
    data = taught(WORLD, "weak", 10, 4)
    config = settings(max_steps=3, batch_size=4, progress=False)
    return fit("Negative adapter", trained[0], data, config, tmp_path_factory.mktemp("negative"))


def _part(data, places):
    kept = {problem.id for problem in data.problems[places]}
    sides = (tuple(r for r in side if r.problem_id in kept) for side in (data.positives, data.negatives))
    return TrainingSet(data.problems[places], *sides)


def test_it_is_sample_score_weigh_and_vote(trained):
    student, made, ranker = trained
    prompts = {problem.id: format_prompt(problem.question, made.preset) for problem in PROBLEMS}
    with adapted(student, made) as adapted_student:
        drawn = sample(adapted_student, prompts, 4, 0.9, max_new_tokens=24, seed=3, progress=False)
    with loaded(student, ranker) as judge:
        scores = score(judge, PROBLEMS, drawn, progress=False).reshape(5, 4)
    found = vote_all(student, made, ranker, PROBLEMS, **DRAWING)
    assert tuple(found) == COLUMNS and len(found) == 4 * 5
    rows = found.set_index(["rule", "problem_id"])
    for place, problem in enumerate(PROBLEMS):
        own = drawn[4 * place : 4 * place + 4]
        answers = [final_answer(one.text, WORLD.extract) for one in own]
        plain = sequence_weights([one.log_prob for one in own])
        a_token = sequence_weights([one.log_prob for one in own], [one.tokens for one in own])
        by_rule = {"SC": None, "WS": plain, "WS per token": a_token, "ASC": scores[place]}
        for rule, weights in by_rule.items():
            elected, row = vote(answers, weights), rows.loc[(rule, problem.id)]
            assert row["answer"] == elected or (elected is None and pd.isna(row["answer"]))
            assert row["correct"] == equivalent(elected, problem.answer, WORLD.rule)


def test_what_was_drawn_is_drawn_once(trained, tmp_path, monkeypatch):
    student, made, ranker = trained
    whole = vote_all(student, made, ranker, PROBLEMS, out_dir=tmp_path, **DRAWING)
    (folder,) = tmp_path.iterdir()
    kept = shutil.copytree(folder, tmp_path.with_name("copy"))
    again = vote_all(student, made, ranker, PROBLEMS, out_dir=tmp_path, **DRAWING)
    pd.testing.assert_frame_equal(whole, again)
    assert (kept / "samples.jsonl").read_bytes() == (folder / "samples.jsonl").read_bytes()
    vote_all(student, made, ranker, PROBLEMS, out_dir=tmp_path, **{**DRAWING, "seed": 4})
    assert len(list(tmp_path.iterdir())) == 2, "another setting has a folder of its own"


def test_what_other_code_drew_is_drawn_again_and_not_refused(trained, tmp_path, monkeypatch):
    student, made, _ = trained
    draw_ballot(student, made, PROBLEMS, **DRAWING, out_dir=tmp_path)
    for module in (vote_module, sys.modules["negdistill.inference.sample"]):
        monkeypatch.setattr(module, "digest_code", lambda *names: "changed")
    draw_ballot(student, made, PROBLEMS, **DRAWING, out_dir=tmp_path)
    assert len(list(tmp_path.glob("samples-*"))) == 2


def test_a_killed_call_goes_on_with_what_was_drawn(trained, tmp_path, monkeypatch):
    student, made, ranker = trained
    whole = vote_all(student, made, ranker, PROBLEMS, **DRAWING)

    def die(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(vote_module, "score", die)
        with pytest.raises(KeyboardInterrupt):
            vote_all(student, made, ranker, PROBLEMS, out_dir=tmp_path, **DRAWING)
    (folder,) = tmp_path.iterdir()
    before = (folder / "samples.jsonl").stat().st_mtime_ns
    pd.testing.assert_frame_equal(
        vote_all(student, made, ranker, PROBLEMS, out_dir=tmp_path, **DRAWING), whole
    )
    assert (folder / "samples.jsonl").stat().st_mtime_ns == before


def test_the_likelihood_ratio_votes_beside_the_others(trained, negative):
    """A candidate weighs exp of its mean difference of log probabilities, read one after the other."""
    student, made, ranker = trained
    drawn = draw_ballot(student, made, PROBLEMS, **DRAWING)
    end, means = student.tokenizer.eos_token_id, []
    for one in (made, negative):
        said = []
        with adapted(student, one) as judge, torch.no_grad():
            for sample_ in drawn.samples:
                question = next(p.question for p in PROBLEMS if p.id == sample_.problem_id)
                prompt = student.tokenizer(format_prompt(question))["input_ids"]
                ids = torch.tensor([[*prompt, *student.tokenizer(sample_.text)["input_ids"], end]])
                logs = judge.model(ids).logits[0, :-1].log_softmax(1).gather(1, ids[0, 1:, None])
                said.append(logs[len(prompt) - 1 :].mean().item())
        means.append(np.reshape(said, (5, 4)))
    found = drawn.compared(student, made, negative)
    assert list(found.weights) == ["SC", "WS", "WS per token", "likelihood ratio"]
    wanted = np.exp(means[0] - means[1])
    wanted /= wanted.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.weights["likelihood ratio"], wanted, rtol=1e-4)
    votes = vote_all(student, made, ranker, PROBLEMS, right=made, wrong=negative, **DRAWING)
    assert votes["rule"].unique().tolist()[3:] == ["ASC", "likelihood ratio"]
    plain = vote_all(student, made, ranker, PROBLEMS, **DRAWING)
    pd.testing.assert_frame_equal(votes[: len(plain)], plain)


@pytest.mark.parametrize("swapped", [True, False])
def test_the_sides_of_the_likelihood_ratio_are_told_apart(trained, negative, swapped):
    student, made, ranker = trained
    right = negative if swapped else made
    with pytest.raises(
        ValueError, match="right must be a fit on right rationales and wrong one on wrong ones; got"
    ):
        vote_all(student, made, ranker, PROBLEMS, right=right, wrong=made, **DRAWING)
    with pytest.raises(ValueError, match="right must be a fit on right rationales"):
        draw_ballot(student, made, PROBLEMS, **DRAWING).compared(student, negative, negative)


def test_fits_of_one_name_have_a_folder_of_samples_each(trained, tmp_path):
    student, made, _ = trained
    other = fit(
        "CoT KD",
        student,
        taught(WORLD, "weak", 8, 2),
        settings(max_steps=1, progress=False),
        tmp_path / "other",
    )
    shared = [tmp_path / name / "cot" for name in "ab"]
    for one, place in zip((made, other), shared, strict=True):
        share(one.folder, place, "embedded")
    drawn = [
        draw_ballot(student, load_fit(place), PROBLEMS, out_dir=tmp_path / "drawn", **DRAWING)
        for place in shared
    ]
    assert len(list((tmp_path / "drawn").iterdir())) == 2
    again = draw_ballot(student, load_fit(shared[0]), PROBLEMS, out_dir=tmp_path / "drawn", **DRAWING)
    assert again.samples == drawn[0].samples != drawn[1].samples


def test_an_answer_ends_where_a_next_problem_begins(trained, monkeypatch):
    student, made, _ = trained
    said = "1 + 1 = 2, so \\boxed{2}.\n\nProblem:\nThat makes \\boxed{5}"

    def drawn(student, prompts, n, **options):
        return [
            Sample(key, i, said, "student", ids=(1,), log_prob=-1.0, finished=True)
            for key in prompts
            for i in range(n)
        ]

    monkeypatch.setattr(vote_module, "sample", drawn)
    ballot = draw_ballot(student, made, PROBLEMS[:1], n=2)
    assert {one.text for one in ballot.samples} == {"1 + 1 = 2, so \\boxed{2}."}
    assert ballot.panel.answers.tolist() == [["2", "2"]]


def test_the_command_line_votes(trained, negative, tmp_path, capsys, monkeypatch):
    student, made, ranker = trained
    monkeypatch.chdir(tmp_path)
    given = ["-n", "3", "--questions", "4", "--max-tokens", "16", "--temperature", "0.9"]
    more = ["--ratio", str(made.folder), str(negative.folder)]
    assert main(["vote", str(made.folder), str(ranker.folder), "more.csv", *given, *more]) == 0
    assert f"{'likelihood ratio':16} " in capsys.readouterr().out and len(pd.read_csv("more.csv")) == 5 * 4
    assert main(["vote", str(made.folder), str(ranker.folder), "votes.csv", *given]) == 0
    frame = pd.read_csv("votes.csv")
    assert tuple(frame) == COLUMNS and len(frame) == 4 * 4
    lines = capsys.readouterr().out.splitlines()
    right = frame[frame["rule"] == "SC"]["correct"].sum()
    assert f"{'SC':16} {right} of 4 right" in lines and lines[-1] == "written: votes.csv"
    questions = tmp_path / "mine.jsonl"
    questions.write_text("{}\n")
    for out, message in (
        (questions, "OUT must be a new file, or a table of votes; .*mine.jsonl is another file"),
        (questions / "votes.csv", "OUT must lie in a folder; .*mine.jsonl is a file"),
        (tmp_path, "OUT must be a file to write"),
    ):
        assert main(["vote", str(made.folder), str(ranker.folder), str(out), *given]) == 1
        assert re.search(message, capsys.readouterr().err)
    assert questions.read_text() == "{}\n"
    for own in ("votes.csv", "votes.csv.gz", "votes.csv.gz"):  # over its own
        assert main(["vote", str(made.folder), str(ranker.folder), own, *given]) == 0
    Path("blank.csv").write_text("\nmine\n")
    assert main(["vote", str(made.folder), str(ranker.folder), "blank.csv", *given]) == 1
    assert main(["vote", str(ranker.folder), str(made.folder), "other.csv", *given]) == 1
    assert "holds a ranker and no fit" in capsys.readouterr().err
    assert main(["vote", str(made.folder), str(ranker.folder), "all.csv"]) == 1
    assert "--questions must be given for arithmetic" in capsys.readouterr().err


def test_a_ballot_needs_no_ranker_and_names_its_method(trained):
    student, made, ranker = trained
    ballot = draw_ballot(student, made, PROBLEMS, **DRAWING)
    assert list(ballot.weights) == ["SC", "WS", "WS per token"]
    assert {one.teacher for one in ballot.samples} == {"CoT KD"}
    ranked = ballot.ranked(student, ranker)
    assert list(ranked.weights) == ["SC", "WS", "WS per token", "ASC"]
    assert ranked.weights["ASC"].shape == (5, 4) and np.isfinite(ranked.weights["ASC"]).all()
    assert ballot.votes().equals(ranked.votes().query("rule != 'ASC'").reset_index(drop=True))


def test_arguments_of_another_kind_are_refused_before_anything_is_drawn(trained, monkeypatch):
    student, made, ranker = trained
    monkeypatch.setattr(vote_module, "sample", None)
    for given, message in (
        ((student, "x", "y", PROBLEMS), "ranker must be a RankerFit, .*; got 'y', a str"),
        ((student, "x", ranker, PROBLEMS), "fit must be a Fit, .*; got 'x', a str"),
        ((student, ranker, made, PROBLEMS), "ranker must be a RankerFit, .*; got Fit"),
        (("embedded", made, ranker, PROBLEMS), "student must be a Student, .*; got 'embedded', a str"),
        ((student, made, ranker, "abc"), "problems must be a list of Problem, .*; got 'abc', a str"),
    ):
        with pytest.raises(TypeError, match=message):
            vote_all(*given)
    with pytest.raises(TypeError, match="right must be a Fit, .*; got 'x', a str"):
        vote_all(student, made, ranker, PROBLEMS, right="x", wrong=made)
    with pytest.raises(ValueError, match="right and wrong must both be given, or neither; got wrong alone"):
        vote_all(student, made, ranker, PROBLEMS, wrong=made)
    with pytest.raises(TypeError, match="out_dir must be a path, .*; got 3, a int"):
        vote_all(student, made, ranker, PROBLEMS, out_dir=3)
    with pytest.raises(ValueError, match="rule must be one of .*; got 'maths'"):
        vote_all(student, made, ranker, PROBLEMS, rule="maths")


def test_large_panels_are_counted_in_parts():
    n = 128
    group = np.arange(500 * n).reshape(500, n) % 7
    answers = group.astype(str).astype(object)
    panel = Panel(tuple(map(str, range(500))), answers, group, group, group == 3)
    tracemalloc.start()
    winners = panel.winners()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert winners.shape == (500, 1) and peak < 160 * 2**20
