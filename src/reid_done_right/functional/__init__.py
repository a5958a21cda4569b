"""Pure functions: arrays in, arrays out. No files, settings, models or global randomness."""
