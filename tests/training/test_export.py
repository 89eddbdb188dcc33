"""What `export` writes, loaded and served by stock libraries, against the fit itself."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from peft import LoraModel
from safetensors.torch import load_file, save_file
from serving import serving

from negdistill.__main__ import main
from negdistill.data import arithmetic
from negdistill.data.prompts import PRESETS, format_prompt
from negdistill.inference.evaluate import Follow
from negdistill.inference.sample import sample
from negdistill.method.nat_files import FILES
from negdistill.runs.folder import RunFolder
from negdistill.teachers.generate import generate
from negdistill.teachers.openai_server import OpenAITeacher
from negdistill.training import export as exporting
from negdistill.training.adapters import stored
from negdistill.training.batching import real_text_tokenizer
from negdistill.training.dataset import training_set
from negdistill.training.export import chat_template, export
from negdistill.training.export_check import QUESTIONS, answers
from negdistill.training.fit import adapted, fit
from negdistill.training.fits import FIT
from negdistill.training.settings import settings
from negdistill.training.students import load_student

PROBLEMS = arithmetic.generate("test", 4, seed=1)
PROMPTS = {problem.id: format_prompt(problem.question) for problem in PROBLEMS}
TOKENS = 24
CONFIG = settings(max_steps=6, batch_size=8, progress=False, unit_dim=4)
ALONE = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}

STOCK = """
import json, sys
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

out, prompts, tokens = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
merged, adapter = f"{out}/merged", f"{out}/adapter"
base = AutoModelForCausalLM.from_pretrained(f"{out}/base")
models = {
    "merged": (AutoModelForCausalLM.from_pretrained(merged), merged),
    "on its base": (PeftModel.from_pretrained(base, adapter), adapter),
    "by its address": (AutoPeftModelForCausalLM.from_pretrained(adapter), adapter),
}
answers = {name: [] for name in models}
for name, (model, folder) in models.items():
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for prompt in prompts:
        row = tokenizer(prompt, return_tensors="pt")
        made = model.generate(**row, max_new_tokens=tokens, do_sample=False)
        answers[name].append(made[0, row["input_ids"].shape[1]:].tolist())
assert not [name for name in sys.modules if name.partition(".")[0] == "negdistill"]
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def student():
    return load_student("embedded", device="cpu")


@pytest.fixture(scope="module")
def fits(student, tmp_path_factory):
    problems = arithmetic.generate("train", 8, seed=0)
    data = training_set(problems, arithmetic.teach(problems, n=4))
    follow = Follow({"valid": PROBLEMS}, options={"max_new_tokens": 8})
    folder = tmp_path_factory.mktemp("fits")
    made = {"NCE": fit("NCE", student, data, CONFIG, folder, on_epoch=follow)}
    made["CoT KD"] = fit("CoT KD", student, data, CONFIG, folder)
    made["Few-shot"] = fit("Few-shot", student, data, replace(CONFIG, shots=1), folder)
    two = replace(CONFIG, train=replace(CONFIG.train, max_steps=2))
    made["NAT"] = fit("NAT", student, data, two, folder)
    made["sum"] = fit("NAT", student, data, replace(two, nat=replace(two.nat, mix="sum")), folder)
    return made


@pytest.fixture(scope="module")
def out(fits, tmp_path_factory):
    return export(fits["NCE"].folder, tmp_path_factory.mktemp("out") / "nce")


@pytest.fixture(scope="module")
def greedy(fits, student):
    """Token ids of the fit's own answers."""
    with adapted(student, fits["NCE"]) as trained:
        return [
            list(one.ids) for one in sample(trained, PROMPTS, 1, 0.0, max_new_tokens=TOKENS, progress=False)
        ]


# --- what it writes -----------------------------------------------------------------------------------


def test_stock_libraries_give_the_answers_of_the_fit(out, greedy, student):
    given = [str(out), json.dumps(list(PROMPTS.values())), str(TOKENS)]
    done = subprocess.run(
        [sys.executable, "-c", STOCK, *given], env=ALONE, capture_output=True, text=True, check=True
    )
    answers = json.loads(done.stdout.splitlines()[-1])
    assert answers == dict.fromkeys(("merged", "on its base", "by its address"), greedy)
    plain = sample(student, PROMPTS, 1, 0.0, max_new_tokens=TOKENS, progress=False)
    assert greedy != [list(one.ids) for one in plain]


