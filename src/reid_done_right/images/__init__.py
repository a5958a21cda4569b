"""Images: decoding, pixels on the device, and transforms of batches."""
