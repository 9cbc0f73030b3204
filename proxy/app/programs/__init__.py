"""What a mail program must be told: steps to type, or a file for it. Pure: facts in, text or octets out.

connection  the facts: who logs in, and where each protocol is reached
reach       chooses the facts of an account from the configuration
guide       what comes out: steps for a person, and files; the same as text
quoting     values, written so that each format reads back what was meant
fill        the long texts, as templates
clients     the table of programs; the page and `mailferry settings` ask it alone

outlook, autodiscover, outlook_express, thunderbird, apple, terminal, scanner, facts: one program, or a few alike.
trusting: how a system is told to trust the local authority. administrator: what an administrator must do.

What it is not: a keeper of passwords. No file holds one; each says where the program asks for it.
"""
