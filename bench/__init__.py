"""Side-by-side measurements: ``make bench``, ``make profile``, or ``python -m bench --help``."""
