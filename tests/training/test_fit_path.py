"""The way of a datum: from a problem and its rationales into a fit, and how many modules it passes."""

import sys
from pathlib import Path

from tiny import llama

import negdistill
from negdistill.data.records import Problem, Rationale
from negdistill.data.tasks import load_task
from negdistill.training.batching import Encoded, Example
from negdistill.training.dataset import TrainingSet, training_set
from negdistill.training.fit import fit
from negdistill.training.settings import settings

PACKAGE = str(Path(negdistill.__file__).parent)
DATA = (Problem, Rationale, Example, Encoded, TrainingSet)


def holds_data(value: object) -> bool:
    one = value[0] if isinstance(value, list | tuple) and value else value
    return isinstance(one, DATA)


def passed(work) -> dict[str, str]:
    """The modules of the package that another one gives data, each with the function that gets it first."""
    found: dict[str, str] = {}

    def watch(frame, event, _):
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(PACKAGE):  # no Path: this is asked at every call
            count = frame.f_code.co_argcount
            given = [frame.f_locals.get(name) for name in frame.f_code.co_varnames[:count]]
            from_elsewhere = frame.f_back is None or frame.f_back.f_code.co_filename != file
            if from_elsewhere and any(map(holds_data, given)):
                module = ".".join(Path(file).relative_to(PACKAGE).with_suffix("").parts)
                found.setdefault(module, frame.f_code.co_name)

    sys.setprofile(watch)
    try:
        work()
    finally:
        sys.setprofile(None)
    return found


def test_data_passes_at_most_nine_modules_on_its_way_into_a_fit(tmp_path):
    world, student = load_task("arithmetic"), llama()
    config = settings(max_steps=1, batch_size=4, progress=False)
    student.model.config.max_position_embeddings = 256
    problems = world.questions("train", 12, 0)
    said = world.rationales(problems, "weak", 2, 0)
    found = passed(lambda: fit("CoT KD", student, training_set(problems, said), config, tmp_path))
    sys.stdout.write("".join(f"{module:24} {name}\n" for module, name in found.items()))
    assert {"data.answers", "training.dataset", "training.fit", "training.loop", "training.batching"} <= set(
        found
    )
    assert len(found) <= 9, found
