# Perl's Mail::IMAPClient: prints the first message.
use strict;
use warnings;
use Mail::IMAPClient;

my @tls = (SSL_ca_file => $ENV{MF_CA_FILE}, SSL_verify_mode => 1);
my %security = (plain => [], starttls => [Starttls => \@tls], tls => [Ssl => \@tls]);
my $client = Mail::IMAPClient->new(
    Server => 'localhost', Port => $ENV{MF_PORT}, User => $ENV{MF_LOGIN}, Password => $ENV{MF_PASSWORD}, Uid => 1,
    @{$security{$ENV{MF_SECURITY}}},
) or die "no login: $@";
$client->select('INBOX') or die $client->LastError;
my ($uid) = $client->messages;
binmode STDOUT;
print $client->message_string($uid);
$client->logout;
