"""The benchmark beside Postfix: same generator, same sink, same sizes, both systems in turn (`python -m bench`)."""
