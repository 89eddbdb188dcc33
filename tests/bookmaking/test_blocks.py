import ast
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from negdistill.bookmaking.blocks import side_by_side

ROOT = Path(__file__).parents[2]
HOSTILE = ["<script>alert(1)</script>", "</pre><img src=x onerror=alert(1)>", "\"><b>'&amp;", "a < b & c > d", 5, None]


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)


@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_is_shown_as_text(value):
    page = Tags(side_by_side([(f"answer {value}", value), (value, "two")]).data)
    block = [("div", {}), ("strong", {}), ("pre", {})]
    assert page.tags == [("div", {"class": "side-by-side"}), *block, *block]
    assert page.texts == [f"answer {value}", str(value), str(value), "two"]


def test_no_notebook_and_no_other_module_makes_html():
    """Frames escape what they show; whatever else becomes HTML goes through `side_by_side`."""
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        source = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        names = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
        attributes = {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}
        assert not names & {"HTML", "Markdown", "html"}, path.name
        assert not attributes & {"style", "to_html"} - {"style"} and ".style." not in source, path.name
    for path in (ROOT / "negdistill").rglob("*.py"):
        if path.name != "blocks.py":
            imported = {
                alias.name
                for node in ast.walk(ast.parse(path.read_text("utf-8")))
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("IPython")
                for alias in node.names
            }
            assert not imported & {"HTML", "Markdown"}, path
