"""Samples of every view across batches, their probabilities against a plain forward pass, and the folder."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import CONTEXT, PROMPTS, TOKENIZER, generated, tiny

from negdistill.data import arithmetic
from negdistill.data.answers import grade
from negdistill.data.formats import read_records
from negdistill.data.records import Sample
from negdistill.inference import sample as sample_module
from negdistill.inference.sample import automatic_batch_size, sample
from negdistill.method.nat import attach, detach, view
from negdistill.method.nat_unit import DualLinear, NATConfig

QUIET = {"max_new_tokens": 24, "progress": False}
FEW = dict(list(PROMPTS.items())[:4])


def disturb(model, wanted):
    """Give the named matrices numbers, so that every view is another model."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in wanted):
                parameter.normal_(std=0.2)


@pytest.fixture(scope="module")
def natted():
    student = tiny()
    attach(student.model, NATConfig(unit_dim=4, r=2))
    disturb(student.model, ("lora_", "query", "key.", "value_"))
    return student


@pytest.fixture(scope="module")
def lora():
    student = tiny()
    config = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], lora_dropout=0.1)
    model = get_peft_model(student.model, config)
    disturb(model, ("lora_",))
    return student._replace(model=model.eval())


def of(request, name):
    """A student and its view by name."""
    if name == "lora":
        return request.getfixturevalue("lora"), None
    return request.getfixturevalue("natted"), name


def ids(samples):
    return [(one.problem_id, one.index, one.ids, one.finished) for one in samples]


# --- what is drawn ------------------------------------------------------------------------------------

VIEWS = ["base", "pos", "neg", "nat", "lora"]


@pytest.mark.parametrize("name", VIEWS)
def test_equal_seeds_give_equal_samples(name, request):
    student, chosen = of(request, name)
    full = sample(student, PROMPTS, n=5, seed=3, view=chosen, **QUIET)
    assert [(one.problem_id, one.index) for one in full] == [(key, i) for key in PROMPTS for i in range(5)]
    for batch_size in (1, 7):
        few = sample(student, FEW, n=5, seed=3, view=chosen, batch_size=batch_size, **QUIET)
        assert ids(few) == ids(full)[:20]
        for one, other in zip(few, full, strict=False):
            assert one.text == other.text and one.log_prob == pytest.approx(other.log_prob, abs=1e-4)
    less = sample(student, PROMPTS, n=2, seed=3, view=chosen, batch_size=4, **QUIET)
    assert ids(less) == [row for row in ids(full) if row[1] < 2]
    other = sample(student, FEW, n=5, seed=4, view=chosen, **QUIET)
    assert len({one.ids for one in (*few, *other)}) > 35


@pytest.mark.parametrize("name", VIEWS)
def test_greedy_equals_generate_in_every_view(name, request):
    student, chosen = of(request, name)
    drawn = sample(student, FEW, 1, 0.0, view=chosen, batch_size=3, **QUIET)
    if chosen:
        with view(student.model, chosen):
            expected = [generated(student.model, prompt, 24) for prompt in FEW.values()]
    else:
        expected = [generated(student.model, prompt, 24) for prompt in FEW.values()]
    assert [one.ids for one in drawn] == expected
    plain = [generated(tiny().model, prompt, 24) for prompt in FEW.values()]
    assert (expected == plain) == (name == "base")


def test_views_are_as_for_any_model(natted):
    assert ids(sample(natted, FEW, n=2, **QUIET)) == ids(sample(natted, FEW, n=2, view="nat", **QUIET))
    with pytest.raises(ValueError, match="view must be one of 'base', 'pos', 'neg', 'nat'; got 'net'"):
        sample(natted, FEW, view="net")
    with pytest.raises(ValueError, match="the model carries no NAT"):
        sample(tiny(), FEW, view="pos")
    student = tiny()
    attach(student.model, NATConfig(unit_dim=4))
    with pytest.raises(ValueError, match="the view 'nat' was never trained"):
        sample(student, FEW)
    detach(student.model)
    assert not any(isinstance(module, DualLinear) for module in student.model.modules())


@pytest.mark.parametrize("how", [{}, {"temperature": 0.6}, {"temperature": 0.0, "n": 1}])
def test_probabilities_are_those_of_one_forward_pass(how):
    """At temperature 1 and over all tokens, however they were drawn."""
    student = tiny(dtype=torch.float64)
    drawn = sample(student, PROMPTS, **{"n": 6, **how}, **QUIET)
    for one in drawn:
        prompt = TOKENIZER(PROMPTS[one.problem_id])["input_ids"]
        with torch.no_grad():
            logits = student.model(torch.tensor([[*prompt, *one.ids]])).logits[0, len(prompt) - 1 : -1]
        exact = logits.log_softmax(-1)[range(one.tokens), list(one.ids)].sum().item()
        assert one.log_prob == pytest.approx(exact, abs=1e-9) and exact < 0
        ends = [place for place, token in enumerate(one.ids) if token == TOKENIZER.eos_token_id]
        assert ends == ([one.tokens - 1] if one.finished else [])
        assert one.finished or one.tokens == min(24, CONTEXT - len(prompt))
        assert one.text == TOKENIZER.decode(one.ids, skip_special_tokens=True)
    if not how:
        assert 0 < sum(one.finished for one in drawn) < len(drawn)


