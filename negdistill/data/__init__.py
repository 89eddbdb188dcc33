"""Data: text in, text out. Problems, rationales, answers and the rules that compare them. No torch."""
