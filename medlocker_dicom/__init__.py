"""MedLocker: visible, reversible locks on fundus photographs."""