def test_samples_are_graded_like_rationales():
    problems = arithmetic.generate("test", 3, 0)
    drawn = sample(tiny(), {problem.id: problem.question for problem in problems}, n=2, **QUIET)
    grades = grade(problems, drawn)
    assert [one.rationale for one in grades] == drawn and {one.label for one in grades} <= {"none", "wrong"}


def test_the_model_is_left_as_it_was():
    student = tiny()
    student.model.train()
    student.model.lm_head.eval()
    modes = [module.training for module in student.model.modules()]
    state = torch.get_rng_state()
    sample(student, FEW, n=1, **QUIET)
    assert [module.training for module in student.model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.requires_grad for parameter in student.model.parameters())


def test_the_bar_counts_samples(capfd):
    sample(tiny(), FEW, n=3, max_new_tokens=2)
    assert "12/12" in capfd.readouterr().err
    sample(tiny(), FEW, n=3, **QUIET)
    assert capfd.readouterr() == ("", "")


def test_the_batch_fits_the_memory(monkeypatch):
    student = tiny()
    memory = psutil.virtual_memory().total
    row = 256 * 100 + 32 * len(TOKENIZER)  # 256 bytes of keys and values per token
    for rows in (1, 40):
        monkeypatch.setattr(sample_module, "MEMORY", (rows + 0.5) * row / memory)
        assert automatic_batch_size(student, 100) == rows
    monkeypatch.setattr(sample_module, "MEMORY", 1e-9)
    assert automatic_batch_size(student, 100) == 1
    monkeypatch.undo()
    assert automatic_batch_size(student, 100) == sample_module.MOST_ROWS["cpu"]


def test_an_answer_longer_than_the_context_takes_no_memory():
    longest = sample(tiny(), FEW, n=1, max_new_tokens=10**12, progress=False)
    assert all(0 < one.tokens < CONTEXT for one in longest)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prompts": {}}, "prompts must not be empty"),
        ({"prompts": {"a": "1", "b": ""}}, "prompt 'b' has no tokens; leave it out"),
        ({"prompts": {"a": "1 " * 300}}, r"prompt 'a' takes \d+ tokens, the context holds 96; shorten it"),
        ({"prompts": {"a": "\udcff x"}}, "prompt 'a' must be whole characters; .* is it UTF-8"),
        ({"n": 0}, "n must be at least 1; got 0"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1; got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
        ({"temperature": -1.0}, "temperature must be at least 0; got -1.0"),
        ({"temperature": float("nan")}, "temperature must be finite; got nan"),
        ({"temperature": 0.0}, "n must be 1 at temperature 0, where all samples are equal; got 16"),
    ],
)
def test_bad_input_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        sample(tiny(), **{"prompts": FEW, "progress": False, **wrong})


# --- on disk ------------------------------------------------------------------------------------------


def test_what_lies_in_the_folder_of_somebody_else_stays(tmp_path):
    mine = [tmp_path / "process-notes" / "a.txt", tmp_path / "process-1" / "a.txt", tmp_path / "wave-1.jsonl"]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    (tmp_path / "process-notes.txt").write_text("mine")
    drawn = sample(tiny(), FEW, n=1, **QUIET, out_dir=tmp_path)
    assert sample(tiny(), FEW, n=1, **QUIET, out_dir=tmp_path) == drawn
    assert all(path.read_text() == "mine" for path in [*mine, tmp_path / "process-notes.txt"])
    assert not list(tmp_path.glob("wave-0*"))


def test_numbers_of_numpy_are_kept_like_pythons(tmp_path):
    given = {
        "n": np.int64(2),
        "temperature": np.float64(0.5),
        "max_new_tokens": np.int64(4),
        "seed": np.int32(1),
    }
    drawn = sample(tiny(), FEW, **given, progress=False, out_dir=tmp_path)
    plain = {"n": 2, "temperature": 0.5, "max_new_tokens": 4, "seed": 1}
    assert sample(tiny(), FEW, **plain, progress=False, out_dir=tmp_path) == drawn


