<?php
// PEAR's Net_SMTP: sends what comes on standard input.
error_reporting(E_ALL & ~E_DEPRECATED);
require 'Net/SMTP.php';

function must($result): void
{
    if (PEAR::isError($result)) {
        fwrite(STDERR, $result->getMessage());
        exit(1);
    }
}

$security = getenv('MF_SECURITY');
$options = ['ssl' => ['cafile' => getenv('MF_CA_FILE'), 'verify_peer' => true, 'peer_name' => 'localhost']];
$host = ($security === 'tls' ? 'ssl://' : '') . 'localhost';
$client = new Net_SMTP($host, (int) getenv('MF_PORT'), 'client.example', false, 0, $options);
must($client->connect(60));
must($client->auth(getenv('MF_LOGIN'), getenv('MF_PASSWORD'), '', $security === 'starttls'));
must($client->mailFrom(getenv('MF_LOGIN')));
must($client->rcptTo(getenv('MF_LOGIN')));
must($client->data(stream_get_contents(STDIN)));
$client->disconnect();
