"""The Sweeper of kmemexp, for Hydra to find; `hydra_plugins` is a namespace package and must have no `__init__.py`."""
