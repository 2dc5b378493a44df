"""The DICOM node: receives, locks, delivers; nothing that it answered Success to is ever lost."""
