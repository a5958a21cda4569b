"""Checks before a run: data, weights, machine, jobs and time. Nothing is changed."""
