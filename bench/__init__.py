"""The benchmark beside Postfix: same generator, same sink, same sizes, both systems in turn. Run it with `python -m bench`."""
