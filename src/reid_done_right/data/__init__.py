"""Data: readers of releases and own photos, their sources, galleries, and evaluation tasks."""
