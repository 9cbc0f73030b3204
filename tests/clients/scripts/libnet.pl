# Perl's own Net::POP3 and Net::SMTP: `read` prints the first message, `send` sends one.
use strict;
use warnings;
use Net::POP3;
use Net::SMTP;

my @trust = (SSL_ca_file => $ENV{MF_CA_FILE}, SSL_verify_mode => 1);
my @tls = (Port => $ENV{MF_PORT}, $ENV{MF_SECURITY} eq 'tls' ? (SSL => 1, @trust) : ());
binmode STDIN;
binmode STDOUT;
if ($ARGV[0] eq 'read') {
    my $client = Net::POP3->new('localhost', @tls) or die "no greeting: $@";
    if ($ENV{MF_SECURITY} eq 'starttls') { $client->starttls(@trust) or die $client->message }
    defined $client->login($ENV{MF_LOGIN}, $ENV{MF_PASSWORD}) or die $client->message;
    print @{$client->get(1)};
    $client->quit;
} else {
    my $client = Net::SMTP->new('localhost', @tls) or die "no greeting: $@";
    if ($ENV{MF_SECURITY} eq 'starttls') { $client->starttls(@trust) or die $client->message }
    $client->auth($ENV{MF_LOGIN}, $ENV{MF_PASSWORD}) or die $client->message;
    $client->mail($ENV{MF_LOGIN}) && $client->to($ENV{MF_LOGIN}) or die $client->message;
    $client->data(do { local $/; <STDIN> }) or die $client->message;
    $client->quit;
}
