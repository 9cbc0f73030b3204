"""THE HALL: the only floor with sockets.

listener, port    who may come in; accepting
session           one login as one coroutine: the only file that knows both sides
connection        runs any dialogue on a stream
relay             after the login: the pump between two streams
stream, reactor   a non-blocking socket that may speak TLS on the socket itself; what it needs of the reactor
dial              connecting to upstream
tls, limits       certificates and verification; how many at once
"""
