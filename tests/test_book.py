"""The book: pages and configuration agree with the notebooks, the profiles and the project."""

import ast
import pkgutil
import re
import tomllib
from functools import cache
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import torch
import yaml
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig

from negdistill.bookmaking.claims import judge, too_wide
from negdistill.bookmaking.claims_page import cards, claim_figures
from negdistill.bookmaking.claims_plan import CHAPTERS, read_plan
from negdistill.bookmaking.damage import is_run
from negdistill.bookmaking.editions import editions
from negdistill.bookmaking.evidence import (
    DIGITS,
    TABLE,
    conditions,
    digest,
    figures,
    other_figures,
    result_tables,
    uses,
)
from negdistill.bookmaking.other_tasks import folders, table
from negdistill.bookmaking.planning import notebooks
from negdistill.bookmaking.predictions import predictions
from negdistill.bookmaking.reference import modules, names
from negdistill.bookmaking.texts import texts
from negdistill.inference.side_by_side import SHOWN, fits_in
from negdistill.runs.digests import digest_file
from negdistill.runs.folder import RunFolder
from negdistill.training.fits import load_fit

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "book"
EXECUTED = BOOK / "executed"
CLAIMS = read_plan(BOOK / "plan.yml")
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
PARAMETER = re.compile(r"(\w+): (\w+) = (.+?)  # (.+)")
PAGES = sorted(path for path in BOOK.rglob("*.md") if "artifacts" not in path.parts)
NOTEBOOKS = notebooks(ROOT / "notebooks")
LONGEST_CELL = 25  # lines

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path, kind):
    """Cells of a kind; the one that only installs, where a notebook is opened alone, does not count."""
    every = (cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind)
    return [cell for cell in every if kind != "code" or is_run(cell)]


def parameters_of(path):
    (cell,) = (cell for cell in cells(path, "code") if "parameters" in cell.metadata.get("tags", []))
    return cell.source.splitlines()


def text_of(path):
    return (
        "\n".join(cell.source for cell in cells(path, "markdown"))
        if path.suffix == ".ipynb"
        else path.read_text("utf-8")
    )


# --- configuration ------------------------------------------------------------------------------------


def test_the_address_of_the_repository_is_that_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert CONFIG["repository"]["url"] == project["urls"]["Repository"]


def test_the_table_of_contents_has_every_page_and_every_chapter_in_order():
    listed = [TOC["root"], *(chapter["file"] for part in TOC["parts"] for chapter in part["chapters"])]
    pages = [name for name in listed if not name.startswith("book/executed/")]
    assert sorted(pages) == sorted(path.relative_to(ROOT).with_suffix("").as_posix() for path in PAGES)
    assert [name for name in listed if name not in pages] == [
        f"book/executed/{path.stem}" for path in NOTEBOOKS
    ]


def test_nothing_is_executed_or_fetched_when_pages_are_built_or_viewed():
    assert CONFIG["execute"]["execute_notebooks"] == "off"
    assert CONFIG["only_build_toc_files"] is True
    settings = CONFIG["sphinx"]["config"]
    assert "sphinx-mathjax-offline" in settings["extensions"]
    assert "sphinx_thebe" not in settings["extensions"]  # writes the address of a script into every page
    for path in set((BOOK / "_static").iterdir()) - set((BOOK / "_static").glob("*.png")):
        asks = r"\bfetch\b|\bimport\b|XMLHttpRequest|\bsrc\b|innerHTML" if path.suffix == ".js" else "href"
        outside = rf"@import|url\(|https?://(?!www\.w3\.org/2000/svg)|{asks}"
        assert not re.search(outside, path.read_text("utf-8")), path


