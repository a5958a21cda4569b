"""The two training loops, each short and flat."""
