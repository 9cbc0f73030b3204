"""THE HALL: the only floor with sockets.

listener, port    who may come in; accepting
session           one login as one coroutine: the only file that knows both sides
connection        runs any dialogue on a stream
relay             after the login: the pump between two streams
stream, farewell  a non-blocking socket that may speak TLS on the socket itself; TLS's last word, one side at a time
reactor           what this floor needs of Twisted, as a type
dial              connecting to upstream
tls, limits       certificates and verification; how many at once
"""
