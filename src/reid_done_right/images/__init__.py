"""Images on their way into a network: decoded, kept as pixels on the device, transformed a batch at a time."""
