"""Instances to pixels and back: the only place that knows DICOM."""
