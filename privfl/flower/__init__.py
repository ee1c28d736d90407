"""The same parties on machines of their own: a server, resident nodes, and the bytes between them.

Only `privfl.flower.superlink` and `privfl.flower.private` import Flower; this module imports
nothing.
"""