HARD = {"n": 8, "max_new_tokens": 24, "batch_size": 1, "progress": False}  # one prompt a wave
RUN = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path[:0] = [sys.argv[1], str(Path(sys.argv[1]).parent)]
from test_sample import HARD, PROMPTS, tiny
from negdistill.inference.sample import sample
sample(tiny(), PROMPTS, **HARD, out_dir=sys.argv[2])
"""


def test_killed_and_run_again_is_the_same_file(tmp_path, one_thread):
    folder = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", RUN, str(Path(__file__).parent), str(folder)])
    while len(list(folder.glob("wave-*"))) < 3 and process.poll() is None:
        time.sleep(0.002)
    process.kill()
    assert process.wait() != 0  # killed before it was done; Windows gives no -9
    assert 3 <= len(list(folder.glob("wave-*"))) < 9 and not (folder / "samples.jsonl").exists()
    for one in (folder, tmp_path / "whole"):
        again = sample(tiny(), PROMPTS, **HARD, out_dir=one)
        assert sorted(path.name for path in one.glob("[!.]*")) == ["manifest.json", "samples.jsonl"]
        assert read_records(one / "samples.jsonl", Sample) == again
    assert (folder / "samples.jsonl").read_bytes() == (tmp_path / "whole" / "samples.jsonl").read_bytes()


def test_a_finished_folder_is_read_back_without_the_model(tmp_path, monkeypatch):
    student = tiny()
    first = sample(student, FEW, n=2, out_dir=tmp_path, **QUIET)
    assert read_records(tmp_path / "samples.jsonl", Sample) == first == sample(student, FEW, n=2, **QUIET)
    monkeypatch.setattr(sample_module, "Engine", None)
    assert sample(student, FEW, n=2, out_dir=tmp_path, **QUIET) == first


def test_a_foreign_folder_is_refused(tmp_path, natted):
    student = tiny()
    given = {"n": 2, "out_dir": tmp_path, **QUIET}
    sample(student, FEW, **given)
    changes = {
        "n": {"n": 3},
        "temperature": {"temperature": 0.5},
        "max_new_tokens": {"max_new_tokens": 25},
        "seed": {"seed": 1},
        "prompts": {"prompts": PROMPTS},
    }
    for name, change in changes.items():
        with pytest.raises(
            ValueError, match=f"belongs to another run: other {name}; choose another folder, or remove it"
        ):
            sample(student, **{"prompts": FEW, **given, **change})
    other = tiny()
    with torch.no_grad():
        other.model.lm_head.weight += 1e-3
    with pytest.raises(ValueError, match="belongs to another run: other student; choose another folder"):
        sample(other, FEW, **given)
    with pytest.raises(ValueError, match="other student, view;"):
        sample(natted, FEW, view="base", **given)


def test_a_damaged_folder_is_refused(tmp_path):
    student = tiny()
    sample(student, FEW, n=2, out_dir=tmp_path / "a", **QUIET)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    path = tmp_path / "a" / "samples.jsonl"
    path.write_text(path.read_text().replace('"index": 0', '"index": 1'))
    with pytest.raises(ValueError, match="samples.jsonl is not as manifest.json recorded it"):
        sample(student, FEW, n=2, out_dir=tmp_path / "a", **QUIET)
    manifest = tmp_path / "b" / "manifest.json"
    manifest.write_text(manifest.read_text()[:-20])
    with pytest.raises(ValueError, match="manifest.json is damaged"):
        sample(student, FEW, n=2, out_dir=tmp_path / "b", **QUIET)


def test_the_manifest_says_what_was_drawn(tmp_path):
    sample(tiny(), FEW, n=2, seed=5, out_dir=tmp_path, **QUIET)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["seed"] == 5 and list(manifest["artifacts"]) == ["samples.jsonl"]
    assert manifest["parameters"] == {
        **{"n": 2, "temperature": 1.0, "max_new_tokens": 24, "seed": 5, "view": None}
    }


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"student": "embedded"}, TypeError, "student must be a Student, .*; got 'embedded', a str"),
        ({"student": None}, TypeError, "student must be a Student, .*; got None"),
        ({"student": tiny().model}, TypeError, r"student must be a Student, .*; got LlamaForCausalLM\("),
        ({"prompts": {"a": 3}}, TypeError, "prompts must be texts by problem id; got 3, a int"),
        ({"prompts": {3: "abc"}}, TypeError, "keys of prompts must be problem ids, .*; got 3, a int"),
        ({"seed": -1}, ValueError, "seed must be at least 0; got -1"),
        ({"progress": "no"}, TypeError, "progress must be True or False; got 'no', a str"),
        ({"out_dir": 3}, TypeError, "out_dir must be a path, as a text or a Path; got 3, a int"),
    ],
)
def test_arguments_of_another_kind_are_refused(changes, error, message):
    with pytest.raises(error, match=message):
        sample(**{"student": tiny(), "prompts": FEW, "progress": False} | changes)
