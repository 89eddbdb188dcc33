"""The embedded student knows single operations and not the task; any causal LM of transformers loads."""

import importlib.util
import json
import os
import random
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from transformers import GPT2Config, LlamaConfig, LlamaForCausalLM, Qwen2Config

from negdistill.data.answers import final_answer
from negdistill.data.arithmetic_text import tokenizer
from negdistill.data.arithmetic_world import calculate, generate
from negdistill.data.prompts import format_prompt
from negdistill.runs.digests import digest_weights
from negdistill.training import students
from negdistill.training.adapters import lora, nat_lora
from negdistill.training.batching import Example
from negdistill.training.loop import TrainConfig, train
from negdistill.training.settings import EMBEDDED
from negdistill.training.students import context_length, end_ids, load_student, new_student

CONFIGS = {
    "GPT2LMHeadModel": GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=64),
    "LlamaForCausalLM": LlamaConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    ),
    "Qwen2ForCausalLM": Qwen2Config(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    ),
}


@pytest.fixture(scope="module")
def student():
    return load_student(device="cpu")


def continuations(student, prompts: list[str], tokens: int) -> list[str]:
    """Greedy continuations, by the generation of transformers."""
    rows = student.tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    out = student.model.generate(
        input_ids=rows["input_ids"],
        attention_mask=rows["attention_mask"],
        max_new_tokens=tokens,
        do_sample=False,
        pad_token_id=student.tokenizer.pad_token_id,
    )
    return student.tokenizer.batch_decode(out[:, rows["input_ids"].shape[1] :], skip_special_tokens=True)


def test_the_embedded_student_is_the_declared_one(student):
    config = student.model.config
    assert (config.model_type, config.num_hidden_layers, config.hidden_size) == ("llama", 4, 128)
    assert config.max_position_embeddings == student.tokenizer.model_max_length == 512
    assert 800_000 < student.model.num_parameters() < 1_000_000
    assert student.model.dtype == torch.float32 and not student.model.training
    assert config._attn_implementation == "sdpa"
    again = tokenizer()
    text = "Problem:\nZoe owns 17 zebras.\nSolution:\n\\boxed{17}"
    assert student.tokenizer(text)["input_ids"] == again(text)["input_ids"]
    assert len(student.tokenizer) == len(again) == config.vocab_size


def test_the_embedded_files_are_small_and_safe():
    from importlib.resources import files

    sizes = {file.name: file.stat().st_size for file in (files("negdistill.data") / "embedded").iterdir()}
    assert {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
    } <= sizes.keys()
    assert sum(sizes.values()) <= 8 * 2**20
    assert all(name.endswith((".md", ".json", ".safetensors")) for name in sizes)


def test_single_operations_are_right(student):
    """1,600 drawn from every true equation on 0..199: 99 % right, and no operation much worse."""
    facts = [(a, op, b) for op in "+-*/" for a in range(200) for b in range(200)]
    facts = [fact for fact in facts if calculate(*fact) is not None]
    rng = random.Random(0)
    asked = rng.sample(facts, 1600)
    for op in "*/":  # a few of a hundred facts
        asked += rng.sample([fact for fact in facts if fact[1] == op], 200)
    said = continuations(student, [f"{a} {op} {b} = " for a, op, b in asked], 4)
    right = [text.split(".")[0] == str(calculate(*fact)) for fact, text in zip(asked, said, strict=True)]
    assert sum(right[:1600]) >= 0.99 * 1600
    assert sum(right[1600:1800]) >= 0.96 * 200 and sum(right[1800:]) >= 0.95 * 200


def test_no_test_question_is_solved_before_adaptation(student):
    problems = generate("test", 100)
    said = continuations(student, [format_prompt(p.question) for p in problems], 110)
    assert sum(final_answer(text) == p.answer for p, text in zip(problems, said, strict=True)) <= 1


def test_a_new_student_has_the_same_shape_and_its_own_seed(student):
    fresh, again, other = new_student(3).model, new_student(3).model, new_student(4).model
    assert {n: p.shape for n, p in fresh.named_parameters()} == {
        n: p.shape for n, p in student.model.named_parameters()
    }
    states = [model.state_dict()["model.embed_tokens.weight"] for model in (fresh, again, other)]
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])
    before = torch.random.get_rng_state()
    new_student(5)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("architecture", CONFIGS)
