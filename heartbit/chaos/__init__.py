"""Kills and freezes the workers of a run at each of its boundaries, and looks at what comes of it.

Everything happens on throw-away servers, with scripted models and with stubs in place of tools.
"""
