"""Export: a plain LoRA row as folders that other libraries load, which need nothing of this package.

    out/adapter    PEFT folder, tokenizer; of NAT with mix="sum" one of both branches, their ranks add up
    out/merged     W0 + s B A as one model in the base's type, tokenizer
    out/base       the base, tokenizer; of the embedded student only, which has no other address
    out/README.md  model card: method, scores, settings, and what all of it was made from

    export("_runs/fits/nce-0123456789ab", "nce")        # python -m negdistill export FIT_FOLDER OUT

The tokenizers carry a chat template that makes the prompt of training out of a chat's last message, so that a
server hands the student what it was trained on.

What was written is loaded again and compared with the fit, in the type in which it was written: see
`export_check`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from negdistill.checks import check_path
from negdistill.data.prompts import PRESETS
from negdistill.method.nat import CONFIG
from negdistill.method.nat_files import FILES
from negdistill.method.nat_unit import BRANCHES
from negdistill.runs.files import atomic_path
from negdistill.runs.folder import Manifest, RunFolder
from negdistill.stats import wilson
from negdistill.training.adapters import merged, save_lora, stored
from negdistill.training.export_check import answers, compare
from negdistill.training.fits import ADAPTER, FIT, Fit, finished, load_fit
from negdistill.training.identity import digest_student
from negdistill.training.method_table import find_method
from negdistill.training.students import load_student

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from negdistill.training.students import Student

DTYPES = (torch.bfloat16, torch.float16, torch.float32)  # the smaller ones first: a base may be large

CARD = """---
{front}
---

# {method}: {description}

A causal language model that solves questions step by step: {base} with a LoRA of rank {r}, made by the row
"{method}" of the package negdistill, which re-implements "Turning Dust into Gold" (Li et al., AAAI 2024,
arXiv 2312.12832).

## Load

```python
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained("{out}/merged")
model = AutoModelForCausalLM.from_pretrained("{out}/merged")
```

Or the adapter on its base, {address}: `PeftModel.from_pretrained(base, "{out}/adapter")`. The prompt is
`{prompt}`; the chat template of the tokenizer makes it out of the last message of a chat.

## Data

{data}. {amount} The sha256 of the texts is `examples` below.

## Scores

{scores}

## Checked

{checked}

## Made from

```json
{made}
```

## Licences

The base model, the questions and the rationales keep their own licences. Say here which these are before you
pass the model on.
"""


def export(folder: str | Path, out: str | Path, student: str = "embedded") -> Path:
    """Write the fit in `folder` to the new folder `out`, all of it or nothing; returns `out`.

    student  what the fit was trained on, as `load_student` takes it. The adapter names it as its base; in
             place of "embedded" it names out/base, as `out` was typed

    ValueError for a row that is no plain LoRA, another student, an `out` that holds something already, a
    damaged fit, and an export that does not answer as the fit; FileNotFoundError where there is no run;
    TypeError for what is no path.
    """
    for name, value in {"folder": folder, "out": out, "student": student}.items():
        check_path(name, value)
    folder, out = Path(folder), Path(out)
    manifest = RunFolder.open(folder).manifest
    fit = _plain_fit(folder)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ValueError(f"out must be a new folder; {out} is there already; choose another, or remove it")
    base = _base(student, manifest)
    base.tokenizer.chat_template = chat_template(base.tokenizer, fit.preset, fit.prefix)
    with atomic_path(out.absolute()) as part:  # an empty folder may be "."
        address = student
        if student == "embedded":
            address = (out / "base").as_posix()
            _save(base, part / "base")
        config = _write_adapter(base, fit, part / "adapter", address)
        base.tokenizer.save_pretrained(part / "adapter")
        checked = _write_merged(base, fit, part)
        card = _card(fit, manifest, student, address, out, config["r"], checked)
        (part / "README.md").write_text(card, encoding="utf-8")
    return out


def chat_template(tokenizer: PreTrainedTokenizerBase, preset: str = "fixed", prefix: str = "") -> str:
    """A chat template that makes of a chat's last message the prompt of training, token by token.

    prefix  text before every prompt, as `Fit.prefix`
    """
    first = tokenizer("x")["input_ids"][:1]
    start = "{{ bos_token }}" if first == [tokenizer.bos_token_id] else ""  # a template has to put it itself
    parts = (prefix + PRESETS[preset].prompt).split("{question}")
    before, after = (json.dumps(text, ensure_ascii=False) for text in parts)
    return f"{start}{{{{ {before} + messages[-1]['content'] + {after} }}}}"


def _plain_fit(folder: Path) -> Fit:
    if not finished(folder) or "method" not in json.loads((folder / FIT).read_text(encoding="utf-8")):
        raise ValueError(
            f"folder must hold a finished fit of a row of method_table.METHODS; {folder} holds none; fit one"
        )
    fit = load_fit(folder)
    if find_method(fit.method).view == "nat" and not _summed(fit):
        raise ValueError(
            f"the fit must be a plain LoRA; {fit.method!r} computes with the integrate unit, which only this "
            'package has; export NCE, the plain LoRA that learns from NAT, or NAT fitted with mix="sum"'
        )
    if find_method(fit.method).view == "contrast":
        raise ValueError(
            f"the fit must be a plain LoRA; {fit.method!r} answers with two adapters at once; export Merge, "
            "which adds their matrices"
        )
    if find_method(fit.method).view == "base":
        raise ValueError(f"the fit must be a plain LoRA; {fit.method!r} is the base itself; share its prompt")
    return fit


def _summed(fit: Fit) -> bool:
    """Whether a NAT row adds its two branches, without a unit: then it is one LoRA."""
    config = fit.folder / ADAPTER / CONFIG
    return config.is_file() and json.loads(config.read_text(encoding="utf-8"))["config"]["mix"] == "sum"


def _base(name: str, manifest: Manifest) -> Student:
    """The student on the CPU in the type it was trained in, which its digest tells."""
    for dtype in DTYPES:
        student = load_student(name, dtype, "cpu")
        if digest_student(student).items() <= manifest.inputs.items():
            return student
    raise ValueError(
        f"student must be what the fit was trained on, unquantised; {name!r} has other weights or another "
        "vocabulary; give the name that load_student had: --student NAME"
    )


def _save(student: Student, folder: Path) -> None:
    student.model.save_pretrained(folder)
    student.tokenizer.save_pretrained(folder)


def _write_adapter(base: Student, fit: Fit, folder: Path, address: str) -> dict[str, object]:
    """The two files of a PEFT folder, with the base's address; returns the configuration."""
    source = fit.folder / ADAPTER
    with tempfile.TemporaryDirectory() as scratch:
        if _summed(fit):
            with merged(base.model, {source / branch: 1.0 for branch in BRANCHES}) as both:
                source = Path(scratch)
                save_lora(both, source)
        config = json.loads((source / FILES[0]).read_text(encoding="utf-8"))
        config["base_model_name_or_path"] = address
        folder.mkdir(parents=True)
        (folder / FILES[0]).write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
        shutil.copy(source / FILES[1], folder)
    return config


