"""Real mail programs and mail libraries, driven without a person, through the daemon to Dovecot and Postfix.

`packages.txt` is what Debian must have; `npm` comes with some builds of Node.js and is a package of its own in others.
`table.md` is written when all of them were driven in one run. These were not driven, and why:

- claws-mail, sylpheed: passwords are kept sealed under a key of their own, and no command line takes one.
- aerc, balsa, cone: nothing that mutt, alpine and go-imap do not show already.
- himalaya, imapsync, .NET's MailKit: not in Debian, PyPI or npm.
- nullmailer, ssmtp, dma, exim4: Debian does not install one beside Postfix, which the tests stand on.
- busybox sendmail: Debian builds busybox without it.
- interimap: it wants QRESYNC of both sides, which Exchange does not offer.
- fdm: it gives up root's rights for a system user's, as which it could not enter a test's folder.
"""
