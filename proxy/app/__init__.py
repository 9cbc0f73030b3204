"""TOP FLOOR: the doors of the house.

cli, verbs/                 the command line: what can be typed, and what is then done and said
page/                       the set-up page
doctor/                     every check that can tell why it does not work
programs/, importing/       settings for mail programs; what other proxies' files say (takeover carries it out)
counter, control            where a command asks: the daemon's control socket, or an office of its own
desk                        what can be asked, one method a verb; custody, rehearsal, recollection work for it
registry, certificates      what page and commands change; which certificates programs were shown
daemon, office              everything built once from the configuration, and ended in order; notify tells systemd
"""