def _write_merged(base: Student, fit: Fit, part: Path) -> str:
    """Write part/merged, out of the base itself; returns what the check of all folders there says."""
    dtype = base.model.dtype
    written = load_student(str(part / "base"), dtype, "cpu") if (part / "base").exists() else base
    with stored(written.model, part / "adapter", "lora") as wrapped:
        adapter = answers(written._replace(model=wrapped), fit.preset)
    with stored(base.model, fit.folder / ADAPTER, find_method(fit.method).view) as trained:
        own = answers(base._replace(model=trained), fit.preset)
    with stored(base.model, part / "adapter", "lora") as wrapped:
        _untie(wrapped)
        _save(base._replace(model=wrapped.merge_and_unload()), part / "merged")
    whole = answers(load_student(str(part / "merged"), dtype, "cpu"), fit.preset)
    return compare(own, adapter, whole, dtype, same=not _summed(fit))


def _untie(model: nn.Module) -> None:
    """Give the output layer weights of its own before an adapter is merged into them.

    Tied to the embeddings, they would change what the model reads, too.
    """
    base = model.get_base_model()
    head = base.get_output_embeddings()
    if not hasattr(head, "lora_A"):
        return
    layer = head.base_layer
    if layer.weight is base.get_input_embeddings().weight:
        layer.weight = nn.Parameter(layer.weight.detach().clone(), requires_grad=False)
    for config in (base.config, base.config.get_text_config()):
        config.tie_word_embeddings = False


# --- the card -----------------------------------------------------------------------------------------


def _card(fit: Fit, manifest: Manifest, student: str, address: str, out: Path, r: int, checked: str) -> str:
    row = find_method(fit.method)
    on_hub = student != "embedded" and not Path(student).exists()
    front = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        **({"base_model": student} if on_hub else {}),
        "tags": ["lora", "knowledge-distillation", "negdistill"],
    }
    made = {key: value for key, value in asdict(manifest).items() if key != "artifacts"}  # of other files
    data = {
        "solutions": "Solutions of the data set itself",
        "positives": "Rationales of a teacher with a right final answer",
        "negatives": "Rationales of a teacher with a wrong final answer",
        "both": "Rationales of a teacher, with a right and with a wrong final answer",
        "answers": "Reference answers of the questions, without a rationale",
        "": "None of its own",
    }[row.data]
    uses = f", and what it uses: {', '.join(row.uses)}" if row.uses else ""
    return CARD.format(
        front="\n".join(f"{key}: {json.dumps(value)}" for key, value in front.items()),
        method=fit.method,
        description=row.description,
        base="the embedded student of the package" if student == "embedded" else student,
        r=r,
        out=out.name,
        address=f"`{address}`",
        prompt=(fit.prefix + PRESETS[fit.preset].prompt).replace("\n", "\\n"),
        data=data,
        amount=f"{fit.total_steps} steps and {fit.total_tokens:,} tokens in {fit.total_seconds:.0f} s{uses}.",
        scores=_scores(fit),
        checked=checked,
        made=json.dumps(made, indent=1, ensure_ascii=False),
    )


def _scores(fit: Fit) -> str:
    """Accuracies after the last epoch that was followed, as a table."""
    if fit.trajectory is None:
        return "None were taken while it was trained. Evaluate it, and write them here."
    last = fit.trajectory[fit.trajectory["epoch"] == fit.trajectory["epoch"].max()]
    lines = ["| split | questions | accuracy | 95 % interval |", "| --- | ---: | ---: | ---: |"]
    for split, part in last.groupby("split"):
        low, high = wilson(part["correct"].sum(), len(part))
        lines.append(f"| {split} | {len(part)} | {part['correct'].mean():.1%} | {low:.1%} to {high:.1%} |")
    return "\n".join(lines) + f"\n\nGreedy answers after epoch {last['epoch'].iloc[0]}."
