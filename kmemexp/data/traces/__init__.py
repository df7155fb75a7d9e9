"""Two recorded kernel traces in compact form (see README.md beside this file)."""
