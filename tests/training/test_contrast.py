"""Contrast: two adapters in one pass say what two passes of PEFT say, with a cache and without."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from negdistill.data import arithmetic, arithmetic_text
from negdistill.data.prompts import format_prompt
from negdistill.inference.evaluate import evaluate
from negdistill.inference.sample import sample
from negdistill.training.adapters import stored
from negdistill.training.contrast import contrasted, save_contrast
from negdistill.training.students import Student

TOKENIZER = arithmetic_text.tokenizer()
PROBLEMS = arithmetic.generate("test", 5, 0)
PROMPTS = {problem.id: format_prompt(problem.question) for problem in PROBLEMS}
SIZES = dict(vocab_size=len(TOKENIZER))
MODELS = {
    "llama": (
        lambda: LlamaForCausalLM(
            LlamaConfig(
                **SIZES, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.3
            )
        ),
        ("q_proj", "down_proj"),
    ),
    "gpt2": (
        lambda: GPT2LMHeadModel(
            GPT2Config(**SIZES, n_embd=16, n_layer=2, n_head=4, n_positions=256, initializer_range=0.3)
        ),
        ("c_attn",),
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=MODELS)
def made(request, tmp_path_factory):
    """A base, two adapters of different rank and scaling in folders, and the projections."""
    build, names = MODELS[request.param]
    folders = []
    for seed, (r, alpha) in enumerate(((2, 6), (3, 3))):
        torch.manual_seed(0)
        base = build().eval()
        torch.manual_seed(seed + 1)
        lora = LoraConfig(
            r=r, lora_alpha=alpha, target_modules=list(names), init_lora_weights=False,
            fan_in_fan_out=request.param == "gpt2", task_type="CAUSAL_LM"
        )  # fmt: skip
        folders.append(tmp_path_factory.mktemp(f"{request.param}{seed}"))
        get_peft_model(base, lora).save_pretrained(folders[-1])
    torch.manual_seed(0)
    return build().eval(), folders, names


@torch.no_grad()
def by_hand(made, ids: torch.Tensor, weight: float) -> torch.Tensor:
    """1 + weight times the logits of the first adapter, less weight times those of the second."""
    base, folders, _ = made
    found = []
    for folder in folders:
        model = PeftModel.from_pretrained(base, folder).eval()
        found.append(model(ids).logits)
        model.unload()
    return (1 + weight) * found[0] - weight * found[1]


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_one_pass_equals_two(made, weight):
    base, folders, names = made
    ids = torch.arange(5, 45).view(4, 10)
    wanted = by_hand(made, ids, weight)
    with torch.no_grad():
        model = contrasted(base, *folders, names, weight)
        found = model(ids, torch.ones_like(ids)).logits
        assert torch.allclose(found, wanted, atol=1e-4)
        assert not torch.allclose(base(ids).logits, wanted, atol=1e-2)


def test_greedy_answers_are_those_of_two_passes(made):
    """With a cache, rows that enter and leave, and prompts of different lengths."""
    base, folders, names = made
    student = Student(contrasted(base, *folders, names, 0.5), TOKENIZER)
    drawn = sample(student, PROMPTS, 1, 0.0, max_new_tokens=6, batch_size=3, progress=False)
    for one in drawn:
        ids = TOKENIZER(PROMPTS[one.problem_id], return_tensors="pt")["input_ids"]
        for token in one.ids:
            assert by_hand(made, ids, 0.5)[0, -1].argmax() == token
            ids = torch.cat([ids, torch.tensor([[token]])], 1)


def test_without_weight_it_is_the_first_adapter(made):
    base, folders, names = made
    both = evaluate(Student(contrasted(base, *folders, names, 0.0), TOKENIZER), PROBLEMS, max_new_tokens=8)
    with stored(base, folders[0], "lora") as model:
        alone = evaluate(Student(model, TOKENIZER), PROBLEMS, max_new_tokens=8)
    assert both["text"].tolist() == alone["text"].tolist()


def test_it_is_read_back_and_leaves_the_base_alone(made, tmp_path):
    base, folders, names = made
    before = dict(base.named_modules())
    save_contrast(tmp_path, *folders, names, 0.5)
    ids = torch.arange(5, 45).view(4, 10)
    with stored(base, tmp_path, "contrast") as model, torch.no_grad():
        assert torch.allclose(model(ids, torch.ones_like(ids)).logits, by_hand(made, ids, 0.5), atol=1e-4)
    assert dict(base.named_modules()) == before and not any(m._forward_hooks for m in base.modules())


def test_bad_calls_are_refused(made):
    base, folders, names = made
    with pytest.raises(ValueError, match="weight must be at least 0; got -1"):
        contrasted(base, *folders, names, -1.0)
    with pytest.raises(ValueError, match="no projection is named 'other'"):
        contrasted(base, *folders, ["other"], 0.5)