def test_links_to_the_repository_and_cards_have_its_address():
    settings, address = CONFIG["sphinx"]["config"], CONFIG["repository"]["url"]
    (link, shown) = settings["extlinks"]["source"]
    assert (link, shown) == (f"{address}/blob/{CONFIG['repository']['branch']}/%s", "%s")
    owner, name = address.rsplit("/", 2)[1:]
    assert settings["ogp_site_url"] == f"https://{owner}.github.io/{name}/"
    assert settings["ogp_site_name"] == CONFIG["title"]


def test_logo_icon_style_script_cards_and_bibliography_exist():
    (static,) = CONFIG["sphinx"]["config"]["html_static_path"]
    card = CONFIG["sphinx"]["config"]["ogp_social_cards"]
    (style,) = CONFIG["sphinx"]["config"]["html_css_files"]
    scripts = CONFIG["sphinx"]["config"]["html_js_files"]
    (references,) = CONFIG["bibtex_bibfiles"]
    own = [f"{static}/{name}" for name in (style, *scripts)]
    for name in (CONFIG["logo"], CONFIG["html"]["favicon"], *own, references, card["image"]):
        assert (ROOT / name).is_file(), name


def test_every_reference_is_cited_and_every_citation_has_a_reference():
    references = set(re.findall(r"^@\w+\{(\w+),", (BOOK / "references.bib").read_text("utf-8"), re.MULTILINE))
    text = "\n".join(map(text_of, [*PAGES, *NOTEBOOKS]))
    cited = {key.strip() for keys in re.findall(r"\{cite:[pt]\}`([^`]+)`", text) for key in keys.split(",")}
    assert cited == references


# --- names in prose -----------------------------------------------------------------------------------


def rows_of(page):
    """Cells of all table rows of a page, headers left out."""
    lines = [line for line in text_of(BOOK / page).splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
    return [row for row in rows if row[0] not in ("---", "in the paper", "question")]


def functions_of(path):
    return {
        node.name for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.FunctionDef)
    }


@cache
def names_of_the_package():
    return frozenset(names(modules(ROOT)))


@pytest.mark.parametrize("row", rows_of("paper_map.md"), ids=lambda row: row[0])
def test_every_name_of_the_paper_map_exists(row):
    line = " | ".join(row)
    objects = re.findall(r"\{py:obj\}`(?:[\w.]+ <|~)([\w.]+)>?`", line)
    assert objects and line.count("{py:obj}") == len(objects)
    assert set(objects) <= names_of_the_package()
    found = re.findall(r"\{source\}`(\w+) <(tests/(?:\w+/)?test_\w+\.py)>`", line)
    assert found and line.count("{source}") == len(found)
    for name, path in found:
        assert name.startswith("test_") and name in functions_of(ROOT / path), name
    for name in re.findall(r"\(executed/([^)]+)\)", line):
        assert (ROOT / "notebooks" / name).is_file(), name


def test_every_name_of_the_package_in_a_text_exists():
    said = {
        (path.name, name)
        for path in [*ROOT.glob("*.md"), *PAGES, *NOTEBOOKS]
        for name in re.findall(r"`(negdistill(?:\.\w+)+)`", text_of(path))
    }
    assert said
    for page, name in said:
        assert pkgutil.resolve_name(name) is not None, (page, name)


def test_every_equation_of_the_method_is_in_the_paper_map():
    labels = set(re.findall(r"^\$\$ \(([\w-]+)\)$", text_of(BOOK / "method.md"), re.MULTILINE))
    assert labels == set(re.findall(r"\{eq\}`([\w-]+)`", text_of(BOOK / "paper_map.md")))


def equations_named():
    """Equation labels by the full name of what implements them, from the docstrings of the package."""
    found = {}
    for module, tree in modules(ROOT).items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                labels = set(re.findall(r"\beq-\w+", ast.get_docstring(node) or ""))
                found |= {f"{module}.{node.name}": labels} if labels else {}
    return found


def test_every_equation_of_the_method_is_named_by_what_implements_it():
    labels = set(re.findall(r"^\$\$ \(([\w-]+)\)$", text_of(BOOK / "method.md"), re.MULTILINE))
    assert set().union(*equations_named().values()) == labels


