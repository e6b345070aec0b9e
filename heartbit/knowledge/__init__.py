"""The knowledge base: documents read from files and pages, kept up to date, and searched.

It stands above the tools, whose guarded fetching and whose walk of directories it uses.
"""
