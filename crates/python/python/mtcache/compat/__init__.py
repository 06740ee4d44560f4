"""What the old ``shared`` modules offered, over this cache.

``python -m mtcache.compat`` prints the folder that gives programs their old imports, ``from shared.redis_client import ...``, when it is
on their path.
"""
