"""Bookmaking: what the notebooks and the pages need."""

import sys

# jsonschema, below nbformat, would spend 1.5 s on the grammar of addresses, which no notebook is checked for.
sys.modules.setdefault("rfc3987_syntax", None)