def test_other_architectures_load_from_a_folder(architecture, tmp_path):
    tok = tokenizer()
    tok.pad_token = None
    config = CONFIGS[architecture]
    config.vocab_size = len(tok)
    torch.manual_seed(0)
    model = getattr(transformers, architecture)(config).eval()
    model.save_pretrained(tmp_path)
    tok.save_pretrained(tmp_path)
    loaded = load_student(str(tmp_path), device="cpu")
    assert loaded.tokenizer.pad_token == loaded.tokenizer.eos_token == "</s>"
    ids = torch.tensor([[5, 6, 7, 8]])
    torch.testing.assert_close(loaded.model(ids).logits, model(ids).logits)
    half = load_student(str(tmp_path), dtype=torch.bfloat16, device="cpu")
    assert half.model.dtype == torch.bfloat16


def test_threads_are_those_of_the_student(tmp_path, monkeypatch):
    """Kind: more threads than free cores; as in pytorch/pytorch#125547, pytorch/pytorch#80777."""
    monkeypatch.setattr(students, "machine", lambda: {"cores": 3})
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("NEGDISTILL_THREADS", raising=False)
    before = torch.get_num_threads()
    tokenizer().save_pretrained(tmp_path)
    size = {"hidden_size": 256, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(vocab_size=40_000, tie_word_embeddings=True, **size)).save_pretrained(
        tmp_path
    )
    seen = []
    for load in (load_student, lambda: load_student(str(tmp_path), device="cpu"), new_student):
        load()
        seen.append(torch.get_num_threads())
    monkeypatch.setenv("NEGDISTILL_THREADS", "2")
    load_student(str(tmp_path), device="cpu")
    seen.append(torch.get_num_threads())
    monkeypatch.setenv("NEGDISTILL_THREADS", "many")
    with pytest.raises(ValueError, match="NEGDISTILL_THREADS must be a whole number of at least 1.*'many'"):
        load_student(str(tmp_path), device="cpu")
    torch.set_num_threads(before)
    assert seen == [1, 3, 1, 2]


def test_the_environment_does_not_decide_for_the_embedded_student():
    """Kind: small operations on many threads; as in pytorch/pytorch#80777, pytorch/pytorch#3146."""
    code = "import torch\nfrom negdistill import load_student\nload_student()\nprint(torch.get_num_threads())"
    own = {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": ""}
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, env=os.environ | own, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
    assert done.stderr == ""


def test_what_is_no_student_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match="name must be 'embedded', 'smollm2-135m', a GGUF file, a folder or a"
    ):
        load_student(str(tmp_path / "nowhere"), device="cpu")
    tokenizer().save_pretrained(tmp_path)
    CONFIGS["LlamaForCausalLM"].save_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"not weights")  # a pickle is never opened
    with pytest.raises(ValueError, match="safetensors weights"):
        load_student(str(tmp_path), device="cpu")


def test_a_misspelt_name_is_refused_at_once(tmp_path, monkeypatch):
    """Not a name that a hub could know, so none is asked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(students, "HfApi", None)
    CONFIGS["LlamaForCausalLM"].save_pretrained("my-student")
    for name, near in {
        "embeded": "embedded",
        "smollm-135m": "smollm2-135m",
        "my_student": "my-student",
    }.items():
        with pytest.raises(ValueError, match=f"got '{name}', which is no folder; did you mean .{near}.\\?"):
            load_student(name, device="cpu")
    for name in ("gpt2", "./a/b", "a/b/c", ""):
        with pytest.raises(ValueError, match=r"a hub id, owner/name, .*; got '.*', which is no folder$"):
            load_student(name, device="cpu")


def test_a_hub_that_does_not_answer_costs_no_half_minute(monkeypatch):
    """Kind: waits for a hub that is not there; as in huggingface/huggingface_hub#2236."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    waits = []  # transformers, left alone, would sleep between one question and the next
    monkeypatch.setattr("time.sleep", waits.append)
    with pytest.raises(ValueError, match="got 'nobody/nothing': ") as refused:
        load_student("nobody/nothing", device="cpu")
    assert not waits and "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", ["llama", "mine"])
