"""How older tables become newer ones (Alembic); each kind of tables has its own steps."""
