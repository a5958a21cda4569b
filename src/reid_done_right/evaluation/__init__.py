"""Retrieval evaluation: embeddings and labels in; ranks, scores and neighbours out.

Pure functions of arrays, without files, settings or models. Needs NumPy, SciPy and Numba, and PyTorch only if a
`device` is given.
"""
