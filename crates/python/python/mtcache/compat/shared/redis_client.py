"""The old module path of :mod:`mtcache.compat.redis_client`."""

from mtcache.compat.redis_client import *  # noqa: F403
from mtcache.compat.redis_client import __all__  # noqa: F401
