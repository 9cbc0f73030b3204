"""`python -m tests.audit`: pip-audit and a search for secrets, and how much was looked at. Exit code 1: a find."""

from __future__ import annotations

import sys

from tests.audit.findings import ADVISORIES, committed_files, find_secrets, run_pip_audit


def main() -> int:
    audited = run_pip_audit()
    if audited.looked_at:
        print(f"pip-audit: {audited.looked_at} packages looked up")
    else:
        print(
            f"pip-audit: its service cannot be asked from here, no package was looked up; the {len(ADVISORIES)} "
            "advisories of tests/audit/advisories.toml are held against what is installed by tests/audit/test_audit.py"
        )
    files = committed_files()
    secrets = find_secrets(files)
    print(f"detect-secrets: {len(files)} files searched")
    for find in (*audited.holes, *secrets):
        print(f"FOUND {find}", file=sys.stderr)
    return 1 if audited.holes or secrets else 0


if __name__ == "__main__":
    sys.exit(main())
