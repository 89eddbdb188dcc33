import ast
import json
from pathlib import Path

import pytest
from markup import Tags

from negdistill.bookmaking.blocks import side_by_side

ROOT = Path(__file__).parents[2]
HOSTILE = [
    "<script>alert(1)</script>",
    "</pre><img src=x onerror=alert(1)>",
    "\"><b>'&amp;",
    "a < b & c > d",
    5,
    None,
]


@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_is_shown_as_text(value):
    """Kind: what a model or a data set said, shown as HTML; as in promptfoo/promptfoo#308."""
    page = Tags(side_by_side([(f"answer {value}", value), (value, "two")]))
    block = [("div", {}), ("strong", {}), ("pre", {})]
    assert page.tags == [("div", {"class": "side-by-side"}), *block, *block]
    assert page.texts == [f"answer {value}", str(value), str(value), "two"]


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_shows_no_html_of_its_own(path):
    """Frames escape what they show; whatever else becomes HTML comes from `side_by_side`."""
    cells = [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    nodes = [node for cell in cells for node in ast.walk(ast.parse("".join(cell["source"])))]
    names = [node.id for node in nodes if isinstance(node, ast.Name)]
    names += [node.attr for node in nodes if isinstance(node, ast.Attribute)]
    assert not {"Markdown", "to_html", "Styler", "escape"} & set(names)
    calls = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == "HTML"]
    assert all(ast.unparse(call).startswith("HTML(side_by_side(") for call in calls)
    assert names.count("HTML") == len(calls)
