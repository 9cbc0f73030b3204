// Run by Marionette within Thunderbird: makes an account and gives the first message, in base64; or sends a file.
const [protocol, port, security, login, password, certificate, letter, done] = arguments;
const { MailServices } = ChromeUtils.importESModule("resource:///modules/MailServices.sys.mjs");
const SOCKET_TYPE = { plain: 0, starttls: 2, tls: 3 }; // nsMsgSocketType
const PASSWORD = 3; // nsMsgAuthMethod.passwordCleartext

const ended = start => new Promise((resolve, reject) => {
  const end = status => (Components.isSuccessCode(status) ? resolve() : reject(new Error(`status ${status}`)));
  start({
    QueryInterface: ChromeUtils.generateQI(["nsIUrlListener", "nsIMsgSendListener"]),
    OnStartRunningUrl() {},
    OnStopRunningUrl: (url, status) => end(status),
    onStartSending() {},
    onSendProgress() {},
    onStatus() {},
    onStopSending: (id, status) => end(status),
    onGetDraftFolderURI() {},
    onSendNotPerformed: (id, status) => end(status),
    onTransportSecurityError() {},
  });
});

const streamed = uri => new Promise((resolve, reject) => {
  let octets = "";
  const listener = {
    QueryInterface: ChromeUtils.generateQI(["nsIStreamListener"]),
    onStartRequest() {},
    onDataAvailable(request, stream, offset, count) {
      const reader = Cc["@mozilla.org/binaryinputstream;1"].createInstance(Ci.nsIBinaryInputStream);
      reader.setInputStream(stream);
      octets += reader.readBytes(count);
    },
    onStopRequest: (request, status) =>
      Components.isSuccessCode(status) ? resolve(octets) : reject(new Error(`status ${status}`)),
  };
  MailServices.messageServiceFromURI(uri).streamMessage(uri, listener, null, null, false, "", false);
});

function settings(server) {
  server.port = port;
  server.socketType = SOCKET_TYPE[security];
  server.authMethod = PASSWORD;
  server.password = password;
}

async function read() {
  const server = MailServices.accounts.createIncomingServer(login, "localhost", protocol);
  settings(server);
  server.doBiff = server.downloadOnBiff = false;
  const account = MailServices.accounts.createAccount();
  account.incomingServer = server;
  const inbox = server.rootFolder.getFolderWithFlags(Ci.nsMsgFolderFlags.Inbox);
  if (protocol === "imap") {
    const window = Cc["@mozilla.org/messenger/msgwindow;1"].createInstance(Ci.nsIMsgWindow);
    await ended(listener => MailServices.imap.selectFolder(inbox, listener, window));
  } else {
    await ended(listener => MailServices.pop3.GetNewMail(null, listener, inbox, server));
  }
  const [header] = inbox.messages;
  return btoa(await streamed(inbox.getUriForMsg(header)));
}

async function send() {
  const server = MailServices.outgoingServer.createServer("smtp").QueryInterface(Ci.nsISmtpServer);
  server.hostname = "localhost";
  server.username = login;
  settings(server.QueryInterface(Ci.nsIMsgOutgoingServer));
  const identity = MailServices.accounts.createIdentity();
  identity.email = login;
  identity.smtpServerKey = server.key;
  const fields = Cc["@mozilla.org/messengercompose/composefields;1"].createInstance(Ci.nsIMsgCompFields);
  fields.from = fields.to = login;
  fields.fcc = "nocopy://";
  const file = Cc["@mozilla.org/file/local;1"].createInstance(Ci.nsIFile);
  file.initWithPath(letter);
  const message = Cc["@mozilla.org/messengercompose/send;1"].createInstance(Ci.nsIMsgSend);
  await ended(listener =>
    message.sendMessageFile(identity, "", fields, file, false, false, Ci.nsIMsgSend.nsMsgDeliverNow, null, listener, null, ""));
  return "";
}

const certificates = Cc["@mozilla.org/security/x509certdb;1"].getService(Ci.nsIX509CertDB);
certificates.addCertFromBase64(certificate, "C,,");
(protocol === "smtp" ? send() : read()).then(done, error => done({ error: `${error} ${error.stack}` }));
