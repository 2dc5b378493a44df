"""The medlocker command: arguments to one call each, exit codes."""
