"""Networks: backbones, embedder, classifier."""
