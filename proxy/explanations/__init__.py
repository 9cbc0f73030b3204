"""GROUND: what an error of Microsoft's sign-in service or of Exchange means, whose fault it is, and what to do next.

One table, for every place that tells a person why it does not work: log, replies, command line, page, doctor. What it
is not: control flow. FACTS 4.5: react to the OAuth `error`; the AADSTS numbers only choose the hint. What the table
does not know is said to be unknown, and shown as it came, with where to look.

`row.py` says what an explanation is; `sign_in.py` and `exchange.py` hold the rows, and each its look-up.
"""

from proxy.explanations.exchange import EXCHANGE_EXPLANATIONS, explain_exchange
from proxy.explanations.row import MAX_RAW_CHARACTERS, MAX_TOLD_CHARACTERS, Explanation, Who
from proxy.explanations.sign_in import SIGN_IN_EXPLANATIONS, aadsts_codes, explain_sign_in, meaning_address

__all__ = [
    "EXCHANGE_EXPLANATIONS",
    "MAX_RAW_CHARACTERS",
    "MAX_TOLD_CHARACTERS",
    "SIGN_IN_EXPLANATIONS",
    "Explanation",
    "Who",
    "aadsts_codes",
    "explain_exchange",
    "explain_sign_in",
    "meaning_address",
]
