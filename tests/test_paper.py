"""The paper's setting in small: a random LLaMA, a 32k tokenizer and real data through every chapter."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from negdistill import pipeline
from negdistill.artifacts import RunFolder
from negdistill.batching import real_text_tokenizer
from negdistill.planning import find_root, plan, read
from negdistill.sources import TDG, load_rationales

SMALL = {
    "questions": 40,  # with 8 rationales each
    "steps": 2,
    "batch_size": 4,
    "test_questions": 7,
    "valid_questions": 4,
    "read_questions": 3,
    "answer_tokens": 6,
    "rates": [0.0003],
    "path_epochs": 1,
    "every": 1,
    "fewer_questions": [20],
    "methods": ["Fine-tune", "CoT KD", "MIX", "NAT", "NAT, empty branch", "CoT KD, NAT's size"],
    "compared": ["CoT KD", "NAT", "NAT, empty branch"],
    "rows": ["KD", "NCE"],
    "enlarged": ["NCE"],
    "own_samples": 1,
    "students": ["CoT KD", "NCE"],
    "epochs": 1,
    "n": 3,
    "ranker_steps": 2,
    "changes": {"warmup_steps": 0, "gradient_accumulation_steps": 8, "unit_dim": 8},
}


@pytest.fixture(scope="module")
def student(data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("student")
    texts = [one.text for name in TDG for one in load_rationales(name, data_dir)]
    tokenizer = real_text_tokenizer(texts[::10])  # all of them fill 32,000, and take a minute
    assert 16_000 < len(tokenizer) <= 32_000
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def clone(tmp_path):
    """Notebooks and package as in a clone, with folders of its own for results."""
    root = find_root()
    for name in ("notebooks", "negdistill", "constraints.txt"):
        (tmp_path / name).symlink_to(root / name)
    return tmp_path


@pytest.mark.parametrize("profile", ["paper"])
def test_every_chapter_runs_on_real_data(profile, student, clone, data_dir, monkeypatch):
    monkeypatch.setenv("NEGDISTILL_DATA", str(data_dir))
    only = [job.name for job in plan(clone, profile) if "task" in job.parameters]
    for name in only:
        run_dir = str(clone / "runs" / name)
        known = plan(clone, profile, [name])[int(name[:2])].parameters
        given = {key: value for key, value in SMALL.items() if key in known}
        pipeline.run(clone, profile, [name], overrides={**given, "student": str(student), "run_dir": run_dir})
        executed = read(clone / "_build" / profile / "executed" / f"{name}.ipynb")
        kept = RunFolder.open(run_dir).manifest.artifacts
        assert executed.metadata.negdistill.manifest.artifacts == kept and kept
        for artifact in kept:
            RunFolder.open(run_dir).path(artifact)  # read back, checked against its digest
