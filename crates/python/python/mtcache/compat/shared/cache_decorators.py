"""The old module path of :mod:`mtcache.compat.cache_decorators`."""

from mtcache.compat.cache_decorators import *  # noqa: F403
from mtcache.compat.cache_decorators import __all__  # noqa: F401
