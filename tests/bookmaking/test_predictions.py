"""Predictions: read with their digest, and taken over by a longer run of the same experiment alone."""

import json
import shutil

import pandas as pd
import pytest

from negdistill.bookmaking import pipeline
from negdistill.bookmaking.planning import find_root
from negdistill.bookmaking.predictions import earlier_answers, predictions
from negdistill.runs.digests import digest_file
from negdistill.runs.folder import RunFolder
from negdistill.training.method_table import NEGATIVE


def test_a_changed_file_is_refused(answered, tmp_path):
    for path in answered.iterdir():
        shutil.copy(path, tmp_path)
    path = tmp_path / "chapter_nce.parquet"
    frame = pd.read_parquet(path)
    frame.loc[0, "correct"] = not frame.loc[0, "correct"]
    frame.to_parquet(path, index=False)
    with pytest.raises(ValueError, match="chapter_nce.parquet is not what its notebook left: the digests"):
        predictions(tmp_path, "nce")
    shutil.copy(answered / "chapter_nce.ipynb", tmp_path / "chapter_other.ipynb")
    with pytest.raises(ValueError, match="declares predictions 'nce', as chapter_nce does"):
        predictions(tmp_path, "votes")


def test_an_earlier_run_is_taken_over_where_all_that_decides_is_the_same(answered, tmp_path):
    for path in answered.glob("chapter_nce.*"):
        shutil.copy(path, tmp_path)
    path = tmp_path / "chapter_nce.ipynb"
    notebook = json.loads(path.read_text("utf-8"))
    notebook["metadata"]["negdistill"]["manifest"]["parameters"] = {"steps": 600, "seeds": [0]}
    path.write_text(json.dumps(notebook), "utf-8")
    assert earlier_answers(path, {"steps": 600}).equals(predictions(answered, "nce"))
    assert earlier_answers("", {"steps": 600}).empty
    with pytest.raises(
        ValueError, match="steps must be 600 as in the earlier run, .*ipynb; got 300: its answers"
    ):
        earlier_answers(path, {"steps": 300})
    with pytest.raises(ValueError, match="rate must be None as in the earlier run"):
        earlier_answers(path, {"steps": 600, "rate": 0.1})
    with pytest.raises(ValueError, match="12_when.ipynb must be an executed notebook with its predictions"):
        earlier_answers(find_root() / "notebooks" / "12_when.ipynb", {})


def test_the_answers_are_those_of_the_run_that_was_named(tmp_path):
    """Not of a run beside it, nor of one with another teacher in a folder below."""
    runs = {"12_when": ("weak", 600), "12_when.old": ("weak", 300), "strong/12_when": ("strong", 600)}
    (tmp_path / "strong").mkdir()
    for name, (teacher, steps) in runs.items():
        path = tmp_path / f"{name}.parquet"
        pd.DataFrame({"answer": [f"{teacher}, {steps} steps"]}).to_parquet(path)
        given = {"task": "arithmetic", "student": "embedded", "teacher": teacher, "steps": steps}
        made = {"parameters": given, "artifacts": {"predictions.parquet": digest_file(path)}}
        about = {"metadata": {"negdistill": {"predictions": "when", "manifest": made}}}
        path.with_suffix(".ipynb").write_text(json.dumps(about), "utf-8")
    for name, (teacher, steps) in runs.items():
        found = earlier_answers(tmp_path / f"{name}.ipynb", {"teacher": teacher, "steps": steps})
        assert found.to_dict("list") == {"answer": [f"{teacher}, {steps} steps"]}
    (tmp_path / "12_when.old.parquet").unlink()
    with pytest.raises(ValueError, match="12_when.old.ipynb must be .* with its predictions beside it"):
        earlier_answers(tmp_path / "12_when.old.ipynb", {"steps": 300})


RATES = dict.fromkeys(("Negatives first", "CoT KD, continued"), 0.003)
FEW = {
    "11_real_student": {"methods": ["CoT KD", "NAT", NEGATIVE], "controls": [], "vote_questions": 0},
    "12_when": {
        **{"methods": ["Negatives first"], "known_rates": RATES},
        **{"sizes": [], "shares": [], "ranks": []},
    },
}


@pytest.mark.parametrize("chapter", FEW)
def test_a_longer_run_of_a_chapter_trains_what_is_new_alone(chapter, tmp_path):
    """Of two seeds the one that is new; the answers of the other are those of the earlier run."""
    root, executed = find_root(), f"_build/smoke/executed/{chapter}.ipynb"
    found, more = {}, {}
    for name, seeds in (("first", [0]), ("longer", [0, 2])):
        clone = tmp_path / name
        clone.mkdir()
        for part in ("notebooks", "negdistill", "constraints.txt"):
            (clone / part).symlink_to(root / part)
        folder = clone / "runs"
        own = {**FEW[chapter], **more, "seeds": seeds, "run_dir": str(folder)}
        pipeline.run(clone, "smoke", [chapter[:2]], overrides=own)
        run, made = RunFolder.open(folder), (folder / "fits").glob("[!r]*/manifest.json")
        fits = {json.loads(path.read_text())["seed"] for path in made}
        frames = [
            pd.read_parquet(run.path(one)) for one in sorted(run.manifest.artifacts) if "parquet" in one
        ]
        found[name] = fits, frames
        more = {"earlier": str(clone / executed)}
        if chapter == "11_real_student":  # the vote of a student that is at hand
            more |= {"adapters": str(folder / "fits"), "vote_questions": 2}
    (first, before), (longer, after) = found["first"], found["longer"]
    assert first == {0, *([1] if chapter == "12_when" else [])} and longer == {2}
    assert set(after[0]["seed"]) == first | longer
    for one, other in zip(after, before, strict=True):
        for column, value in (("seed", 2), ("set", "vote")):
            one = one[one[column] != value] if column in one else one
        one = one.astype({"level": other["level"].dtype})  # floats, since a vote has none
        pd.testing.assert_frame_equal(one.reset_index(drop=True), other)
