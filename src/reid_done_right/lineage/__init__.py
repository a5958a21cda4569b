"""From an artifact back to the images: what made it, from what, and whether all of that is still as it was."""
