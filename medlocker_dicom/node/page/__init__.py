"""The node's page: what goes on, what waits for somebody, and the buttons for it."""