def test_a_sum_of_two_branches_is_one_adapter_of_both_ranks(fits, student, tmp_path):
    folder = export(fits["sum"].folder, tmp_path / "sum")
    with adapted(student, fits["sum"]) as trained:
        drawn = sample(trained, PROMPTS, 1, 0.0, max_new_tokens=TOKENS, progress=False)
    with stored(load_student(str(folder / "base"), device="cpu").model, folder / "adapter", "lora") as model:
        again = sample(student._replace(model=model), PROMPTS, 1, 0.0, max_new_tokens=TOKENS, progress=False)
    merged = load_student(str(folder / "merged"), device="cpu")
    whole = sample(merged, PROMPTS, 1, 0.0, max_new_tokens=TOKENS, progress=False)
    own, plain = ([one.ids for one in many] for many in (drawn, sample(student, PROMPTS, 1, 0.0, TOKENS)))
    assert [one.ids for one in again] == [one.ids for one in whole] == own != plain
    config = json.loads((folder / "adapter/adapter_config.json").read_text("utf-8"))
    assert config["r"] == 2 * CONFIG.nat.r
    assert f"LoRA of rank {config['r']}" in (folder / "README.md").read_text("utf-8")


def test_a_sum_in_bfloat16_may_round_otherwise_and_says_how_often(tmp_path):
    student = load_student("embedded", torch.bfloat16, "cpu")
    problems = arithmetic.generate("train", 8, seed=0)
    data = training_set(problems, arithmetic.teach(problems, n=4))
    config = replace(CONFIG, nat=replace(CONFIG.nat, mix="sum"))
    made = export(fit("NAT", student, data, config, tmp_path / "fits").folder, tmp_path / "out")
    card = (made / "README.md").read_text("utf-8")
    assert re.search(r"In bfloat16 \d+ of 16 .* fit, and (none|\d+) between the adapter on its base", card)


def test_the_folder_holds_what_it_should_and_no_pickle(out, fits):
    tokenizer = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    model = {"config.json", "generation_config.json", "model.safetensors"} | tokenizer
    adapter = {"adapter_config.json", "adapter_model.safetensors"} | tokenizer
    folders = {path.name: {file.name for file in path.iterdir()} for path in out.iterdir() if path.is_dir()}
    assert folders == {"adapter": adapter, "merged": model, "base": model}
    assert (out / "README.md").is_file() and not list(out.parent.glob(".part*"))
    source = fits["NCE"].folder / "adapter"
    copied = (out / "adapter/adapter_model.safetensors").read_bytes()
    assert copied == (source / "adapter_model.safetensors").read_bytes()
    config, before = (
        json.loads((path / "adapter_config.json").read_text()) for path in (out / "adapter", source)
    )
    assert config == before | {"base_model_name_or_path": f"{out}/base"}


def test_merged_is_the_base_and_s_b_a(out):
    base, merged = (load_file(out / part / "model.safetensors") for part in ("base", "merged"))
    pairs = load_file(out / "adapter/adapter_model.safetensors")
    config = json.loads((out / "adapter/adapter_config.json").read_text())
    assert base.keys() == merged.keys()
    for name, weight in merged.items():
        key = f"base_model.model.{name.removesuffix('.weight')}"
        expected = base[name]
        if f"{key}.lora_A.weight" in pairs:
            delta = pairs[f"{key}.lora_B.weight"].double() @ pairs[f"{key}.lora_A.weight"].double()
            expected = expected + config["lora_alpha"] / config["r"] * delta
            assert not torch.equal(weight, base[name])
        assert torch.allclose(weight.double(), expected.double(), rtol=0, atol=1e-6)


def test_the_card_says_what_it_was_made_from(out, fits):
    card = (out / "README.md").read_text("utf-8")
    _, front, text = card.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "knowledge-distillation", "negdistill"],
    }
    manifest = RunFolder.open(fits["NCE"].folder).manifest.to_dict()
    made = json.loads(re.search(r"```json\n(.*?)```", text, re.DOTALL)[1])
    assert made == {key: value for key, value in manifest.items() if key != "artifacts"}
    assert (
        made["inputs"]["examples"] and made["versions"]["torch"] and made["seed"] == 0 and made["seconds"] > 0
    )
    path = fits["NCE"].trajectory
    right = path[path["epoch"] == path["epoch"].max()]["correct"].mean()
    assert f"| valid | 4 | {right:.1%} |" in text and "keep their own licences" in text
    assert str(out.parent) not in text.replace(f"`{out.as_posix()}/base`", "")


def test_a_fit_without_a_path_has_no_scores(fits, tmp_path):
    card = (export(fits["CoT KD"].folder, tmp_path / "out") / "README.md").read_text("utf-8")
    assert "None were taken while it was trained" in card and "| split |" not in card


