"""Bookmaking: what the notebooks and the pages need."""
