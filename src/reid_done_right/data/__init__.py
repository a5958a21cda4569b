"""Data: readers of the official releases, images, transforms and the embedded rendered benchmark."""
