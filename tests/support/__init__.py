"""Helpers that several floors of tests share."""