def test_no_code_of_a_folder_runs(kind, tmp_path, monkeypatch):
    """transformers asks whether to run what `auto_map` names; a "y" on stdin is no consent.

    Kind: code of a local folder that runs without consent; as in huggingface/transformers#46483.
    """
    student = new_student()
    student.model.save_pretrained(tmp_path)
    student.tokenizer.save_pretrained(tmp_path)
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    mapped = {"AutoConfig": "mine.Mine", "AutoModelForCausalLM": "mine.Mine"}
    for name, changes in {
        "config.json": {"model_type": kind, "auto_map": mapped},
        "tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["mine.Mine", None]}},
    }.items():
        said = json.loads((tmp_path / name).read_text())
        (tmp_path / name).write_text(json.dumps(said | changes))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    if kind == "llama":  # what transformers has itself is taken in the place of the folder's code
        assert load_student(str(tmp_path), device="cpu").model.config.model_type == "llama"
    else:
        with pytest.raises(ValueError, match="contains custom code"):
            load_student(str(tmp_path), device="cpu")
    assert not (tmp_path / "ran").exists()


def test_the_tokenizer_is_the_one_that_lies_in_the_folder(tmp_path):
    """AutoTokenizer reads a tokenizer.json beside a Qwen2 with the splitting rule of Qwen2."""
    own, config = tokenizer(), CONFIGS["Qwen2ForCausalLM"]
    config.vocab_size = len(own)
    transformers.Qwen2ForCausalLM(config).save_pretrained(tmp_path)
    own.save_pretrained(tmp_path)
    text = "Ada has 7 books.\nSo \\boxed{17}"
    assert load_student(str(tmp_path), device="cpu").tokenizer(text)["input_ids"] == own(text)["input_ids"]


# --- what a student says of itself --------------------------------------------------------------------


def said(tokens=10**30, **config):
    """A model and a tokenizer of which only this is known."""
    text = SimpleNamespace(**config)
    text.get_text_config = lambda: text
    return SimpleNamespace(config=text), SimpleNamespace(model_max_length=tokens, eos_token_id=2)


def test_the_context_of_models_that_call_it_otherwise():
    """Kind: a configuration without max_position_embeddings; as in huggingface/transformers#27498,
    huggingface/optimum#1477.
    """
    assert context_length(*said(max_position_embeddings=64, tokens=32)) == 64
    assert context_length(*said(n_positions=48)) == 48  # GPT-2, GPT-J
    assert context_length(*said(max_seq_len=40, tokens=32)) == 40  # MPT
    assert context_length(*said(seq_length=24)) == 24  # BLOOM as it was published
    assert context_length(*said(max_position_embeddings=None, tokens=512)) == 512
    with pytest.raises(
        ValueError, match="context of SimpleNamespace must be known.* set tokenizer.model_max"
    ):
        context_length(*said())
    rope = {"rope_type": "longrope", "original_max_position_embeddings": 16}
    assert context_length(*said(max_position_embeddings=64, rope_parameters=rope)) == 16
    nested = {"full_attention": rope, "sliding_attention": {"rope_type": "default"}}
    assert context_length(*said(max_position_embeddings=64, rope_parameters=nested)) == 16
    assert context_length(*said(max_position_embeddings=64, rope_parameters={"rope_type": "yarn"})) == 64


def test_every_end_of_an_answer_counts():
    """Kind: ends of an answer that stand in one place only; as in Blaizzy/mlx-vlm#2112."""
    model, tok = said(eos_token_id=5)
    assert end_ids(model, tok) == {2, 5}
    model.generation_config = SimpleNamespace(eos_token_id=[7, 8])
    assert end_ids(model, tok) == {2, 5, 7, 8}
    tok.eos_token_id = model.config.eos_token_id = None
    assert end_ids(model, tok) == {7, 8}


