# SPDX-License-Identifier: Apache-2.0
"""load.py URL...: GETs the URLs in turn, each on a new connection, until standard input ends; then prints one JSON line {ok, failed, errors}."""
import json
import select
import sys
import time
import urllib.request

ok, failed, errors = 0, 0, {}
print("begun", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    for url in sys.argv[1:]:
        try:
            with urllib.request.urlopen(url, timeout=3) as response:
                response.read()
            ok += 1
        except OSError as e:
            failed += 1
            text = f"{url}: {e}"
            errors[text] = errors.get(text, 0) + 1
    time.sleep(0.002)
print(json.dumps({"ok": ok, "failed": failed, "errors": errors}))
