"""What `share` copies: the same fit, without a path of the machine that made it."""

import json

import pytest
import tiny
import torch
from safetensors.torch import load_file

from negdistill.data.arithmetic import generate, teach
from negdistill.runs.folder import RunFolder
from negdistill.training.dataset import training_set
from negdistill.training.fit import adapted, fit
from negdistill.training.fits import load_fit
from negdistill.training.settings import settings
from negdistill.training.sharing import BASE, share

NAME = "somebody/student"


@pytest.fixture(scope="module", params=["CoT KD", "NAT"])
def made(request, tmp_path_factory):
    student = tiny.llama()
    student.model.config._name_or_path = "/somewhere/student"
    student.model.name_or_path = "/somewhere/student"
    problems = generate("train", 8, seed=1)
    data = training_set(problems, teach(problems, n=4))
    config = settings(max_steps=2, batch_size=8, progress=False, unit_dim=4)
    return student, fit(request.param, student, data, config, tmp_path_factory.mktemp("fits"))


def test_the_copy_is_the_same_fit_and_names_the_base_as_others_find_it(made, tmp_path):
    student, one = made
    before = RunFolder.open(one.folder).manifest
    other = load_fit(share(one.folder, tmp_path / "shared" / "fit", NAME))
    configs = list(other.folder.rglob("adapter_config.json"))
    assert configs and all(json.loads(path.read_text("utf-8"))[BASE] == NAME for path in configs)
    assert not any("/somewhere/" in path.read_text("utf-8") for path in other.folder.rglob("*.json"))
    made_from = RunFolder.open(other.folder).manifest
    assert made_from.key != before.key and made_from.inputs == before.inputs
    assert made_from.parameters == {**before.parameters, "rounded": "bfloat16"}
    assert {*before.artifacts} - {*made_from.artifacts} <= {"adapter/README.md"}
    assert not any("/somewhere/" in path.read_text("utf-8") for path in other.folder.rglob("*.md"))
    changed = {name for name, found in made_from.artifacts.items() if before.artifacts[name] != found}
    assert {name for name in changed if not name.endswith(".safetensors")} == {
        name for name in made_from.artifacts if name.endswith(("adapter_config.json", "nat_config.json"))
    }
    for path in other.folder.rglob("*.safetensors"):
        exact, rounded = load_file(one.folder / path.relative_to(other.folder)), load_file(path)
        assert exact.keys() == rounded.keys()
        assert all(torch.equal(rounded[name], exact[name].to(torch.bfloat16)) for name in exact)
    assert RunFolder.open(one.folder).manifest == before  # what was copied is as it was
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        untrained, logits = student.model(input_ids=ids).logits, []
        for fitted in (one, other):
            with adapted(student, fitted) as trained:
                logits.append(trained.model(input_ids=ids).logits - untrained)
    assert (logits[0] - logits[1]).abs().max() < 0.02 * logits[0].abs().max()  # bfloat16 has 8 bits


def test_what_cannot_be_shared(made, tmp_path):
    _, one = made
    with pytest.raises(ValueError, match="out must be a new folder; .* is there already"):
        share(one.folder, tmp_path, NAME)
    with pytest.raises(ValueError, match="folder must hold a finished fit; .* holds none"):
        share(tmp_path / "nowhere", tmp_path / "out", NAME)
    with pytest.raises(TypeError, match="out must be a path"):
        share(one.folder, 3, NAME)
    assert not (tmp_path / "out").exists()


def test_a_damaged_fit_is_not_shared(made, tmp_path):
    _, one = made
    copy = share(one.folder, tmp_path / "copy", NAME)
    weights = next(copy.rglob("adapter_model.safetensors"))
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match="adapter_model.safetensors is not as manifest.json recorded it"):
        share(copy, tmp_path / "out", NAME)
    assert not (tmp_path / "out").exists()


def test_what_starts_from_a_copy_is_another_fit(made, tmp_path):
    """Its weights are rounded, so another folder holds what was trained from them."""
    student, one = made
    if one.method != "CoT KD":
        pytest.skip("nothing starts from it")
    copy = load_fit(share(one.folder, tmp_path / "copy", NAME))
    problems = generate("train", 8, seed=1)
    data, config = training_set(problems, teach(problems, n=4)), settings(max_steps=4, progress=False)
    first, other = (
        fit("CoT KD, continued", student, data, config, tmp_path, start=start) for start in (one, copy)
    )
    assert first.folder != other.folder
