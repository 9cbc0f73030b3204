"""mailferry: lets old mail programs reach Microsoft 365 and Outlook.com.

The house, top floor first; imports go down only (checked by import-linter, `pyproject.toml`):

    app/           the doors: command line, control socket, daemon
    demo/          the practice harbour; only app.cli opens this door
    network/       the hall: the only floor with sockets; one login is one coroutine (session.py)
    accounts/      who is this, and which Microsoft token stands behind the name
    protocols/     PURE: bytes in, actions out; IMAP, POP3, SMTP
    config/        GROUND: YAML -> frozen dataclasses; every finding names file, line and key
    explanations   GROUND: error code or text -> cause, whose fault, remedy
    log            GROUND: one line per event, key=value or JSON
    metrics        GROUND: what is counted and timed, for Prometheus; no names of people
    login          GROUND: the nouns of a login
"""

__version__ = "0.1.0"
