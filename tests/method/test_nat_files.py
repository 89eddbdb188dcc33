"""Adapter folders: what is more than plain LoRA, and what belongs to another base, is refused by name."""

import copy
import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from transformers import LlamaConfig, LlamaForCausalLM

from negdistill.method.nat import attach, detach, load_nat, save_nat
from negdistill.method.nat_files import FILES
from negdistill.method.nat_unit import NATConfig
from negdistill.training.adapters import lora, merged, save_lora, stored

SHAPE = {"vocab_size": 61, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
SHAPE |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32}
QV = NATConfig(r=2, lora_alpha=6, dropout=0.0, unit_dim=5)
IDS = torch.randint(0, 61, (2, 7), generator=torch.Generator().manual_seed(1))


def llama(**changes):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**(SHAPE | changes))).eval()


def train(model):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(3):
        model(IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


@torch.no_grad()
def logits(model):
    return model(IDS).logits


def foreign(folder, **options):
    """A folder of PEFT's own; returns it and its logits, on the base that PEFT may have changed."""
    settings = {"r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
    model = train(get_peft_model(llama(), LoraConfig(**(settings | options))))
    model.save_pretrained(folder)
    return folder, logits(model.eval())


def readers(folder):
    """Everything that takes an adapter's folder."""
    return [
        lambda: attach(llama(), QV, neg=folder),
        lambda: stored(llama(), folder, "lora").__enter__(),
        lambda: lora(llama(), QV, start=folder).__enter__(),
        lambda: merged(llama(), {folder: 1.0}).__enter__(),
    ]


# --- plain --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("init", [True, False, "gaussian", "orthogonal"])
def test_a_start_that_leaves_the_base_alone_is_plain(init, tmp_path):
    folder, expected = foreign(tmp_path, init_lora_weights=init)
    with stored(llama(), folder, "lora") as model:
        assert torch.equal(logits(model), expected)
    model = attach(llama(), QV, neg=folder)
    model.get_submodule("model.layers.0.self_attn.q_proj").state.view = "neg"
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora"])
def test_a_start_that_changes_the_base_is_refused(init, tmp_path):
    """Kind: an adapter whose start changed the base; as in huggingface/peft#2184."""
    folder, _ = foreign(tmp_path, init_lora_weights=init)
    for read in readers(folder):
        with pytest.raises(ValueError, match=rf"is not a plain LoRA \(init_lora_weights '{init}'\)"):
            read()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alora_invocation_tokens", [5, 6]),
        ("use_dora", True),
        ("bias", "all"),
        ("lora_bias", True),
        ("layers_to_transform", [0]),
        ("layers_pattern", "layers"),
        ("exclude_modules", ["layers.1.self_attn.q_proj"]),
        ("trainable_token_indices", [1, 2]),
        ("modules_to_save", ["lm_head"]),
        ("rank_pattern", {"q_proj": 2}),
        ("alpha_pattern", {"q_proj": 3}),
        ("target_parameters", ["experts.down_proj"]),
        ("layer_replication", [[0, 2]]),
        ("eva_config", {"rho": 2.0}),
        ("corda_config", {"verbose": False}),
        ("loftq_config", {"loftq_bits": 4}),
        ("megatron_config", {"hidden_size": 16}),
        ("an_option_of_next_year", 0.5),
    ],
)
def test_every_option_beyond_plain_is_refused_by_name(name, value, tmp_path):
    foreign(tmp_path)
    config = json.loads((tmp_path / FILES[0]).read_text())
    (tmp_path / FILES[0]).write_text(json.dumps(config | {name: value}))
    for read in readers(tmp_path):
        with pytest.raises(ValueError, match=rf"is not a plain LoRA \({name}\)"):
            read()


def test_other_tensors_than_pairs_are_refused(tmp_path):
    foreign(tmp_path, modules_to_save=["lm_head"])
    config = json.loads((tmp_path / FILES[0]).read_text())
    (tmp_path / FILES[0]).write_text(json.dumps(config | {"modules_to_save": None}))
    with pytest.raises(ValueError, match=r"is not a plain LoRA \(base_model.model.lm_head.weight\)"):
        attach(llama(), QV, neg=tmp_path)


def test_damaged_files_are_named(tmp_path):
    foreign(tmp_path)
    for file in FILES:
        whole = (tmp_path / file).read_bytes()
        (tmp_path / file).write_bytes(b"{" + whole[9:])
        for read in readers(tmp_path):
            with pytest.raises(ValueError, match=f"{tmp_path} is damaged: .*; get it again"):
                read()
        (tmp_path / file).write_bytes(whole)


# --- of this base -------------------------------------------------------------------------------------


def changed(part):
    """A base of the same shapes and embeddings, another in one place."""
    model = llama(rope_parameters={"rope_type": "default", "rope_theta": 5e5}) if part == "rope" else llama()
    if part == "weights":
        with torch.no_grad():
            model.model.layers[1].self_attn.v_proj.weight[3, 5] += 1e-4
    return model


