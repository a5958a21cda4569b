"""onnxruntime beside the module on a CPU: the same embeddings, and what they cost.

    python benchmarks/export.py --json benchmarks/results/export.json

Networks with random weights, images of random pixels, one thread; CPU seconds of the process, the median of `--repeats`
after a first time, both sides in turn. The module runs in inference mode, channels last, as `reid embed` runs it.

| key | what |
|---|---|
| onnx_speedup | CPU seconds of the module / of onnxruntime |
| difference | of an embedding's value, at most |
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from reid_done_right.models.build import build
from reid_done_right.models.embedder import Embedder
from reid_done_right.models.export import Deployed, export, runner

CASES = {  # name: backbone, embedding, (batch, height, width)
    "embedded, ResNet-10, 64 pixels": (
        {"block": "basic", "blocks": [1, 1, 1, 1], "width": 16, "last_stride": 1},
        128,
        (32, 64, 32),
    ),
    "ResNet-50, 256 pixels": ({"block": "bottleneck", "blocks": [3, 4, 6, 3]}, 2048, (8, 256, 128)),
    "ResNet-101, 416 pixels": ({"block": "bottleneck", "blocks": [3, 4, 23, 3]}, 2048, (2, 416, 208)),
}


def measure(repeats: int) -> dict[str, dict[str, float]]:
    """Compare both on every case."""
    found = {}
    for name, (backbone, embedding, (batch, height, width)) in CASES.items():
        torch.manual_seed(0)
        embedder = Embedder(build(backbone), embedding, "max").eval()
        run, network = runner(export(embedder, "onnx", {}), "onnx"), Deployed(embedder).eval()
        pixels = np.random.default_rng(0).integers(0, 256, (batch, 3, height, width), np.uint8)
        image = torch.from_numpy(pixels).contiguous(memory_format=torch.channels_last)
        spent: dict[str, list[float]] = {"module": [], "onnx": []}
        for _ in range(repeats + 1):
            start = time.process_time()
            with torch.inference_mode():
                expected = network(image).numpy()
            middle = time.process_time()
            given = run(pixels)
            end = time.process_time()
            spent["module"].append(middle - start)
            spent["onnx"].append(end - middle)
        module, onnx = (statistics.median(each[1:]) for each in spent.values())
        found[name] = {
            "module_ms_an_image": 1e3 * module / batch,
            "onnx_ms_an_image": 1e3 * onnx / batch,
            "onnx_speedup": module / onnx,
            "difference": float(np.abs(given - expected).max()),
        }
        print(name, json.dumps(found[name], indent=1), flush=True)
    return found


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    machine = {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__, "cpus": os.cpu_count(), "threads": 1}
    found = {**machine, **measure(options.repeats)}
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
