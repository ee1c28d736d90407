"""The same parties on machines of their own: a server, resident nodes, and the bytes between them.

What Flower's documentation does not promise is imported in `internals` and `gate` alone, and
nothing of it before it is used; this module imports nothing.
"""
