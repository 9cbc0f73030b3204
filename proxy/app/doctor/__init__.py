"""The doctor: every check that can tell why it does not work (PRODUCT section 2), each an answer in a person's words.

findings       `Finding`, and how findings are told
scene          what the checks look at: the configuration, the environment, whom to ask
examination    all checks in order, each bounded in time
configuration  the files: what they say, and who else can read them
machine        clock, proxy variables, descriptors, the daemon itself
names          names to addresses; IPv6
lines          TCP, TLS and the way through a proxy; the sign-in service's answers
certificates   a certificate that nobody has verified, read
transport      a connection with TLS to each host
ports          listeners: who has the port
registration   the app, as the sign-in service sees it
claims         what a token says of itself, without the token
grant          the sign-in behind an account, judged by its claims
mailbox        the logins at Exchange; throttling
redaction      texts without names and secrets
bundle         the report to hand on

Who calls it: `probing.py` for the command line, `page/doctoring.py` for the page; `rehearsal.py` reads claims by it.
"""