def test_a_student_in_a_folder_is_its_own_base(student, fits, tmp_path):
    student.model.save_pretrained(tmp_path / "mine")
    student.tokenizer.save_pretrained(tmp_path / "mine")
    made = export(fits["CoT KD"].folder, tmp_path / "out", str(tmp_path / "mine"))
    config = json.loads((made / "adapter/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tmp_path / "mine") and not (made / "base").exists()


def test_a_student_in_bfloat16_is_exported_in_bfloat16(fits, tmp_path):
    half = load_student("embedded", torch.bfloat16, "cpu")
    problems = arithmetic.generate("train", 4, seed=0)
    data = training_set(problems, arithmetic.teach(problems, n=4))
    one = fit("CoT KD", half, data, replace(CONFIG, train=replace(CONFIG.train, max_steps=1)), tmp_path)
    made = export(one.folder, tmp_path / "out")
    for part in ("base", "merged"):
        assert {w.dtype for w in load_file(made / part / "model.safetensors").values()} == {torch.bfloat16}


# --- the check ----------------------------------------------------------------------------------------


def fitted(dtype, folder, steps, names):
    student = load_student("embedded", dtype, "cpu")
    problems = arithmetic.generate("train", 16, seed=0)
    data = training_set(problems, arithmetic.teach(problems, n=4))
    changes = {"nat": replace(CONFIG.nat, target_modules=names)}
    changes["train"] = replace(CONFIG.train, max_steps=steps, lr=3e-3)
    return student, fit("CoT KD", student, data, replace(CONFIG, **changes), folder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_an_output_layer_tied_to_the_embeddings_is_untied_before_merging(dtype, tmp_path):
    """Merged in place, the adapter of the one would change the other: what the model reads.

    Kind: an adapted output layer whose weight is also the embeddings; as in huggingface/peft#2018.
    """
    student, one = fitted(dtype, tmp_path / "fits", 6, ("q_proj", "lm_head"))
    made = export(one.folder, tmp_path / "out")
    base, weights = (load_file(made / part / "model.safetensors") for part in ("base", "merged"))
    assert weights["lm_head.weight"].dtype == dtype and "lm_head.weight" not in base
    assert torch.equal(weights["model.embed_tokens.weight"], base["model.embed_tokens.weight"])
    pairs = load_file(made / "adapter/adapter_model.safetensors")
    a, b = (pairs[f"base_model.model.lm_head.lora_{part}.weight"].double() for part in "AB")
    config = json.loads((made / "adapter/adapter_config.json").read_text())
    expected = base["model.embed_tokens.weight"].double() + config["lora_alpha"] / config["r"] * b @ a
    room = 1e-6 if dtype == torch.float32 else 2e-3
    torch.testing.assert_close(weights["lm_head.weight"].double(), expected, rtol=0, atol=room)
    ids = torch.tensor([student.tokenizer(list(PROMPTS.values())[0])["input_ids"]])
    merged = load_student(str(made / "merged"), dtype, "cpu").model
    with torch.no_grad(), adapted(student, one) as trained:
        own = trained.model(ids).logits
        away = (merged(ids).logits - own).abs().max() / own.abs().max()
    assert away < (1e-4 if dtype == torch.float32 else 0.02)


def test_the_card_says_how_many_merged_answers_differ(tmp_path):
    """Kind: merging that rounds; as in huggingface/peft#1388, QwenLM/Qwen#1168."""
    names = ("q_proj", "v_proj", "up_proj", "down_proj")
    student, one = fitted(torch.bfloat16, tmp_path / "fits", 8, names)
    made = export(one.folder, tmp_path / "out")
    card = (made / "README.md").read_text("utf-8")
    said = re.search(
        r"In bfloat16 (\d+) of (\d+) greedy answers differ between the merged model and the fit", card
    )
    merged = load_student(str(made / "merged"), torch.bfloat16, "cpu")
    with adapted(student, one) as trained:
        pair = [answers(who, "fixed").tokens for who in (trained, merged)]
    assert int(said[2]) == QUESTIONS == len(pair[0])
    assert int(said[1]) == sum(a != b for a, b in zip(*pair, strict=True)) > 0


def test_in_float32_no_answer_differs(out, fits, student):
    text = "In float32 0 of 16 greedy answers differ between the merged model and the fit, and none between"
    assert text in (out / "README.md").read_text("utf-8")
    with adapted(student, fits["NCE"]) as trained:
        own = answers(trained, "fixed")
    prompts = {one.id: format_prompt(one.question) for one in arithmetic.generate("test", QUESTIONS)}
    with adapted(student, fits["NCE"]) as trained:
        drawn = sample(trained, prompts, 1, 0.0, max_new_tokens=32, progress=False)
    pad = student.tokenizer.pad_token_id
    assert own.tokens == [list(one.ids) for one in drawn] and pad not in own.tokens[0]


def test_an_export_that_answers_otherwise_is_refused(fits, tmp_path, monkeypatch):
    folder = fits["CoT KD"].folder

    def broken(base, one, target, address):
        config = write(base, one, target, address)
        tensors = {name: tensor + 0.5 for name, tensor in load_file(target / FILES[1]).items()}
        save_file(tensors, target / FILES[1])
        return config

    write = exporting._write_adapter
    with monkeypatch.context() as patched:
        patched.setattr(exporting, "_write_adapter", broken)
        with pytest.raises(ValueError, match="the adapter that was written must answer as the fit"):
            export(folder, tmp_path / "out")
    monkeypatch.setattr(LoraModel, "merge_and_unload", lambda self: self.unload())
    with pytest.raises(ValueError, match=r"the merged model must answer as the fit; its logits are .*% away"):
        export(folder, tmp_path / "out")
    assert not list(tmp_path.iterdir())


# --- the chat template --------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("begins", [False, True])
def test_a_chat_becomes_the_prompt_of_training(preset, begins):
    tokenizer = real_text_tokenizer(["Problem:\nSolution:\n"], vocab_size=270)
    if begins:
        from tokenizers.processors import TemplateProcessing

        tokenizer.add_special_tokens({"bos_token": "<s>"})
        pair = ("<s>", tokenizer.bos_token_id)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<s> $A", special_tokens=[pair])
    tokenizer.chat_template = chat_template(tokenizer, preset)
    question = 'What is {1} "+" \\frac{1}{2}?\nSay it.'
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}]
    made = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert made == tokenizer(format_prompt(question, preset))["input_ids"]
    assert (made[0] == tokenizer.bos_token_id) == begins


def test_a_mark_beyond_sixteen_bits_is_in_the_template():
    tokenizer = real_text_tokenizer(["Problem:\nSolution:\n"], vocab_size=270)
    tokenizer.chat_template = chat_template(tokenizer, prefix="\N{GRINNING FACE}\n")
    made = tokenizer.apply_chat_template([{"role": "user", "content": "1?"}], tokenize=False)
    assert made.startswith("\N{GRINNING FACE}\n") and "1?" in made


# --- a server -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(out):
    with serving(out / "merged") as address:
        yield f"{address}/v1"


@pytest.mark.parametrize("chat", [True, False])
def test_a_served_student_answers_as_the_fit(chat, server, out, greedy, student, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    served = OpenAITeacher(str(out / "merged"), server, chat=chat, task=False, max_tokens=TOKENS)
    got = generate(PROBLEMS, served, 1, 0.0, tmp_path / "store", progress=False)
    texts = [student.tokenizer.decode(ids, skip_special_tokens=True) for ids in greedy]
    assert [one.text for one in got] == [text.partition("\nProblem:")[0].strip() for text in texts]


# --- what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NAT", "the fit must be a plain LoRA; 'NAT' computes with the integrate unit, .*; export NCE"),
        ("Few-shot", "the fit must be a plain LoRA; 'Few-shot' is the base itself"),
    ],
)
def test_rows_that_are_no_plain_lora_are_refused(name, message, fits, tmp_path):
    with pytest.raises(ValueError, match=message):
        export(fits[name].folder, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_bad_input_is_refused(fits, student, tmp_path):
    folder = fits["CoT KD"].folder
    (tmp_path / "there").mkdir()
    (tmp_path / "there/mine").write_text("x")
    with pytest.raises(ValueError, match="out must be a new folder; .*there is there already"):
        export(folder, tmp_path / "there")
    assert (tmp_path / "there/mine").read_text() == "x"
    with torch.no_grad():
        student = load_student("embedded", device="cpu")
        student.model.model.norm.weight += 1
    student.model.save_pretrained(tmp_path / "other")
    student.tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(
        ValueError, match="student must be what the fit was trained on, unquantised; .*--student"
    ):
        export(folder, tmp_path / "out", str(tmp_path / "other"))
    with pytest.raises(FileNotFoundError, match="no run in .*nowhere"):
        export(tmp_path / "nowhere", tmp_path / "out")
    run = RunFolder.start(tmp_path / "ranker")
    with pytest.raises(ValueError, match="folder must hold a finished fit of a row"):
        export(tmp_path / "ranker", tmp_path / "out")
    with run.create(FIT) as path:
        path.write_text('{"loss": "mse"}')
    with pytest.raises(ValueError, match="folder must hold a finished fit of a row"):
        export(tmp_path / "ranker", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command(fits, tmp_path, capsys):
    arguments = ["export", str(fits["CoT KD"].folder), str(tmp_path / "out"), "--student", "embedded"]
    assert main(arguments) == 0
    said = f"exporting {fits['CoT KD'].folder}\nwritten: {tmp_path / 'out'}\n"
    assert capsys.readouterr().out == said
    assert (Path(tmp_path) / "out/merged/model.safetensors").is_file()
    assert main(arguments) == 1
    assert "error: out must be a new folder" in capsys.readouterr().err


def test_arguments_of_another_kind_are_refused():
    for name, given in (("folder", (3, "out")), ("out", ("runs", 3)), ("student", ("runs", "out", None))):
        with pytest.raises(TypeError, match=f"{name} must be a path, as a text or a Path; got"):
            export(*given)
