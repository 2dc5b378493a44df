"""Search for the placement that turns the classifiers (eq. 3-6, 8)."""
