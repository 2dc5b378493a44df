"""Whole folders: what is done stays done, what fails is named, what was cut short goes on."""
