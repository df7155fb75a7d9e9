"""The checks, by subject. Each file has a tuple CHECKS of `suite.Check`."""
