"""DICOM instances in and out: pixels and attributes, never networks or models."""
