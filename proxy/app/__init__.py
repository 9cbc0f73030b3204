"""TOP FLOOR: the doors of the house.

cli, commands, signing_in   the verbs; lookup and terminal are their hands
counter                     where a command asks: the daemon's control socket, or an office of its own
control                     that socket
desk                        what can be asked, one method a verb
daemon, office              everything built once from the configuration, started and ended in order
redirect, notify            the browser's way back; telling systemd
moving_in, takeover         taking over from another program, whose files importing/ reads
"""
