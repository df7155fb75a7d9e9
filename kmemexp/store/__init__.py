"""The results folder: files, manifests, schema.

May import nothing but the leaves of kmemexp.
"""
