"""Lesion mask to feasible logo positions (WSM, steps 1-5)."""
