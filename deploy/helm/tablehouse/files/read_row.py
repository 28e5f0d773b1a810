"""Asks a group of workers for one row, and goes on asking while they say that it can be had later."""

import sys
import time
import urllib.error
import urllib.parse
import urllib.request

workers, table, key = sys.argv[1:]
url = f"{workers}/tables/{table}:get?key={urllib.parse.quote(key, safe='')}"
deadline = time.monotonic() + 120
while True:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            print(answer.status, url)
            print(answer.headers)
            print(answer.read().decode("utf-8", "replace"))
            sys.exit(0)
    except urllib.error.HTTPError as error:
        problem = f"{error.code} {url}\n{error.read().decode('utf-8', 'replace')}"
        again = error.code in (503, 504)
    except OSError as error:
        problem, again = f"{url}: {error}", True
    if not again or time.monotonic() > deadline:
        sys.exit(problem)
    time.sleep(1)
