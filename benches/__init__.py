"""Benches: figures side by side with other engines, in one run (`make bench`, or `python -m benches NAME ...`)."""
