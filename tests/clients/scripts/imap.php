<?php
// PHP's imap (c-client): prints the first message; the argument is imap or pop3.
[, $protocol] = $argv;
$flags = ['plain' => '/notls', 'tls' => '/ssl'][getenv('MF_SECURITY')];
$mailbox = '{localhost:' . getenv('MF_PORT') . "/$protocol$flags}INBOX";
$client = imap_open($mailbox, getenv('MF_LOGIN'), getenv('MF_PASSWORD'), 0, 1);
if ($client === false) {
    fwrite(STDERR, implode("\n", imap_errors() ?: []));
    exit(1);
}
echo imap_fetchheader($client, 1), imap_body($client, 1, FT_PEEK);
imap_close($client);
