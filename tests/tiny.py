"""Random models whose next token is neither certain nor quite open, and prompts for them."""

import torch
from transformers import (
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from negdistill.data import arithmetic_text
from negdistill.training.students import Student

TOKENIZER = arithmetic_text.tokenizer()
CONTEXT = 96
WORDS = "Ada has 7 books. Ben finds 15 more. How many are there? ".split(" ")
PROMPTS = {f"q{i}": " ".join(WORDS[: 2 + 3 * i % 11] * (1 + i % 3)) for i in range(9)}


def tiny(kind="llama", dtype=torch.float32):
    """A random model whose next token is neither certain nor quite open."""
    shape = {
        "vocab_size": len(TOKENIZER),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "initializer_range": 0.3,
    }
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48}
    ids = {
        "bos_token_id": None,
        "eos_token_id": TOKENIZER.eos_token_id,
        "pad_token_id": TOKENIZER.pad_token_id,
    }
    room = {"max_position_embeddings": CONTEXT}
    torch.manual_seed(0)
    if kind == "llama":
        model = LlamaForCausalLM(LlamaConfig(**shape, **heads, **room, **ids))
    elif kind == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**shape, **heads, **room, **ids))
    elif kind == "mistral":  # attends to the last five tokens only
        model = MistralForCausalLM(
            MistralConfig(**shape, **heads, **room, **ids, head_dim=8, sliding_window=5)
        )
    else:
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=len(TOKENIZER), n_embd=32, n_layer=2, n_head=4, n_positions=CONTEXT,
                initializer_range=0.3, **ids,
            )
        )  # fmt: skip
    return Student(model.to(dtype).eval(), TOKENIZER)


def llama(seed=0, tokenizer=TOKENIZER, **changes):
    """The smallest that all can be fitted on, with room for worked examples; `changes` go to its config."""
    torch.manual_seed(seed)
    values = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
    }
    return Student(LlamaForCausalLM(LlamaConfig(**values | changes)).eval(), tokenizer)


def generated(model, prompt, limit):
    """The greedy tokens of one prompt, as transformers generates them."""
    ids = torch.tensor([TOKENIZER(prompt)["input_ids"]])
    end, pad = TOKENIZER.eos_token_id, TOKENIZER.pad_token_id
    limit = min(limit, CONTEXT - ids.shape[1])
    config = GenerationConfig(do_sample=False, max_new_tokens=limit, eos_token_id=end, pad_token_id=pad)
    return tuple(model.generate(ids, generation_config=config)[0, ids.shape[1] :].tolist())
