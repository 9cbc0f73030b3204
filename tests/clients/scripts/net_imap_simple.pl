# Perl's Net::IMAP::Simple: prints the first message.
use strict;
use warnings;
use Net::IMAP::Simple;

my @tls = $ENV{MF_SECURITY} eq 'tls'
    ? (use_ssl => 1, ssl_options => [SSL_ca_file => $ENV{MF_CA_FILE}, SSL_verify_mode => 1]) : ();
my $client = Net::IMAP::Simple->new("localhost:$ENV{MF_PORT}", @tls) or die $Net::IMAP::Simple::errstr;
$client->login($ENV{MF_LOGIN}, $ENV{MF_PASSWORD}) or die $client->errstr;
$client->select('INBOX') or die $client->errstr;
binmode STDOUT;
print @{$client->get(1)};
$client->quit;
