"""The scripts of the installed rate limiters, one a line: name, tab, body in hexadecimal."""

from limits.storage import RedisStorage

body = RedisStorage.SCRIPT_INCR_EXPIRE
if isinstance(body, str):
    body = body.encode()
print("limits", body.hex(), sep="\t")
