"""What the wrong answers of a teacher are worth: NAT, NCE and ASC in PyTorch.

The names below are what the package promises; each is imported when it is first used.
"""

import lazy_loader

_MODULES = {
    "data.answers": ["equivalent", "grade"],
    "data.finding": ["final_answer"],
    "data.sources": ["load_problems", "load_rationales"],
    "data.tasks": ["load_task"],
    "inference.evaluate": ["evaluate"],
    "inference.ranker_fit": ["fit_ranker"],
    "inference.sample": ["sample"],
    "inference.vote": ["vote_all"],
    "method.asc": ["vote"],
    "method.nat": ["attach", "detach", "view"],
    "method.nat_unit": ["DualLinear", "NATConfig", "integrate_plain"],
    "method.nce": ["calibration_beta", "distilled"],
    "teachers.generate": ["generate"],
    "training.dataset": ["training_set"],
    "training.export": ["export"],
    "training.fit": ["adapted", "fit"],
    "training.settings": ["settings"],
    "training.students": ["load_student"],
}
PUBLIC = {name: f"negdistill.{module}" for module, names in _MODULES.items() for name in names}
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs=_MODULES)
