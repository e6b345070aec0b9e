"""Make the next numbered migration: `make migration name=add_prices`.

The change goes into schema.sql as well, which is the whole truth; a test compares the two.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

MIGRATIONS = Path(__file__).resolve().parent.parent / "heartbit" / "stores" / "sql" / "migrations"


def main(name: str) -> int:
    """Write the file, unless the name cannot be one."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        print("make migration name=what_it_does: small letters, digits and _", file=sys.stderr)
        return 2
    newest = max((int(path.name[:4]) for path in MIGRATIONS.glob("[0-9]*.sql")), default=0)
    made = MIGRATIONS / f"{newest + 1:04}_{name}.sql"
    made.write_text("-- What changes, and why. The same change belongs into ../schema.sql.\n")
    print(made.relative_to(Path.cwd()) if made.is_relative_to(Path.cwd()) else made)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