def test_what_implements_an_equation_is_in_its_row_of_the_paper_map():
    rows = {
        label: row for row in rows_of("paper_map.md") for label in re.findall(r"\{eq\}`([\w-]+)`", row[1])
    }
    for name, labels in equations_named().items():
        for label in labels:
            assert name.rpartition(".")[2] in rows[label][2], (name, label)
    said: dict[str, set[str]] = {}
    for name, labels in equations_named().items():
        said.setdefault(name.rpartition(".")[2], set()).update(labels)
    for label, row in rows.items():
        for name in re.findall(r"\{py:obj\}`(?:~|[^`<]*<)?([\w.]+)", row[2]):
            of_row = set(re.findall(r"\{eq\}`([\w-]+)`", row[1]))
            assert said.get(name.rpartition(".")[2], set()) & of_row, (
                f"{name} names no equation of {label}'s row"
            )


@cache
def messages():
    """Every text of the package with "…" for what is filled in, as troubleshooting.md writes them."""
    found = []
    for path in sorted((ROOT / "negdistill").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return {line for text in found for line in text.splitlines()}


@pytest.mark.parametrize(
    "quoted",
    [
        code[1]
        for code in re.findall(r"^(`+)(.+?) ?\1\n: ", text_of(BOOK / "troubleshooting.md"), re.MULTILINE)
    ],
)
def test_every_error_in_troubleshooting_is_raised_somewhere(quoted):
    assert quoted in messages()


def test_every_term_of_the_glossary_is_there_once_and_in_order():
    terms = re.findall(r"^([\w ]+)\n  \S", text_of(BOOK / "glossary.md"), re.MULTILINE)
    assert len(terms) > 20 and terms == sorted(set(terms), key=str.lower)


@pytest.mark.parametrize("path", sorted(BOOK.glob("*.md")), ids=lambda path: path.stem)
def test_every_page_is_in_the_table_of_the_first_page(path):
    shown = re.findall(r"^\| \[[^]]+\]\((\w+\.md)\)", text_of(BOOK / "index.md"), re.MULTILINE)
    assert path.name == "index.md" or shown.count(path.name) == 1


# --- parameters ---------------------------------------------------------------------------------------


@each_notebook
def test_every_parameter_has_the_type_of_its_default(path):
    for line in parameters_of(path):
        match = PARAMETER.fullmatch(line)
        assert match, f"a parameter is written `name: type = value  # unit or meaning`; got {line}"
        name, kind, default, _ = match.groups()
        assert type(ast.literal_eval(default)).__name__ == kind, name


# --- the form of a chapter ----------------------------------------------------------------------------


@each_notebook
def test_a_chapter_opens_with_an_overview_and_closes_with_takeaways_and_solved_exercises(path):
    text = text_of(path)
    opening = cells(path, "markdown")[0].source
    assert opening.startswith("# ") and "Overview" in opening and "Time and hardware" in opening
    assert re.search(r"^## Takeaways$.*^## Exercises$", text, re.MULTILINE | re.DOTALL)
    exercises = text.split("## Exercises")[1]
    asked = re.findall(r"^\*\*\d\.\*\*", exercises, re.MULTILINE)
    assert 2 <= len(asked) <= 3
    assert exercises.count("```{dropdown} Solution") == len(asked)


@each_notebook
def test_code_stands_between_prose_and_is_short(path):
    before = "markdown"
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            assert before != "code", f"prose is missing before\n{cell.source}"
            before = "parameters" if "parameters" in cell.metadata.get("tags", []) else "code"
            most = LONGEST_CELL + (before == "parameters")  # a line for each
            assert len(cell.source.splitlines()) <= most, cell.source
        else:
            before = "markdown"
    assert before == "markdown", "the last word of a chapter is prose"


@each_notebook
def test_the_committed_outputs_are_complete_and_every_figure_has_caption_and_alternative_text(path):
    for number, cell in enumerate(cells(path, "code"), 1):
        assert cell.execution_count == number, "run the notebook from top to bottom at smoke scale"
        shows = any("image/png" in output.get("data", {}) for output in cell.outputs)
        look = cell.metadata.get("mystnb", {})
        assert shows == bool(look.get("image", {}).get("alt")), cell.source
        assert not shows or sum(output.output_type != "stream" for output in cell.outputs) == 1, (
            f"a cell with a figure displays nothing else, or the caption is given twice\n{cell.source}"
        )
        assert shows == bool(look.get("figure", {}).get("caption") and look["figure"].get("name")), (
            cell.source
        )


# --- results ------------------------------------------------------------------------------------------

SEEDS = {"05": 8, "06": 8, "07": 8, "08": 8, "09": 11, "10": 8, "11": 3, "12": 8}  # at least


@cache
def judged():
    return judge(EXECUTED, CLAIMS)


@pytest.mark.parametrize("edition", editions(BOOK), ids=lambda edition: edition.folder or "en")
def test_every_number_of_the_claims_follows_from_the_committed_predictions(edition):
    found = TABLE.search(text_of(BOOK / edition.folder / "claims.md"))
    shown = cards(judged(), CLAIMS, edition)
    assert found[0] == f"{found[1]}{shown}\n{found[2]}", "python -m negdistill refresh"


def test_the_page_of_claims_says_how_many_are_ours():
    ours = sum(claim.says.endswith("ours)") for claim in CLAIMS.claims)
    words = "no one two three four five six".split()
    assert f"we make {words[ours]} of our own" in text_of(BOOK / "claims.md")


def test_a_plan_may_ask_every_chapter_that_keeps_predictions():
    declared = [nbformat.read(path, as_version=4).metadata.get("negdistill", {}) for path in NOTEBOOKS]
    assert {one["predictions"] for one in declared if "predictions" in one} == set(CHAPTERS)


def test_a_deciding_interval_is_as_narrow_as_the_plan_says_or_the_plan_says_why():
    wide = too_wide(judged(), CLAIMS)
    assert wide.empty, wide[["claim", "label", "low", "high"]].to_string()


def test_the_committed_figures_show_the_committed_predictions():
    drawn = figures(uses(EXECUTED, CLAIMS), conditions(EXECUTED), CLAIMS)
    drawn |= claim_figures(judged(), CLAIMS) | other_figures(EXECUTED, CLAIMS)
    committed = {path.name for path in (BOOK / "_static").glob("claim_*.png")}
    assert committed == {name for name in drawn if name.startswith("claim_")}
    for name, (frame, _) in drawn.items():
        said = f"Description\0{digest(frame)}".encode()
        assert said in (BOOK / "_static" / name).read_bytes(), "python -m negdistill refresh"


def test_the_tables_of_results_follow_from_the_committed_predictions():
    expected = {**result_tables(EXECUTED), "conditions": conditions(EXECUTED)}
    expected |= {folder.name: table(folder) for folder in folders(EXECUTED)}
    assert sorted(path.stem for path in (BOOK / "tables").iterdir()) == sorted(expected)
    for name, frame in expected.items():
        text = frame.round(DIGITS).to_csv(index=False)
        assert (BOOK / "tables" / f"{name}.csv").read_text("utf-8") == text, "python -m negdistill refresh"


def test_the_committed_adapters_are_whole_small_and_of_the_rows_that_try_shows():
    folder = BOOK / "artifacts" / "smollm2-135m"
    assert list(fits_in(folder)) == list(SHOWN)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 30e6 and max(p.stat().st_size for p in files) < 8e6
    fits = [load_fit(path.parent) for path in sorted(folder.glob("*/fit.json"))]
    assert {one.method for one in fits} == {*SHOWN, "Negatives first"}
    for one in fits:
        run, names = RunFolder.open(one.folder), {path.relative_to(one.folder).as_posix() for path in files
                                                  if path.is_relative_to(one.folder)}  # fmt: skip
        assert names == {*run.manifest.artifacts, "manifest.json"}
        assert all(run.path(name).is_file() for name in run.manifest.artifacts)
        wanted = yaml.safe_load((ROOT / "notebooks/profiles/book.yml").read_text("utf-8"))["11_real_student"]
        train = run.manifest.parameters["train"]
        assert (train["max_steps"], train["batch_size"], train["lr"]) == (
            *(wanted["steps"], wanted["batch_size"], wanted["changes"]["lr"]),
        )
        assert f"{one.trainable_parameters:,}" in (folder / "README.md").read_text("utf-8")


def test_stock_peft_takes_the_committed_adapters_to_the_last_weight():
    """On the architecture of their base with a vocabulary of eight: the adapters touch neither end of it."""
    config = LlamaConfig(
        vocab_size=8, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, bos_token_id=1, eos_token_id=2, pad_token_id=2, dtype=torch.bfloat16,
    )  # fmt: skip
    base = AutoModelForCausalLM.from_config(config)
    folders = sorted((BOOK / "artifacts" / "smollm2-135m").rglob("adapter_config.json"))
    assert len(folders) == 6  # four plain rows, and both branches of NAT
    for path in folders:
        model = PeftModel.from_pretrained(base, path.parent)
        weights = load_file(path.with_name("adapter_model.safetensors"))
        found = get_peft_model_state_dict(model, save_embedding_layers=False)
        assert (
            found.keys() == weights.keys() and len(weights) == 2 * 2 * 30
        )  # A and B of q and v in each layer
        assert all(torch.equal(found[name].to(one.dtype), one) for name, one in weights.items())
        base = model.unload()


def test_predictions_are_those_of_the_executed_chapters_and_small():
    files = sorted(set(EXECUTED.glob("*.parquet")) - set(EXECUTED.glob("*.texts.parquet")))
    assert [path.stem[:2] for path in files] == ["03", "04", *SEEDS]
    for path in files:
        declared = nbformat.read(path.with_suffix(".ipynb"), as_version=4).metadata.negdistill
        assert declared.manifest.artifacts["predictions.parquet"] == digest_file(path)
        frame = predictions(EXECUTED, declared.predictions)
        assert {"problem_id", "method", "seed", "level", "answer", "correct"} <= set(frame)
        assert frame["seed"].nunique() >= SEEDS.get(path.stem[:2], 1)
    assert sum(path.stat().st_size for path in files) < 20e6


def test_answers_to_read_are_those_of_the_predictions_and_small():
    files = sorted(EXECUTED.glob("*.texts.parquet"))
    assert [path.name for path in files] == ["11_real_student.texts.parquet"]
    assert sum(path.stat().st_size for path in files) < 10e6
    kept, columns = texts(files[0]), ["method", "problem_id", "subject", "level", "answer", "correct"]
    frame = predictions(EXECUTED, "real")
    frame = frame[(frame["set"] == "test") & (frame["seed"] == frame["seed"].min())]
    asked = frame.drop_duplicates("problem_id")
    solved, seen = set(frame.loc[frame["correct"].astype(bool), "problem_id"]), set(kept["problem_id"])
    assert set(kept["subject"]) == set(asked["subject"]) and solved < seen and len(seen - solved) > 20
    frame = frame[frame["problem_id"].isin(seen)]
    assert {"as it is", "CoT KD", "Negative adapter", "NAT", "KD", "NCE"} <= set(kept["method"])
    pd.testing.assert_frame_equal(
        *(one[columns].sort_values(columns[:2], ignore_index=True) for one in (kept, frame)),
        check_dtype=False,  # of levels, where other sets have none
    )
    assert kept["text"].str.len().min() > 0 and kept["question"].str.len().min() > 10
