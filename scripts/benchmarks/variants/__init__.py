"""Variants of Creators for comparisons: without names, without history, with past studies."""
