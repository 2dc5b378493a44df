"""How the tables of older vaults become those of newer ones (Alembic)."""
