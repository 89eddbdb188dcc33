"""Twenty families of models, built small from their configurations, through all that is done to a student."""

import pytest
import torch
from tiny import CONTEXT, TOKENIZER
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from negdistill.inference.sample import sample
from negdistill.method.nat import save_nat
from negdistill.method.nat_unit import NATConfig
from negdistill.training.adapters import lora, nat_lora, save_lora, stored
from negdistill.training.batching import Example
from negdistill.training.loop import TrainConfig, train
from negdistill.training.students import context_length, load_student

IDS = {"bos_token_id": None, "eos_token_id": TOKENIZER.eos_token_id, "pad_token_id": TOKENIZER.pad_token_id}
SHAPE = {"vocab_size": len(TOKENIZER), "hidden_size": 32, "num_hidden_layers": 2, "initializer_range": 0.3}
SHAPE |= {"num_attention_heads": 4, "max_position_embeddings": CONTEXT}
GROUPED = SHAPE | {"num_key_value_heads": 2, "intermediate_size": 48, "head_dim": 8}
SLIDING = GROUPED | {"sliding_window": 8}
MIXED = SLIDING | {"layer_types": ["sliding_attention", "full_attention"]}
GPT = {"vocab_size": len(TOKENIZER), "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT}
GPT |= {"initializer_range": 0.3}
EXPERTS = {"num_experts_per_tok": 2, "num_local_experts": 4}
SHARED = {"num_experts_per_tok": 2, "num_experts": 4}
SHARED |= {"moe_intermediate_size": 24, "shared_expert_intermediate_size": 24}
FEED = ("query_key_value", "dense_4h_to_h")
FAMILIES = {
    "llama": (GROUPED, ("q_proj", "down_proj")),
    "qwen2": (GROUPED, ("q_proj", "down_proj")),
    "qwen3": (GROUPED, ("q_proj", "down_proj")),
    "gemma2": (MIXED | {"query_pre_attn_scalar": 8}, ("q_proj", "down_proj")),
    "gemma3_text": (MIXED | {"query_pre_attn_scalar": 8}, ("q_proj", "down_proj")),
    "gpt2": (GPT, ("c_attn", "c_proj")),
    "gpt_neox": (SHAPE | {"intermediate_size": 48}, FEED),
    "gptj": (GPT | {"rotary_dim": 4}, ("q_proj", "fc_out")),
    "opt": (SHAPE | {"ffn_dim": 48, "word_embed_proj_dim": 32, "init_std": 0.3}, ("q_proj", "fc2")),
    "bloom": ({key: SHAPE[key] for key in ("vocab_size", "hidden_size", "initializer_range")}, FEED),
    "falcon": (SHAPE, FEED),
    "phi3": (GROUPED, ("qkv_proj", "down_proj")),
    "mistral": (SLIDING, ("q_proj", "down_proj")),
    "olmo2": (GROUPED, ("q_proj", "down_proj")),
    "mixtral": (GROUPED | EXPERTS, ("q_proj", "o_proj")),
    "qwen2_moe": (GROUPED | SHARED, ("q_proj", "shared_expert.down_proj")),
    "gpt_oss": (MIXED | EXPERTS | {"rope_parameters": {"rope_type": "default"}}, ("q_proj", "o_proj")),
    "granite": (GROUPED, ("q_proj", "down_proj")),
    "starcoder2": (GROUPED, ("q_proj", "c_proj")),
    "smollm3": (GROUPED, ("q_proj", "down_proj")),
}
FAMILIES["bloom"][0].update(n_layer=2, n_head=4)
EAGER = {"gemma2", "gptj", "bloom", "gpt_oss"}  # what transformers chooses; the others have sdpa
TEXTS = ["Ada has 7 books.", "Ben finds 15 more. How many are there? Ada has 7 books.", "Ada has"]
PROMPTS = {f"q{i}": text for i, text in enumerate(TEXTS)}
EXAMPLES = [Example(name, text, "It is 7.") for name, text in PROMPTS.items()]
CONFIG = TrainConfig(max_steps=2, batch_size=4, lr=0.01, progress=False)
GREEDY = GenerationConfig(do_sample=False, max_new_tokens=16, **IDS)


def saved(kind, folder):
    shape, names = FAMILIES[kind]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape, **IDS)).eval()
    model.save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return names


def logits(model):
    with torch.no_grad():
        return model(torch.tensor([[5, 6, 7, 8, 9]])).logits


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_family_from_loading_to_adapters_read_back(kind, tmp_path):
    """Kind: families without sdpa, without max_position_embeddings, and whose blocks write into a view; as
    in EleutherAI/sparsify#1, huggingface/transformers#27498, unslothai/unsloth#3452.
    """
    names = saved(kind, tmp_path / "base")
    student = load_student(str(tmp_path / "base"), device="cpu")
    model = student.model
    assert model.config._attn_implementation == ("eager" if kind in EAGER else "sdpa")
    assert context_length(*student) == (TOKENIZER.model_max_length if kind == "bloom" else CONTEXT)
    rows = [TOKENIZER(text)["input_ids"] for text in TEXTS]
    made = [model.generate(torch.tensor([row]), generation_config=GREEDY)[0, len(row) :] for row in rows]
    drawn = sample(student, PROMPTS, 1, 0.0, max_new_tokens=16, batch_size=2, progress=False)
    assert [list(one.ids) for one in drawn] == [ids.tolist() for ids in made] and len(
        {one.ids for one in drawn}
    ) > 1
    plain = logits(model)
    adapter = NATConfig(r=2, unit_dim=4, dropout=0.0, target_modules=names)
    for view, put_on, save in (("lora", lora, save_lora), ("nat", nat_lora, save_nat)):
        with put_on(model, adapter) as adapted:
            assert logits(adapted).equal(plain)
            assert train(adapted, student.tokenizer, EXAMPLES, CONFIG).loss.notna().all()
            trained = logits(adapted)
            save(adapted, tmp_path / view)
        assert trained.isfinite().all() and (trained - plain).abs().max() > 1e-3
        assert logits(model).equal(plain)
        with stored(model, tmp_path / view, view) as adapted:
            assert logits(adapted).equal(trained)
