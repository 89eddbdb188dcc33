"""Teachers: rationales from elsewhere."""
