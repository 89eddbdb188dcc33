"""Method: the paper in one folder.

Tensors and plain numbers, no files but an adapter's own, no training loop.
"""