@pytest.fixture(params=["lora", "nat"])
def made(request, tmp_path):
    """An adapter of our own on `llama()`, how it is read, and its logits."""
    folder, model = tmp_path / "own", llama()
    if request.param == "lora":
        with lora(model, QV) as adapted:
            save_lora(train(adapted).eval(), folder)
            return folder, "lora", logits(adapted)
    save_nat(train(attach(model, QV)).eval(), folder)
    return folder, "nat", logits(model)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("weights", "the weights that it adapts differ; load the one it was trained on"),
        ("rope", "its rope_parameters is .*10000.0.*, the model's .*500000.0"),
    ],
)
def test_an_adapter_of_another_base_is_refused(part, message, made):
    folder, view, expected = made
    with stored(llama(), folder, view) as model:
        assert torch.equal(logits(model), expected)
    with pytest.raises(ValueError, match=f"{folder} belongs to another base: {message}"):
        with stored(changed(part), folder, view):
            pass
    negative = folder / "neg" if view == "nat" else folder
    with pytest.raises(ValueError, match=f"{negative} belongs to another base: {message}"):
        attach(changed(part), QV, neg=negative)


def test_a_rounded_base_is_the_same_base(made):
    folder, view, _ = made
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        with stored(llama().to(dtype), folder, view):
            pass
    other = llama().to(torch.bfloat16)
    with torch.no_grad():
        for layer in other.model.layers:
            weight = layer.self_attn.v_proj.weight
            weight += (
                0.1 * weight.std() * torch.randn(weight.shape, generator=torch.Generator().manual_seed(5))
            )
    with pytest.raises(ValueError, match="the weights that it adapts differ"):
        with stored(other, folder, view):
            pass


def test_what_changes_no_number_makes_no_other_base(made):
    folder, view, expected = made
    model = copy.deepcopy(llama())
    model.config.eos_token_id, model.config.use_cache, model.config.name_or_path = 7, False, "elsewhere"
    model.config.attention_dropout = 0.5  # of training
    with stored(model, folder, view) as adapted:
        assert torch.equal(logits(adapted), expected)


def test_a_foreign_folder_is_taken_at_its_word(tmp_path):
    foreign(tmp_path)
    with safe_open(tmp_path / FILES[1], framework="pt") as file:
        assert "base" not in (file.metadata() or {})
    attach(changed("weights"), QV, neg=tmp_path)
    with pytest.raises(
        ValueError, match="belongs to another base: it adapts .*layers.1.*, which the model lacks"
    ):
        with stored(llama(num_hidden_layers=1), tmp_path, "lora"):
            pass


@pytest.mark.parametrize("made", ["nat"], indirect=True)
def test_a_folder_of_before_these_marks_still_loads(made):
    folder, _, expected = made
    said = json.loads((folder / "nat_config.json").read_text())
    said["base"] = {key: said["base"][key] for key in ("model_type", "vocabulary", "widths", "embedding")}
    (folder / "nat_config.json").write_text(json.dumps(said))
    assert torch.equal(logits(load_nat(llama(), folder)), expected)
    assert torch.equal(logits(detach(load_nat(llama(), folder))), logits(llama()))


@pytest.mark.parametrize("made", ["lora"], indirect=True)
def test_stock_peft_reads_a_marked_folder(made):
    folder, _, expected = made
    assert torch.equal(logits(PeftModel.from_pretrained(llama(), folder)), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora_alpha": "16"}, r"adapter_config.json: lora_alpha must be a number; got '16', a str; get it"),
        (
            {"lora_alpha": None},
            r"adapter_config.json: lora_alpha must be a number; got None, a NoneType; get",
        ),
        ({"r": "4"}, r"adapter_config.json: r must be a whole number; got '4', a str; get it again"),
        ({"r": 0}, r"adapter_config.json: r must be at least 1; got 0; get it again"),
        (None, r"adapter_config.json must hold an object of JSON; got \[\]; get it again"),
    ],
)
def test_a_configuration_of_other_values_is_named(changes, message, tmp_path):
    folder, _ = foreign(tmp_path)
    config = json.loads((folder / FILES[0]).read_text("utf-8"))
    config = [] if changes is None else {k: v for k, v in (config | changes).items() if v is not None}
    (folder / FILES[0]).write_text(json.dumps(config), "utf-8")
    for read in readers(folder):
        with pytest.raises(ValueError, match=message):
            read()


def test_a_configuration_that_is_no_text_is_named(tmp_path):
    folder, _ = foreign(tmp_path)
    (folder / FILES[0]).write_bytes(b"\xff{}")
    with pytest.raises(ValueError, match=f"{tmp_path.name} is damaged: .*; get it again, or train it again"):
        attach(llama(), QV, neg=folder)
