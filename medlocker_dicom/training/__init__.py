"""Recipes that trained the bundles; bundle configs refer to them by name."""
