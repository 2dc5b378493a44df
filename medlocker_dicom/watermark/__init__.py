"""Logo, alpha map, exact blending and exact recovery (eq. 1, 2, 9)."""
