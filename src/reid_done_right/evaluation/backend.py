"""Where scores are computed and compared: with NumPy, or with PyTorch on a GPU. Both give the same ranks."""

from __future__ import annotations

from reid_done_right.evaluation.counting import Backend


def backend(threads: int | None = None, device: str | None = None) -> Backend:
    """Return NumPy's backend, or PyTorch's if a `device` such as ``cuda`` is given."""
    if device is None:
        return Backend(threads)
    from reid_done_right.evaluation.torch_backend import TorchBackend  # torch takes seconds to import

    return TorchBackend(device)
