"""One worker put together: the only package that knows every part of it."""
