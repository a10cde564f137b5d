"""Write the tables in docs/ that follow from the code: ``python scripts/write_docs.py``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from coronet_plugin.methods import registry  # noqa: E402
from coronet_plugin.settings import settings_of  # noqa: E402


def methods_table() -> str:
    """Markdown: every method, what it does, and its settings with their defaults."""
    lines = ["| method | what it does | settings |", "|---|---|---|"]
    for name in registry.names():
        settings = settings_of(registry.find(name).Config)
        cells = [f"`{each.name}` ({each.default}): {each.help}" for each in settings]
        lines.append(f"| `{name}` | {registry.summary(name)} | {'; '.join(cells)} |")
    return "\n".join(lines)


def with_table(text: str, name: str, table: str) -> str:
    """``text`` with ``table`` between ``<!-- name -->`` and ``<!-- end -->``."""
    between = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.S)
    return between.sub(lambda m: f"{m[1]}{table}\n{m[2]}", text)


def main() -> int:
    path = ROOT / "docs" / "methods.md"
    text = path.read_text(encoding="utf-8")
    path.write_text(with_table(text, "methods", methods_table()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
