"""The owner's store: recipients, locked instances, grants, detached packets, audit chain."""
