"""The practice harbour: stand-ins for sign-in service and mailbox, and `mailferry demo`, which sails through it.

    journey       what `app` calls: the order of the steps, their times, the end
    harbour       the folder, and the steps to a signed-in account     round_trip   the steps of a mail program
    program       the real mailferry as children                      departure    Ctrl-C and SIGTERM
    guide         what a person is told                               browser      the person's browser, played
    identity      the sign-in service: doors (HTTP), directory (people, apps, rules), grants (codes, tokens)
    mailbox       the mailbox: post_office (folders), conversation (lines, XOAUTH2), imap_*, pop3_server, smtp_server
    certificates  what both show

Tests and the bench use `identity` and `certificates` too; nothing of the daemon does.
"""
