"""MedLocker: visible, reversible locks on fundus photographs."""

__version__ = "0.1.0"
