# SPDX-License-Identifier: Apache-2.0
"""Packs the agent's test images: pack_images.py SOURCE_ROOT PROGRAM REF=FILE..."""
import sys

sys.path.insert(0, sys.argv[1])
from tests.lab import image  # noqa: E402

for pair in sys.argv[3:]:
    ref, path = pair.split("=", 1)
    image.write(path, ref, {"/bin/test-pod": sys.argv[2]}, ["/bin/test-pod"])
