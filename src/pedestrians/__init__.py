"""The embedded re-ID benchmark: pedestrians rendered through simulated cameras, in the official folder structures."""
