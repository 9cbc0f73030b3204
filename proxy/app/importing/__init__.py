"""What other programs' files say: texts in; apps, accounts, tokens and a verdict for every line out.

found               the values: what was found, and each line's verdict
ini, properties     the two formats, tolerant, with line numbers
endpoints           a sign-in service's address -> which cloud, which tenant
email_oauth2_proxy, sasl_xoauth2, davmail    one reader for each program
email_oauth2_proxy_values    what the first one's account sections come to
readers             which reader a file belongs to
seals               opens what a mail program's password has sealed
planning            what was found -> what is to be written
gathering           a file or folder -> texts; the only one here that touches a disk

What it is not: writing anything down, which is `app/takeover.py`. Called by `app/moving_in.py`.
"""
