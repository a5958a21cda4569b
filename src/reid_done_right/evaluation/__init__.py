"""Retrieval evaluation: embeddings and labels in; ranks, scores and neighbours out.

Pure functions of arrays, without files, settings or models. Needs numpy, scipy and numba; PyTorch only where a
`device` is asked for.
"""
