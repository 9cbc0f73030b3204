# Ruby's Net::IMAP, Net::POP3 and Net::SMTP: `imap` and `pop3` print the first message, `smtp` sends one.
require 'net/imap'
require 'net/pop'
require 'net/smtp'

port, login, password, ca_file, security = %w[PORT LOGIN PASSWORD CA_FILE SECURITY].map { |name| ENV.fetch("MF_#{name}") }
trust = { ca_file: ca_file, verify_mode: OpenSSL::SSL::VERIFY_PEER }
[$stdin, $stdout].each(&:binmode)
case ARGV.fetch(0)
when 'imap', 'imap-login'
  client = Net::IMAP.new('localhost', port: port.to_i, ssl: security == 'tls' ? trust : false)
  client.starttls(trust) if security == 'starttls'
  ARGV[0] == 'imap' ? client.authenticate('PLAIN', login, password) : client.login(login, password)
  client.select('INBOX')
  print client.fetch(1, 'BODY.PEEK[]')[0].attr['BODY[]']
  client.logout
when 'pop3'
  client = Net::POP3.new('localhost', port.to_i)
  client.enable_ssl(OpenSSL::SSL::VERIFY_PEER, ca_file) if security == 'tls'
  client.start(login, password) { |pop| print pop.mails[0].pop }
when 'smtp'
  context = OpenSSL::SSL::SSLContext.new
  context.set_params(trust)
  client = Net::SMTP.new('localhost', port.to_i, starttls: false, tls: false)
  client.enable_starttls(context) if security == 'starttls'
  client.enable_tls(context) if security == 'tls'
  client.start('client.example', login, password, :login) { |smtp| smtp.send_message($stdin.read, login, login) }
end
