"""PURE: what an access token says of itself, without the token.

What it is not: trust. The signature is Exchange's to verify; and a personal account's token is no JWT at all (FACTS
2.1), so nothing can be read from it. `rehearsal.py` calls it with the token in hand; `grant.py` judges the claims.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Mapping
from typing import Any

MAX_CLAIM_CHARACTERS = 200
MAX_RIGHTS = 20  # a token for Exchange has three
_WHO = ("upn", "preferred_username", "unique_name", "email")


def read_claims(token: str) -> dict[str, Any]:
    """What a token says of itself, for JSON: never the token, nor a part of it that would open anything."""
    claims = _payload(token)
    if claims is None:
        return {"kind": "opaque", "characters": len(token)}

    def text(*names: str, limit: int = MAX_CLAIM_CHARACTERS) -> str:
        value = next((claims[name] for name in names if isinstance(claims.get(name), str)), "")
        return "".join(c if c.isprintable() else "?" for c in value)[:limit]

    roles = claims.get("roles")
    return {
        "kind": "jwt",
        "characters": len(token),
        "audience": text("aud"),
        "scopes": [scope.rpartition("/")[2] for scope in text("scp", limit=2_000).split()][:MAX_RIGHTS],
        "roles": [role for role in roles if isinstance(role, str)][:MAX_RIGHTS] if isinstance(roles, list) else [],
        "user": text(*_WHO),
        "tenant": text("tid"),
        "application_id": text("appid", "azp"),
        "expires_at_s": claims["exp"] if isinstance(claims.get("exp"), int | float) else None,
    }


def _payload(token: str) -> Mapping[str, Any] | None:
    parts = token.split(".")
    if len(parts) != 3:
        return None
    with contextlib.suppress(ValueError, RecursionError):
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        if isinstance(claims, dict):
            return claims
    return None
