"""The main path: source instance to locked instance, and back."""