# --- quantised ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("quantize", ["8bit", "4bit"])
def test_adapters_train_on_a_quantised_base(quantize):
    pytest.importorskip("bitsandbytes")
    student = load_student(device="cpu", quantize=quantize)
    plain = load_student(device="cpu")
    layer = student.model.model.layers[0].mlp.down_proj
    assert not layer.weight.is_floating_point() and student.model.lm_head.weight.dtype == torch.float32
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])
    with torch.no_grad():
        expected, got = plain.model(ids).logits, student.model(ids).logits
    assert 0 < (got - expected).abs().max() < 0.2 * expected.abs().max()
    examples = [Example(str(a), format_prompt(f"Tom has {a} shells."), f"{a}.") for a in range(8)]
    config = TrainConfig(max_steps=4, batch_size=8, lr=3e-3, progress=False)
    before = digest_weights(student.model.named_parameters())
    for put_on in (lora, nat_lora):
        with put_on(student.model, EMBEDDED) as model:
            loss = train(model, student.tokenizer, examples, config).loss
        assert loss.iloc[-1] < loss.iloc[0]
        assert digest_weights(student.model.named_parameters()) == before


def test_bad_quantisation_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="quantize must be one of '8bit', '4bit'; got '2bit'"):
        load_student(quantize="2bit")
    monkeypatch.setattr(students, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="quantize='8bit' needs bitsandbytes, .*; pip install bitsandbytes"):
        load_student(quantize="8bit")


def test_importing_the_world_needs_no_torch():
    code = "import sys, negdistill.data.arithmetic; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- the benchmark ------------------------------------------------------------------------------------


def test_a_benchmark_refuses_fewer_repeats_than_quartiles_need(capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    options = importlib.import_module("measuring").plain_options("", repeats=3, steps=5)
    chosen = options.parse_args(["--repeats", "2", "--steps", "1"])
    assert (chosen.repeats, chosen.steps) == (2, 1)
    for given in ("1", "two"):
        with pytest.raises(SystemExit):
            options.parse_args(["--repeats", given])
    assert "--repeats: must be at least 2, which quartiles need; got 1\n" in capsys.readouterr().err


def test_benchmark_of_the_base_finds_the_compiled_one_equal(tmp_path, capsys, monkeypatch):
    pytest.importorskip("bitsandbytes")
    folder = Path(__file__).parents[2] / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))  # no C++ compiler
    spec = importlib.util.spec_from_file_location("benchmark_base", folder / "base.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    shape = "--device cpu --model-width 64 --layers 1 --vocabulary 300 --batch 2 --length 8 --repeats 2 --out"
    benchmark.main([*shape.split(), str(tmp_path)])
    rows = json.loads((tmp_path / "base.json").read_text())["rows"]
    assert [row["base"] for row in rows] == 2 * list(benchmark.VARIANTS)
    of = {row["base"]: row for row in rows}
    assert of["plain"]["logits_away"] == 0 < of["8bit"]["logits_away"] < of["4bit"]["logits_away"]
    assert of["4bit"]["base_bytes"] < of["8bit"]["base_bytes"] < of["plain"]["base_bytes"]
    assert "times faster" in (tmp_path / "base.md").read_text() and "4bit" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"device": "cud"},
            ValueError,
            "device must be one of torch, such as \"cpu\" .*; got 'cud': Expected",
        ),
        ({"device": 0}, TypeError, "device must be a device of torch, .*; got 0, a int"),
        ({"device": "cuda:99"}, ValueError, "device must be one that is here; got 'cuda:99'; take \"cpu\""),
        ({"dtype": "float61"}, ValueError, "dtype must be one of .*; got 'float61'; did you mean 'float64'"),
        ({"dtype": 16}, TypeError, "dtype must be a dtype of torch, .* or its name; got 16, a int"),
        ({"name": 3}, TypeError, "name must be a path, as a text or a Path; got 3, a int"),
    ],
)
def test_arguments_of_another_kind_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        load_student(**arguments)


def test_a_dtype_may_be_named():
    assert load_student(dtype="float16", device="cpu").model.dtype is torch.float16
