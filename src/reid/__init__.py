"""A reproduction of "Re-ID done right": photos in, the paper's tables and figures out."""
