"""Models in shards of two processes, against one process: one gradient, and a whole run.

FSDP of accelerate needs GPUs; with CPUs it would silently do without shards. So the gradient is taken under
`fully_shard` of torch, and the run takes accelerate's own path with its one question, is_fsdp2, answered yes.
How runs are killed, continued and refused is in test_train.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.state import AcceleratorState
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_multi_gpu_env
from launching import in_two_processes
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import LlamaConfig, LlamaForCausalLM

from negdistill.data.prompts import format_prompt
from negdistill.method.nat import attach
from negdistill.method.nat_unit import NATConfig
from negdistill.method.objectives import likelihood
from negdistill.training.batching import Example, collate, encode, pad_id, real_text_tokenizer
from negdistill.training.checkpoint import CHECKPOINT, adamw, hand_back, trainable, wrap
from negdistill.training.loop import COLUMNS, TrainConfig, train

ROOT = Path(__file__).parents[2]
TOKENIZER = real_text_tokenizer(["Problem:\nSolution:\n0123456789+="] * 4, vocab_size=270)
EXAMPLES = [Example(f"sum {a}", format_prompt(f"{a}+{7 * a}"), f"{a}+{7 * a}={8 * a}") for a in range(12)]
CONFIG = TrainConfig(max_steps=4, batch_size=6, gradient_accumulation_steps=2, lr=0.01, progress=False)
KINDS = ("LoRA", "NAT")


def make(kind: str, tied: bool = False) -> torch.nn.Module:
    torch.manual_seed(0)
    config = dict(vocab_size=len(TOKENIZER), hidden_size=16, intermediate_size=24, num_hidden_layers=2)
    config |= dict(num_attention_heads=2, max_position_embeddings=64, tie_word_embeddings=tied)
    model = LlamaForCausalLM(LlamaConfig(**config))
    if kind == "LoRA":
        lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        return get_peft_model(model, lora)
    attach(model, NATConfig(r=2, unit_dim=3, dropout=0.0))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("lora_", "query", "key.", "value_")):
                parameter.normal_(std=0.3)
    return model


def one_gradient(kind: str, folder: Path) -> None:
    """Loss and gradients of a batch in shards, each process with its rows, beside those of one process."""
    single, model = make(kind).train(), make(kind).train()
    rank, world = dist.get_rank(), dist.get_world_size()
    layers = [module for module in model.modules() if type(module).__name__ == "LlamaDecoderLayer"]
    for module in (*layers, model):
        fully_shard(module)
    parameters = dict(model.named_parameters())
    report = {
        "sharded": all(isinstance(p, DTensor) and p.device_mesh.size() == world for p in parameters.values()),
        "share": sum(p.to_local().numel() for p in parameters.values())
        / sum(p.numel() for p in parameters.values()),
    }
    rows = encode(EXAMPLES, TOKENIZER, 64)
    targets = sum(int(row.loss_mask.sum()) for row in rows)
    expected = likelihood(single, collate(rows, pad_id(TOKENIZER))) / targets
    expected.backward()
    loss = likelihood(model, collate(rows[rank::world], pad_id(TOKENIZER))) * world / targets
    loss.backward()
    total = loss.detach().clone()
    dist.all_reduce(total)
    report |= {"loss": total.item() / world, "expected": expected.item(), "difference": {}}
    for name, own in single.named_parameters():
        if own.grad is not None:
            gradient = parameters[name].grad.full_tensor()
            report["difference"][name] = ((gradient - own.grad).abs().max() / own.grad.abs().max()).item()
        else:
            assert parameters[name].grad is None
    (folder / f"gradient {kind} {rank}").write_text(json.dumps(report))


def one_run(kind: str, folder: Path, name: str) -> None:
    """A run that stops in its second step and goes on; its curve, and what the model has learnt."""
    config = replace(CONFIG, checkpoint_every=1)
    model, seen = make(kind, tied=True), []

    def look(epoch: int, model: torch.nn.Module) -> dict[str, float]:
        assert not any(isinstance(p, DTensor) for p in model.parameters())
        seen.append(epoch)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return {"first": next(iter(trainable(model).values())).double().sum().item()}

    out = folder / f"{kind} {name.split()[0]}"
    for _ in range(2):
        try:
            history = train(model, TOKENIZER, EXAMPLES, config, out_dir=out, on_epoch=look)
        except KeyboardInterrupt:
            model = make(kind, tied=True)
    columns = [*(column for column in COLUMNS if column != "seconds"), "first"]
    stored = load_file(out / CHECKPOINT)
    assert all(torch.equal(stored[f"weight/{key}"], p) for key, p in trainable(model).items())
    result = {"epochs": seen, "history": history[columns].to_dict("list")}
    (folder / f"run {kind} {name}").write_text(json.dumps(result))


def processes(folder: Path) -> None:
    torch.set_num_threads(1)
    accelerator = Accelerator(mixed_precision="no")
    for kind in KINDS:
        one_gradient(kind, folder)
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap"
    )
    AcceleratorState.is_fsdp2 = True
    for kind in KINDS:
        shards = wrap(make(kind), accelerator)
        assert all(isinstance(p, DTensor) for p in shards.parameters())
        one_run(kind, folder, f"two {dist.get_rank()}")


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    in_two_processes(__file__, folder)
    return folder


def read(path: Path) -> dict:
    return json.loads(path.read_text("utf-8"))


@pytest.mark.parametrize("kind", KINDS)
def test_shards_have_the_loss_and_the_gradients_of_one_process(two, kind):
    for rank in (0, 1):
        report = read(two / f"gradient {kind} {rank}")
        assert report["sharded"] and report["share"] == pytest.approx(0.5, abs=0.01)
        assert report["loss"] == pytest.approx(report["expected"], rel=1e-6)
        assert len(report["difference"]) == (8 if kind == "LoRA" else 24)
        assert max(report["difference"].values()) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_in_shards_is_the_run_of_one_process(two, kind, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    one_run(kind, tmp_path, "one")
    torch.set_num_threads(before)
    one, first, second = (
        read(path / f"run {kind} {name}")
        for path, name in ((tmp_path, "one"), (two, "two 0"), (two, "two 1"))
    )
    assert first == second and one["epochs"] == first["epochs"] == [1, 2, 2, 3, 4]
    for name, values in one["history"].items():
        assert first["history"][name] == pytest.approx(values, rel=2e-4), name
    files = [
        load_file(path / f"{kind} {name}" / CHECKPOINT) for path, name in ((tmp_path, "one"), (two, "two"))
    ]
    assert files[0].keys() == files[1].keys()
    for name in files[0]:
        if name.startswith("weight/"):
            assert torch.allclose(files[0][name], files[1][name], rtol=0, atol=1e-4), name


def test_a_run_in_shards_goes_on_in_one_process(two, tmp_path):
    """The file of two processes is loaded by one, which finds that nothing is left to do."""
    model = make("NAT", tied=True)
    history = train(model, TOKENIZER, EXAMPLES, CONFIG, out_dir=two / "NAT two")
    assert history["loss"].tolist() == read(two / "run NAT two 0")["history"]["loss"]
    stored = load_file(two / "NAT two" / CHECKPOINT)
    assert all(torch.equal(stored[f"weight/{key}"], p) for key, p in trainable(model).items())


@pytest.mark.parametrize(("name", "expected"), [("ddp", None), ("fsdp2", "2")])
def test_the_configurations_are_read_by_accelerate(name, expected):
    given = ["--config_file", str(ROOT / f"launch/{name}.yaml"), "script.py"]
    arguments, *_ = _validate_launch_command(launch_command_parser().parse_args(given))
    environment = prepare_multi_gpu_env(arguments)
    assert arguments.num_processes == 2 and environment["ACCELERATE_MIXED_PRECISION"] == "no"
    assert environment.get("FSDP_VERSION") == expected
    if expected:
        assert environment["FSDP_AUTO_WRAP_POLICY"] == "TRANSFORMER_BASED_WRAP"
        assert environment["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "false"


def test_hand_back_leaves_a_model_that_was_trained_itself():
    model = make("LoRA")
    before = {name: p.detach().clone() for name, p in trainable(model).items()}
    hand_back(trainable(model), model)
    assert all(torch.equal(before[name], p) for name, p in trainable(model).items())


def test_vectors_do_not_decay():
    matrix, vector = (torch.nn.Parameter(torch.ones(shape)) for shape in ((2, 2), (2,)))
    optimizer = adamw([vector, matrix], 0.1, 0.5)
    assert [(group["params"], group["weight_decay"]) for group in optimizer.param_groups] == [
        ([matrix], 0.5),
        ([vector], 0.0),
    ]


if __name__ == "__main__":  # what the tests above run in processes of their own
    processes(Path(sys.argv[1]))
