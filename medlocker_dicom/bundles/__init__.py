"""MONAI bundles: classifiers, lesion segmenter, forward engines."""
