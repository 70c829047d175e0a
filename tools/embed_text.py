#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes a C++ source that holds the text of some files: embed_text.py OUT NAMESPACE VARIABLE FILE...

The variable is `const std::span<const std::string_view>`, one element a file in the order given.
"""
import sys

DELIMITER = "text"
PIECE = 12000  # string literals have implementation limits; adjacent ones are joined by the compiler


def literal(text: str) -> str:
    pieces = [text[i:i + PIECE] for i in range(0, len(text), PIECE)] or [""]
    return "\n".join(f'R"{DELIMITER}({p}){DELIMITER}"' for p in pieces)


def main() -> None:
    out, namespace, variable, *files = sys.argv[1:]
    texts = []
    for name in files:
        with open(name, encoding="utf-8") as f:
            text = f.read()
        if f'){DELIMITER}"' in text:
            sys.exit(f"{name}: contains the raw string delimiter")
        texts.append(literal(text))
    body = ",\n".join(f"std::string_view({t})" for t in texts)
    with open(out, "w", encoding="utf-8") as f:
        f.write("#include <span>\n#include <string_view>\n\n"
                f"namespace {namespace} {{\n"
                f"extern const std::span<const std::string_view> {variable};\n"
                f"static constexpr std::string_view kTexts[] = {{\n{body}}};\n"
                f"const std::span<const std::string_view> {variable}(kTexts);\n"
                f"}}  // namespace {namespace}\n")


if __name__ == "__main__":
    main()
